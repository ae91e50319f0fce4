"""Linear maps, LayerNorm and low-rank changes on task streams, against a loop over tasks with torch's own layers."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from mmseg_polyhistor.adapters import LowRankWeights
from mmseg_polyhistor.adapters.functional import layer_norm, linear, low_rank

T, IN, OUT, RANK = 3, 5, 4, 2
STREAMS = (1, T)
MIDDLES = [(2, 7), (2, 3, 7), (6,), (1, 1)]  # axes between the streams and the channels


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def of_task(parameter: torch.Tensor, dims: int, t: int) -> torch.Tensor:
    """What task t sees of a parameter that has `dims` axes, with or without one of tasks in front."""
    if parameter.dim() == dims:
        return parameter
    return parameter[t if len(parameter) > 1 else 0]


@pytest.mark.parametrize('middle', MIDDLES, ids=str)
@pytest.mark.parametrize('bias_tasks', ['none', 'stock', 1, T])
@pytest.mark.parametrize('weight_tasks', ['stock', 1, T])
@pytest.mark.parametrize('streams', STREAMS)
def test_linear_equals_torchs_linear_for_each_task(streams, weight_tasks, bias_tasks, middle):
    torch.manual_seed(0)
    x = randn(streams, *middle, IN)
    weight = randn(*(() if weight_tasks == 'stock' else (weight_tasks,)), OUT, IN)
    bias = None if bias_tasks == 'none' else randn(*(() if bias_tasks == 'stock' else (bias_tasks,)), OUT)
    got = linear(x, weight, bias)
    parted = T in (streams, weight_tasks, bias_tasks)
    assert got.shape == (T if parted else 1, *middle, OUT)
    for t, out in enumerate(got):
        layer = nn.Linear(IN, OUT, bias=bias is not None).double()
        layer.weight.data = of_task(weight, 2, t)
        if bias is not None:
            layer.bias.data = of_task(bias, 1, t)
        torch.testing.assert_close(out, layer(x[t if streams > 1 else 0]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('middle', MIDDLES, ids=str)
@pytest.mark.parametrize(('gain_tasks', 'shift_tasks'), list(itertools.product(['stock', 1, T], repeat=2)))
@pytest.mark.parametrize('streams', STREAMS)
def test_layer_norm_equals_torchs_for_each_task(streams, gain_tasks, shift_tasks, middle):
    torch.manual_seed(0)
    x = randn(streams, *middle, IN)
    gain, shift = (randn(*(() if tasks == 'stock' else (tasks,)), IN) for tasks in (gain_tasks, shift_tasks))
    got = layer_norm(x, gain, shift, eps=0.1)
    assert got.shape == (T if T in (streams, gain_tasks, shift_tasks) else 1, *middle, IN)
    for t, out in enumerate(got):
        layer = nn.LayerNorm(IN, eps=0.1).double()
        layer.weight.data, layer.bias.data = of_task(gain, 1, t), of_task(shift, 1, t)
        torch.testing.assert_close(out, layer(x[t if streams > 1 else 0]), rtol=1e-12, atol=1e-12)


def test_layer_norms_epsilon_is_torchs_by_default():
    x = randn(1, 4, IN) * 1e-3  # so small that the epsilon counts
    want = nn.functional.layer_norm(x[0], (IN,))
    for tasks in (1, T):
        got = layer_norm(x, x.new_ones(tasks, IN), x.new_zeros(tasks, IN))
        assert torch.allclose(got, want.expand_as(got), rtol=1e-12)


@pytest.mark.parametrize('norm', [False, True], ids=['plain', 'norm'])
@pytest.mark.parametrize('tasks', [1, T])
@pytest.mark.parametrize('streams', STREAMS)
def test_low_rank_changes_equal_their_product_for_each_task(streams, tasks, norm):
    torch.manual_seed(0)
    x = randn(streams, 2, 7, IN)
    w = LowRankWeights(randn(tasks, RANK, IN), randn(tasks, OUT, RANK))
    if norm:
        w = w._replace(pre_gain=randn(tasks, IN), pre_shift=randn(tasks, IN))
    got = low_rank(x, w)
    assert got.shape == (max(streams, tasks), 2, 7, OUT)
    for t, out in enumerate(got):
        i = t if tasks > 1 else 0
        z = x[t if streams > 1 else 0]
        if norm:
            z = nn.functional.layer_norm(z, (IN,), w.pre_gain[i], w.pre_shift[i])
        torch.testing.assert_close(out, z @ (w.up[i] @ w.down[i]).T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    'apply',
    [
        lambda x: linear(x, x.new_zeros(T, OUT, IN)),
        lambda x: linear(x, x.new_zeros(T, OUT, IN), x.new_zeros(OUT)),
        lambda x: linear(x, x.new_zeros(OUT, IN), x.new_zeros(T, OUT)),
        lambda x: linear(x, x.new_zeros(1, OUT, IN), x.new_zeros(T, OUT)),
        lambda x: layer_norm(x, x.new_ones(T, IN), x.new_zeros(T, IN)),
        lambda x: layer_norm(x, x.new_ones(T, IN), x.new_zeros(IN)),
        lambda x: layer_norm(x, x.new_ones(1, IN), x.new_zeros(T, IN)),
        lambda x: low_rank(x, LowRankWeights(x.new_zeros(T, RANK, IN), x.new_zeros(T, OUT, RANK))),
        lambda x: low_rank(x, LowRankWeights(x.new_zeros(1, RANK, IN), x.new_zeros(T, OUT, RANK))),
    ],
    ids=[
        'linear-weight', 'linear-weight-stock-bias', 'linear-bias', 'linear-bias-shared-weight', 'norm', 'norm-gain',
        'norm-shift', 'low-rank', 'low-rank-up',
    ],
)  # fmt: skip
@pytest.mark.parametrize('streams', [2, 4])
def test_streams_of_another_number_of_tasks_are_refused(apply, streams):
    with pytest.raises(ValueError, match=f'{streams} task streams meet weights of {T} tasks'):
        apply(randn(streams, 6, IN))


def test_a_bias_per_task_keeps_the_precision_of_autocast():
    x, weight = torch.randn(1, 4, IN), torch.randn(OUT, IN)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        for tasks in (1, T):
            assert linear(x, weight, torch.randn(tasks, OUT)).dtype == torch.bfloat16
            assert linear(x, weight.expand(tasks, -1, -1), torch.randn(tasks, OUT)).dtype == torch.bfloat16
