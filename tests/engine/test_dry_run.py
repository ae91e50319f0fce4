"""The training in small says what the long one would meet, and leaves nothing behind."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
from collections import namedtuple

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tiny_segmentor import stock_file, tiny_config

from mmseg_polyhistor.engine.dry_run import dry_run

RUNS = itertools.count()


@pytest.fixture
def check(tmp_path):
    """A function (changes of the config) -> what the dry run says; nothing may be left in the work dir."""
    pretrained = stock_file(tmp_path / 'swin.pth')

    def check(keep=(), **changes):
        cfg = Config(tiny_config(tmp_path / 'work', pretrained))
        cfg.default_hooks.checkpoint.type = 'SafeCheckpointHook'
        cfg.merge_from_dict(changes)
        before = copy.deepcopy(cfg._cfg_dict)
        said = []
        try:
            dry_run(cfg, str(tmp_path / 'work'), say=said.append)
        finally:
            assert cfg._cfg_dict == before
            left = set(os.listdir(tmp_path / 'work')) if (tmp_path / 'work').exists() else set()
            assert left == set(keep)
        return '\n'.join(said)

    return check


def test_it_says_what_the_training_will_need(check):
    said = check(**{'train_cfg.max_epochs': 500})
    assert 'training data: 4 images, 2 batches of 2; 3 iterations were trained' in said
    assert 'validation data: 4 images; 4 were evaluated' in said
    assert 's for an iteration, 1,000 iterations: about 0:' in said
    assert 'MB a checkpoint' in said and 'trained parameters' in said and 'frozen' in said


def test_schedules_without_an_end_last_as_long_as_the_training(check):
    """In the small training they would end before they begin."""
    schedule = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
        dict(type='PolyLR', by_epoch=False, begin=100),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=2, convert_to_iter_based=True),
    ]
    assert 'iterations were trained' in check(param_scheduler=schedule, **{'train_cfg.max_epochs': 9})


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model.backbone.init_cfg.checkpoint': 'gone.pth'}, "'gone.pth' does not exist"),
        ({'load_from': 'gone.pth'}, "'gone.pth' does not exist"),
        ({'model.decode_heads.in_channels': [8, 16, 32, 65]}, 'in_channels must be'),
        ({'val_evaluator.type': 'NoMetric'}, 'NoMetric'),
    ],
)
def test_faults_are_those_of_the_training(check, changes, message):
    with pytest.raises(Exception, match=message):
        check(**changes)


def test_a_full_disk_is_told_before(check, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(1, 1, 1000))
    with pytest.raises(OSError, match=r'0 MB free, less than four checkpoints of \d'):
        check()


def test_checkpoints_are_looked_at(check, tmp_path):
    """`resume` and `load_from`: the checkpoint that would be taken, and what is against the others."""
    cfg = Config(tiny_config(tmp_path / 'work', tmp_path / 'swin.pth'))
    cfg.default_hooks.checkpoint.type = 'SafeCheckpointHook'
    cfg.experiment_name = f'dry_{os.getpid()}_{next(RUNS)}'
    cfg.train_cfg.max_epochs = 2
    init_default_scope('mmseg')
    Runner.from_cfg(cfg).train()
    shutil.move(tmp_path / 'work', tmp_path / 'trained')
    assert f'load_from: {tmp_path}/trained/epoch_2.pth fits' in check(
        load_from=str(tmp_path / 'trained' / 'epoch_2.pth')
    )
    assert f'resume: there is no checkpoint in {tmp_path}/work' in check(resume=True)

    (tmp_path / 'work').mkdir()
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        shutil.copy(tmp_path / 'trained' / name, tmp_path / 'work')
    files = ('epoch_1.pth', 'epoch_2.pth')
    assert f'resume: {tmp_path}/work/epoch_2.pth fits' in check(files, resume=True)
    (tmp_path / 'work' / 'epoch_2.pth').write_bytes(b'broken')
    said = check(files, resume=True)
    assert 'epoch_2.pth: the checkpoint' in said and f'resume: {tmp_path}/work/epoch_1.pth fits' in said
    torch.save({}, tmp_path / 'work' / 'epoch_1.pth')
    with pytest.raises(
        RuntimeError, match=r'could not be resumed from any checkpoint: .*epoch_1\.pth: it lacks'
    ):
        check(files, resume=True)


def test_nothing_is_written_wherever_the_config_wants_it(tmp_path, pascal_tree, monkeypatch):
    """Checkpoints and logs in folders of their own, predictions, caches of labels, and a backend with its own folder."""
    cfg = Config(tiny_config(tmp_path / 'work', None))
    pipeline = [
        dict(type='LoadImageFromFile', imdecode_backend='pillow'),
        dict(type='LoadMultiTaskAnnotations'),
        dict(type='MultiTaskResize', scale=(32, 32), keep_ratio=False),
        dict(type='PackMultiTaskInputs'),
    ]
    tree = dict(
        type='PascalContextMTDataset', data_root=str(pascal_tree.root), tasks=('human_parts', 'saliency'),
        parts_cache_dir=str(tmp_path / 'cache'), pipeline=pipeline,
    )  # fmt: skip
    tasks = dict(tasks=('human_parts', 'saliency'))
    cfg.model.update(tasks, test_cfg=dict(mode='whole', resolution='input'))
    cfg.model.backbone.update(tasks)
    cfg.train_dataloader.dataset = tree
    val = dict(tree, ann_file='ImageSets/Context/val.txt', test_mode=True)
    cfg.val_dataloader.update(batch_size=1, dataset=dict(type='ConcatDataset', datasets=[val, val]))
    cfg.val_evaluator = dict(type='MultiTaskMetric', output_dir=str(tmp_path / 'predictions'))
    cfg.default_hooks.checkpoint.update(type='SafeCheckpointHook', out_dir=str(tmp_path / 'elsewhere'))
    cfg.default_hooks.logger = dict(type='LoggerHook', out_dir=str(tmp_path / 'logs'))
    cfg.visualizer = dict(
        type='MultiTaskVisualizer',
        vis_backends=[dict(type='LocalVisBackend', save_dir=str(tmp_path / 'vis'))],
    )
    cfg.default_hooks.visualization = dict(type='SegVisualizationHook', draw=True, interval=1)
    before = set(tmp_path.rglob('*'))
    looked_at = []
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: looked_at.append(str(path)) or usage(path))
    said = []
    dry_run(cfg, str(tmp_path / 'work'), say=said.append)
    assert set(tmp_path.rglob('*')) == before
    assert 'validation data: 6 images; 4 were evaluated' in said  # two batches of each of two data sets
    (room,) = (line for line in said if line.startswith('room: '))
    assert not room.startswith('room: 0.0 MB')
    assert looked_at == [str(tmp_path)], 'the folder in which that of the checkpoints will be made'
