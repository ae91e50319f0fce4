"""Published Swin checkpoints under the names and in the layout of mmpretrain's Swin."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .encoder_checkpoint import encoder_state_dict

__all__ = ['resize_bias_table', 'swin_state_dict']


def swin_state_dict(checkpoint: Mapping, prefix: str = '') -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's weights under mmpretrain's names, from any of the published forms.

    Understands checkpoints of OpenMMLab (mmpretrain, mmseg; with or without `backbone.`) and the official release of
    the Swin authors (`layers.0.blocks.0.attn.qkv...`), whose patch merging orders its channels in another way.

    Args:
        checkpoint: The loaded file; weights are looked for under 'state_dict', 'model', or at the top.
        prefix: Prefix of the encoder's keys; without one, `backbone.` is stripped where keys have it.

    Returns:
        The weights, and the keys that belong to no encoder and were left out.

    Raises:
        ValueError: if no key has the prefix.
    """
    weights, foreign = encoder_state_dict(checkpoint, prefix)
    if any(k.startswith('layers.') for k in weights):
        weights = dict(_from_official(k, v) for k, v in weights.items())
    last = max((int(k.split('.')[1]) for k in weights if k.startswith('stages.')), default=0)
    weights = {re.sub(r'^norm\.', f'norm{last}.', k): v for k, v in weights.items()}
    return weights, foreign


_OFFICIAL_NAMES = (
    (r'^layers\.', 'stages.'),
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
    (r'\.attn\.', '.attn.w_msa.'),
)


def _from_official(key: str, value: Tensor) -> tuple[str, Tensor]:
    for pattern, replacement in _OFFICIAL_NAMES:
        key = re.sub(pattern, replacement, key)
    if '.downsample.' in key:
        # The authors concatenate the four pixels of a 2 x 2 cell, (0,0), (1,0), (0,1), (1,1), each with C channels;
        # nn.Unfold puts the pixels, in row-major order, innermost.
        *rows, columns = value.shape
        value = value.reshape(*rows, 4, columns // 4)[..., [0, 2, 1, 3], :].transpose(-1, -2)
        value = value.reshape(*rows, columns)
    return key, value


def resize_bias_table(table: Tensor, length: int) -> Tensor:
    """Resize a table of relative position biases to another window, bicubically, as mmseg's Swin does.

    Args:
        table: ((2 w - 1)^2, heads) for window w.
        length: (2 w' - 1)^2.

    Returns:
        (length, heads), in float32 or float64; `table` itself where the windows are the same.
    """
    old, new = round(table.shape[0] ** 0.5), round(length**0.5)
    if old == new:
        return table
    grid = table.t().reshape(1, -1, old, old)
    grid = grid.to(torch.promote_types(grid.dtype, torch.float32))  # a file may hold float16
    return F.interpolate(grid, size=(new, new), mode='bicubic').flatten(2)[0].t().contiguous()
