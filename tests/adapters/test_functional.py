"""The adapter function and the static adapters, against torch.nn modules applied task by task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmseg_polyhistor.adapters import (
    AdapterWeights,
    BackboneLayout,
    BottleneckAdapter,
    LowRankAdapter,
    Site,
    adapter,
)
from mmseg_polyhistor.adapters.functional import get_activation

D, N, T, B, TOKENS = 6, 3, 2, 4, 5


def random_weights(norms: str) -> AdapterWeights:
    def r(*shape):
        return torch.randn(T, *shape, dtype=torch.float64)

    return AdapterWeights(
        r(N, D), r(N), r(D, N), r(D),
        *((r(D), r(D)) if 'post' in norms else (None, None)),
        *((r(D), r(D)) if 'pre' in norms else (None, None)),
    )  # fmt: skip


def module_of(w: AdapterWeights, t: int, act: nn.Module) -> nn.Module:
    """The same adapter from stock modules."""
    layers = [nn.Linear(D, N), act, nn.Linear(N, D)]
    layers[0].weight.data, layers[0].bias.data = w.down_weight[t], w.down_bias[t]
    layers[2].weight.data, layers[2].bias.data = w.up_weight[t], w.up_bias[t]
    for gain, shift, where in ((w.post_gain, w.post_shift, len(layers)), (w.pre_gain, w.pre_shift, 0)):
        if gain is not None:
            norm = nn.LayerNorm(D)
            norm.weight.data, norm.bias.data = gain[t], shift[t]
            layers.insert(where, norm)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize('norms', ['', 'post', 'pre', 'pre+post'])
@pytest.mark.parametrize(('name', 'act'), [('silu', nn.SiLU()), ('gelu', nn.GELU()), ('relu', nn.ReLU())])
@pytest.mark.parametrize('streams', [1, T])
def test_adapter_equals_stock_modules(norms, name, act, streams):
    torch.manual_seed(0)
    w = random_weights(norms)
    x = torch.randn(streams, B, TOKENS, D, dtype=torch.float64)
    got = adapter(x, w, activation=get_activation(name), scale=0.5)
    per_task = x.expand(T, -1, -1, -1)
    want = torch.stack([0.5 * (x_t + module_of(w, t, act)(x_t)) for t, x_t in enumerate(per_task)])
    torch.testing.assert_close(got, want)


def test_wrong_number_of_streams_is_refused():
    with pytest.raises(ValueError, match='3 task streams meet weights of 2 tasks'):
        adapter(torch.zeros(3, 1, 1, D, dtype=torch.float64), random_weights(''))


LAYOUT = BackboneLayout((8, 16), (1, 2))


@pytest.mark.parametrize('cls', [BottleneckAdapter, LowRankAdapter])
def test_gain_zero_makes_a_fresh_adapter_the_identity_and_gain_one_does_not(cls):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 7, 16)
    for gain in (0.0, 1.0):
        m = cls(layout=LAYOUT, tasks=('a', 'b'), ratio=4, post_norm_gain=gain)
        out = m.adapt(x, m.generate(('a', 'b'))[Site(1, 0, 'ffn')])
        assert out.shape == (2, 3, 7, 16)
        assert torch.equal(out, torch.cat([x, x])) == (gain == 0.0)


def test_low_rank_weights_are_products():
    torch.manual_seed(0)
    m = LowRankAdapter(layout=LAYOUT, tasks=('a', 'b'), ratio=2, rank=-4).double()
    w = m.generate(('b',))[Site(1, 1, 'ffn')]
    site = m.sets['b']['stage1_block1_ffn']
    assert site.up.left.shape == (16, 2)
    torch.testing.assert_close(w.up_weight[0], site.up.left @ site.up.right)
    assert torch.linalg.matrix_rank(w.down_weight[0]).item() == 2


def test_initial_values():
    torch.manual_seed(0)
    m = BottleneckAdapter(
        layout=BackboneLayout((96,), (2,)), tasks=('a',), positions=('attn', 'ffn'), pre_norm=True
    )
    w = m.generate(('a',))[Site(0, 1, 'attn')]
    assert w.up_weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert w.down_weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert w.down_bias.abs().max() == 0 == w.up_bias.abs().max()
    assert torch.equal(w.post_gain, torch.ones(1, 96)) and torch.equal(w.pre_gain, torch.ones(1, 96))


def test_tasks_are_kept_by_name_not_by_order():
    torch.manual_seed(0)
    ab = BottleneckAdapter(layout=LAYOUT, tasks=('a', 'b'))
    ba = BottleneckAdapter(layout=LAYOUT, tasks=('b', 'a'))
    ba.load_state_dict(ab.state_dict())
    for site, w in ab.generate(('a', 'b')).items():
        assert torch.equal(w.up_weight, ba.generate(('b', 'a'))[site].up_weight.flip(0))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(ratio=0), 'positive int, got 0'),
        (dict(ratio=3), '3 does not divide 8 channels'),
        (dict(ratio=16), 'width 0 on 8 channels'),
        (dict(ratio=2, rank=0), 'got 0'),
        (dict(ratio=2, rank=9), 'rank 9 is larger'),
    ],
)
def test_unfit_sizes(kwargs, message):
    method = LowRankAdapter if 'rank' in kwargs else BottleneckAdapter
    with pytest.raises(ValueError, match=message):
        method(layout=LAYOUT, tasks=('a',), **kwargs)
