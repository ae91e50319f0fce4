"""The adapter as a function of its weights, for all task streams at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['ACTIVATIONS', 'LN_EPS', 'AdapterWeights', 'adapter', 'get_activation']

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


def adapter(
    x: Tensor,
    weights: AdapterWeights,
    *,
    streams: int,
    activation: Callable[[Tensor], Tensor] = F.silu,
    scale: float = 1.0,
) -> Tensor:
    """scale * (x + LN_post(W_up activation(W_down LN_pre(x) + b_down) + b_up)), one set of weights per task.

    The adapter of Houlsby et al. 2019 with the LayerNorms of HyperFormer (Mahabadi et al. 2021), section 3 of the
    Polyhistor paper.

    Args:
        x: Tokens (S * B, N, d), stream-major.
        weights: Weights of T tasks.
        streams: S, the number of task streams in `x`: 1 (all tasks share what came before) or T.
        activation: The non-linearity between the two maps.
        scale: Factor on the result.

    Returns:
        Tokens (T * B, N, d), task-major.

    Raises:
        ValueError: if the number of streams is neither 1 nor T.
    """
    tasks = weights.down_weight.shape[0]
    if streams not in (1, tasks):
        raise ValueError(f'{streams} task streams meet adapter weights of {tasks} tasks')
    tokens = x.shape[1]
    x = x.reshape(streams, -1, x.shape[-1])  # (S, B*N, d)
    h = x
    if weights.pre_gain is not None:
        h = _layer_norm(h, weights.pre_gain, weights.pre_shift)
    h = h @ weights.down_weight.transpose(1, 2) + weights.down_bias[:, None]  # (T, B*N, n)
    h = activation(h)
    h = h @ weights.up_weight.transpose(1, 2) + weights.up_bias[:, None]  # (T, B*N, d)
    if weights.post_gain is not None:
        h = _layer_norm(h, weights.post_gain, weights.post_shift)
    out = x + h
    if scale != 1.0:
        out = scale * out
    return out.reshape(-1, tokens, out.shape[-1])


def _layer_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm over the last axis with one gain and shift per task."""
    return F.layer_norm(x, x.shape[-1:], eps=LN_EPS) * gain[:, None] + shift[:, None]
