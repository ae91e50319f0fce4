"""LoRA and MTLoRA: what they emit at which linear map, their starts and counts."""

from __future__ import annotations

import pytest
import torch

from mmseg_polyhistor.adapters import BackboneLayout, LinearSite, LoRA, MTLoRA, Site

TASKS = ('a', 'b')


def layout_of(widths: tuple[int, ...], depths: tuple[int, ...]) -> BackboneLayout:
    """The linear maps of a Swin of these widths and depths."""
    linears = []
    for stage, (d, depth) in enumerate(zip(widths, depths, strict=True)):
        for block in range(depth):
            for role, rows, cols in (('qkv', d, 3 * d), ('proj', d, d), ('fc1', d, 4 * d), ('fc2', 4 * d, d)):
                linears.append(LinearSite(Site(stage, block, f'maps.{role}'), role, rows, cols))
        if stage + 1 < len(widths):
            linears.append(LinearSite(Site(stage, None, 'down.reduction'), 'reduction', 4 * d, 2 * d))
    return BackboneLayout(widths, depths, linears=tuple(linears))


LAYOUT = layout_of((6, 12), (1, 2))
SWIN_T = layout_of((96, 192, 384, 768), (2, 2, 6, 2))
SHAPES = {linear.site: (linear.in_features, linear.out_features) for linear in LAYOUT.linears}


def randomised(method: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for p in method.parameters():
        torch.nn.init.normal_(p)
    return method.double()


def count(method: torch.nn.Module) -> int:
    return sum(p.numel() for p in method.parameters())


@pytest.mark.parametrize('pre_norm', [True, False])
@pytest.mark.parametrize('targets', [('qkv',), ('reduction', 'fc2')], ids=str)
@pytest.mark.parametrize('per_task', [True, False], ids=['per-task', 'shared'])
def test_lora_emits_its_factors_at_every_target(targets, pre_norm, per_task):
    m = randomised(
        LoRA(
            layout=LAYOUT,
            tasks=TASKS,
            rank=2,
            targets=targets,
            scale=0.5,
            pre_norm=pre_norm,
            per_task=per_task,
        )
    )
    changes = m.generate(('b', 'a'))
    assert set(changes) == {linear.site for linear in LAYOUT.linears if linear.role in targets}
    for site, w in changes.items():
        inputs, outputs = SHAPES[site]
        owners = ('b', 'a') if per_task else ('all',)
        assert w.down.shape == (len(owners), 2, inputs) and w.up.shape == (len(owners), outputs, 2)
        for t, owner in enumerate(owners):
            own = m.sets[owner][site.key]
            torch.testing.assert_close(w.up[t] @ w.down[t], 0.5 * own.up @ own.down)
            if pre_norm:
                assert torch.equal(w.pre_gain[t], own.pre_gain) and torch.equal(w.pre_shift[t], own.pre_shift)
        assert pre_norm == (w.pre_gain is not None) == (w.pre_shift is not None)


def test_loras_start():
    torch.manual_seed(0)
    m = LoRA(layout=SWIN_T, tasks=('a',), rank=16, targets=('qkv', 'fc1'))
    downs = torch.cat([w.down.flatten() for w in m.generate(('a',)).values()])
    assert downs.std().item() == pytest.approx(0.01, rel=0.02)
    for w in m.generate(('a',)).values():
        assert w.up.abs().max() == 0
        assert (w.pre_gain == 1).all() and (w.pre_shift == 0).all()


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        # r (in + out), and 2 in for the LayerNorm, over the blocks' widths 6, 12, 12
        (dict(rank=2), sum(2 * (d + 3 * d) + 2 * d for d in (6, 12, 12))),
        (dict(rank=2, pre_norm=False), sum(2 * 4 * d for d in (6, 12, 12))),
        (dict(rank=-3, pre_norm=False), sum(max(d // 3, 1) * 4 * d for d in (6, 12, 12))),
        (dict(rank=1, pre_norm=False, targets=('reduction',)), 24 + 12),
    ],
    ids=str,
)
def test_lora_has_the_parameters_of_the_formula(settings, expected):
    assert count(LoRA(layout=LAYOUT, tasks=TASKS, **settings)) == 2 * expected
    assert count(LoRA(layout=LAYOUT, tasks=TASKS, per_task=False, **settings)) == expected


def test_mtlora_adds_a_tasks_own_change_in_the_last_block_of_each_stage():
    m = randomised(MTLoRA(layout=LAYOUT, tasks=TASKS, rank=3, task_rank=2, scale=0.5, tuned=()))
    changes = m.generate(('b', 'a'))
    assert set(changes) == {linear.site for linear in LAYOUT.linears if linear.role != 'reduction'}
    for site, w in changes.items():
        shared = m.sets['all'][site.key]
        product = 0.5 * shared.up @ shared.down
        last = site.block == LAYOUT.depths[site.stage] - 1
        if not last or site.position == 'maps.qkv':
            want = [product]
        else:
            own = [m.task_sets[t][site.key] for t in ('b', 'a')]
            want = [product + 0.5 * o.up @ o.down for o in own]
            if site.stage == 0:  # the shared stream goes on to the next stage
                want.insert(0, product)
        assert len(w.up) == len(want), site
        for t, matrix in enumerate(want):
            torch.testing.assert_close(w.up[t] @ w.down[t], matrix)
    assert set(m.task_sets['a']) == {
        f'stage{stage}_block{block}_maps_{role}' for stage, block in ((0, 0), (1, 1)) for role in ('proj', 'fc1', 'fc2')
    }  # fmt: skip


def test_mtlora_starts_at_the_frozen_network():
    """A as a linear layer starts, uniform within +-1 / sqrt(in); B at zero."""
    torch.manual_seed(0)
    m = MTLoRA(layout=SWIN_T, tasks=TASKS, rank=16, tuned=())
    for group in (m.sets, m.task_sets):
        for one in group.values():
            for key, change in one.items():
                bound = change.down.shape[1] ** -0.5
                assert 0.9 * bound < change.down.abs().max() <= bound, key
                assert change.up.abs().max() == 0, key


def test_mtloras_published_totals_differ_as_its_ranks_do():
    """On Swin-T 70,656 shared parameters per unit of rank, and 276,480 of four tasks with rank 4, as documented."""
    tasks = ('a', 'b', 'c', 'd')
    sizes = {r: count(MTLoRA(layout=SWIN_T, tasks=tasks, rank=r, tuned=())) for r in (16, 32, 64)}
    for r, size in sizes.items():
        assert size == r * 70_656 + 276_480
    # The paper's totals: 4.95, 6.08 and 8.34 M
    assert (sizes[32] - sizes[16]) / 1e6 == pytest.approx(6.08 - 4.95, abs=0.01)
    assert (sizes[64] - sizes[32]) / 1e6 == pytest.approx(8.34 - 6.08, abs=0.01)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: LoRA(layout=LAYOUT, tasks=TASKS, rank=0), 'rank must be a positive int.* got 0'),
        (lambda: LoRA(layout=LAYOUT, tasks=TASKS, rank=7), 'rank 7 is larger than the smaller side of a 18 x 6 matrix'),
        (lambda: LoRA(layout=LAYOUT, tasks=TASKS, targets=('v',)), r"targets: unknown \['v'\].*'proj', 'qkv'"),
        (lambda: LoRA(layout=LAYOUT, tasks=TASKS).generate(('z',)), r"unknown tasks \['z'\].*\('a', 'b'\)"),
        (lambda: MTLoRA(layout=LAYOUT, tasks=TASKS, rank=7, tuned=()), 'rank 7 .* x 6 matrix'),
        (lambda: MTLoRA(layout=LAYOUT, tasks=TASKS, rank=2, task_rank=7, tuned=()), 'rank 7 .* x 6 matrix'),
        (
            lambda: MTLoRA(layout=LAYOUT, tasks=TASKS, rank=2, task_rank=1, targets=('qkv', 'fc2'), tuned=()),
            r"task_targets \['fc1', 'proj'\] must be among targets, got \('qkv', 'fc2'\)",
        ),
        (
            lambda: MTLoRA(
                layout=LAYOUT, tasks=TASKS, rank=2, targets=('fc2', 'reduction'), task_targets=('reduction',), tuned=()
            ),
            r"task_targets \['reduction'\] are no linear maps of a block",
        ),
        (lambda: MTLoRA(layout=LAYOUT, tasks=TASKS, rank=2), 'tuned: unknown .*: none'),
        (
            lambda: MTLoRA(layout=LAYOUT, tasks=TASKS, rank=2, task_rank=1, tuned=()).generate(('z',)),
            r"unknown tasks \['z'\]",
        ),
    ],
)  # fmt: skip
def test_unfit_settings_are_refused_with_the_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
