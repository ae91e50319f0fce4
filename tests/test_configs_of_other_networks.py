"""The configs on MiT, and those that put an adapted backbone into mmseg's own: what `test_configs` holds for Swin."""

from __future__ import annotations

import re
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_polyhistor.benchmark import build_without_weights, read_benchmark
from mmseg_polyhistor.engine import count_parameters
from mmseg_polyhistor.tasks import get_task

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
MIT = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.glob('mit/*.py'))
IN_MMSEG = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.glob('in_mmseg/*.py'))
ROWS = {row.config.relative_to(CONFIGS).as_posix(): row for row in read_benchmark(ROOT / 'model-index.yml')}
T = 4  # tasks of the configs on MiT
MMSEG_CONFIGS = Path(mmseg.__file__).parent / '.mim/configs'


# ------------------------------------------------------------------------------------------------ counts as formulas
def hyper_network(inputs: int) -> int:
    return inputs * 128 + 128 + 128 * 64 + 64 + 2 * 64


def decomposed_heads(d: int, ratio: int) -> int:
    n = d // ratio
    return 65 * (2 * max(n // 4, 1) * (d + n) + d + n + 2 * d)


def polyhistor(blocks: list[int], tasks: int) -> int:
    return tasks * 512 + sum(hyper_network(512) + decomposed_heads(d, 16) for d in blocks)


def polyhistor_lite(blocks: list[int], tasks: int) -> int:
    scales = [d // blocks[0] for d in blocks]
    kernels = sum(s**3 + 2 * s**2 for s in scales if s > 1)
    return 512 * (tasks + sum(scales)) + kernels + hyper_network(2 * 512) + decomposed_heads(blocks[0], 2)


def mit_biases(blocks: list[int], widths: list[int]) -> int:
    """Of a MiT whose last stage alone does not reduce keys and values; its last norm is the tasks' own."""
    inside = sum(2 * d + 3 * d + d + 4 * d + 4 * d + d for d in blocks)
    reductions = sum(2 * d for d in blocks if d != widths[-1])
    return inside + reductions + sum(2 * d for d in widths) + sum(widths[:-1])


B0, B2 = [32, 64, 160, 256], [64, 128, 320, 512]
B0_BLOCKS = [d for d in B0 for _ in range(2)]
B2_BLOCKS = [d for d, depth in zip(B2, (3, 4, 6, 3), strict=True) for _ in range(depth)]
SWIN_BLOCKS = [d for d, depth in zip((96, 192, 384, 768), (2, 2, 6, 2), strict=True) for _ in range(depth)]
ENCODERS = {
    'mit/decoder_only_mit-b0_pascal.py': 0,
    'mit/bitfit_mit-b0_pascal.py': T * mit_biases(B0_BLOCKS, B0),
    'mit/lora_mit-b0_pascal.py': T * sum(4 * 4 * d + 2 * d for d in B0_BLOCKS),
    'mit/polyhistor_mit-b0_pascal.py': polyhistor(B0_BLOCKS, T),
    'mit/polyhistor_lite_mit-b0_pascal.py': polyhistor_lite(B0_BLOCKS, T),
    'mit/polyhistor_lite_mit-b2_pascal.py': polyhistor_lite(B2_BLOCKS, T),
    'in_mmseg/upernet_swin-t_ade20k.py': polyhistor_lite(SWIN_BLOCKS, 1),
    'in_mmseg/segformer_mit-b0_cityscapes.py': polyhistor_lite(B0_BLOCKS, 1),
    'in_mmseg/segformer_swin-t_cityscapes.py': sum(8 * (4 + 2 + 5 + 5) * d for d in SWIN_BLOCKS),
}


def decoders(widths: list[int]) -> int:
    """Output norms and decoders of 256 channels, as in `test_configs`."""
    shared = sum(widths) * 256 + 4 * 256 + 4 * 256 * 256 + 2 * 256
    return T * (2 * sum(widths) + shared) + sum(256 * n + n for n in (21, 7, 1, 3))


@pytest.fixture(params=[*MIT, *IN_MMSEG], scope='module')
def path(request) -> str:
    return request.param


@pytest.fixture(scope='module')
def model(path):
    """Without values."""
    return build_without_weights(Config.fromfile(CONFIGS / path).model)


def test_every_config_has_a_formula():
    assert sorted(ENCODERS) == sorted([*MIT, *IN_MMSEG])


def test_trained_parameters_are_as_many_as_formula_metafile_and_header_say(path, model):
    counts = count_parameters(model)
    row = ROWS[path]
    assert counts.encoder == ENCODERS[path] == row.encoder
    assert counts.total == row.total
    if path in MIT:
        assert counts.decoder == decoders(B2 if 'b2' in path else B0)
    header = re.match(r'(#.*\n)+', (CONFIGS / path).read_text()).group()
    printed = re.search(r'([\d.]+) M\s+(?:# )?encoder parameters', header)
    assert (printed and printed[1]) == (f'{counts.encoder / 1e6:.2f}' if counts.encoder else None)


def test_at_its_own_size_a_gradient_reaches_every_trained_parameter_and_no_other(path, model):
    images = torch.empty(2, 3, 32, 32, device='meta')
    if path in MIT:
        out = model.train()(images)
    else:
        # UPerNet pools to one value per channel, which BatchNorm refuses of one image
        maps = model.train().extract_feat(images)
        heads = [model.decode_head, *([model.auxiliary_head] if model.with_auxiliary_head else [])]
        out = {i: head(maps) for i, head in enumerate(heads)}
    sum(x.square().mean() for x in out.values()).backward()
    wrong = [n for n, p in model.named_parameters() if (p.grad is not None) != p.requires_grad]
    assert not wrong


def test_the_weights_are_those_that_mmseg_names_for_the_network(path):
    if not MMSEG_CONFIGS.is_dir():
        pytest.skip('mmseg is installed without its configs')
    backbone = Config.fromfile(CONFIGS / path).model.backbone
    network = re.search(r'(mit-b\d|swin-t)', path)[1]
    folder, start = ('segformer', network.replace('-', '_')) if 'mit' in network else ('swin', 'swin_tiny')
    listed = ''.join(file.read_text() for file in (MMSEG_CONFIGS / folder).glob('*.py'))
    file = backbone.init_cfg.checkpoint.rsplit('/', 1)[1]  # the forks have a server of their own
    assert f"/{file}'" in listed and file.startswith(start)
    assert backbone.arch == {'swin-t': 'tiny'}.get(network, network.removeprefix('mit-'))


# ------------------------------------------------------------------------------------------------------------ on MiT
@pytest.mark.parametrize('path', MIT)
def test_on_mit_all_but_encoder_and_widths_is_as_on_swin(path):
    cfg, swin = Config.fromfile(CONFIGS / path), Config.fromfile(CONFIGS / 'decoder_only/swin-t_pascal.py')
    for part in (cfg, swin):
        part.model.pop('backbone'), part.model.decode_heads.pop('in_channels'), part.pop('checkpoint')
    assert cfg.to_dict() == swin.to_dict()


@pytest.mark.parametrize('path', [p for p in MIT if 'b2' not in p])
def test_a_training_step_on_mit(path):
    """Preprocessor, losses, backward pass and the config's own optimiser; frozen weights stay to the bit."""
    cfg = Config.fromfile(CONFIGS / path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    model.backbone._frozen_set = True  # random weights will do
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    in_optimizer = {p for group in optimizer.param_groups for p in group['params']}
    assert in_optimizer == {p for p in model.parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):  # some factors start at zero, and stop the gradient of the others
        log = model.train_step(batch_for(model.tasks), optimizer)
    assert all(torch.isfinite(value).all() for value in log.values())
    assert {f'loss_{task}' for task in model.tasks} < set(log)
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n]) and p.requires_grad]
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n]) and not p.requires_grad]
    assert not moved and not still


def batch_for(tasks, size=(64, 64)) -> dict:
    """Two random images with labels, as a data loader hands them over."""
    torch.manual_seed(0)
    samples = []
    for number in range(2):
        sample = SegDataSample(metainfo=dict(img_path=f'{number}.jpg', img_shape=size, ori_shape=size))
        for spec in map(get_task, tasks):
            if spec.kind == 'unit_vector':
                label = torch.nn.functional.normalize(torch.randn(3, *size), dim=0)
            else:
                label = torch.randint(max(spec.channels, 2), (1, *size), dtype=torch.uint8)
            sample.set_data({spec.gt_field: PixelData(data=label)})
        samples.append(sample)
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


# ----------------------------------------------------------------------------------------------------------- in mmseg
@pytest.mark.parametrize('path', IN_MMSEG)
def test_in_mmseg_only_the_backbone_is_another(path):
    """Beside it, what must follow: the widths that the head reads, and the rate that the adapters' names would change."""
    base = re.search(r"^_base_ = 'mmseg::(\S+)'$", (CONFIGS / path).read_text(), re.M)[1]
    cfg, theirs = Config.fromfile(CONFIGS / path), Config.fromfile(MMSEG_CONFIGS / base)
    assert cfg.pop('custom_imports') == dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)
    assert cfg.default_hooks.checkpoint.pop('type') == 'SafeCheckpointHook'
    theirs.default_hooks.checkpoint.pop('type')
    assert set(cfg.model.pop('backbone')) == {'type', 'arch', 'adapter', 'init_cfg'}
    theirs.model.pop('backbone')
    if path == 'in_mmseg/segformer_swin-t_cityscapes.py':
        assert cfg.model.decode_head.pop('in_channels') == [96, 192, 384, 768]
        theirs.model.decode_head.pop('in_channels')
        cfg.pop('checkpoint'), theirs.pop('checkpoint')
    if path == 'in_mmseg/segformer_mit-b0_cityscapes.py':
        del cfg.optim_wrapper.paramwise_cfg.custom_keys['backbone.adapters']
    scoped = re.sub(r"'_scope_': 'mmseg',? ?|, '_scope_': 'mmseg'", '', str(cfg.to_dict()))
    assert scoped == str(theirs.to_dict())


@pytest.mark.parametrize('path', IN_MMSEG)
def test_in_mmseg_the_optimiser_holds_what_is_trained_at_the_rates_that_are_meant(path):
    cfg = Config.fromfile(CONFIGS / path)
    model = build_without_weights(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {p: group['lr'] for group in optimizer.optimizer.param_groups for p in group['params']}
    assert set(rates) == {p for p in model.parameters() if p.requires_grad}
    lr = cfg.optim_wrapper.optimizer.lr
    assert {rates[p] for p in model.backbone.adapters.parameters()} == {lr}
    assert {rates[p] for p in model.decode_head.parameters()} == {10 * lr if 'segformer' in path else lr}
