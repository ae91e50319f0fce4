"""AdaptedPVTv2 against timm's PVTv2, and methods on it against a network written once more."""

from __future__ import annotations

import zlib

import pytest
import torch
from mmseg.registry import MODELS
from naive_pyramid import PVTNetwork
from torch import Tensor, nn

from mmseg_polyhistor.adapters import CannotMergeError
from mmseg_polyhistor.benchmark import build_without_weights
from mmseg_polyhistor.models.backbones import bake, merged_encoder

timm_models = pytest.importorskip('timm.models', reason='AdaptedPVTv2 needs timm, an optional extra')
from timm.models.pvt_v2 import PyramidVisionTransformerV2  # noqa: E402

DEPTHS, HEADS, REDUCTIONS = (1, 2, 1), (1, 2, 5), (8, 4, 2)
ARCH = dict(embed_dims=(8, 16, 40), depths=DEPTHS, num_heads=HEADS)
TASKS = ('semseg', 'normals')
SIZE = (35, 61)
EVERY_GROUP = ('weight', 'bias', 'norm', 'patch_embed', 'patch_merging')
EVERY_LINEAR = ('qkv', 'proj', 'fc1', 'fc2')
BOTH = ('attn', 'ffn')
SMALL = dict(embed_dims=6, hidden_dims=7, code_dims=5)
METHODS = {
    'none': None,
    'bitfit': dict(type='BitFit', tuned=('bias', 'norm_bias')),
    'tuned': dict(type='BitFit', tuned=EVERY_GROUP),
    'lora': dict(type='LoRA', rank=2, targets=EVERY_LINEAR),
    'lora-shared': dict(type='LoRA', rank=2, targets=EVERY_LINEAR, per_task=False),
    'mtlora': dict(
        type='MTLoRA', rank=3, task_rank=2, task_targets=EVERY_LINEAR, tuned=('norm', 'patch_merging')
    ),
    'adapter': dict(type='BottleneckAdapter', ratio=4, positions=BOTH, tuned=('norm',)),
    'parallel': dict(type='BottleneckAdapter', ratio=4, positions=BOTH, insertion='parallel'),
    'polyhistor-lite': dict(type='PolyhistorLite', **SMALL),
}


@pytest.fixture(scope='module', autouse=True)
def _one_thread():
    """On maps this small, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randomise(module: nn.Module) -> None:
    with torch.no_grad():
        for name, p in module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            gain = p.dim() == 1 and 'tuned' not in name and name.endswith(('weight', 'gain'))
            std = p[0].numel() ** -0.5 if p.dim() > 1 else 0.3
            p.copy_(float(gain) + std * torch.randn(p.shape, generator=generator, dtype=torch.float64))


def build(adapter: dict | None = None, tasks: tuple[str, ...] | None = TASKS, **options) -> nn.Module:
    cfg = dict(type='AdaptedPVTv2', arch=ARCH, tasks=tasks, adapter=adapter, drop_path_rate=0.0)
    model = MODELS.build(cfg | options).double().eval()
    randomise(model)
    return model


def stock(**options) -> PyramidVisionTransformerV2:
    model = PyramidVisionTransformerV2(
        **ARCH, sr_ratios=REDUCTIONS, mlp_ratios=(8, 8, 4), **dict(num_classes=0) | options
    )
    randomise(model)
    return model


def images_of(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(size)))


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def gradients(model: nn.Module, out: dict) -> dict[str, Tensor]:
    total = 0
    for task, maps in out.items():
        generator = torch.Generator().manual_seed(zlib.crc32(task.encode()))
        for m in maps:
            total = total + (m * torch.randn(m.shape, generator=generator, dtype=m.dtype)).sum()
    return dict(zip(trained(model), torch.autograd.grad(total, list(trained(model).values())), strict=True))


@pytest.mark.parametrize('size', [(64, 64), SIZE, (29, 130)], ids=str)
@pytest.mark.parametrize(
    'options', [{}, dict(linear=True), dict(drop_path_rate=0.5, proj_drop_rate=0.3, qkv_bias=False)], ids=str
)
def test_without_adapters_it_equals_timms_pvt_to_the_bit(size, options):
    theirs = stock(**options).requires_grad_(False)
    arch = ARCH | {k: v for k, v in options.items() if k == 'linear'}
    others = {k: v for k, v in options.items() if k != 'linear'}
    ours = MODELS.build(dict(type='AdaptedPVTv2', arch=arch, **dict(drop_path_rate=0.0) | others))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = images_of(size).float()
    for mode in (False, True):
        ours.train(mode), theirs.train(mode)
        torch.manual_seed(1)
        got = ours(x)
        torch.manual_seed(1)
        for a, b in zip(got, theirs.forward_intermediates(x, intermediates_only=True), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize('name', ['b0', 'b1', 'b2', 'b2_li', 'b3', 'b4', 'b5'])
def test_the_published_sizes_are_timms(name):
    ours = build_without_weights(dict(type='AdaptedPVTv2', arch=name)).state_dict()
    with torch.device('meta'):
        theirs = getattr(timm_models, f'pvt_v2_{name}')(num_classes=0).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize('name', METHODS)
def test_task_streams_equal_one_naive_pass_per_task(name):
    adapter = METHODS[name]
    model = build(adapter).train()
    x = images_of(SIZE)
    parameters = dict(model.named_parameters())
    want = {task: PVTNetwork(parameters, HEADS, DEPTHS, REDUCTIONS, adapter, task).maps(x) for task in TASKS}
    out = model(x)
    expected = gradients(model, want)
    assert set(expected) == {n for n in parameters if n.startswith(('adapters.', 'output_norms.'))}
    runs = [out]
    model.with_cp = True
    runs.append(model(x))
    if model.parts_streams:
        runs.append(dict(model.task_by_task(x)))
    for run in runs:
        for task in TASKS:
            for a, b in zip(run[task], want[task], strict=True):
                torch.testing.assert_close(a, b)
        for key, g in gradients(model, run).items():
            torch.testing.assert_close(g, expected[key], msg=lambda m: f'{key}: {m}')  # noqa: B023
            assert g.abs().max() > 0, key


def test_pooled_attention_of_task_streams_equals_one_pass_per_task():
    model = build(METHODS['tuned'], arch=ARCH | dict(linear=True))
    x = images_of(SIZE)
    out = model(x)
    for task in TASKS:
        (alone,) = model(x, tasks=(task,)).values()
        for a, b in zip(out[task], alone, strict=True):
            torch.testing.assert_close(a, b)
    assert not torch.allclose(out['semseg'][-1], out['normals'][-1])
    single = build(dict(METHODS['lora-shared'], pre_norm=False), tasks=None, arch=ARCH | dict(linear=True))
    merged = stock(linear=True).double().eval()
    merged.load_state_dict(merged_encoder(single))
    for a, b in zip(single(x), merged.forward_intermediates(x, intermediates_only=True), strict=True):
        torch.testing.assert_close(a, b)


def test_counts_on_b0_by_formula():
    def on_b0(**adapter) -> int:
        model = build_without_weights(dict(type='AdaptedPVTv2', tasks=TASKS, adapter=adapter))
        return sum(p.numel() for p in trained(model.adapters).values())

    blocks = [(d, m) for d, m in ((32, 8), (64, 8), (160, 4), (256, 4)) for _ in range(2)]
    qkv = sum(4 * (d + d) + 4 * (d + 2 * d) for d, _ in blocks)
    assert on_b0(type='LoRA', rank=4, pre_norm=False) == len(TASKS) * qkv
    hidden = sum(2 * 4 * (d + m * d) for d, m in blocks)
    assert on_b0(type='LoRA', rank=4, targets=('fc1', 'fc2'), pre_norm=False) == len(TASKS) * hidden


def test_checkpoints_of_timm_and_of_the_authors_load_with_every_key_accounted_for(tmp_path):
    theirs = stock(num_classes=7).eval().requires_grad_(False)
    names = dict(patch_embed='patch_embed1') | {
        f'stages.{i}.downsample': f'patch_embed{i + 1}' for i in (1, 2)
    }
    names |= {f'stages.{i}.blocks.': f'block{i + 1}.' for i in range(3)}
    names |= {f'stages.{i}.norm.': f'norm{i + 1}.' for i in range(3)}
    names |= {'mlp.dwconv.': 'mlp.dwconv.dwconv.'}
    authors = {}
    for key, value in theirs.state_dict().items():
        for new, old in names.items():
            key = key.replace(new, old)
        authors[key] = value
    assert 'block2.1.mlp.dwconv.dwconv.weight' in authors and 'norm3.bias' in authors
    x = images_of(SIZE).float()
    want = theirs.forward_intermediates(x, intermediates_only=True)
    for state in (theirs.state_dict(), authors):
        torch.save(state, tmp_path / 'pvt.pth')
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 'pvt.pth'))
        model = MODELS.build(
            dict(type='AdaptedPVTv2', arch=ARCH, tasks=TASKS, adapter=dict(type='LoRA'), init_cfg=init)
        )
        with pytest.raises(RuntimeError, match='has random weights'):
            model(x)
        model.init_weights()
        for maps in model.eval()(x).values():  # LoRA starts at the frozen network
            assert all(torch.equal(a, b) for a, b in zip(maps, want, strict=True))
    del state['norm3.bias']
    torch.save(state, tmp_path / 'pvt.pth')
    with pytest.raises(RuntimeError, match=r"1 missing.*'stages.2.norm.bias'"):
        MODELS.build(dict(type='AdaptedPVTv2', arch=ARCH, init_cfg=init)).init_weights()


def test_baked_it_computes_the_same_and_norms_of_tasks_do_not_merge():
    model = build(METHODS['lora-shared'])
    x = images_of(SIZE)
    for task, maps in bake(model)(x).items():
        for a, b in zip(maps, model(x)[task], strict=True):
            torch.testing.assert_close(a, b)
    with pytest.raises(CannotMergeError, match='each task has a norm of its own'):
        merged_encoder(model, 'semseg')


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(adapter=dict(type='VisualPrompt')), ValueError, 'AdaptedPVTv2 cannot have VisualPrompt: the keys and'),
        (dict(adapter=dict(type='RelativeBias')), ValueError, r"unknown \['relative_position_bias'\]"),
        (dict(arch='b6'), ValueError, "one of .'b0', .*'b2_li'.*got 'b6'"),
        (dict(arch=dict(ARCH, num_layers=[1])), ValueError, r"unknown keys \['num_layers'\]"),
        (dict(arch=dict(ARCH, num_heads=(1, 2))), ValueError, "'depths': 3, .*'num_heads': 2|'num_heads': 2"),
        (dict(arch=dict(ARCH, num_heads=(3, 2, 5))), ValueError,
         'AdaptedPVTv2: arch: .* 8 channels of stage 0 .* no multiple of its 3 heads'),
        (dict(arch=dict(ARCH, embed_dims=8)), ValueError, 'AdaptedPVTv2: arch: embed_dims .*got 8'),
        (dict(arch=dict(ARCH, depths=2)), ValueError, 'AdaptedPVTv2: arch: depths .*got 2'),
        (dict(arch=dict(ARCH, mlp_ratios=(4, -1, 4))), ValueError, r'arch: mlp_ratios .*got \(4, -1, 4\)'),
        (dict(arch=dict(ARCH, linear='no')), ValueError, "AdaptedPVTv2: arch: linear .*got 'no'"),
        (dict(num_classes=3), TypeError, 'no classifier'),
        (dict(width=3), TypeError, r"takes no \['width'\]; it takes \[(?!.*'(num_classes|global_pool|depths)').*'qkv_bias'"),
    ],
    ids=lambda v: None,
)  # fmt: skip
def test_what_does_not_fit_is_refused_when_it_is_built(kwargs, error, message):
    with pytest.raises(error, match=message):
        MODELS.build(dict(type='AdaptedPVTv2', arch=ARCH) | kwargs)


def test_images_that_are_too_small_are_refused_unless_a_pool_reduces_them():
    x = torch.zeros(1, 3, 28, 40, dtype=torch.float64)
    with pytest.raises(ValueError, match=r'images of 28 x 40 pixels .* at least 29 x 29.*size_divisor=32'):
        build()(x)
    with pytest.raises(RuntimeError, match='Kernel size'):
        stock().double()(x)
    pooled = build(arch=ARCH | dict(linear=True))
    assert pooled(x[..., :1, :1])['normals'][-1].shape == (1, 40, 1, 1)


def test_ratios_of_the_feed_forward_nets_may_be_fractions():
    model = build(arch=ARCH | dict(mlp_ratios=(1.5, 4.0, 2)))
    assert [model.blocks(i)[0].mlp.fc1.out_features for i in range(3)] == [12, 64, 80]


def test_a_segmentor_of_two_tasks_takes_a_training_step():
    model = MODELS.build(
        dict(
            type='MultiTaskSegmentor',
            tasks=TASKS,
            backbone=dict(type='AdaptedPVTv2', arch=ARCH, tasks=TASKS, adapter=METHODS['adapter']),
            decode_heads=dict(type='AllMLPHead', in_channels=[8, 16, 40], channels=8),
        )
    )
    model.init_weights()
    optimizer = torch.optim.SGD(trained(model).values(), lr=0.1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    # Every value counts, with a weight of its own: behind a norm, some sums do not depend on what is in front of it.
    out = model.train()(images_of((64, 64)).float())
    sum((m * torch.randn_like(m)).sum() for m in out.values()).backward()
    optimizer.step()
    for key, p in model.named_parameters():
        assert torch.equal(p, before[key]) != p.requires_grad, key
