"""Generated adapter weights, against a naive generator written block by block, task by task, from the formulas."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from mmseg_polyhistor.adapters import (
    AdapterWeights,
    BackboneLayout,
    HyperAdapter,
    HyperFormer,
    Polyhistor,
    PolyhistorLite,
    Site,
)

LAYOUT = BackboneLayout((16, 32, 64), (1, 2, 1))
TASKS = ('a', 'b', 'c')
NORMS = ('post_gain', 'post_shift', 'pre_gain', 'pre_shift')


def naive(m: HyperAdapter, task: str, site: Site) -> AdapterWeights:
    """The weights of one task at one site; every Kronecker product by torch.kron, every head by F.linear."""
    stage, block, position = site
    p = m.positions.index(position)
    lite = m.kernels is not None
    net = m.code_nets[0 if m.shared else stage]
    heads = m.heads[0 if (m.shared and lite) else stage]
    g_net = 0 if m.shared else block
    g_head = 0 if m.shared else block * len(m.positions) + p
    s = m.scales[stage]

    templates = []
    for i in range(s):
        v = [m.task_embeddings[task]]
        if m.layer_embeddings is not None:
            v.append(m.layer_embeddings[stage][block, i])
        if m.position_embeddings is not None:
            v.append(m.position_embeddings[p])
        x = F.relu(F.linear(torch.cat(v), net.fc1.weight[g_net], net.fc1.bias[g_net]))
        x = F.linear(x, net.fc2.weight[g_net], net.fc2.bias[g_net])
        code = F.layer_norm(x, x.shape, net.norm_weight[g_net], net.norm_bias[g_net])
        out = {k: F.linear(code, h.weight[g_head], h.bias[g_head]) for k, h in heads.maps.items()}
        t = {}
        width = m.layout.widths[0] if lite else m.layout.widths[stage]
        n = out['down_bias'].numel()
        for name, rows, cols in (('down', n, width), ('up', width, n)):
            if name in out:
                t[name] = out[name].view(rows, cols)
            else:
                t[name] = out[f'{name}_p'].view(rows, -1) @ out[f'{name}_q'].view(-1, cols)
        for name in ('down_bias', 'up_bias', *NORMS):
            t[name] = out.get(name)
        templates.append(t)
    if s == 1:
        t = templates[0]
        return AdapterWeights(t['down'], t['down_bias'], t['up'], t['up_bias'], *(t[name] for name in NORMS))

    owner = m.kernels[stage].sets[task if m.kernels[stage].per_task else 'all']

    def lift(kind: str, name: str):
        if templates[0][name] is None:
            return None
        total = 0
        for i in range(s):
            k, t = owner[kind][block, p, i], templates[i][name]
            t = t if t.dim() == 2 else t[:, None]
            total = total + (
                torch.kron(k, t) if m.kernels[stage].order == 'kernel_first' else torch.kron(t, k)
            )
        return total if templates[0][name].dim() == 2 else total[:, 0]

    return AdapterWeights(
        lift('weight', 'down'),
        lift('bias', 'down_bias'),
        lift('weight', 'up'),
        lift('bias', 'up_bias'),
        *(lift('norm', name) for name in NORMS),
    )


SWITCHES = [
    dict(rank=rank, shared=shared, scaling_kernels=kernels, positions=positions)
    for rank, shared, kernels, positions in itertools.product(
        (None, -2), (False, True), (False, True), (('ffn',), ('attn', 'ffn'))
    )
] + [
    dict(rank=-2, shared=True, scaling_kernels=True, kron_order='template_first'),
    dict(rank=-2, shared=True, scaling_kernels=True, kernels_per_task=True),
    dict(rank=-2, shared=True, scaling_kernels=True, pre_norm=True),
    dict(pre_norm=True, post_norm=False),
]


@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_generated_weights_equal_the_naive_ones(switches):
    torch.manual_seed(0)
    m = HyperAdapter(layout=LAYOUT, tasks=TASKS, ratio=4, **switches).double()
    for p in m.parameters():  # no zero biases: every parameter must matter
        torch.nn.init.normal_(p, std=0.5)
    weights = m.generate(('c', 'a'))
    assert set(weights) == set(LAYOUT.sites(m.positions))
    for site, w in weights.items():
        for t, task in enumerate(('c', 'a')):
            for name, got, want in zip(w._fields, w, naive(m, task, site), strict=True):
                if want is None:
                    assert got is None
                else:
                    torch.testing.assert_close(got[t], want, msg=f'{site} {task} {name}')


@pytest.mark.parametrize('switches', SWITCHES, ids=str)
def test_gradients_equal_the_naive_ones_and_reach_every_parameter(switches):
    torch.manual_seed(0)
    m = HyperAdapter(layout=LAYOUT, tasks=TASKS, ratio=4, **switches).double()
    for p in m.parameters():
        torch.nn.init.normal_(p, std=0.5)
    weights = m.generate(TASKS)
    probes = {site: [None if f is None else torch.randn_like(f) for f in w] for site, w in weights.items()}

    def total(get):
        return sum(
            (f * q).sum() for s in probes for f, q in zip(get(s), probes[s], strict=True) if f is not None
        )

    def naive_stacked(site):
        return [
            None if f[0] is None else torch.stack(f)
            for f in zip(*(naive(m, t, site) for t in TASKS), strict=True)
        ]

    names, params = zip(*m.named_parameters(), strict=True)
    got = torch.autograd.grad(total(lambda s: weights[s]), params)
    want = torch.autograd.grad(total(naive_stacked), params)
    for name, g, w in zip(names, got, want, strict=True):
        torch.testing.assert_close(g, w, msg=name)
        assert g.abs().sum() > 0, name


def test_presets_are_points_of_one_design():
    torch.manual_seed(0)
    for preset, switches in (
        (HyperFormer, dict(ratio=8, positions=('attn', 'ffn'))),
        (Polyhistor, dict(ratio=16, rank=-4)),
        (PolyhistorLite, dict(ratio=2, rank=-4, shared=True, scaling_kernels=True)),
    ):
        a = preset(layout=LAYOUT, tasks=TASKS)
        b = HyperAdapter(layout=LAYOUT, tasks=TASKS, **switches)
        assert {k: v.shape for k, v in a.state_dict().items()} == {
            k: v.shape for k, v in b.state_dict().items()
        }


def test_initial_values_are_the_documented_ones():
    torch.manual_seed(0)
    m = PolyhistorLite(layout=BackboneLayout((96, 192, 384, 768), (2, 2, 6, 2)), tasks=TASKS)
    maps = m.heads[0].maps
    assert maps['up_p'].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert all(h.bias.abs().max() == 0 for h in maps.values())
    for embedding in m.task_embeddings.values():
        assert embedding.std().item() == pytest.approx(1, rel=0.2)
    assert m.layer_embeddings[3].std().item() == pytest.approx(1, rel=0.05)
    assert m.kernels[3].sets['all']['weight'].std().item() == pytest.approx(1, rel=0.1)
    assert torch.equal(m.code_nets[0].norm_weight, torch.ones(1, 64))
    # torch's default for a Linear of 1024 inputs: uniform within 1 / 32
    assert m.code_nets[0].fc1.weight.abs().max() <= 1 / 32 < m.code_nets[0].fc1.weight.abs().max() * 1.01
    gained = Polyhistor(layout=LAYOUT, tasks=TASKS, post_norm_gain=1.0)
    w = gained.generate(('a',))[Site(0, 0, 'ffn')]
    assert w.post_gain.mean().item() == pytest.approx(1, abs=0.1)
    assert w.post_shift.mean().item() == pytest.approx(0, abs=0.1)
    both = HyperAdapter(
        layout=LAYOUT, tasks=TASKS, ratio=4, shared=True, positions=('attn', 'ffn'), pre_norm=True
    )
    assert both.position_embeddings.std().item() == pytest.approx(1, rel=0.1)
    w = both.generate(('a',))[Site(0, 0, 'ffn')]
    assert w.pre_gain.mean().item() == pytest.approx(1, abs=0.1)
    assert w.post_gain.mean().item() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize('rank', [1, 4, -2])
def test_matched_factors_make_matrices_as_large_as_whole_ones(rank):
    """Not so without it. Root mean squares of 256 x 128 entries, drawn for eight tasks; the codes are LayerNormed."""
    layout, tasks = BackboneLayout((256,), (1,)), tuple('abcdefgh')

    def sizes(**switches):
        torch.manual_seed(0)
        w = HyperAdapter(layout=layout, tasks=tasks, ratio=2, **switches).generate(tasks)[Site(0, 0, 'ffn')]
        return [t.square().mean().sqrt().item() for t in (w.down_weight, w.up_weight, w.up_bias)]

    *whole, bias = sizes()
    *matched, matched_bias = sizes(rank=rank, matched_init=True)
    *plain, _ = sizes(rank=rank)
    assert matched == pytest.approx(whole, rel=0.15)
    assert max(plain) < min(whole)
    assert matched_bias == pytest.approx(bias, rel=0.15)  # what has no factors starts as before


def test_adding_a_task_changes_nothing_for_the_others():
    torch.manual_seed(0)
    small = PolyhistorLite(layout=LAYOUT, tasks=('a', 'b'))
    big = PolyhistorLite(layout=LAYOUT, tasks=('b', 'new', 'a'))
    big.load_state_dict(small.state_dict(), strict=False)
    for site, w in small.generate(('a', 'b')).items():
        for x, y in zip(w, big.generate(('a', 'b'))[site], strict=True):
            assert (x is None and y is None) or torch.equal(x, y)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, rank=0), r'rank.*got 0'),
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, ratio=32), r'ratio 32 gives .*width 0 on 16'),
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, ratio=5), r'5 does not divide 16'),
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, rank=3), r'rank 3 .* 1 x 16'),
        (
            lambda: PolyhistorLite(layout=BackboneLayout((16, 40), (1, 1)), tasks=TASKS),
            r'multiples of the first one, 16; got \[40\]',
        ),
        (lambda: PolyhistorLite(layout=LAYOUT, tasks=TASKS, kron_order='x'), r"kron_order .*'x'"),
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, kernels_per_task=True), r'scaling_kernels=True'),
        (lambda: HyperAdapter(layout=LAYOUT, tasks=TASKS, ratio=4, matched_init=True), r'needs a rank'),
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, matched_init=1), r'matched_init .*got 1'),
        (lambda: Polyhistor(layout=LAYOUT, tasks=()), r'non-empty'),
        (lambda: Polyhistor(layout=LAYOUT, tasks=('a', 'a')), r'different'),
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, positions='ffn'), r'sequence'),
        (
            lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, positions=('mlp',)),
            r"unknown \['mlp'\]; a non-empty subset",
        ),
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, insertion='x'), r"insertion .*got 'x'"),
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS, activation='x'), r"unknown activation 'x'"),
        (lambda: Polyhistor(layout=LAYOUT, tasks=TASKS).generate(('z',)), r"unknown tasks \['z'\]"),
    ],
)
def test_unfit_settings_raise_an_error_that_prints_the_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_kernels_per_task_cost_what_the_formula_says():
    layout = BackboneLayout((96, 192, 384, 768), (2, 2, 6, 2))
    one = PolyhistorLite(layout=layout, tasks=TASKS)
    each = PolyhistorLite(layout=layout, tasks=TASKS, kernels_per_task=True)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (one, each)]
    # s^3 entries for the weights, s^2 for the biases, s^2 for gain and shift, in every block with s > 1
    kernels = sum(depth * (s**3 + 2 * s**2) for s, depth in ((2, 2), (4, 6), (8, 2)))
    assert sizes[1] - sizes[0] == 2 * kernels and kernels == 1424 + 232 + 232
