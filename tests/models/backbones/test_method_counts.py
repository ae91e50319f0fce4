"""Trainable parameters of every method on every Swin, against the paper's table and formulas written once more."""

from __future__ import annotations

import pytest
import torch

from mmseg_polyhistor.adapters import (
    AdaptFormer,
    BitFit,
    BottleneckAdapter,
    Compacter,
    HyperFormer,
    LoRA,
    LowRankAdapter,
    MTLoRA,
    PHMAdapter,
    Polyhistor,
    PolyhistorLite,
    RelativeBias,
    VisualPrompt,
)
from mmseg_polyhistor.models.backbones import AdaptedSwin
from mmseg_polyhistor.models.backbones.swin_layers import swin_layout

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
# width of the first stage, depths, heads of the first stage
SWIN = {
    'tiny': (96, (2, 2, 6, 2), 3),
    'small': (96, (2, 2, 18, 2), 3),
    'base': (128, (2, 2, 18, 2), 4),
    'large': (192, (2, 2, 18, 2), 6),
}


@pytest.fixture(scope='module')
def layouts():
    """The layout of every Swin, built on demand and without drawing its weights."""
    made = {}

    def layout(arch):
        if arch not in made:
            with pytest.MonkeyPatch.context() as patch:
                for name in ('uniform_', 'normal_', 'kaiming_uniform_', 'trunc_normal_'):
                    patch.setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
                made[arch] = AdaptedSwin(arch).layout
        return made[arch]

    return layout


def count(method) -> int:
    assert all(p.requires_grad for p in method.parameters())
    return sum(p.numel() for p in method.parameters())


def blocks(c, depths):
    return [c * 2**i for i, depth in enumerate(depths) for _ in range(depth)]


def table_entries(c, depths, heads):
    return 169 * sum(heads * 2**i * depth for i, depth in enumerate(depths))


def merging(c):
    """Input channels of the three patch mergings."""
    return [4 * c * 2**i for i in range(3)]


def norms(c, depths):
    """Gains and shifts of the patch embedding, both norms of every block, and patch merging."""
    return 2 * (c + 2 * sum(blocks(c, depths)) + sum(merging(c)))


def bitfit(c, depths, heads):
    in_block = sum(
        d + 3 * d + d + d + 4 * d + d for d in blocks(c, depths)
    )  # norm1, qkv, proj, norm2, fc1, fc2
    return 4 * (2 * c + in_block + sum(merging(c)) + table_entries(c, depths, heads))


def relative_bias(c, depths, heads):
    return 4 * table_entries(c, depths, heads)


def vpt_shallow(c, depths, heads):
    return 4 * 50 * c


def vpt_deep(c, depths, heads):
    return 4 * 50 * sum(blocks(c, depths))


def phm(c, depths, heads):
    # two matrices of m^3 rules and m blocks of (d / 2) x (n / 2) each, biases, gain and shift
    return 4 * sum(2 * (8 + 2 * (d // 2) * (d // 16 // 2)) + d // 16 + d + 2 * d for d in blocks(c, depths))


def compacter_plus(c, depths, heads):
    return 4 * (8 + sum(2 * (d + d // 2) + d // 2 + d + 2 * d for d in blocks(c, depths)))


def compacter(c, depths, heads):
    return 2 * compacter_plus(c, depths, heads) - 4 * 8


def lora(c, depths, heads):
    return 4 * sum(4 * d + 4 * 3 * d + 2 * d for d in blocks(c, depths))


def plain_lora(c, depths, heads):
    return 4 * sum(4 * d + 4 * 3 * d for d in blocks(c, depths))


def adapter(c, depths, heads):
    return 4 * sum(2 * d * (d // 2) + d // 2 + d + 2 * d for d in blocks(c, depths))


def shared_adapter(c, depths, heads):
    return adapter(c, depths, heads) // 4 + norms(c, depths)


def low_rank_adapter(c, depths, heads):
    ranks = {d: max(d // 16 // 4, 1) for d in blocks(c, depths)}
    return 4 * sum(2 * ranks[d] * (d + d // 16) + d // 16 + d + 2 * d for d in blocks(c, depths))


def hyper_network(inputs):
    return inputs * 128 + 128 + 128 * 64 + 64 + 2 * 64


def hyperformer(c, depths, heads):
    heads_of = sum(2 * 65 * (2 * d * (d // 8) + d + d // 8 + 2 * d) for d in blocks(c, depths))
    return heads_of + sum(depths) * hyper_network(512) + 4 * 512


def polyhistor(c, depths, heads):
    total = 4 * 512 + sum(depths) * hyper_network(512)
    return total + sum(
        65 * (2 * max(d // 64, 1) * (d + d // 16) + d + d // 16 + 2 * d) for d in blocks(c, depths)
    )


def lite(c, depths, heads):
    n, r = c // 2, c // 8
    total = hyper_network(1024) + 65 * (2 * r * (c + n) + c + n + 2 * c) + 4 * 512
    scales = [d // c for d in blocks(c, depths)]
    return total + sum(512 * s + (s**3 + 2 * s**2 if s > 1 else 0) for s in scales)


def adaptformer(c, depths, heads):
    return 4 * sum(2 * 64 * d + 64 + d for d in blocks(c, depths))


def mtlora(rank):
    def formula(c, depths, heads):
        shared = rank * sum(4 * d + 2 * d + 5 * d + 5 * d for d in blocks(c, depths))  # qkv, proj, fc1, fc2
        own = 4 * 4 * sum(2 * d + 5 * d + 5 * d for d in (c, 2 * c, 4 * c, 8 * c))
        embedding = 3 * 16 * c + c
        reductions = sum(i * i // 2 for i in merging(c))
        return shared + own + norms(c, depths) + table_entries(c, depths, heads) + embedding + reductions

    return formula


ROWS = {
    'bitfit': (BitFit, {}, bitfit, 299_112),
    'relative bias': (RelativeBias, {}, relative_bias, 93_288),
    'vpt-shallow': (VisualPrompt, {}, vpt_shallow, 19_200),
    'vpt-deep': (VisualPrompt, dict(deep=True), vpt_deep, 883_200),
    'phm layer': (PHMAdapter, {}, phm, 594_000),
    'compacter': (Compacter, {}, compacter, 229_664),
    'compacter++': (Compacter, dict(positions=('ffn',)), compacter_plus, 114_848),
    'lora': (LoRA, {}, lora, 317_952),
    'adapter': (BottleneckAdapter, {}, adapter, 8_688_000),
    'low-rank adapter': (LowRankAdapter, {}, low_rank_adapter, 339_696),
    'shared adapter': (BottleneckAdapter, dict(per_task=False, tuned=('norm',)), shared_adapter, 2_195_232),
    'hyperformer': (HyperFormer, {}, hyperformer, 72_772_304),
    'polyhistor': (Polyhistor, {}, polyhistor, 6_410_684),
    'polyhistor-lite': (PolyhistorLite, {}, lite, 413_552),
    # beside the paper's table
    'plain lora': (LoRA, dict(pre_norm=False), plain_lora, 282_624),
    'adaptformer': (AdaptFormer, {}, adaptformer, 2_281_728),
    'mtlora-16': (MTLoRA, dict(rank=16), mtlora(16), 3_006_522),
    'mtlora-32': (MTLoRA, dict(rank=32), mtlora(32), 4_137_018),
    'mtlora-64': (MTLoRA, dict(rank=64), mtlora(64), 6_398_010),
}


@pytest.mark.parametrize('row', ROWS)
def test_swin_tiny_has_the_tables_count(row, layouts):
    method, options, formula, expected = ROWS[row]
    assert count(method(layout=layouts('tiny'), tasks=TASKS, **options)) == expected
    assert formula(*SWIN['tiny']) == expected


@pytest.mark.parametrize('arch', ['small', 'base', 'large'])
@pytest.mark.parametrize('row', ROWS)
def test_every_swin_follows_the_formula(row, arch, layouts):
    method, options, formula, _ = ROWS[row]
    layout = layouts(arch)
    with torch.device('meta'):  # HyperFormer on Swin-L has some 500 M parameters
        built = method(layout=layout, tasks=TASKS, **options)
    assert count(built) == formula(*SWIN[arch])


@pytest.mark.parametrize('row', ['bitfit', 'lora', 'phm layer', 'compacter', 'low-rank adapter'])
def test_one_copy_for_all_tasks_costs_a_quarter(row, layouts):
    method, options, _, expected = ROWS[row]
    shared = method(layout=layouts('tiny'), tasks=TASKS, per_task=False, **options)
    assert count(shared) == expected / 4


def test_mtlora_accounts_for_the_published_totals(layouts):
    """4.95, 6.08 and 8.34 M with that paper's decoders, 1.94 M; each figure is rounded to two digits."""
    decoders = 1.94
    for rank, published in ((16, 4.95), (32, 6.08), (64, 8.34)):
        total = count(MTLoRA(layout=layouts('tiny'), tasks=TASKS, rank=rank)) / 1e6 + decoders
        assert abs(total - published) < 0.01, rank


def test_the_layout_lists_every_parameter_of_the_encoder(layouts):
    """Nothing of the stock network is out of reach: sizes add up to the whole encoder."""
    sizes = sum(torch.Size(p.shape).numel() for p in layouts('tiny').parameters)
    assert sizes == 27_517_818
    assert len({p.site for p in layouts('tiny').parameters}) == len(layouts('tiny').parameters)
    names = {p.site.position for p in swin_layout(AdaptedSwin('tiny')).parameters if p.site.block is not None}
    stock = AdaptedSwin('tiny').stages[0].blocks[0].named_parameters()
    assert names == {name for name, _ in stock}
