"""What the attention of a frozen Swin needs again and again, computed once per input size and kept.

Stock Swin pads, rolls and cuts its features into windows by a copy each, rebuilds the shift mask with Python loops and
gathers the relative-position bias in every block of every forward pass. Here one gather brings tokens into windows and
one brings them back; mask and bias are folded into one tensor. All of it depends on the input size and on frozen weights.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from mmpretrain.models.utils.attention import WindowMSA
from torch import Tensor

__all__ = ['WindowCache', 'Windows', 'fold_bias', 'to_tokens', 'to_windows', 'window_geometry']

MAX_GEOMETRIES = 256
MASKED = -100.0  # stock Swin's logit of tokens that were not neighbours before the shift


class Windows(NamedTuple):
    """How H * W tokens lie in n windows of N tokens each, shifted and padded like stock Swin's."""

    order: Tensor  # (n N,): the token at each place of the windows; 0 at places that are padding
    back: Tensor  # (H W,): the place of each token
    padding: Tensor | None  # (n N, 1), True at places that hold no token; None if there are none
    mask: (
        Tensor | None
    )  # (n, N, N): 0, and -100 between tokens that were not neighbours; None without a shift


def window_geometry(hw: tuple[int, int], size: int, shift: int, device: torch.device) -> Windows:
    """The windows of a feature map of height and width `hw`."""
    height, width = hw
    rows, cols = -(-height // size) * size, -(-width // size) * size
    with torch.device('cpu'):  # a few small operations, one of which is read back
        r, c = torch.arange(rows), torch.arange(cols)
        row, col = (r + shift) % rows, (c + shift) % cols  # what each row and column of the windows shows
        token = torch.where(
            (row[:, None] < height) & (col < width), row[:, None] * width + col, height * width
        )

        def cut(t: Tensor) -> Tensor:  # (rows, cols) -> (n, N)
            return t.view(rows // size, size, cols // size, size).transpose(1, 2).reshape(-1, size * size)

        order = cut(token).flatten()
        padding = order == height * width
        back = torch.empty(height * width, dtype=torch.long)
        back[order[~padding]] = torch.arange(order.numel())[~padding]
        mask = None
        if shift > 0:
            # Three bands along each axis: windows without a seam, in front of the seam and behind it.
            bands = ((r >= rows - size).long() + (row < shift), (c >= cols - size).long() + (col < shift))
            region = cut(bands[0][:, None] * 3 + bands[1])
            mask = (region[:, None] != region[:, :, None]) * MASKED
    return Windows(
        order.masked_fill(padding, 0).to(device),
        back.to(device),
        padding[:, None].to(device) if padding.any() else None,
        None if mask is None else mask.to(device),
    )


class _Gather(torch.autograd.Function):
    """Rows of (R, L, C) by index, where no row is asked for twice, so that the gradient is a gather too."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, inverse: Tensor, blank: Tensor | None, lost: Tensor | None
    ) -> Tensor:
        ctx.args = index, inverse, blank, lost
        out = x.index_select(1, index)
        return out if blank is None else out.masked_fill_(blank, 0.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        index, inverse, blank, lost = ctx.args
        return _Gather.apply(grad, inverse, index, lost, blank), None, None, None, None


def to_windows(x: Tensor, windows: Windows) -> Tensor:
    """Tokens (R, H W, C) -> (R, n N, C), zeros at places that are padding."""
    return _Gather.apply(x, windows.order, windows.back, windows.padding, None)


def to_tokens(x: Tensor, windows: Windows) -> Tensor:
    """The inverse of `to_windows`: (R, n N, C) -> (R, H W, C)."""
    return _Gather.apply(x, windows.back, windows.order, None, windows.padding)


class WindowCache:
    """Geometry of windows and folded biases, for the input sizes seen last.

    A folded bias is that of the relative positions plus, in shifted windows, the mask: one tensor for fused attention.
    It is kept only for tables that are not trained, and made anew when the table has changed. (A change behind torch's
    back, through `.data`, is not seen; `clear` is for that, and `AdaptedSwin` calls it when its mode is set.)

    Args:
        max_bytes: Folded biases beyond this many bytes are forgotten, the least recently used first. Swin-T at 512 x 512
            pixels has 27.5 MB of them. Defaults to 256 MiB.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._geometry: OrderedDict[tuple, Windows] = OrderedDict()
        self._folded: OrderedDict[tuple, tuple[tuple, Tensor]] = OrderedDict()

    def __deepcopy__(self, memo: dict) -> WindowCache:
        return type(self)(self.max_bytes)

    def __reduce__(self) -> tuple:
        return type(self), (self.max_bytes,)

    def clear(self) -> None:
        """Forget all biases (the geometry depends on nothing that can change)."""
        self._folded.clear()

    def geometry(self, hw: tuple[int, int], size: int, shift: int, device: torch.device) -> Windows:
        """See `window_geometry`."""
        key = (hw, size, shift, device)
        if key not in self._geometry:
            with torch.inference_mode(False), torch.no_grad():
                self._geometry[key] = window_geometry(hw, size, shift, device)
            while len(self._geometry) > MAX_GEOMETRIES:
                self._geometry.popitem(last=False)
        self._geometry.move_to_end(key)
        return self._geometry[key]

    def folded_bias(self, name: tuple, msa: WindowMSA, windows: Windows, hw: tuple[int, int]) -> Tensor:
        """Bias and mask of one block: (1, heads, N, N), or (1, n heads, N, N) with a shift.

        Args:
            name: Stage and block.
            msa: The block's attention.
            windows: Its windows.
            hw: Height and width of the feature map.
        """
        table = msa.relative_position_bias_table
        if table.requires_grad or table.is_inference():
            return fold_bias(msa, windows.mask)
        key = (name, None if windows.mask is None else hw)
        state = (table._version, table.data_ptr(), table.dtype, table.device)
        if key not in self._folded or self._folded[key][0] != state:
            with torch.inference_mode(False), torch.no_grad():
                self._folded[key] = state, fold_bias(msa, windows.mask)
        self._folded.move_to_end(key)
        bias = self._folded[key][1]
        while (
            sum(kept.nbytes for _, kept in self._folded.values()) > self.max_bytes and len(self._folded) > 1
        ):
            self._folded.popitem(last=False)
        return bias


def fold_bias(msa: WindowMSA, mask: Tensor | None) -> Tensor:
    """Bias of a block, and the mask of its windows: (1, heads, N, N), or (1, n heads, N, N) with a shift."""
    n = msa.window_size[0] * msa.window_size[1]
    bias = msa.relative_position_bias_table[msa.relative_position_index.view(-1)].view(n, n, -1)
    bias = bias.permute(2, 0, 1)  # (heads, N, N)
    if mask is not None:
        bias = (mask.to(bias.dtype)[:, None] + bias).flatten(0, 1)
    return bias[None].contiguous()
