"""Differences to parameters of the frozen network, and the methods that have nothing else."""

from __future__ import annotations

import pytest
import torch

from mmseg_polyhistor.adapters import (
    AdapterMethod,
    BackboneLayout,
    BitFit,
    ParameterSite,
    RelativeBias,
    Site,
    TunedParameters,
)

BIAS = Site(0, 0, 'attn.qkv.bias')
SHIFT = Site(0, 1, 'norm.bias')
TABLE = Site(1, 0, 'attn.table')
CONV = Site(0, None, 'patch_embed.projection.weight')
LAYOUT = BackboneLayout(
    (8, 16),
    (2, 1),
    parameters=(
        ParameterSite(CONV, (8, 3, 4, 4), ('weight', 'patch_embed')),
        ParameterSite(BIAS, (24,), ('bias',)),
        ParameterSite(SHIFT, (8,), ('norm', 'norm_bias')),
        ParameterSite(TABLE, (9, 2), ('relative_position_bias',)),
    ),
)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_differences_come_one_row_per_owner_in_their_order():
    tuned = TunedParameters(layout=LAYOUT, owners=('a', 'b', 'c'), groups=('weight', 'bias'))
    shapes = {CONV: (8, 3, 4, 4), BIAS: (24,)}
    assert all(p.abs().max() == 0 for p in tuned.parameters())
    for i, owner in enumerate(('a', 'b', 'c')):
        for p in tuned.differences[owner].values():
            torch.nn.init.constant_(p, i)
    got = tuned(('c', 'a'))
    assert {site: tuple(d.shape) for site, d in got.items()} == {s: (2, *shapes[s]) for s in shapes}
    for difference in got.values():
        assert (difference[0] == 2).all() and (difference[1] == 0).all()
    tuned.reset_parameters()
    assert all(p.abs().max() == 0 for p in tuned.parameters())


def test_a_parameter_in_several_groups_is_held_once():
    tuned = TunedParameters(
        layout=LAYOUT, owners=('a',), groups=('weight', 'patch_embed', 'norm', 'norm_bias')
    )
    assert count(tuned) == 8 * 3 * 4 * 4 + 8
    assert set(tuned(('a',))) == {CONV, SHIFT}


@pytest.mark.parametrize(
    ('method', 'settings', 'sites'),
    [
        (BitFit, {}, {BIAS: 24, SHIFT: 8, TABLE: 18}),
        (RelativeBias, {}, {TABLE: 18}),
        (BitFit, dict(tuned=('weight', 'norm')), {CONV: 384, SHIFT: 8}),
        (AdapterMethod, dict(tuned=('bias',)), {BIAS: 24}),
        (AdapterMethod, {}, {}),
    ],
)
@pytest.mark.parametrize('per_task', [True, False], ids=['per-task', 'shared'])
def test_methods_tune_the_documented_groups(method, settings, sites, per_task):
    m = method(layout=LAYOUT, tasks=('a', 'b'), per_task=per_task, **settings)
    changes = m.generate(('b', 'a'))
    assert {site: difference[0].numel() for site, difference in changes.items()} == sites
    assert all(len(difference) == (2 if per_task else 1) for difference in changes.values())
    assert count(m) == sum(sites.values()) * (2 if per_task else 1)


def test_tasks_have_differences_of_their_own():
    m = BitFit(layout=LAYOUT, tasks=('a', 'b'))
    torch.nn.init.ones_(m.tuned.differences['b'][BIAS.key])
    assert m.generate(('b', 'a'))[BIAS].amax(1).tolist() == [1, 0]
    assert m.generate(('a',))[BIAS].amax(1).tolist() == [0]


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: BitFit(layout=LAYOUT, tasks=('a',), tuned=('gain',)), r"tuned: unknown \['gain'\].*'norm_bias'"),
        (lambda: BitFit(layout=LAYOUT, tasks=('a',), tuned='bias'), "got 'bias'"),
        (lambda: RelativeBias(layout=BackboneLayout((8,), (1,)), tasks=('a',)), ': none$'),
        (lambda: BitFit(layout=LAYOUT, tasks='a'), "different names, got 'a'"),
        (lambda: BitFit(layout=LAYOUT, tasks=('a',)).generate(('z',)), r"unknown tasks \['z'\].*\('a',\)"),
        (lambda: BitFit(layout=LAYOUT, tasks=('a',), per_task=False).generate(('z',)), r"unknown tasks \['z'\]"),
    ],
)  # fmt: skip
def test_unfit_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_method_without_adapters_adapts_nothing():
    with pytest.raises(
        NotImplementedError, match='BitFit emits weights for an adapter but does not define adapt'
    ):
        BitFit(layout=LAYOUT, tasks=('a',)).adapt(torch.zeros(1, 1, 1, 8), None)
