"""What a method does to features, as functions of its weights, for all task streams at once.

Features are (S, ..., d) with one entry per task stream in front: S = 1 while all tasks share them, S = T from the first
place on where they part. Weights carry a leading axis of 1 (shared by all tasks) or T (one set per task), and the two
broadcast: features part where shared ones meet weights of T tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    'ACTIVATIONS',
    'LN_EPS',
    'AdapterWeights',
    'Change',
    'LowRankWeights',
    'Prompts',
    'adapter',
    'get_activation',
    'layer_norm',
    'linear',
    'low_rank',
    'stack_owners',
]

LN_EPS = 1e-5


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'silu': F.silu,
    'relu': F.relu,
    'gelu': F.gelu,
    'tanh': torch.tanh,
    'identity': _identity,
}


def get_activation(name: str) -> Callable[[Tensor], Tensor]:
    """Look an activation up.

    Raises:
        ValueError: if there is none of that name; the message lists the known ones.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f'unknown activation {name!r}; known are {sorted(ACTIVATIONS)}')
    return ACTIVATIONS[name]


class AdapterWeights(NamedTuple):
    """Weights of one site for T tasks: d channels, bottleneck n. Optional LayerNorms are None where off."""

    down_weight: Tensor  # (T, n, d)
    down_bias: Tensor  # (T, n)
    up_weight: Tensor  # (T, d, n)
    up_bias: Tensor  # (T, d)
    post_gain: Tensor | None = None  # (T, d)
    post_shift: Tensor | None = None  # (T, d)
    pre_gain: Tensor | None = None  # (T, d)
    pre_shift: Tensor | None = None  # (T, d)


class LowRankWeights(NamedTuple):
    """A low-rank change of a linear map W (out x in): y = W x + up down LN(x), the LayerNorm where it is there."""

    down: Tensor  # (T, r, in)
    up: Tensor  # (T, out, r)
    pre_gain: Tensor | None = None  # (T, in)
    pre_shift: Tensor | None = None  # (T, in)


class Prompts(NamedTuple):
    """Tokens that the queries of a block's attention see beside those of their window."""

    tokens: Tensor  # (T, P, d)
    norm: bool  # whether they pass the block's first LayerNorm, as the window's own tokens do


Weights = TypeVar('Weights', AdapterWeights, LowRankWeights)


def stack_owners(weights: Iterable[Weights]) -> Weights:
    """Weights of several owners, without a leading axis, as one with an entry per owner; None stays None."""
    owners = list(weights)
    parts = zip(*owners, strict=True)
    return type(owners[0])(*(None if p[0] is None else torch.stack(p) for p in parts))


#: What a method can do at a site: an adapter, a low-rank change, prompts, or a difference (T, *shape) to a parameter.
Change = AdapterWeights | LowRankWeights | Prompts | Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear map per stream.

    Args:
        x: (S, ..., in).
        weight: (out, in), the same for all streams, or (T, out, in).
        bias: (out,) or (T, out). Defaults to None.

    Returns:
        (max(S, T), ..., out).

    Raises:
        ValueError: if S and T differ and neither is 1.
    """
    if weight.dim() == 3 and weight.shape[0] == 1:
        weight = weight[0]
    if bias is not None and bias.dim() == 2 and bias.shape[0] == 1:
        bias = bias[0]
    if weight.dim() == 2:
        if bias is None or bias.dim() == 1:
            return F.linear(x, weight, bias)
        _check_streams(x, bias)
        y = F.linear(x, weight)
    else:
        _check_streams(x, weight)
        y = (x.flatten(1, -2) @ weight.mT).unflatten(1, x.shape[1:-1])  # (T, M, out) -> (T, ..., out)
    if bias is None:
        return y
    # Under autocast y has the lower precision, and a bias of full precision would lift all that follows.
    return y + _per_stream(bias, y).to(y.dtype)


def layer_norm(x: Tensor, gain: Tensor, shift: Tensor, eps: float = LN_EPS) -> Tensor:
    """LayerNorm over the last axis, per stream.

    Args:
        x: (S, ..., d).
        gain: (d,), the same for all streams, or (T, d).
        shift: Like `gain`.
        eps: Added to the variance.

    Returns:
        (max(S, T), ..., d).

    Raises:
        ValueError: if S and T differ and neither is 1.
    """
    gain, shift = (p[0] if p.dim() == 2 and p.shape[0] == 1 else p for p in (gain, shift))
    if gain.dim() == shift.dim() == 1:
        return F.layer_norm(x, x.shape[-1:], gain, shift, eps)
    for p in (gain, shift):
        if p.dim() == 2:
            _check_streams(x, p)
    return F.layer_norm(x, x.shape[-1:], eps=eps) * _per_stream(gain, x) + _per_stream(shift, x)


def low_rank(x: Tensor, weights: LowRankWeights) -> Tensor:
    """up down LN(x), to be added to what the linear map itself makes of `x` (S, ..., in) -> (max(S, T), ..., out)."""
    if weights.pre_gain is not None:
        x = layer_norm(x, weights.pre_gain, weights.pre_shift)
    return linear(linear(x, weights.down), weights.up)


def adapter(
    x: Tensor,
    weights: AdapterWeights,
    *,
    activation: Callable[[Tensor], Tensor] = F.silu,
    scale: float = 1.0,
) -> Tensor:
    """scale * (x + LN_post(W_up activation(W_down LN_pre(x) + b_down) + b_up)), one set of weights per task.

    The adapter of Houlsby et al. 2019 with the LayerNorms of HyperFormer (Mahabadi et al. 2021), section 3 of the
    Polyhistor paper.

    Args:
        x: Features (S, ..., d).
        weights: Weights of T tasks.
        activation: The non-linearity between the two maps.
        scale: Factor on the result.

    Returns:
        Features (max(S, T), ..., d).

    Raises:
        ValueError: if S and T differ and neither is 1.
    """
    h = x
    if weights.pre_gain is not None:
        h = layer_norm(h, weights.pre_gain, weights.pre_shift)
    h = activation(linear(h, weights.down_weight, weights.down_bias))
    h = linear(h, weights.up_weight, weights.up_bias)
    if weights.post_gain is not None:
        h = layer_norm(h, weights.post_gain, weights.post_shift)
    out = x + h
    return out if scale == 1.0 else scale * out


def _per_stream(p: Tensor, x: Tensor) -> Tensor:
    """(T, d) -> (T, 1, ..., d), to meet features with as many axes as `x`; (d,) as it is."""
    return p if p.dim() == 1 else p.view(p.shape[0], *[1] * (x.dim() - 2), p.shape[-1])


def _check_streams(x: Tensor, weights: Tensor) -> None:
    streams, tasks = x.shape[0], weights.shape[0]
    if streams not in (1, tasks) and tasks != 1:
        raise ValueError(f'{streams} task streams meet weights of {tasks} tasks')
