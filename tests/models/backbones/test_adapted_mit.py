"""AdaptedMiT against mmseg's MixVisionTransformer, and every method on it against a network written once more."""

from __future__ import annotations

import copy
import re
import zlib
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmseg.models.backbones import MixVisionTransformer
from mmseg.registry import MODELS
from naive_pyramid import PyramidNetwork
from torch import Tensor, nn

from mmseg_polyhistor.adapters import CannotMergeError, Site
from mmseg_polyhistor.benchmark import build_without_weights
from mmseg_polyhistor.models.backbones import (
    AdaptedMiT,
    AdaptedSwin,
    TaskEncoders,
    bake,
    merged_encoder,
    merged_segmentor,
)

DEPTHS, HEADS, REDUCTIONS = (1, 2, 1), (1, 2, 5), (8, 4, 2)
ARCH = dict(embed_dims=8, num_layers=list(DEPTHS), num_heads=list(HEADS))
WIDTHS = (8, 16, 40)
STOCK = dict(
    ARCH, num_stages=3, patch_sizes=[7, 3, 3], strides=[4, 2, 2], sr_ratios=[8, 4, 2], out_indices=(0, 1, 2)
)
TASKS = ('semseg', 'normals', 'saliency')
SIZE = (35, 61)  # odd maps, and a remainder at every reduction
SMALL = dict(embed_dims=6, hidden_dims=7, code_dims=5)  # of hyper-networks
EVERY_GROUP = ('weight', 'bias', 'norm', 'patch_embed', 'patch_merging')
EVERY_LINEAR = ('qkv', 'proj', 'fc1', 'fc2')
BOTH = ('attn', 'ffn')

# A method, and the streams in the feed-forward nets of the four blocks: 1, T (one per task) or P (one more, all tasks').
CASES = {
    'none': (None, '1111'),
    'bitfit': (dict(type='BitFit', tuned=('bias', 'norm_bias')), 'TTTT'),
    'bitfit-shared': (dict(type='BitFit', tuned=('bias', 'norm_bias'), per_task=False), '1111'),
    'tuned-everything': (dict(type='BitFit', tuned=EVERY_GROUP), 'TTTT'),
    'tuned-everything-shared': (dict(type='BitFit', tuned=EVERY_GROUP, per_task=False), '1111'),
    'tuned-merging': (dict(type='BitFit', tuned=('patch_merging',)), '1TTT'),
    'tuned-norm-weight': (dict(type='BitFit', tuned=('norm_weight',)), 'TTTT'),
    'lora': (dict(type='LoRA', rank=2), 'TTTT'),
    'lora-everywhere': (dict(type='LoRA', rank=-4, targets=EVERY_LINEAR, scale=2.0, pre_norm=False), 'TTTT'),
    'lora-fc2': (dict(type='LoRA', rank=2, targets=('fc2',)), '1TTT'),
    'lora-shared': (dict(type='LoRA', rank=2, targets=EVERY_LINEAR, per_task=False), '1111'),
    'mtlora': (
        dict(type='MTLoRA', rank=3, task_rank=2, targets=EVERY_LINEAR, task_targets=EVERY_LINEAR,
             tuned=('norm', 'patch_embed', 'patch_merging')),
        'P1PT',
    ),
    'adapter': (dict(type='BottleneckAdapter', ratio=2), '1TTT'),
    'adapter-both-tuned': (dict(type='BottleneckAdapter', ratio=4, positions=BOTH, tuned=('norm',)), 'TTTT'),
    'adapter-parallel': (
        dict(type='BottleneckAdapter', ratio=4, positions=BOTH, insertion='parallel', scale=0.5, pre_norm=True), 'TTTT'
    ),
    'adapter-shared': (dict(type='BottleneckAdapter', ratio=2, per_task=False), '1111'),
    'low-rank': (dict(type='LowRankAdapter', ratio=4, rank=-2), '1TTT'),
    'phm': (dict(type='PHMAdapter', ratio=4), '1TTT'),
    'compacter': (dict(type='Compacter', ratio=4), 'TTTT'),
    'adaptformer': (dict(type='AdaptFormer', bottleneck=16), '1TTT'),
    'hyperformer': (dict(type='HyperFormer', ratio=4, **SMALL), 'TTTT'),
    'polyhistor': (dict(type='Polyhistor', ratio=4, rank=-2, **SMALL), '1TTT'),
    'polyhistor-lite': (dict(type='PolyhistorLite', **SMALL), '1TTT'),  # templates for 1, 2 and 5 times the width
    'polyhistor-lite-parallel': (
        dict(type='PolyhistorLite', positions=BOTH, insertion='parallel', kernels_per_task=True, **SMALL), 'TTTT'
    ),
    'hyper-kernels': (dict(type='HyperAdapter', ratio=4, scaling_kernels=True, **SMALL), '1TTT'),
}  # fmt: skip


def randomise(module: nn.Module) -> None:
    """Give every parameter values that follow from its name, and none is zero or one by chance: all must matter."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            gain = p.dim() == 1 and 'tuned' not in name and name.endswith(('weight', 'gain'))
            std = p[0].numel() ** -0.5 if p.dim() > 1 else 0.3
            p.copy_(float(gain) + std * torch.randn(p.shape, generator=generator, dtype=torch.float64))


def build(adapter: dict | None = None, tasks: tuple[str, ...] | None = TASKS, **options) -> AdaptedMiT:
    model = (
        AdaptedMiT(ARCH, tasks=tasks, adapter=adapter, **dict(drop_path_rate=0.0) | options).double().eval()
    )
    randomise(model)
    return model


def images_of(size: tuple[int, int], batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(batch, 3, *size, dtype=torch.float64, generator=generator)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def loss_of(out: dict[str, tuple[Tensor, ...]]) -> Tensor:
    """A sum in which every value has a weight of its own, by task and stage."""
    total = 0
    for task, maps in out.items():
        generator = torch.Generator().manual_seed(zlib.crc32(task.encode()))
        for m in maps:
            total = total + (m * torch.randn(m.shape, generator=generator, dtype=m.dtype)).sum()
    return total


def gradients(model: nn.Module, out: dict[str, tuple[Tensor, ...]]) -> dict[str, Tensor]:
    parameters = trained(model)
    return dict(zip(parameters, torch.autograd.grad(loss_of(out), list(parameters.values())), strict=True))


def assert_close(got, want, what='') -> None:
    for task in want:
        for stage, (a, b) in enumerate(zip(got[task], want[task], strict=True)):
            torch.testing.assert_close(a, b, msg=lambda m: f'{what}, {task}, stage {stage}: {m}')  # noqa: B023


def naive(model: AdaptedMiT, adapter: dict | None, images: Tensor) -> dict[str, list[Tensor]]:
    parameters = dict(model.named_parameters())
    return {
        task: PyramidNetwork(parameters, HEADS, DEPTHS, REDUCTIONS, adapter, task).maps(images)
        for task in model.tasks or ('default',)
    }


@pytest.fixture(scope='module', autouse=True)
def _one_thread():
    """On maps this small, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --------------------------------------------------------------------------------------------------- the stock network
@pytest.mark.parametrize('size', [(64, 64), SIZE, (29, 130), (224, 56)], ids=str)
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(qkv_bias=False, act_cfg=dict(type='ReLU')),
        dict(norm_cfg=dict(type='LN', eps=0.1)),
        dict(drop_rate=0.5, attn_drop_rate=0.3, drop_path_rate=0.5),
    ],
    ids=['default', 'no-bias-relu', 'norms', 'dropout'],
)
def test_without_adapters_it_equals_mmsegs_mit_to_the_bit(size, options):
    ours = AdaptedMiT(ARCH, fused=False, **dict(drop_path_rate=0.0) | options)
    # torch multiplies matrices in another order where weights ask for gradients
    theirs = MixVisionTransformer(**STOCK, **options).requires_grad_(False)
    randomise(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = images_of(size).float()
    for mode in (False, True):
        ours.train(mode), theirs.train(mode)
        torch.manual_seed(1)
        got = ours(x)
        torch.manual_seed(1)
        for a, b in zip(got, theirs(x), strict=True):
            assert torch.equal(a, b)


def test_with_trained_weights_it_equals_mmsegs_mit_to_the_bit_too():
    ours, theirs = (
        AdaptedMiT(ARCH, frozen=False, fused=False, drop_path_rate=0.0),
        MixVisionTransformer(**STOCK),
    )
    assert all(p.requires_grad for p in ours.parameters())
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = images_of(SIZE).float()
    for a, b in zip(ours.train()(x), theirs.train()(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('name', AdaptedMiT.ARCHS)
def test_the_published_sizes_are_those_of_mmsegs_configs(name):
    configs = Path(mmseg.__file__).parent / '.mim/configs/segformer'
    if not configs.is_dir():
        pytest.skip('mmseg is installed without its configs')
    cfg = Config.fromfile(configs / f'segformer_mit-{name}_8xb2-160k_ade20k-512x512.py').model
    theirs = dict(cfg.backbone, init_cfg=None)
    stock, ours = (
        build_without_weights(c).state_dict() for c in (theirs, dict(type='AdaptedMiT', arch=name))
    )
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in stock.items()}
    assert AdaptedMiT.ARCHS[name]['num_layers'] == list(theirs['num_layers'])
    assert cfg.decode_head.in_channels == [theirs['embed_dims'] * heads for heads in (1, 2, 5, 8)]


# -------------------------------------------------------------------------------------------------------- the methods
@pytest.mark.parametrize('name', CASES)
def test_task_streams_equal_one_naive_pass_per_task(name):
    """Maps and gradients, side by side, task by task, with recomputation, and by the stock operations."""
    adapter, rows = CASES[name]
    model = build(adapter).train()
    x = images_of(SIZE)
    seen = []
    for i, depth in enumerate(DEPTHS):
        for j in range(depth):
            activation = model.layers[i][1][j].ffn.activate
            activation.register_forward_hook(lambda m, args, out: seen.append(out.shape[:-2].numel()))
    out = model(x)
    streams = {'1': 1, 'T': len(TASKS), 'P': 1 + len(TASKS)}
    assert [n // len(x) for n in seen] == [streams[r] for r in rows]

    want = naive(model, adapter, x)
    assert_close(out, want, 'maps')
    for i, m in enumerate(out['normals']):
        assert m.shape == (2, WIDTHS[i], *(-(-s // 2 ** (i + 2)) for s in SIZE))
    reached = gradients(model, out)
    assert set(reached) == {
        n for n, _ in model.named_parameters() if n.startswith(('adapters.', 'output_norms.'))
    }
    for key, g in gradients(model, want).items():
        torch.testing.assert_close(reached[key], g, msg=lambda m: f'{key}: {m}')  # noqa: B023
        assert g.abs().max() > 0, key

    assert model.parts_streams == (rows[-1] == 'T' and 'P' not in rows and '1' not in rows[1:])
    if model.parts_streams:
        assert_close(dict(model.task_by_task(x)), want, 'task by task')
    model.with_cp = True
    again = model(x)
    assert_close(again, want, 'recomputed')
    for key, g in gradients(model, again).items():
        torch.testing.assert_close(g, reached[key], msg=lambda m: f'recomputed, {key}: {m}')  # noqa: B023
    model.with_cp = model.fused = False
    with torch.no_grad():
        assert_close(model(x), want, 'stock operations')
        some = model.eval()(x, tasks=('saliency', 'semseg'))
    assert list(some) == ['saliency', 'semseg']
    assert_close(some, {t: want[t] for t in some}, 'some tasks')


@pytest.mark.parametrize(
    'adapter', [CASES['tuned-everything'][0], CASES['lora-everywhere'][0]], ids=['tuned', 'lora']
)
def test_without_named_tasks_the_stages_norms_serve_the_decoder_and_the_next_stage(adapter):
    model = build(adapter, tasks=None)
    out = model(images_of(SIZE))
    assert isinstance(out, tuple)
    assert_close({'default': out}, naive(model, dict(adapter, per_task=True), images_of(SIZE)))
    assert list(model.output_norm_parameters()) == []
    for key, g in gradients(model, {'default': out}).items():
        assert g.abs().max() > 0 and key.startswith('adapters.'), key


@pytest.mark.parametrize(
    'name', ['bitfit', 'lora-everywhere', 'mtlora', 'adaptformer'], ids=lambda name: name
)
def test_a_fresh_network_is_the_frozen_one_where_the_method_says_so(name):
    torch.manual_seed(0)
    model = AdaptedMiT(ARCH, tasks=TASKS, adapter=CASES[name][0]).double().eval()
    plain = AdaptedMiT(ARCH, tasks=TASKS).double().eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith('adapters.')})
    x = images_of(SIZE)
    assert_close(model(x), plain(x))
    randomise(model.adapters)
    assert not torch.allclose(model(x)['semseg'][-1], plain(x)['semseg'][-1], atol=1e-3)
    assert_close(model(x, adapted=False), plain(x))


def test_recomputation_repeats_the_stochastic_depth():
    model = build(CASES['adapter'][0], drop_path_rate=0.5).train()
    grads = []
    for with_cp in (False, True):
        model.with_cp = with_cp
        torch.manual_seed(5)
        grads.append(gradients(model, model(images_of((32, 32), batch=3))))
    for key, g in grads[0].items():
        torch.testing.assert_close(g, grads[1][key])


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in trained(model.adapters).values())


def test_counts_on_mit_b0_by_formula():
    """Two blocks in each of the stages of 32, 64, 160 and 256 channels, four tasks."""
    tasks = ('semseg', 'human_parts', 'saliency', 'normals')
    blocks = [d for d in (32, 64, 160, 256) for _ in range(2)]

    def on_b0(**adapter) -> int:
        return count(build_without_weights(dict(type='AdaptedMiT', tasks=tasks, adapter=adapter)))

    assert on_b0(type='LoRA', rank=4, pre_norm=False) == 4 * sum(4 * (d + 3 * d) for d in blocks)
    assert on_b0(type='LoRA', rank=4, targets=('fc1', 'fc2'), pre_norm=False) == 4 * sum(
        2 * 4 * 5 * d for d in blocks
    )
    bottleneck = sum(2 * d * (d // 2) + d // 2 + d + 2 * d for d in blocks)
    assert on_b0(type='BottleneckAdapter', ratio=2) == 4 * bottleneck
    # Every block: norms 2 x, qkv, proj, fc1, depthwise, fc2; reduced ones sr and its norm; and what is between stages.
    biases = sum(2 * d + 3 * d + d + 4 * d + 4 * d + d for d in blocks) + sum(2 * d for d in blocks[:6])
    biases += sum(2 * d for d in (32, 64, 160, 256)) + sum((32, 64, 160))
    assert on_b0(type='BitFit', tuned=('bias', 'norm_bias')) == 4 * biases
    # Templates are lifted to 1, 2, 5 and 8 times 32 channels.
    scales = [1, 1, 2, 2, 5, 5, 8, 8]
    kernels = sum(s**3 + 2 * s**2 for s in scales if s > 1)
    heads = 65 * (2 * 4 * (32 + 16) + 32 + 16 + 2 * 32)
    code_net = 1024 * 128 + 128 + 128 * 64 + 64 + 2 * 64
    assert on_b0(type='PolyhistorLite') == 512 * (4 + sum(scales)) + kernels + code_net + heads


# ---------------------------------------------------------------------------------------------------------- ownership
def test_freezing_goes_by_ownership():
    model = AdaptedMiT(ARCH, tasks=TASKS, adapter=dict(type='LoRA')).train()
    for name, p in model.named_parameters():
        assert p.requires_grad == name.startswith(('adapters.', 'output_norms.')), name
    stock = set(MixVisionTransformer(**STOCK).state_dict())
    assert stock - set(model.state_dict()) == {'layers.2.2.weight', 'layers.2.2.bias'}  # nobody reads it
    assert {
        k for k in set(model.state_dict()) - stock if not k.startswith(('adapters.', 'output_norms.'))
    } == set()
    assert not any(p.requires_grad for p in AdaptedMiT(ARCH).parameters())
    norms = sum(p.numel() for p in model.output_norm_parameters())
    assert norms == len(TASKS) * 2 * sum(WIDTHS)


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (
            dict(adapter=dict(type='RelativeBias')),
            ValueError,
            r"tuned: unknown \['relative_position_bias'\]; groups of",
        ),
        (dict(adapter=dict(type='BitFit')), ValueError, r"unknown \['relative_position_bias'\].*'norm_bias'"),
        (
            dict(adapter=dict(type='VisualPrompt')),
            ValueError,
            'cannot have VisualPrompt: the keys and values',
        ),
        (
            dict(adapter=dict(type='LoRA', targets=('reduction',))),
            ValueError,
            "unknown .'reduction'.*'fc1', 'fc2'",
        ),
        (dict(arch='b6'), ValueError, "one of .'b0', .*got 'b6'"),
        (
            dict(arch=dict(embed_dims=8, num_layers=[1], depths=[1])),
            ValueError,
            r"lacks \['num_heads'\].*\['depths'\]",
        ),
        (dict(arch=dict(ARCH, num_heads=[1, 2])), ValueError, "'num_layers': 3, 'num_heads': 2"),
        (
            dict(arch=dict(ARCH, embed_dims=[8, 16, 40])),
            ValueError,
            r'AdaptedMiT: arch: embed_dims .*got \[8, 16',
        ),
        (dict(arch=dict(ARCH, mlp_ratio=2.5)), ValueError, 'AdaptedMiT: arch: mlp_ratio .*got 2.5'),
        (dict(arch=dict(ARCH, num_layers=2)), ValueError, 'AdaptedMiT: arch: num_layers .*got 2'),
        (dict(arch=dict(ARCH, num_layers='222')), ValueError, "AdaptedMiT: arch: num_layers .*got '222'"),
        (dict(arch=dict(ARCH, num_layers=[])), ValueError, r'AdaptedMiT: arch: num_layers .*got \[\]'),
        (dict(arch=dict(ARCH, num_layers=[1, 0, 1])), ValueError, r'arch: num_layers .*got \[1, 0, 1\]'),
        (dict(arch=dict(ARCH, sr_ratios=[8, '4', 2])), ValueError, "arch: sr_ratios .*got .8, '4', 2"),
        (dict(arch=dict(ARCH, strides=[4.0, 2, 2])), ValueError, r'arch: strides .*got \[4.0, 2, 2\]'),
        (dict(embed_dims=32, num_stages=4), TypeError, 'sizes by `arch`.*_delete_=True'),
        (dict(out_indices=(3,)), TypeError, 'out_indices'),
        (dict(depths=[1]), TypeError, r"AdaptedMiT takes no \['depths'\]"),
        (dict(fused='no'), ValueError, 'fused must be True or False'),
        (dict(tasks='semseg'), ValueError, "AdaptedMiT: tasks .*got 'semseg'"),
    ],
    ids=lambda v: None,
)
def test_what_does_not_fit_is_refused_when_it_is_built(kwargs, error, message):
    with pytest.raises(error, match=message):
        AdaptedMiT(**dict(arch=ARCH) | kwargs)


@pytest.mark.parametrize('cls', [AdaptedMiT, AdaptedSwin])
def test_an_unknown_argument_is_answered_with_those_that_are_taken(cls):
    with pytest.raises(TypeError, match=r"takes no \['width'\]; it takes .*'drop_path_rate'") as refusal:
        cls(width=8)
    listed = re.findall(r"'(\w+)'", str(refusal.value).partition('it takes')[2])
    assert len(listed) > 10
    for name in cls.DECIDED:
        assert name not in listed
        with pytest.raises(TypeError, match='decides'):
            cls(**{name: None})


# ------------------------------------------------------------------------------------------------------- small images
@pytest.mark.parametrize(
    ('options', 'least'),
    [
        (dict(), 29),
        (dict(sr_ratios=[1, 1, 3]), 33),  # maps of 9, 5 and 3
        (dict(sr_ratios=[2, 1, 1], patch_sizes=[4, 3, 3]), 4),  # an even patch: (n + 4 - 4) // 4 + 1
        (dict(sr_ratios=[1, 2, 1], strides=[2, 3, 2]), 7),
    ],
    ids=str,
)
def test_images_that_are_too_small_are_refused_and_no_others(options, least):
    """The least size is that at which mmseg's network begins to run."""
    arch = dict(ARCH, num_layers=[1, 1, 1]) | options
    ours = AdaptedMiT(arch, tasks=TASKS)
    theirs = MixVisionTransformer(**STOCK | arch).requires_grad_(False)
    for size in range(least - 3, least + 3):
        for shape in ((size, 40), (40, size)):
            x = torch.zeros(1, 3, *shape)
            if size >= least:
                assert ours(x)['normals'][-1].shape == theirs(x)[-1].shape
                continue
            with pytest.raises(RuntimeError, match='Kernel size'):
                theirs(x)
            message = (
                f'AdaptedMiT: images of {shape[0]} x {shape[1]} pixels .* at least {least} x {least}.*'
                rf'test_cfg=dict\(size_divisor={64 if least > 32 else 32}\)'
            )
            with pytest.raises(ValueError, match=message):
                ours(x)


# -------------------------------------------------------------------------------------------------------- checkpoints
@pytest.fixture
def published(tmp_path):
    """A file as mmseg publishes it, and the stock network that wrote it."""
    stock = MixVisionTransformer(**STOCK).eval()
    randomise(stock)
    torch.save(dict(state_dict=stock.state_dict(), meta={}), tmp_path / 'mit.pth')
    return stock.requires_grad_(False), dict(type='Pretrained', checkpoint=str(tmp_path / 'mit.pth'))


def test_a_published_checkpoint_loads_with_every_key_accounted_for(published):
    stock, init = published
    x = images_of(SIZE).float()
    for tasks in (None, TASKS):
        model = AdaptedMiT(ARCH, tasks=tasks, adapter=dict(type='LoRA'), fused=False, init_cfg=init)
        with pytest.raises(RuntimeError, match='has random weights'):
            model(x)
        model.init_weights()
        out = model.eval()(x)
        for maps in (out,) if tasks is None else out.values():  # LoRA starts at the frozen network
            for a, b in zip(maps, stock(x), strict=True):
                assert torch.equal(a, b)
        report = model.load_encoder(stock.state_dict())
        assert sorted(report.loaded) == sorted(stock.state_dict())
        assert not (report.missing or report.unexpected or report.final_norm)


@pytest.mark.parametrize('tasks', [None, TASKS], ids=['stock', 'tasks'])
@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('layers.2.2.weight', torch.ones(5), r'1 of other shapes.*layers.2.2.weight \(5,\), here \(40,\)'),
        ('layers.2.2.bias', torch.ones(1), r'1 of other shapes.*layers.2.2.bias \(1,\), here \(40,\)'),
        ('layers.2.2.gain', torch.ones(40), r"1 unexpected.*'layers.2.2.gain'"),
        ('layers.0.1.0.attn.sr.weight', None, r"1 missing.*'layers.0.1.0.attn.sr.weight'"),
        ('layers.2.2.weight', None, r"1 missing.*'layers.2.2.weight'"),  # output norms start at it
        ('layers.2.1.1.norm1.weight', torch.ones(40), r"1 unexpected.*'layers.2.1.1.norm1.weight'"),
        ('layers.1.0.projection.bias', torch.ones(8), r'1 of other shapes.*\(8,\), here \(16,\)'),
    ],
    ids=['norm-shape', 'norm-broadcast', 'norm-unexpected', 'missing', 'last-norm', 'unexpected', 'shape'],
)
def test_a_checkpoint_that_does_not_fit_is_refused(published, tasks, key, value, message):
    weights = dict(published[0].state_dict())
    weights.pop(key, None)
    weights |= {} if value is None else {key: value}
    model = AdaptedMiT(ARCH, tasks=tasks)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match=message):
        model.load_encoder(weights)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # all or nothing


def test_a_refused_file_is_named_with_what_may_help(published, tmp_path):
    stock, init = published
    state = stock.state_dict()

    def refusal(weights: dict[str, Tensor], error: type[Exception] = RuntimeError, **options) -> str:
        path = str(tmp_path / 'other.pth')
        torch.save(weights, path)
        given = dict(init, checkpoint=path, **options)
        messages = []
        for read in (lambda m: m.init_weights(), lambda m: m.read_encoder(*m.pretrained_source())):
            with pytest.raises(error) as refused:
                read(AdaptedMiT(ARCH, init_cfg=given))
            messages.append(str(refused.value))
        assert messages[0] == messages[1] and path in messages[0]
        return messages[0]

    wide = MixVisionTransformer(**dict(STOCK, embed_dims=16)).state_dict()
    assert '0 missing, 0 unexpected' in refusal(wide)
    assert '`arch`' in refusal(wide) and 'prefix' not in refusal(wide)
    behind = {f'module.backbone.{k}': v for k, v in state.items()}
    assert "prefix='module.backbone'" in refusal(behind)
    other = refusal({f'stages.{k}': v for k, v in state.items()} | {'stages.x': torch.ones(1)})
    assert "prefix='stages'" in other and '`arch`' not in other
    unknown = refusal({'encoder.conv1.weight': torch.ones(3)})
    assert "'encoder.conv1.weight'" in unknown and 'another network' in unknown
    lacking = {k: v for k, v in state.items() if k != 'layers.0.0.norm.bias'}
    assert 'prefix' not in refusal(lacking) and '`arch`' not in refusal(lacking)
    assert "starts with 'encoder.'" in refusal(state, ValueError, prefix='encoder')


def test_the_encoder_of_a_trained_segformer_loads(published, tmp_path):
    stock, init = published
    weights = {f'backbone.{k}': v for k, v in stock.state_dict().items()} | {'decode_head.x': torch.ones(1)}
    torch.save(dict(state_dict=weights), init['checkpoint'])
    model = AdaptedMiT(ARCH, init_cfg=init)
    model.init_weights()
    assert all(torch.equal(v, stock.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_checkpoint_without_the_frozen_weights_restores_them(published):
    """By the record that `AdapterCheckpointHook` puts in their place."""
    _, init = published
    source = AdaptedMiT(ARCH, tasks=TASKS, adapter=dict(type='LoRA'), init_cfg=init)
    source.init_weights()
    for p in trained(source).values():
        nn.init.normal_(p)
    assert source.frozen_source() == (init['checkpoint'], '')
    small = {k: v for k, v in source.state_dict().items() if k not in source.frozen_weights()}
    assert all(k.startswith(('adapters.', 'output_norms.')) for k in small)
    small[source.RECORD_KEY] = source.frozen_record(init['checkpoint']).to_tensor()
    twin = AdaptedMiT(ARCH, tasks=TASKS, adapter=dict(type='LoRA'))
    twin.load_state_dict(dict(small))
    for key, value in twin.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key
    other = AdaptedMiT(dict(ARCH, num_layers=[1, 1, 1]), tasks=TASKS, adapter=dict(type='LoRA'))
    with pytest.raises(RuntimeError, match=r'num_layers: \[1, 2, 1\], here \[1, 1, 1\]|do not fit'):
        other.load_state_dict(dict(small))


def test_a_random_start_keeps_the_adapters_initial_values_and_a_second_one_changes_nothing():
    adapter = dict(type='BottleneckAdapter', ratio=2, post_norm_gain=0.0)
    model = AdaptedMiT(ARCH, tasks=TASKS, adapter=adapter)
    model.init_weights()
    weights = model.adapters.generate(TASKS)[Site(0, 0, 'ffn')]
    assert weights.post_gain.abs().max() == 0 and 0 < weights.up_weight.abs().max() < 0.06  # N(0, 0.01^2)
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# ------------------------------------------------------------------------------------------------------------ merging
MERGED = dict(type='LoRA', rank=2, targets=EVERY_LINEAR, pre_norm=False, tuned=EVERY_GROUP)
LINEAR_ADAPTER = dict(
    type='BottleneckAdapter', ratio=2, positions=BOTH, activation='identity', post_norm=False
)


def test_a_linear_method_merges_into_the_stock_mit():
    model = build(MERGED, tasks=None)
    stock = MixVisionTransformer(**STOCK).double().eval()
    stock.load_state_dict(merged_encoder(model))
    x = images_of(SIZE)
    assert_close({'': model(x)}, {'': stock(x)})
    model = build(LINEAR_ADAPTER, tasks=None)
    stock.load_state_dict(merged_encoder(model))
    assert_close({'': model(x)}, {'': stock(x)})


@pytest.mark.parametrize('tasks', [None, TASKS], ids=['stock', 'tasks'])
def test_an_adapter_behind_a_linear_map_without_bias_does_not_merge_and_stays_when_baked(tasks):
    """mmcv's attention without biases of q, k and v has none behind it either."""
    adapter = dict(LINEAR_ADAPTER, per_task=False)
    model = build(adapter, tasks=tasks, qkv_bias=False)
    assert 'layers.0.1.0.attn.attn.out_proj.bias' not in model.state_dict()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CannotMergeError, match=r'linear map in front of .* has no bias'):
        merged_encoder(model) if tasks is None else merged_segmentor(
            dict(backbone={}), nn.ModuleDict(dict(backbone=model))
        )
    baked = bake(model)
    kept = {site.position for site in baked.adapters.makers}
    assert kept == {'attn'}  # those behind the feed-forward nets merge
    x = images_of(SIZE)
    got, want = baked(x), model(x)
    assert_close(*(({'': out} if tasks is None else out) for out in (got, want)))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_norms_of_tasks_do_not_merge():
    with pytest.raises(CannotMergeError, match='each task has a norm of its own'):
        merged_encoder(build(MERGED), 'semseg')


@pytest.mark.parametrize(('tasks', 'shared'), [(None, True), (TASKS, True), (TASKS, False)])
def test_baked_it_computes_the_same(tasks, shared):
    model = build(dict(MERGED, per_task=not shared), tasks=tasks)
    baked = bake(model)
    assert (baked.adapters is None) == shared
    x = images_of(SIZE)
    got, want = baked(x), model(x)
    assert_close(*(({'': out} if tasks is None else out) for out in (got, want)))


def test_a_segmentor_with_shared_changes_merges_with_its_output_norms():
    cfg = dict(
        type='MultiTaskSegmentor',
        tasks=TASKS,
        backbone=dict(type='AdaptedMiT', arch=ARCH, tasks=TASKS, adapter=dict(MERGED, per_task=False)),
        decode_heads=dict(type='AllMLPHead', in_channels=list(WIDTHS), channels=8),
    )
    model = MODELS.build(copy.deepcopy(cfg)).double().eval()
    randomise(model)
    merged_cfg, weights = merged_segmentor(cfg, model)
    assert 'adapter' not in merged_cfg.backbone
    merged = MODELS.build(merged_cfg).double().eval()
    merged.load_state_dict(weights)
    x = images_of((64, 64))
    for task, logits in model(x).items():
        torch.testing.assert_close(merged(x)[task], logits)
    assert not any(v.requires_grad for v in weights.values())


# ------------------------------------------------------------------------------------------------------ segmentors
def test_encoders_of_single_tasks():
    model = TaskEncoders(tasks=TASKS, encoder=dict(type='AdaptedMiT', arch=ARCH, frozen=False))
    out = model(images_of((32, 32)).float())
    assert list(out) == list(TASKS) and out['normals'][2].shape == (2, 40, 2, 2)


def test_it_serves_as_backbone_of_a_stock_segmentor():
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor'),
            backbone=dict(type='AdaptedMiT', arch=ARCH, adapter=dict(type='PolyhistorLite')),
            decode_head=dict(
                type='SegformerHead', in_channels=list(WIDTHS), in_index=[0, 1, 2], channels=16, num_classes=5,
                norm_cfg=dict(type='BN'),
            ),
            test_cfg=dict(mode='whole'),
        )
    )  # fmt: skip
    assert model(torch.randn(2, 3, 64, 64), mode='tensor').shape == (2, 5, 16, 16)


def test_autocast_stays_close_and_nothing_leaves_its_precision():
    model = build(CASES['tuned-everything'][0]).float()
    x = images_of((64, 64)).float()
    want = model(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = model(x)
    for task in TASKS:
        for a, b in zip(got[task], want[task], strict=True):
            assert (a.float() - b).abs().mean() < 0.1 * b.abs().mean()
