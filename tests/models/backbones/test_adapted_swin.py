"""AdaptedSwin against mmpretrain's Swin and against a naive pass per task."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmpretrain.models import SwinTransformer
from mmseg.registry import MODELS
from torch import nn

from mmseg_polyhistor.adapters import AdapterMethod, LowRankWeights, Prompts, Site
from mmseg_polyhistor.models.backbones import AdaptedSwin

ARCH = dict(embed_dims=24, depths=[1, 2, 1], num_heads=[2, 3, 4])
TASKS = ('semseg', 'normals', 'saliency')
METHODS = [
    dict(type='BottleneckAdapter', ratio=2),
    dict(type='LowRankAdapter', ratio=4, rank=-2, activation='tanh'),
    dict(type='HyperFormer', ratio=4),
    dict(type='Polyhistor', ratio=4, rank=-2),
    dict(type='PolyhistorLite', ratio=2),
    dict(type='PolyhistorLite', ratio=2, positions=('attn', 'ffn'), insertion='parallel'),
    dict(type='BottleneckAdapter', ratio=2, positions=('attn',), scale=0.5, pre_norm=True),
]


def build(**kwargs) -> AdaptedSwin:
    torch.manual_seed(0)
    model = AdaptedSwin(ARCH, **kwargs)
    for name, p in model.named_parameters():  # no zeros or ones by chance: every weight must matter
        if p.dim() == 1 or 'relative_position' in name:
            nn.init.normal_(p, mean=float('norm' in name or 'gain' in name), std=0.3)
    return model


def blocks(model: AdaptedSwin) -> list[nn.Module]:
    return [block for stage in model.stages for block in stage.blocks]


def stock(**kwargs) -> SwinTransformer:
    return SwinTransformer(ARCH, out_indices=(0, 1, 2), pad_small_map=True, **kwargs)


@pytest.mark.parametrize('size', [(64, 64), (65, 97), (32, 32), (7, 30), (1, 1), (224, 56)])
def test_without_adapters_it_equals_mmpretrains_swin_to_the_bit(size):
    ours, theirs = build(fused=False).eval(), stock()
    theirs.load_state_dict(ours.state_dict())
    theirs.eval()
    x = torch.randn(2, 3, *size)
    out = ours(x)
    assert isinstance(out, tuple)
    for a, b in zip(out, theirs(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    'options',
    [
        dict(use_abs_pos_embed=True, img_size=64),
        dict(drop_rate=0.5),
        dict(stage_cfgs=dict(block_cfgs=dict(ffn_cfgs=dict(layer_scale_init_value=0.5)))),
        dict(norm_cfg=dict(type='LN', eps=0.1)),
        dict(stage_cfgs=dict(block_cfgs=dict(norm_cfg=dict(type='LN', eps=0.1)))),
        dict(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(attn_drop=0.4)))),
        dict(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(proj_drop=0.4)))),
        dict(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(qkv_bias=False)))),
        dict(stage_cfgs=dict(downsample_cfg=dict(norm_cfg=dict(type='LN', eps=0.1)))),
    ],
    ids=[
        'positions',
        'drop',
        'layer-scale',
        'output-norms',
        'block-norms',
        'attn-drop',
        'proj-drop',
        'no-bias',
        'merging',
    ],
)
def test_the_stock_options_act_as_in_mmpretrain(options):
    ours, theirs = build(fused=False, **options), stock(**options)
    with torch.no_grad():
        for name, p in ours.named_parameters():
            if 'pos_embed' in name or 'gamma' in name:
                nn.init.normal_(p)
    theirs.load_state_dict(ours.state_dict())
    ours.train()
    theirs.train()
    x = torch.randn(2, 3, 40, 72)
    torch.manual_seed(1)
    out = ours(x)
    torch.manual_seed(1)
    for a, b in zip(out, theirs(x), strict=True):
        assert torch.equal(a, b)
    plain = build()
    plain.load_state_dict(ours.state_dict(), strict=False)
    torch.manual_seed(1)
    assert not torch.allclose(plain.train()(x)[-1], out[-1], atol=1e-3)


@pytest.mark.parametrize('fused', [False, True])
def test_windows_of_single_stages_act_as_in_mmpretrain(fused):
    options = dict(stage_cfgs=[dict(window_size=w) for w in (7, 5, 3)])
    ours, theirs = build(fused=fused, **options).eval(), stock(**options)
    theirs.load_state_dict(ours.state_dict())
    theirs.eval()
    x = torch.randn(2, 3, 40, 72)
    for a, b in zip(ours(x), theirs(x), strict=True):
        tolerance = 1e-4 if fused else 0
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    assert ours.architecture()['window_size'] == [7, 5, 3]


def test_output_norms_of_tasks_are_like_the_stock_ones():
    model = build(tasks=TASKS, norm_cfg=dict(type='LN', eps=0.1))
    norms = [norm for task in TASKS for norm in model.output_norms[task]]
    assert {norm.eps for norm in norms} == {0.1} and len({id(norm.weight) for norm in norms}) == 9


class Elsewhere(AdapterMethod):
    """Emits one change, at a site given from outside."""

    change = None

    def generate(self, tasks):
        return dict([self.change])


@pytest.mark.parametrize(
    ('site', 'change', 'message'),
    [
        (
            Site(0, 0, 'attn.qkv'),
            LowRankWeights(torch.zeros(1, 1, 24), torch.zeros(1, 72, 1)),
            'attn.w_msa.qkv',
        ),
        (
            Site(0, None, 'patch_embed.projection'),
            LowRankWeights(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)),
            'linear maps there: ',
        ),
        (Site(7, 0, 'norm1.bias'), torch.zeros(1, 24), 'parameters there: none'),
        (Site(0, 0, 'norm3.bias'), torch.zeros(1, 24), 'norm1.weight.*norm2.bias'),
        (Site(0, 1, 'ffn'), torch.zeros(1, 24), r'blocks per stage: \(1, 2, 1\)'),
        (Site(0, None, 'attn'), torch.zeros(1, 24), 'blocks per stage'),
        (Site(3, 0, 'prompts'), Prompts(torch.zeros(1, 2, 24), True), 'blocks per stage'),
    ],
    ids=lambda v: v.key if isinstance(v, Site) else '',
)
def test_a_change_of_a_place_that_does_not_exist_is_refused(site, change, message):
    model = build(tasks=TASKS)
    model.adapters = Elsewhere(layout=model.layout, tasks=TASKS, per_task=False)
    model.adapters.change = site, change
    with pytest.raises(ValueError, match=f'Elsewhere changes Site.*{message}'):
        model(torch.zeros(1, 3, 32, 32))


def test_state_dict_keys_are_the_stock_ones():
    assert set(build().state_dict()) == set(stock().state_dict())
    extra = set(build(tasks=TASKS, adapter=METHODS[4]).state_dict()) - set(stock().state_dict())
    assert all(k.startswith(('adapters.', 'output_norms.')) for k in extra)
    assert len(SwinTransformer('tiny', out_indices=(0, 1, 2, 3)).state_dict()) == 189


def test_stochastic_depth_equals_mmpretrains():
    ours, theirs = build(fused=False, drop_path_rate=0.5), stock(drop_path_rate=0.5)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, 64, 64)
    torch.manual_seed(1)
    a = ours.train()(x)
    torch.manual_seed(1)
    theirs.train()
    b = theirs(x)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert not torch.equal(a[-1], ours(x)[-1])


def naive_features(model: AdaptedSwin, x: torch.Tensor, task: str) -> list[torch.Tensor]:
    """One pass for one task through stock blocks, adapters from plain formulas."""
    method = model.adapters
    weights = method.generate((task,))

    def adapt(h, site):
        w = weights.get(site)
        if w is None:
            return h
        z = h
        if w.pre_gain is not None:
            z = nn.functional.layer_norm(z, z.shape[-1:], w.pre_gain[0], w.pre_shift[0])
        z = method.activation(nn.functional.linear(z, w.down_weight[0], w.down_bias[0]))
        z = nn.functional.linear(z, w.up_weight[0], w.up_bias[0])
        if w.post_gain is not None:
            z = nn.functional.layer_norm(z, z.shape[-1:], w.post_gain[0], w.post_shift[0])
        return method.scale * (h + z)

    serial = method.insertion == 'serial'
    x, hw = model.patch_embed(x)
    outs = []
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage.blocks):
            for position, branch in (
                ('attn', lambda v, block=block, hw=hw: block.attn(block.norm1(v), hw)),
                ('ffn', lambda v, block=block: block.ffn.layers(block.norm2(v))),
            ):
                site = Site(i, j, position)
                x = x + adapt(branch(x), site) if serial else adapt(x, site) + branch(x)
        y = model.output_norms[task][i](x)
        outs.append(y.view(-1, *hw, y.shape[-1]).permute(0, 3, 1, 2))
        if stage.downsample is not None:
            x, hw = stage.downsample(x, hw)
    return outs


@pytest.mark.parametrize('adapter', METHODS, ids=lambda a: f'{a["type"]}-{len(a)}')
def test_task_streams_equal_one_naive_pass_per_task(adapter):
    model = build(tasks=TASKS, adapter=adapter).double().eval()
    x = torch.randn(2, 3, 48, 40, dtype=torch.float64)
    out = model(x)
    assert list(out) == list(TASKS)
    for task in TASKS:
        for a, b in zip(out[task], naive_features(model, x, task), strict=True):
            torch.testing.assert_close(a, b)
    some = model(x, tasks=('saliency', 'semseg'))
    assert list(some) == ['saliency', 'semseg']
    torch.testing.assert_close(some['saliency'][-1], out['saliency'][-1])


@pytest.mark.parametrize('insertion', ['serial', 'parallel'])
def test_stochastic_depth_drops_the_adapter_of_a_serial_branch_and_keeps_a_parallel_one(insertion):
    adapter = dict(type='BottleneckAdapter', ratio=2, positions=('attn', 'ffn'), insertion=insertion)
    model = build(tasks=TASKS, adapter=adapter).eval()

    class Drop(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    for block in blocks(model):
        block.attn.drop = block.ffn.dropout_layer = Drop()
    images = torch.randn(1, 3, 32, 32)
    got = model(images)
    weights = model.adapters.generate(TASKS)
    for t, task in enumerate(TASKS):
        x, hw = model.patch_embed(images)
        for i, stage in enumerate(model.stages):
            for j in range(len(stage.blocks)):
                for position in ('attn', 'ffn'):
                    if insertion == 'parallel':
                        site = weights[Site(i, j, position)]
                        one = type(site)(*(None if w is None else w[t : t + 1] for w in site))
                        x = model.adapters.adapt(x[None], one)[0]
            want = model.output_norms[task][i](x).transpose(1, 2).unflatten(2, hw)
            torch.testing.assert_close(got[task][i], want)
            if stage.downsample is not None:
                x, hw = stage.downsample(x, hw)


@pytest.mark.parametrize('adapter', METHODS, ids=lambda a: f'{a["type"]}-{len(a)}')
def test_gradients_equal_the_naive_ones_also_with_recomputation(adapter):
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.manual_seed(3)
    model = build(tasks=TASKS, adapter=adapter, drop_path_rate=0.0).double().train()
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    probes = {t: [torch.randn_like(m) for m in maps] for t, maps in model(x).items()}

    def grads(maps_of):
        loss = sum((m * q).sum() for t in TASKS for m, q in zip(maps_of(t), probes[t], strict=True))
        return torch.autograd.grad(loss, list(trained.values()))

    want = grads(lambda t: naive_features(model, x, t))
    for with_cp in (False, True):
        model.with_cp = with_cp
        out = model(x)
        for name, g, w in zip(trained, grads(lambda t, out=out: out[t]), want, strict=True):
            torch.testing.assert_close(g, w, msg=name)
            assert g.abs().sum() > 0, name


def test_recomputation_repeats_the_stochastic_depth():
    model = build(tasks=TASKS, adapter=METHODS[4], drop_path_rate=0.5).train()
    x = torch.randn(3, 3, 32, 32)
    grads = []
    for with_cp in (False, True):
        model.with_cp = with_cp
        model.zero_grad()
        torch.manual_seed(5)
        sum(m.square().sum() for maps in model(x).values() for m in maps).backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_recomputation_runs_every_block_behind_the_first_adapter_twice():
    model = build(tasks=TASKS, adapter=METHODS[4]).train()
    runs = []
    for i, block in enumerate(blocks(model)):
        block.ffn.layers[0][1].register_forward_hook(lambda m, args, out, i=i: runs.append(i))
    x = torch.randn(1, 3, 32, 32)
    for with_cp, times in ((False, 1), (True, 2)):
        runs.clear()
        model.with_cp = with_cp
        sum(m.sum() for maps in model(x).values() for m in maps).backward()
        assert sorted(runs) == sorted([0, 1, 2, 3] * times)
    runs.clear()
    with torch.no_grad():
        model(x)
    assert runs == [0, 1, 2, 3]


def test_freezing_goes_by_ownership():
    model = build(tasks=TASKS, adapter=METHODS[3])
    for name, p in model.named_parameters():
        assert p.requires_grad == name.startswith(('adapters.', 'output_norms.')), name
    assert all(p.requires_grad for p in build(frozen=False).parameters())
    for name, p in build().named_parameters():
        assert p.requires_grad == name.startswith('norm'), name
    model.train()
    assert not model.stages[0].blocks[0].norm1.weight.requires_grad


@pytest.mark.parametrize(
    ('adapter', 'rows'),
    [
        (None, [2, 2, 2, 2]),
        (METHODS[4], [2, 6, 6, 6]),  # behind the first feed-forward net
        (dict(type='BottleneckAdapter', ratio=2, per_task=False, tuned=('norm',)), [2, 2, 2, 2]),
        (dict(type='BitFit'), [6, 6, 6, 6]),  # the patch embedding has biases
        (
            dict(type='MTLoRA', rank=2, task_rank=1),
            [8, 2, 8, 6],
        ),  # shared stream and tasks in each last block
    ],
    ids=lambda v: v['type'] if isinstance(v, dict) else None,
)
def test_nothing_in_front_of_the_first_change_of_a_task_is_computed_per_task(adapter, rows):
    """Rows of the batch in each block's feed-forward net, for two images and three tasks."""
    model = build(tasks=TASKS, adapter=adapter)
    seen = []
    for block in blocks(model):
        block.ffn.layers[0][1].register_forward_hook(lambda m, args, out: seen.append(out.shape[:2].numel()))
    out = model(torch.randn(2, 3, 32, 32))
    assert seen == rows and list(out) == list(TASKS)


def test_without_what_the_method_changes_it_is_the_frozen_network():
    model = build(tasks=TASKS, adapter=METHODS[4])
    plain = build(tasks=TASKS)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith('adapters.')})
    x = torch.randn(2, 3, 40, 33)
    out, want = model(x, adapted=False), plain(x)
    for task in TASKS:
        assert all(torch.equal(a, b) for a, b in zip(out[task], want[task], strict=True))
        assert not torch.allclose(out[task][-1], model(x)[task][-1])


def test_weights_are_generated_once_per_forward():
    model = build(tasks=TASKS, adapter=METHODS[4])
    calls = []
    generate = model.adapters.generate
    model.adapters.generate = lambda tasks: calls.append(tasks) or generate(tasks)
    model(torch.randn(1, 3, 32, 32))
    assert calls == [TASKS]


def test_counts_on_swin_tiny():
    expected = {None: 0, 'BottleneckAdapter': 8_688_000, 'LowRankAdapter': 339_696, 'Polyhistor': 6_410_684,
                'PolyhistorLite': 413_552}  # fmt: skip
    tasks = ('semseg', 'human_parts', 'saliency', 'normals')
    for name, n in expected.items():
        model = AdaptedSwin(tasks=tasks, adapter=name and dict(type=name))
        norms = sum(p.numel() for p in model.output_norm_parameters())
        assert norms == 4 * 2_880
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) - norms == n
    full = AdaptedSwin(tasks=tasks, frozen=False)
    assert sum(p.numel() for p in full.parameters()) - 4 * 2_880 == 27_517_818


def test_it_serves_as_backbone_of_a_stock_segmentor():
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor'),
            backbone=dict(type='AdaptedSwin', arch=ARCH, adapter=dict(type='PolyhistorLite', ratio=2)),
            decode_head=dict(
                type='SegformerHead', in_channels=[24, 48, 96], in_index=[0, 1, 2], channels=16, num_classes=5,
                norm_cfg=dict(type='BN'),
            ),
            test_cfg=dict(mode='whole'),
        )
    )  # fmt: skip
    assert model(torch.randn(2, 3, 64, 64), mode='tensor').shape == (2, 5, 16, 16)


def test_one_named_task_gives_a_tuple():
    assert isinstance(build(tasks=('semseg',), adapter=METHODS[0])(torch.randn(1, 3, 32, 32)), tuple)


@pytest.mark.parametrize(
    'init_cfg',
    [
        [
            dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.5),
            dict(type='Constant', layer='LayerNorm', val=3.0),
        ],
        dict(type='Normal', layer='Module', std=0.5, bias=0.5),  # of all plain modules that have a weight
    ],
    ids=['layers', 'all'],
)
def test_init_weights_keeps_the_adapters_initial_values_and_moves_the_encoder(init_cfg):
    model = AdaptedSwin(
        ARCH,
        tasks=TASKS,
        adapter=dict(type='BottleneckAdapter', ratio=2, post_norm_gain=0.0),
        init_cfg=init_cfg,
    )
    model.init_weights()
    assert (model.stages[0].blocks[0].attn.w_msa.qkv.bias == 0.5).all()
    w = model.adapters.generate(TASKS)[Site(0, 0, 'ffn')]
    assert w.post_gain.abs().max() == 0
    assert w.up_bias.abs().max() == 0
    assert w.up_weight.abs().max() < 0.06  # N(0, 0.01^2)


def test_a_second_init_weights_changes_nothing():
    model = AdaptedSwin(ARCH, tasks=TASKS, adapter=METHODS[4])
    model.init_weights()
    for p in model.parameters():  # as after a training
        nn.init.normal_(p)
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_deepcopy_and_state_dict_round_trip():
    model = build(tasks=TASKS, adapter=METHODS[4]).eval()
    x = torch.randn(1, 3, 32, 32)
    twin = build(tasks=TASKS, adapter=METHODS[4]).eval()
    for p in twin.parameters():
        nn.init.normal_(p)
    twin.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), twin):
        for task, maps in model(x).items():
            assert all(torch.equal(a, b) for a, b in zip(maps, other(x)[task], strict=True))


def test_moving_average_of_the_weights():
    model = build(tasks=TASKS, adapter=METHODS[4])
    average = ExponentialMovingAverage(model, momentum=0.25)
    start = copy.deepcopy(model.state_dict())
    average.update_parameters(model)  # the first call copies
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 1
    average.update_parameters(model)
    averaged = dict(average.module.named_parameters())
    for name, p in model.named_parameters():
        torch.testing.assert_close(averaged[name], start[name] + (0.25 if p.requires_grad else 0.0))
    average.eval()
    assert list(average(torch.randn(1, 3, 32, 32))) == list(TASKS)


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(tasks=('a', 'a')), ValueError, 'different names'),
        (dict(tasks=()), ValueError, 'different names'),
        (dict(tasks='semseg'), ValueError, "got 'semseg'"),
        (dict(out_indices=(3,)), TypeError, 'out_indices'),
        (dict(frozen_stages=1), TypeError, 'frozen_stages'),
        (dict(adapter='Polyhistor'), ValueError, "got 'Polyhistor'; methods of this package: BitFit"),
        (dict(adapter=dict(type='Polyhistr')), ValueError, "got {'type': 'Polyhistr'}; methods of this"),
        (dict(adapter=dict(type='AllMLPHead', in_channels=[8])), ValueError, "'AllMLPHead'.*; methods of"),
        (dict(adapter=dict(type='LoRA', rnk=4)), ValueError, r"LoRA takes no \['rnk'\]; it takes .*'rank'"),
        (dict(adapter=dict(type='LoRA', tasks=('a',))), ValueError, r"LoRA takes no \['tasks'\]"),
        (dict(tasks=('keys',)), ValueError, "'keys' cannot be a key"),
        (
            dict(window_size=[7, 7, 7]),
            ValueError,
            r'AdaptedSwin: window_size must be a positive int, got \[7, 7, 7\]; .*stage_cfgs=\[dict\(window_size=',
        ),
        (dict(window_size=0), ValueError, 'window_size must be a positive int, got 0'),
        (dict(frozen='False'), ValueError, "frozen must be True or False, got 'False'"),
        (dict(adapter=dict(ratio=2)), ValueError, "got {'ratio': 2}; methods of"),
        (dict(init_cfg=dict(type='Pretrained')), ValueError, 'checkpoint=<path or URL>, got'),
        (dict(init_cfg=dict(type='Pretrained', checkpoint=None)), ValueError, "'checkpoint': None"),
        (
            dict(init_cfg=[dict(type='Normal'), dict(type='Pretrained', checkpoint='a.pth')]),
            ValueError,
            'sets every weight and must stand alone',
        ),
    ],
)
def test_unfit_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        AdaptedSwin(ARCH, **kwargs)


@pytest.mark.parametrize('adapter', [None, METHODS[0], METHODS[4]])
@pytest.mark.parametrize(
    ('tasks', 'message'),
    [
        (('edge',), r"unknown tasks \['edge'\]"),
        (('semseg', 'semseg'), 'different names'),
        ('semseg', "different names, got 'semseg'"),
        ((), 'non-empty'),
    ],
)
def test_unfit_tasks_at_forward(adapter, tasks, message):
    with pytest.raises(ValueError, match=message):
        build(tasks=TASKS, adapter=adapter)(torch.zeros(1, 3, 32, 32), tasks=tasks)


@pytest.mark.parametrize('adapter', METHODS, ids=lambda a: f'{a["type"]}-{len(a)}')
def test_autocast_leaves_the_generation_of_weights_in_full_precision(adapter):
    model = build(tasks=TASKS, adapter=adapter)
    want = model.adapters.generate(TASKS)
    seen = []
    generate = model.adapters.generate
    model.adapters.generate = lambda tasks: seen.append(generate(tasks)) or seen[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        model(torch.randn(1, 3, 32, 32))
    for site, weights in want.items():
        for a, b in zip(seen[0][site], weights, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


def test_it_runs_on_the_meta_device():
    model = build(tasks=TASKS, adapter=METHODS[4]).to('meta')
    assert model(torch.zeros(1, 3, 64, 48, device='meta'))['normals'][2].shape == (1, 96, 4, 3)


def test_autocast_stays_close():
    model = build(tasks=TASKS, adapter=METHODS[4]).eval()
    x = torch.randn(1, 3, 64, 64)
    want = model(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = model(x)
    for task in TASKS:
        for a, b in zip(got[task], want[task], strict=True):
            assert (a.float() - b).abs().mean() < 0.05 * b.abs().mean()


class LateScale(AdapterMethod):
    """Scales the features of each task behind the last feed-forward net, and nothing before."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scales = nn.Parameter(torch.rand(len(self.tasks), 96))

    def generate(self, tasks):
        return {Site(2, 0, 'ffn'): self.scales}

    def adapt(self, x, weights):
        return x * weights[:, None, None]


def test_nothing_in_front_of_the_first_change_is_kept_for_the_backward_pass():
    model = build(tasks=TASKS).train()
    for norms in model.output_norms.values():
        norms.requires_grad_(False)
    model.adapters = LateScale(layout=model.layout, tasks=TASKS)
    kept, at_last_block = [], []
    model.stages[2].blocks[0].ffn.layers[0][1].register_forward_hook(
        lambda m, args, out: at_last_block.append(len(kept))
    )
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model(torch.randn(1, 3, 64, 64))
    assert at_last_block == [0] and kept


@pytest.mark.parametrize(
    'adapter', [METHODS[3], dict(type='LoRA'), dict(type='BitFit')], ids=lambda a: a['type']
)
def test_compilers_see_one_graph_behind_the_look_up_of_the_windows(adapter):
    """One break, in front of the block loop; the result is that of the uncompiled model."""
    model = build(tasks=TASKS, adapter=adapter, drop_path_rate=0.0)
    x = torch.randn(1, 3, 48, 40)
    want = model(x)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(model)(x)
    assert explained.graph_count <= 2 and explained.graph_break_count <= 1
    compiled = torch.compile(model, backend='aot_eager')
    for task, maps in compiled(x).items():
        for a, b in zip(maps, want[task], strict=True):
            torch.testing.assert_close(a, b)
