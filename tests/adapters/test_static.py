"""The static adapters beyond the plain one: PHM layer, Compacter, AdaptFormer, and one copy for all tasks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmseg_polyhistor.adapters import (
    AdaptFormer,
    BackboneLayout,
    BottleneckAdapter,
    Compacter,
    LowRankAdapter,
    PHMAdapter,
    Site,
)

LAYOUT = BackboneLayout((8, 16), (1, 2))
TASKS = ('a', 'b')
STATIC = (BottleneckAdapter, LowRankAdapter, PHMAdapter, Compacter, AdaptFormer)
SMALL = {AdaptFormer: dict(bottleneck=4)}  # the others have a ratio


def build(cls, *, tasks=TASKS, layout=LAYOUT, **settings):
    torch.manual_seed(0)
    return cls(layout=layout, tasks=tasks, **SMALL.get(cls, dict(ratio=4)) | settings)


def randomised(method: nn.Module) -> nn.Module:
    for p in method.parameters():
        nn.init.normal_(p)
    return method.double()


def count(method: nn.Module) -> int:
    return sum(p.numel() for p in method.parameters())


# ------------------------------------------------------------------------------------------------- one copy for all
@pytest.mark.parametrize('cls', STATIC)
def test_one_copy_serves_all_tasks(cls):
    shared = randomised(build(cls, per_task=False))
    own = build(cls)
    assert count(own) == 2 * count(shared)
    changes = shared.generate(('b', 'a'))
    alone = shared.generate(('a',))
    for site, weights in own.generate(('b', 'a')).items():
        for one, same, two in zip(changes[site], alone[site], weights, strict=True):
            if one is not None:
                assert len(one) == 1 and len(two) == 2
                assert torch.equal(one, same)


@pytest.mark.parametrize('cls', STATIC)
def test_no_task_sees_anothers_parameters(cls):
    m = randomised(build(cls))
    outputs = list(m.generate(('a',)).values())
    parameters = dict(m.named_parameters())
    total = sum(field.sum() for weights in outputs for field in weights if field is not None)
    grads = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, grads, strict=True):
        assert (gradient is not None) == ('a' in name.split('.')), name


# --------------------------------------------------------------------------------------------- PHM layer, Compacter
def test_phm_matrices_are_sums_of_kronecker_products_with_rules_of_their_own():
    m = randomised(build(PHMAdapter))
    w = m.generate(('b', 'a'))[Site(1, 1, 'ffn')]
    rules = set()
    for t, task in enumerate(('b', 'a')):
        own = m.sets[task]['stage1_block1_ffn']
        for got, matrix, shape in (
            (w.down_weight[t], own.down, (4, 16)),
            (w.up_weight[t], own.up, (16, 4)),
        ):
            want = sum(torch.kron(matrix.rule[i], matrix.blocks[i]) for i in range(2))
            assert got.shape == shape
            torch.testing.assert_close(got, want)
            rules.add(matrix.rule)
    assert len(rules) == 4


def test_compacters_rules_are_shared_by_all_sites_of_a_task_and_by_no_two_tasks():
    m = randomised(build(Compacter))
    assert {name for name, _ in m.named_parameters() if 'rule' in name} == {'rules.a', 'rules.b'}
    changes = m.generate(('b', 'a'))
    assert set(changes) == set(LAYOUT.sites(('attn', 'ffn')))
    for site, w in changes.items():
        for t, task in enumerate(('b', 'a')):
            own = m.sets[task][site.key]
            for got, matrix in ((w.down_weight[t], own.down), (w.up_weight[t], own.up)):
                want = sum(
                    torch.kron(m.rules[task][i], torch.outer(matrix.left[i, :, 0], matrix.right[i, 0]))
                    for i in range(2)
                )
                torch.testing.assert_close(got, want)
    with torch.no_grad():
        m.rules['a'].zero_()
    for w in m.generate(('b', 'a')).values():
        for matrix in (w.down_weight, w.up_weight):
            assert matrix[0].abs().max() > 0 == matrix[1].abs().max()


@pytest.mark.parametrize('m', [2, 4])
def test_counts_follow_the_formulas(m):
    """Per site and task: n + d biases, 2 d of LN_post; matrices d n / m + m^3, or m (d / m + n / m) = d + n."""
    sites = [(8, 1), (16, 2)]
    compacter = build(Compacter, divisions=m, ratio=2, positions=('ffn',))
    per_task = sum(times * (2 * (d + d // 2) + d // 2 + d + 2 * d) for d, times in sites) + m**3
    assert count(compacter) == 2 * per_task
    phm = build(PHMAdapter, divisions=m, ratio=2)
    per_task = sum(times * (2 * (d * (d // 2) // m + m**3) + d // 2 + d + 2 * d) for d, times in sites)
    assert count(phm) == 2 * per_task


# ------------------------------------------------------------------------------------------------------ AdaptFormer
def test_adaptformer_starts_as_the_identity_on_the_shortcut():
    m = build(AdaptFormer, layout=BackboneLayout((96,), (2,)), bottleneck=64)
    w = m.generate(TASKS)[Site(0, 1, 'ffn')]
    x = torch.randn(1, 2, 7, 96)
    assert m.insertion == 'parallel'
    assert torch.equal(m.adapt(x, w), torch.cat([x, x]))
    assert w.post_gain is None and w.pre_gain is None
    # As a linear layer starts: uniform within +-1 / sqrt(in).
    bound = 96**-0.5
    assert 0.98 * bound < w.down_weight.abs().max() <= bound
    assert w.down_weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert all(p.abs().max() == 0 for p in (w.up_weight, w.down_bias, w.up_bias))


@pytest.mark.parametrize('scale', [0.1, 1.0, -2.0])
def test_adaptformer_scales_its_branch_and_not_the_shortcut(scale):
    m = randomised(build(AdaptFormer, scale=scale))
    x = torch.randn(1, 3, 7, 16, dtype=torch.float64)
    got = m.adapt(x, m.generate(('b', 'a'))[Site(1, 0, 'ffn')])
    for t, task in enumerate(('b', 'a')):
        own = m.sets[task]['stage1_block0_ffn']
        branch = torch.relu(x[0] @ own.down.weight.T + own.down_bias) @ own.up.weight.T + own.up_bias
        torch.testing.assert_close(got[t], x[0] + scale * branch)


def test_adaptformer_has_the_published_number_of_parameters_on_a_vit_b():
    """Twelve branches 768 -> 64 -> 768 with biases: 1,189,632, as its documentation says."""
    method = AdaptFormer(layout=BackboneLayout((768,), (12,)), tasks=('a',))
    assert count(method) == 1_189_632 == 12 * (768 * 64 + 64 + 64 * 768 + 768)


# ---------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: build(AdaptFormer, bottleneck=0), 'bottleneck must be a positive int, got 0'),
        (lambda: build(AdaptFormer, bottleneck=True), 'bottleneck must be a positive int, got True'),
        (
            lambda: build(LowRankAdapter, ratio=2, matched_init='no'),
            "matched_init must be True or False, got 'no'",
        ),
        (lambda: build(PHMAdapter, divisions=4), r'divisions 4 does not divide 2 channels: 2 / 4 = 0\.50'),
        (lambda: build(PHMAdapter, divisions=3), r'divisions 3 does not divide 2 channels'),
        (lambda: build(Compacter, divisions=0), 'divisions must be a positive int, got 0'),
        (lambda: build(Compacter, ratio=3), r'ratio 3 does not divide 8 channels: 8 / 3 = 2\.67'),
        (lambda: build(Compacter, ratio=16), 'ratio 16 gives a bottleneck of width 0 on 8 channels'),
        (lambda: build(Compacter).generate(('z',)), r"unknown tasks \['z'\]"),
        (lambda: build(Compacter, per_task=False).generate(('z',)), r"unknown tasks \['z'\]"),
    ],
)
def test_unfit_settings_are_refused_with_the_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
