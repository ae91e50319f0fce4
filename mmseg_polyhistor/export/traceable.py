"""Parts of a network without decisions on sizes, so that one graph serves images of any size.

The modules that a network is built of ask in Python whether there is anything to pad, keep index tables per input size, or
read tensors back. A tracer would write the answers for its example's size into the graph. Here the same is computed by
operations on sizes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import AdaptivePadding
from mmpretrain.models.utils.attention import WindowMSA
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..models.backbones.adapted_swin import AdaptedSwin
from ..models.backbones.swin_windows import MASKED, WindowCache, Windows, fold_bias

__all__ = [
    'AnySize',
    'TracedWindows',
    'adaptive_average',
    'first_pixels',
    'make_traceable',
    'pad_to_multiple',
]


def pad_to_multiple(x: Tensor, multiple: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad at the right and at the bottom.

    Args:
        x: (B, C, H, W).
        multiple: What the height and the width of the result are multiples of, the smallest that fit.
        value: What is put there. Defaults to 0.
    """
    for dim, step in zip((-2, -1), multiple, strict=True):
        if step == 1:
            continue
        size = x.shape[dim]
        place = torch.arange((size + step - 1) // step * step, device=x.device)
        inside = place < size
        x = x.index_select(dim, place.clamp(max=size - 1))
        x = torch.where(inside if dim == -1 else inside[:, None], x, value)
    return x


def first_pixels(x: Tensor, size: Sequence[int]) -> Tensor:
    """The part of (B, C, H, W) at the top and at the left that has the height and width of `size`, which must be in it."""
    for dim, length in zip((-2, -1), size, strict=True):
        x = x.index_select(dim, torch.arange(length, device=x.device))
    return x


def adaptive_average(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """`F.adaptive_avg_pool2d`, as a product with a matrix per axis that is computed from the size of the map.

    Args:
        input: (..., H, W).
        output_size: Height and width of the result, None for those of the map; or one number for both.
    """
    sizes = (output_size, output_size) if isinstance(output_size, int) else output_size
    for dim, parts in zip((-2, -1), sizes, strict=True):
        if parts is None:
            continue
        if parts == 1:
            input = input.mean(dim, keepdim=True)
            continue
        length = input.shape[dim]
        part = torch.arange(parts, device=input.device)[:, None]
        begin, end = part * length // parts, ((part + 1) * length + parts - 1) // parts
        place = torch.arange(length, device=input.device)
        weight = ((place >= begin) & (place < end)).to(input.dtype) / (end - begin).to(input.dtype)
        input = weight @ input if dim == -2 else input @ weight.T
    return input


class AnySize(TorchFunctionMode):
    """While a network is traced for any size: operations that a tracer would write for its example's size.

    Whether a convolution's input lies in channels-last memory depends on which of its sizes are 1, so it is made
    contiguous. The areas that adaptive pooling averages depend on the size of the map, see `adaptive_average`.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        func = {torch.conv2d: _contiguous_conv2d, F.adaptive_avg_pool2d: adaptive_average}.get(func, func)
        return func(*args, **(kwargs or {}))


def _contiguous_conv2d(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return torch.conv2d(input.contiguous(), *args, **kwargs)


class _Padding(nn.Module):
    """mmcv's `AdaptivePadding` of mode 'corner', where windows stand side by side (stride as wide as the kernel)."""

    def __init__(self, multiple: Sequence[int]) -> None:
        super().__init__()
        self.multiple = tuple(multiple)

    def forward(self, x: Tensor) -> Tensor:
        return pad_to_multiple(x, self.multiple)


class _Patches(nn.Unfold):
    """`nn.Unfold` where patches stand side by side and cover the map: a permutation of it.

    Shape:
        (B, C, H, W) -> (B, C k k, H / k * W / k).
    """

    def forward(self, x: Tensor) -> Tensor:
        (h, w), (batch, channels, height, width) = self.kernel_size, x.shape
        x = x.reshape(batch, channels, height // h, h, width // w, w)
        return x.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * h * w, -1)


class TracedWindows(WindowCache):
    """The windows of `WindowCache`, computed in the graph from the size of the feature map; nothing is kept."""

    def __init__(self) -> None:
        super().__init__()
        self._hw: tuple | None = None
        self._made: dict[tuple[int, int], Windows] = {}

    def geometry(self, hw: tuple[int, int], size: int, shift: int, device: torch.device) -> Windows:
        """See `window_geometry`; `padding` is always there. The blocks of a stage share what is computed."""
        if self._hw is not hw:  # the sizes are symbols, which cannot be keys
            self._hw, self._made = hw, {}
        if (size, shift) not in self._made:
            self._made[size, shift] = _geometry(hw, size, shift, device)
        return self._made[size, shift]

    def folded_bias(self, name: tuple, msa: WindowMSA, windows: Windows, hw: tuple[int, int]) -> Tensor:
        return fold_bias(msa, windows.mask)


def _geometry(hw: tuple[int, int], size: int, shift: int, device: torch.device) -> Windows:
    """Axis by axis, and without divisions: what is written into the graph should be short."""
    windows = [(length + size - 1) // size for length in hw]
    orders, insides, regions, backs = [], [], [], []
    for axis, (length, number) in enumerate(zip(hw, windows, strict=True)):
        places = number * size
        place = torch.arange(places, device=device)
        shown = place + shift  # the row (or column) that each place shows
        back = torch.arange(length, device=device) - shift  # the place of each row
        if shift > 0:
            shown = torch.where(shown < places, shown, shown - places)
            back = torch.where(back < 0, back + places, back)
            # Three bands: windows without a seam, in front of the seam and behind it.
            regions.append(_per_place((place >= places - size).long() + (shown < shift), size, axis))
        insides.append(_per_place(shown < length, size, axis))
        orders.append(_per_place(shown.clamp(max=length - 1), size, axis))
        # Where the windows of each row begin, and the row within them.
        step, within = (windows[1] * size**2, size) if axis == 0 else (size**2, 1)
        start = torch.arange(number, device=device)[:, None] * step
        begin = start + torch.arange(0, size * within, within, device=device)
        backs.append(begin.flatten().index_select(0, back))
    mask = None
    if shift > 0:
        region = (regions[0] * 3 + regions[1]).reshape(-1, size**2)
        mask = (region[:, None] != region[:, :, None]) * MASKED
    return Windows(
        (orders[0] * hw[1] + orders[1]).flatten(),
        (backs[0][:, None] + backs[1]).flatten(),
        (insides[0] & insides[1]).logical_not().reshape(-1, 1),
        mask,
    )


def _per_place(values: Tensor, size: int, axis: int) -> Tensor:
    """Values of rows or columns, as they stand in windows: (down, 1, size, 1) or (1, across, 1, size)."""
    return values.view(-1, 1, size, 1) if axis == 0 else values.view(1, -1, 1, size)


def make_traceable(model: nn.Module) -> None:
    """Exchange, in place, what decides by size: paddings and patch mergings of any network, the windows of `AdaptedSwin`.

    The state dict stays as it is, and so do the outputs. The network is for evaluation from then on.
    """
    for module in list(model.modules()):
        if isinstance(module, AdaptedSwin):
            module.fused = True
            module._windows = TracedWindows()
        for name, child in list(module.named_children()):
            side_by_side = getattr(child, 'stride', None) == getattr(child, 'kernel_size', ())
            if isinstance(child, AdaptivePadding) and child.padding == 'corner' and side_by_side:
                setattr(module, name, _Padding(child.stride))
            elif type(child) is nn.Unfold and side_by_side and child.padding in (0, (0, 0)):
                patches = _Patches(child.kernel_size, child.dilation, child.padding, child.stride)
                setattr(module, name, patches)
