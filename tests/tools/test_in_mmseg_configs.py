"""Configs of mmseg with an adapted backbone, as README.md and configs/in_mmseg show them, under mmseg's own tools.

The examples are taken as they stand; a second config on top of them makes network and images small, and names files that
the stock networks of mmseg have written.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import mmcv
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn

from mmseg_polyhistor.benchmark import build_without_weights
from mmseg_polyhistor.engine.safe_load import load_from_local

REPO = Path(__file__).resolve().parents[2]
MIM = Path(mmseg.__file__).parent / '.mim'
MIT = dict(embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 5, 8])
SWIN = dict(embed_dims=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 3, 4])
ITERS = 3

pytestmark = [
    pytest.mark.integration,
    pytest.mark.stack,
    pytest.mark.skipif(not MIM.is_dir(), reason='mmseg is installed without its configs and tools'),
]

SMALL = """
_base_ = './example.py'
size = (64, 64)
model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(arch=dict(_delete_=True, **{arch}), init_cfg=dict(checkpoint={checkpoint!r})),
    decode_head=dict(in_channels={widths}, channels=16))
if {auxiliary}:
    model['auxiliary_head'] = dict(in_channels={widths}[2], channels=16)
if {slide}:
    model['test_cfg'] = dict(crop_size=size, stride=(48, 48))
load = dict(type='LoadAnnotations', reduce_zero_label={zero})
train_pipeline = [
    dict(type='LoadImageFromFile'), load,
    dict(type='RandomResize', scale=(96, 72), ratio_range=(1.0, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=size, cat_max_ratio=0.95), dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 72), keep_ratio=True), load,
    dict(type='PackSegInputs')]
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=2, dataset=dict(data_root={root!r}, pipeline=train_pipeline), **loader)
val_dataloader = dict(dataset=dict(data_root={root!r}, pipeline=test_pipeline), **loader)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = []
train_cfg = dict(max_iters={iters}, val_interval={iters})
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
env_cfg = dict(cudnn_benchmark=False)
"""


def images(root: Path, folders: dict[str, tuple[str, str]], classes: range) -> None:
    """Three training and two validation images of 96 x 72 pixels, with blocks of classes."""
    rng = np.random.default_rng(0)
    for split, count in dict(train=3, val=2).items():
        for number in range(count):
            labels = (
                rng.integers(classes.start, classes.stop, (6, 8), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
            )
            image = np.stack([labels, 255 - labels, labels // 2], axis=-1)
            for folder, content in zip(folders[split], (image, labels), strict=True):
                mmcv.imwrite(content, str(root / folder.format(number=number)))


def ade20k(root: Path) -> None:
    """Label 0 is none of the 150 classes."""
    folders = {
        split: (f'images/{name}/{{number}}.jpg', f'annotations/{name}/{{number}}.png')
        for split, name in (('train', 'training'), ('val', 'validation'))
    }
    images(root, folders, range(151))


def cityscapes(root: Path) -> None:
    folders = {
        split: (
            f'leftImg8bit/{split}/ulm/{{number}}_leftImg8bit.png',
            f'gtFine/{split}/ulm/{{number}}_gtFine_labelTrainIds.png',
        )
        for split in ('train', 'val')
    }
    images(root, folders, range(19))


def block_of(page: Path) -> str:
    """The one Python example in a page that inherits from a config of mmseg."""
    (example,) = [
        code
        for code in re.findall(r'```python\n(.*?)```', page.read_text(), re.S)
        if "_base_ = 'mmseg::" in code
    ]
    return example


def by_path(example: str, folder: Path) -> str:
    """The example, inheriting the installed config by its path, relative to the example's folder."""
    base = re.search(r"'mmseg::(\S+)'", example)[1]
    path = os.path.relpath(MIM / 'configs' / base, folder)
    return example.replace(f"'mmseg::{base}'", repr(path))


def prepare(folder: Path, example: str, data: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    """Example, small config, images and pretrained weights; returns the config and the weights."""
    swin = 'AdaptedSwin' in example
    widths = [24, 48, 96, 192] if swin else [8, 16, 40, 64]
    stock = MODELS.build(
        dict(type='SwinTransformer', **SWIN) if swin else dict(type='MixVisionTransformer', **MIT)
    )
    torch.manual_seed(0)
    for p in stock.parameters():
        nn.init.normal_(p, std=0.1)
    torch.save(dict(state_dict=stock.state_dict()), folder / 'pretrained.pth')
    data(folder / 'data')
    (folder / 'example.py').write_text(example)
    small = SMALL.format(
        arch=SWIN if swin else MIT,
        checkpoint=str(folder / 'pretrained.pth'),
        widths=widths,
        auxiliary='upernet' in example,
        slide=data is cityscapes,
        zero=data is ade20k,
        root=str(folder / 'data'),
        iters=ITERS,
    )
    (folder / 'small.py').write_text(small)
    return folder / 'small.py', stock.state_dict()


def metric(folder: Path) -> float:
    """The mIoU that a run wrote last."""
    (log,) = folder.glob('*/*.json')
    return json.loads(log.read_text().splitlines()[-1])['mIoU']


def check_run(folder: Path, pretrained: dict[str, torch.Tensor]) -> None:
    """What a training must have left: frozen weights to the bit, others moved, and nothing frozen in the optimiser."""
    first, last = (load_from_local(str(folder / f'iter_{i}.pth'), 'cpu') for i in (1, ITERS))
    weights = last['state_dict']
    trained = set()
    for key, value in weights.items():
        name = key.removeprefix('backbone.')
        if key.startswith('backbone.') and name in pretrained and not re.match(r'norm\d\.', name):
            assert torch.equal(value, pretrained[name]), key
        elif not key.endswith(('running_mean', 'running_var', 'num_batches_tracked')):
            trained.add(key)
            assert value.isfinite().all(), key
    adapters = [key for key in trained if key.startswith('backbone.adapters.')]
    assert adapters and not any(torch.equal(weights[k], first['state_dict'][k]) for k in adapters)
    groups = last['optimizer']['param_groups']
    assert len([p for group in groups for p in group['params']]) in (len(trained), 1 + len(trained))
    assert len(last['optimizer']['state']) == len(trained)
    (log,) = folder.glob('*/vis_data/scalars.json')
    losses = [json.loads(line)['loss'] for line in log.read_text().splitlines() if '"loss"' in line]
    assert len(losses) == ITERS and np.isfinite(losses).all()


def test_the_readmes_example_runs_under_mmsegs_own_tools(tmp_path):
    """In processes that know nothing of this package but what the config imports."""
    example = block_of(REPO / 'README.md')
    if not any(
        metadata.distributions(name='mmsegmentation')
    ):  # the forks' mmengine looks for that name alone
        example = by_path(example, tmp_path)
    config, pretrained = prepare(tmp_path, example, ade20k)

    def run(tool: str, *arguments: Any) -> None:
        command = [sys.executable, '-W', 'ignore', MIM / 'tools' / tool, *arguments]
        env = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')
        done = subprocess.run(
            [str(c) for c in command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=170
        )
        assert done.returncode == 0, f'{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'

    run('train.py', config, '--work-dir', tmp_path / 'work')
    check_run(tmp_path / 'work', pretrained)
    run('test.py', config, tmp_path / 'work' / f'iter_{ITERS}.pth', '--work-dir', tmp_path / 'tested')
    scalars = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert metric(tmp_path / 'tested') == json.loads(scalars[-1])['mIoU']


@pytest.mark.parametrize(
    ('page', 'data'),
    [
        ('configs/in_mmseg/segformer_mit-b0_cityscapes.py', cityscapes),
        ('configs/in_mmseg/segformer_swin-t_cityscapes.py', cityscapes),
    ],
    ids=['mit', 'swin'],
)
def test_the_configs_run_too_and_inherit_by_path(page, data, tools, tmp_path):
    example = by_path((REPO / page).read_text(), tmp_path)
    assert 'mmseg::' not in example
    config, pretrained = prepare(tmp_path, example, data)
    tools.start(MIM / 'tools/train.py', config, '--work-dir', tmp_path / 'work', cwd=tmp_path)
    check_run(tmp_path / 'work', pretrained)
    checkpoint = tmp_path / 'work' / f'iter_{ITERS}.pth'
    tools.start(MIM / 'tools/test.py', config, checkpoint, '--work-dir', tmp_path / 'tested', cwd=tmp_path)
    scalars = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert metric(tmp_path / 'tested') == json.loads(scalars[-1])['mIoU']


@pytest.mark.parametrize('inherit', [lambda example, folder: example, by_path], ids=['mmseg::', 'path'])
def test_the_example_in_the_folders_readme_builds(inherit, tmp_path):
    example = block_of(REPO / 'configs/in_mmseg/README.md')
    (tmp_path / 'example.py').write_text(inherit(example, tmp_path))
    cfg = Config.fromfile(tmp_path / 'example.py')
    backbone = build_without_weights(cfg.model).backbone
    assert (type(backbone).__name__, type(backbone.adapters).__name__) == ('AdaptedMiT', 'LoRA')
    assert cfg.train_dataloader.dataset.type == 'ADE20KDataset'
