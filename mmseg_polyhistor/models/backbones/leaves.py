"""Single layers of a stock network on task streams, with what a method changes in them.

Features are (S, B, ..., C) with S task streams in front; see `mmseg_polyhistor.adapters.functional` for how streams part.
Changes come as {stock name within the block (or patch embedding, patch merging): change}. Where nothing is changed, the
operations are the stock ones in the stock order, so that results are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from ...adapters import Change
from ...adapters import functional as streams

__all__ = ['Changes', 'changed_conv', 'changed_linear', 'changed_norm', 'to_map', 'tuned', 'with_drop_path']

Changes = Mapping[str, Change]


def tuned(parameter: Tensor | None, difference: Tensor | None) -> Tensor | None:
    """The parameter, or, where it is tuned, its values (T, *shape)."""
    return parameter if parameter is None or difference is None else parameter + difference


def changed_linear(layer: nn.Module, name: str, x: Tensor, changes: Changes) -> Tensor:
    """A linear layer, or a convolution of 1 x 1 pixels, on features (S, B, L, C)."""
    weight = tuned(layer.weight, changes.get(f'{name}.weight'))
    if isinstance(layer, nn.Conv2d):
        weight = weight.flatten(-3)
    y = streams.linear(x, weight, tuned(layer.bias, changes.get(f'{name}.bias')))
    low_rank = changes.get(name)
    return y if low_rank is None else y + streams.low_rank(x, low_rank)


def changed_norm(layer: nn.Module, name: str, x: Tensor, changes: Changes) -> Tensor:
    """A LayerNorm on features (S, B, L, C); another module as it is."""
    if not isinstance(layer, nn.LayerNorm):
        return layer(x)
    gain = tuned(layer.weight, changes.get(f'{name}.weight'))
    shift = tuned(layer.bias, changes.get(f'{name}.bias'))
    return streams.layer_norm(x, gain, shift, layer.eps)


def changed_conv(layer: nn.Conv2d, name: str, x: Tensor, changes: Changes) -> Tensor:
    """A convolution on maps (S, B, C, H, W): its weight and bias may be tuned, one of 1 x 1 pixels may change by low rank.

    Several tasks' weights are groups of one convolution.
    """
    weight = tuned(layer.weight, changes.get(f'{name}.weight'))
    bias = tuned(layer.bias, changes.get(f'{name}.bias'))
    low_rank = changes.get(name)
    if weight.dim() == 5 and weight.shape[0] == 1:
        weight = weight[0]
    if bias is not None and bias.dim() == 2 and bias.shape[0] == 1:
        bias = bias[0]
    if weight.dim() == 4 and (bias is None or bias.dim() == 1):
        y = layer._conv_forward(x.flatten(0, 1), weight, bias).unflatten(0, x.shape[:2])
    else:
        y = _stream_conv(layer, x, weight)
        if bias is not None:
            # Under autocast y has the lower precision, and a bias of full precision would lift all that follows.
            y = y + bias.view(-1, 1, bias.shape[-1], 1, 1).to(y.dtype)
    return y if low_rank is None else y + streams.low_rank(x.movedim(2, -1), low_rank).movedim(-1, 2)


def _stream_conv(layer: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """The convolution without bias, of maps (S, B, C, H, W) by weights (T, C', C / groups, h, w) or those of all streams."""
    if weight.dim() == 4:
        return layer._conv_forward(x.flatten(0, 1), weight, None).unflatten(0, x.shape[:2])
    tasks, groups = weight.shape[0], layer.groups
    if x.shape[0] == 1 and groups == 1:  # one input for the filters of all tasks
        x = x[0]
    else:
        x = x.expand(tasks, *x.shape[1:]).transpose(0, 1).flatten(1, 2)  # (B, T C, H, W)
        groups *= tasks
    y = F.conv2d(x, weight.flatten(0, 1), None, layer.stride, layer.padding, layer.dilation, groups)
    return y.unflatten(1, (tasks, -1)).transpose(0, 1)  # (T, B, C', H', W')


def with_drop_path(x: Tensor, h: Tensor, drop_path: nn.Module, fused: bool) -> Tensor:
    """The residual connection x + DropPath(h) of features (S, B, L, C)."""
    if fused and isinstance(drop_path, DropPath):
        if not drop_path.training or drop_path.drop_prob == 0:
            return h + x
        keep = 1 - drop_path.drop_prob
        kept = torch.rand(h.shape[:2], dtype=h.dtype, device=h.device).add_(keep).floor_().div_(keep)
        return torch.addcmul(x, h, kept[..., None, None])  # one pass over the features instead of three
    return drop_path(h.flatten(0, 1)).unflatten(0, h.shape[:2]) + x


def to_map(x: Tensor, hw: tuple[int, int]) -> Tensor:
    """Features (..., H W, C) -> (..., C, H, W), in channels-last memory: no copy."""
    return x.unflatten(-2, hw).movedim(-1, -3)
