"""Trainable parameters of the adapter methods, against the paper's table (section 6 of the method's description)."""

from __future__ import annotations

import pytest

from mmseg_polyhistor.adapters import (
    BackboneLayout,
    BottleneckAdapter,
    HyperFormer,
    LowRankAdapter,
    Polyhistor,
    PolyhistorLite,
)

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
SWIN = {
    'tiny': BackboneLayout((96, 192, 384, 768), (2, 2, 6, 2)),
    'small': BackboneLayout((96, 192, 384, 768), (2, 2, 18, 2)),
    'base': BackboneLayout((128, 256, 512, 1024), (2, 2, 18, 2)),
    'large': BackboneLayout((192, 384, 768, 1536), (2, 2, 18, 2)),
}


def count(method) -> int:
    assert all(p.requires_grad for p in method.parameters())
    return sum(p.numel() for p in method.parameters())


@pytest.mark.parametrize(
    ('method', 'expected', 'printed'),
    [
        (BottleneckAdapter, 8_688_000, 8.69),
        (LowRankAdapter, 339_696, 0.34),
        (HyperFormer, 72_772_304, 72.77),
        (Polyhistor, 6_410_684, 6.41),
        (PolyhistorLite, 413_552, 0.41),
    ],
)
def test_swin_tiny_counts_equal_the_papers(method, expected, printed):
    n = count(method(layout=SWIN['tiny'], tasks=TASKS))
    assert n == expected
    assert round(n / 1e6, 2) == printed


def blocks(layout):
    return [d for d, depth in zip(layout.widths, layout.depths, strict=True) for _ in range(depth)]


# The formulas of the method's description, written once more, block by block.
def adapter_formula(layout):
    return 4 * sum(2 * d * (d // 2) + d // 2 + d + 2 * d for d in blocks(layout))


def low_rank_formula(layout):
    total = 0
    for d in blocks(layout):
        n = d // 16
        r = max(n // 4, 1)
        total += 2 * r * (d + n) + n + d + 2 * d
    return 4 * total


def hyper_network(inputs):
    return inputs * 128 + 128 + 128 * 64 + 64 + 2 * 64


def hyperformer_formula(layout):
    adapters = sum(2 * (64 + 1) * (2 * d * (d // 8) + d + d // 8 + 2 * d) for d in blocks(layout))
    return adapters + len(blocks(layout)) * hyper_network(512) + 4 * 512


def polyhistor_formula(layout):
    total = 4 * 512 + len(blocks(layout)) * hyper_network(512)
    for d in blocks(layout):
        n = d // 16
        r = max(n // 4, 1)
        total += 65 * (2 * r * (d + n) + d + n + 2 * d)
    return total


def lite_formula(layout):
    c = layout.widths[0]
    n, r = c // 2, c // 8
    total = hyper_network(1024) + 65 * (2 * r * (c + n) + c + n + 2 * c) + 4 * 512
    for d in blocks(layout):
        s = d // c
        total += 512 * s
        if s > 1:
            total += s**3 + 2 * s**2
    return total


@pytest.mark.parametrize('arch', list(SWIN))
@pytest.mark.parametrize(
    ('method', 'formula'),
    [
        (BottleneckAdapter, adapter_formula),
        (LowRankAdapter, low_rank_formula),
        (Polyhistor, polyhistor_formula),
        (PolyhistorLite, lite_formula),
    ],
)
def test_every_swin_follows_the_formula(arch, method, formula):
    assert count(method(layout=SWIN[arch], tasks=TASKS)) == formula(SWIN[arch])


def test_hyperformer_follows_the_formula():
    layout = BackboneLayout((16, 32, 64), (1, 2, 1))
    assert count(HyperFormer(layout=layout, tasks=TASKS)) == hyperformer_formula(layout)
    assert hyperformer_formula(SWIN['tiny']) == 72_772_304


def test_kernels_per_task_cost_what_the_formula_says():
    one = PolyhistorLite(layout=SWIN['tiny'], tasks=TASKS)
    each = PolyhistorLite(layout=SWIN['tiny'], tasks=TASKS, kernels_per_task=True)
    assert count(each) - count(one) == 3 * (1424 + 232 + 232)
