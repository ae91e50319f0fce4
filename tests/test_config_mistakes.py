"""Mistakes in configs: each is an error before anything is trained or tested, that says which key, what was given, what is allowed.

Every row changes a config of this repository as `--cfg-options` would, and starts the run; nothing else of a run is
replaced than the data set's files, which are empty and never read.
"""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

REPO = Path(__file__).resolve().parents[1]
RUNS = itertools.count()
PICO = 'polyhistor/swin-pico_mini-pascal.py'
TASKS = ['semseg', 'human_parts', 'saliency', 'normals']
THREE = TASKS[:3]
KNOWN = "known tasks are ['semseg', 'human_parts', 'saliency', 'normals', 'edge', 'depth', 'nyud_semseg']"
HEAD = dict(type='AllMLPHead', in_channels=[48, 96, 192, 384], channels=16)
SMALL = dict(_delete_=True, embed_dims=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
FILES = (
    'JPEGImages/{}.jpg',
    'semseg/VOC12/{}.png',
    'human_parts/{}.mat',
    'normals_distill/{}.png',
    'pascal-context/trainval/{}.mat',
    'sal_distill/{}.png',
)
TRAIN, VAL, TEST = (f'{split}_dataloader.dataset.' for split in ('train', 'val', 'test'))
BACKBONE, ADAPTER, HEADS = 'model.backbone.', 'model.backbone.adapter.', 'model.decode_heads'
CHECKPOINT = 'default_hooks.checkpoint.'


class _Begins(Exception):
    """The run has begun: nothing was wrong."""


class _BeginHook(Hook):
    priority = 'LOWEST'

    def before_train_epoch(self, runner):
        raise _Begins

    def before_test_epoch(self, runner):
        raise _Begins


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    """The tree of the data set, with empty files; `<root>_other` lacks the folder of the human parts."""
    root = tmp_path_factory.mktemp('data') / 'root'
    for other in ('', '_other'):
        for split, ids in dict(train='ab', val='cd').items():
            place = root.with_name(root.name + other)
            names = [f.format(i) for f in FILES for i in ids if not (other and f.startswith('human'))]
            names.append(f'ImageSets/Context/{split}.txt')
            for name in names:
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).touch()
            (place / names[-1]).write_text('\n'.join(ids) + '\n')
    return root


@pytest.fixture
def start(tmp_path, data_root, monkeypatch):
    """Start a run of a config with changes, {dotted key: value}."""
    # It takes half a second to describe the machine for the log.
    monkeypatch.setattr(Runner, '_log_env', lambda self, env_cfg: None)

    def run(changes, config=PICO, what='train'):
        cfg = Config.fromfile(REPO / 'configs' / config)
        for split in ('train', 'val', 'test'):
            own = dict(data_root=str(data_root), serialize_data=False)
            cfg.merge_from_dict(
                {f'{split}_dataloader': dict(dataset=own, num_workers=0, persistent_workers=False)}
            )
        cfg.train_dataloader.batch_size = 2
        cfg.merge_from_dict(copy.deepcopy(changes))
        cfg.work_dir, cfg.log_level = str(tmp_path), 'ERROR'
        cfg.experiment_name = f'{tmp_path.name}_{next(RUNS)}'
        runner = Runner.from_cfg(cfg)
        runner.register_hook(_BeginHook())
        getattr(runner, what)()

    return run


class Mistake(NamedTuple):
    """A change of a config, and what the message says."""

    changes: dict[str, Any]
    key: str  # or where
    given: str
    allowed: str = ''  # or what to do
    config: str = PICO


def tasks_of_model(tasks):
    return {'model.tasks': tasks, BACKBONE + 'tasks': tasks}


def heads(**of_tasks):
    return {HEADS: dict(_delete_=True, **of_tasks)}


def adapter(**cfg):
    return {BACKBONE + 'adapter': dict(_delete_=True, **cfg)}


TASK_MISTAKES = [
    # unknown
    Mistake(tasks_of_model(('semseg', 'depht')), 'MultiTaskSegmentor: tasks', "unknown task 'depht'", KNOWN),
    Mistake({TRAIN + 'tasks': ('depht',)}, 'PascalContextMTDataset: tasks', "unknown task 'depht'", KNOWN),
    Mistake({'val_evaluator.tasks': ('depht',)}, 'MultiTaskMetric: tasks', "unknown task 'depht'", KNOWN),
    Mistake({TRAIN + 'tasks': ('depth',)}, 'PascalContextMTDataset', "no source for the tasks ['depth']", 'only for'),
    # a name in the place of a list
    Mistake({'model.tasks': 'semseg'}, 'MultiTaskSegmentor: tasks', "the string 'semseg'", "write ('semseg',)"),
    Mistake({BACKBONE + 'tasks': 'semseg'}, 'AdaptedSwin: tasks', "got 'semseg'", 'sequence of different names'),
    Mistake({TRAIN + 'tasks': 'semseg'}, 'PascalContextMTDataset: tasks', "'semseg'", "write ('semseg',)"),
    Mistake({'val_evaluator.tasks': 'semseg'}, 'MultiTaskMetric: tasks', "'semseg'", "write ('semseg',)"),
    # twice, or none
    Mistake({'model.tasks': [*TASKS, 'normals']}, 'MultiTaskSegmentor: tasks', "more than once: ['normals']", "in ['semseg', "),
    Mistake({BACKBONE + 'tasks': [*TASKS, 'normals']}, 'AdaptedSwin: tasks', "'normals'", 'different names'),
    Mistake({TRAIN + 'tasks': ['normals'] * 2}, 'PascalContextMTDataset: tasks', "more than once: ['normals']", 'in ['),
    Mistake({'val_evaluator.tasks': ['normals'] * 2}, 'MultiTaskMetric: tasks', "more than once: ['normals']", 'in ['),
    Mistake(tasks_of_model(()), 'MultiTaskSegmentor: tasks', 'no task is named', KNOWN),
    Mistake({TRAIN + 'tasks': ()}, 'PascalContextMTDataset: tasks', 'no task is named', KNOWN),
    # different ones
    Mistake({'model.tasks': THREE}, f'model.backbone.tasks={TASKS}', f'model.tasks={THREE}', 'the same tasks'),
    Mistake({BACKBONE + 'tasks': THREE}, f'model.backbone.tasks={THREE}', f'model.tasks={TASKS}', 'the same tasks'),
    Mistake({TRAIN + 'tasks': THREE}, f'train_dataloader.dataset.tasks={THREE}', f'model.tasks={TASKS}', "would train ['normals']"),
    Mistake(
        tasks_of_model(THREE), "train_dataloader.dataset.tasks=['semseg', 'human_parts', 'normals', 'saliency']",
        f'model.tasks={THREE}', "labels of ['normals'] would be loaded for nothing",
    ),
    Mistake({TRAIN + 'tasks': [*TASKS, 'edge']}, 'train_dataloader.dataset.tasks=', f'model.tasks={TASKS}', "['edge']"),
    Mistake({VAL + 'tasks': THREE}, f'val_dataloader.dataset.tasks={THREE}', f'model.tasks={TASKS}', f'val_evaluator.tasks={THREE}'),
    Mistake({VAL + 'tasks': [*TASKS, 'edge']}, 'val_dataloader.dataset.tasks=', f'model.tasks={TASKS}', "does not predict ['edge']"),
    Mistake({'val_evaluator.tasks': ['semseg', 'edge']}, "val_evaluator.tasks=['semseg', 'edge']", f'model.tasks={TASKS}', "not predict ['edge']"),
    Mistake(
        {VAL + 'tasks': THREE, 'val_evaluator.tasks': ['normals']}, "val_evaluator.tasks=['normals']",
        f'val_dataloader.dataset.tasks={THREE}', "no labels of ['normals']",
    ),
    Mistake(
        {BACKBONE + 'tasks': THREE, BACKBONE + 'encoder.arch': SMALL}, f'model.backbone.tasks={THREE}',
        f'model.tasks={TASKS}', 'the same tasks', 'single_task/swin-t_pascal.py',
    ),
]  # fmt: skip

METHODS = 'methods of this package: BitFit, RelativeBias, VisualPrompt, LoRA, BottleneckAdapter'
ADAPTER_MISTAKES = [
    Mistake({ADAPTER + 'type': 'Polyhistorr'}, 'adapter', "'type': 'Polyhistorr'", METHODS),
    Mistake({ADAPTER + 'type': 'AllMLPHead'}, 'adapter', "'type': 'AllMLPHead'", METHODS),
    Mistake({BACKBONE + 'adapter': 'Polyhistor'}, 'adapter must be dict(type=', "got 'Polyhistor'", METHODS),
    Mistake({BACKBONE + 'adapter': ['Polyhistor']}, 'adapter must be dict(type=', "got ['Polyhistor']", METHODS),
    Mistake({ADAPTER + 'ratoi': 4}, 'adapter: Polyhistor', "no ['ratoi']", "it takes ['activation', "),
    Mistake({ADAPTER + 'positions': ('mlp',)}, 'positions', "unknown ['mlp']", "allowed: ['attn', 'ffn']"),
    Mistake({ADAPTER + 'positions': 'ffn'}, 'positions', "got 'ffn'", 'sequence of different names'),
    Mistake({ADAPTER + 'positions': ('ffn', 'ffn')}, 'positions', "'ffn', 'ffn'", 'different names'),
    Mistake({ADAPTER + 'insertion': 'after'}, 'insertion', "got 'after'", "('serial', 'parallel')"),
    Mistake({ADAPTER + 'activation': 'gleu'}, 'activation', "'gleu'", "known are ['gelu', "),
    Mistake({ADAPTER + 'rank': 0}, 'rank', 'got 0', 'positive int, or -k for'),
    Mistake({ADAPTER + 'rank': 2.5}, 'rank', 'got 2.5', 'positive int, or -k for'),
    Mistake({ADAPTER + 'rank': 100}, 'rank', 'rank 100', 'smaller side of a 6 x 48 matrix'),
    Mistake({ADAPTER + 'ratio': 7}, 'ratio', 'ratio 7', 'does not divide 48 channels'),
    Mistake({ADAPTER + 'ratio': -8}, 'ratio', 'got -8', 'positive int'),
    Mistake({ADAPTER + 'shared': 'False'}, 'shared', "got 'False'", 'True or False'),
    Mistake({ADAPTER + 'per_task': False}, 'per_task=False', 'Polyhistor', "dict(type='BottleneckAdapter', per_task=False)"),
    Mistake({ADAPTER + 'kernels_per_task': True}, 'kernels_per_task', 'True', 'scaling_kernels=True'),
    Mistake(adapter(type='LoRA', targets=('q',)), 'targets', "unknown ['q']", "['fc1', 'fc2', 'proj', 'qkv', 'reduction']"),
    Mistake(adapter(type='LoRA', rank=0), 'rank', 'got 0', 'positive int, or -k for'),
    Mistake(adapter(type='BitFit', tuned=('biases',)), 'tuned', "unknown ['biases']", "['bias', 'norm', "),
    Mistake({ADAPTER + 'tasks': THREE}, 'adapter: Polyhistor', "no ['tasks']", 'it takes ['),
]  # fmt: skip

FOUR = '[48, 96, 192, 384]'
HEAD_MISTAKES = [
    Mistake(heads(semseg=HEAD, saliency=HEAD), 'decode_heads has no head', "['human_parts', 'normals']", "the key 'type' as the template"),
    Mistake(heads(**dict.fromkeys([*TASKS, 'depth'], HEAD)), 'decode_heads has heads for', "['depth']", f'tasks={TASKS}'),
    Mistake(heads(**dict.fromkeys([*THREE, 'normal'], HEAD)), 'decode_heads has no head', "['normals']", "'normal']"),
    Mistake({HEADS: [HEAD] * 4}, 'decode_heads', "got [{'type': 'AllMLPHead'", 'must be a dict'),
    Mistake({HEADS: None}, 'decode_heads', 'got None', 'must be a dict'),
    Mistake(heads(**dict.fromkeys(THREE, HEAD), normals='AllMLPHead'), 'decode_heads.normals', "got 'AllMLPHead'", 'dict(type=<name>'),
    Mistake({HEADS + '.type': 'AllMlpHead'}, 'decode_heads.semseg.type', "'AllMlpHead'", "'AllMLPHead', "),
    Mistake({HEADS + '.chanels': 3}, 'decode_heads.semseg', "no ['chanels']", "'channels', "),
    Mistake({HEADS + '.in_channels': [96, 192, 384, 768]}, 'decode_heads.semseg (AllMLPHead): in_channels', '[96, 192, 384, 768]', f'must be {FOUR}'),
    Mistake({HEADS + '.in_channels': 384}, 'in_channels', 'got 384', 'the width of each map'),
    Mistake({HEADS + '.in_index': [0, 1, 2]}, 'in_index', '[0, 1, 2]', 'same length'),
    Mistake({HEADS + '.in_index': [0, 1, 2, 4]}, 'decode_heads.semseg (AllMLPHead): in_index', '[4]', 'has 4, 0 to 3'),
    Mistake({HEADS + '.in_index': [3], HEADS + '.in_channels': [48]}, 'in_channels', '[48] at in_index=[3]', 'must be [384]'),
    Mistake(
        heads(type='SegformerHead', in_channels=[96, 192, 384, 768], in_index=[0, 1, 2, 3], channels=16),
        'decode_heads.semseg (SegformerHead): in_channels', '[96, 192, 384, 768]', f'must be {FOUR}',
    ),
    Mistake(heads(type='FCNHead', in_channels=768, in_index=-1, channels=16), '(FCNHead): in_channels', '768 at in_index=-1', 'must be 384'),
    Mistake(heads(type='FCNHead', in_channels=384, in_index=4, channels=16), '(FCNHead): in_index', '=4', 'has 4, 0 to 3'),
    Mistake(
        heads(type='FCNHead', in_channels=[48, 48], in_index=[0, 1], channels=16, input_transform='resize_concat'),
        '(FCNHead): in_channels', '=96', 'must be [48, 96]',
    ),
    Mistake({HEADS + '.num_classes': 19}, 'decode_heads.semseg: num_classes', '=19', 'allowed: 21'),
    Mistake({HEADS + '.out_channels': 2}, 'decode_heads.semseg: out_channels', '=2', 'allowed: 21'),
    Mistake({HEADS + '.ignore_index': 0}, 'decode_heads.semseg: ignore_index', '=0', 'allowed: 255'),
    Mistake({HEADS + '.loss_decode': dict(type='CrossEntropyLos')}, 'decode_heads.semseg.loss_decode.type', "'CrossEntropyLos'", "'CrossEntropyLoss', "),
    Mistake({HEADS + '.loss_decode': 'CrossEntropyLoss'}, 'decode_heads.semseg.loss_decode', "got 'CrossEntropyLoss'", 'dict(type=<name>'),
    Mistake({HEADS + '.loss_decode': dict(loss_weight=1.0)}, 'decode_heads.semseg.loss_decode', "{'loss_weight': 1.0}", 'dict(type=<name>'),
    Mistake({HEADS + '.norm_cfg': dict(type='BatchNorm')}, 'decode_heads.semseg cannot be built', "'norm_cfg': {'type': 'BatchNorm'}"),
    Mistake({HEADS + '.norm_cfg': None}, 'AllMLPHead: norm_cfg', 'got None', 'dict(type=...)'),
    Mistake(
        {HEADS + '.in_channels': [96, 192, 384, 768], BACKBONE + 'encoder.arch': SMALL},
        'decode_heads.semseg (AllMLPHead): in_channels', '[96, 192, 384, 768]', 'must be [24, 48, 96, 192]',
        'single_task/swin-t_pascal.py',
    ),
]  # fmt: skip

MODEL_MISTAKES = [
    Mistake({'model.execution': 'parallel'}, 'execution', "got 'parallel'", "('auto', 'stacked', 'sequential')"),
    Mistake({'model.pretrained': 'swin.pth'}, 'pretrained', "'swin.pth'", 'in the backbone: init_cfg'),
    Mistake({'model.test_cfg.mod': 'slide'}, 'test_cfg', "unknown keys ['mod']", "('mode', 'crop_size', "),
    Mistake({'model.test_cfg.mode': 'sliding'}, 'test_cfg.mode', "'sliding'", "'whole' or 'slide'"),
    Mistake(
        {'model.test_cfg': dict(mode='slide', crop_size=(64,), stride=(32, 32))}, 'test_cfg.crop_size', '(64,)', 'a pair (height, width)',
    ),
    Mistake({BACKBONE + 'drop_path': 0.1}, 'AdaptedSwin', "no ['drop_path']", "'drop_path_rate', "),
    Mistake({BACKBONE + 'out_indices': (0, 1)}, 'AdaptedSwin', "['out_indices']", 'decides'),
    Mistake({BACKBONE + 'arch': 'medium'}, 'rch medium', 'medium', "'tiny'"),
    Mistake({BACKBONE + 'arch': dict(_delete_=True, embed_dims=48)}, 'arch', 'arch', "'num_heads'"),
    Mistake({BACKBONE + 'arch.embed_dims': 50}, 'arch', 'embed_dims=50', 'multiple of its 3 heads'),
    Mistake({BACKBONE + 'frozen': 'False'}, 'frozen', "got 'False'", 'True or False'),
    Mistake({BACKBONE + 'init_cfg': 'swin.pth'}, 'init_cfg', "got 'swin.pth'", "dict(type='Pretrained', checkpoint="),
    Mistake({BACKBONE + 'init_cfg': dict(type='Pretrained')}, 'init_cfg', "{'type': 'Pretrained'}", 'checkpoint=<path or URL>'),
    Mistake({BACKBONE + 'init_cfg': dict(type='Pretrained', checkpoint='no.pth')}, 'checkpoint', "'no.pth'", 'does not exist'),
    Mistake({'model.data_preprocessor.size': (64,)}, 'data_preprocessor: size', '(64,)', 'a pair (height, width)'),
    Mistake({'model.data_preprocessor.size': 64}, 'data_preprocessor: size', 'got 64', 'a pair (height, width)'),
    Mistake({'model.data_preprocessor.size': (64, 64)}, 'data_preprocessor', '(64, 64) and 32', 'only one of size and size_divisor'),
    Mistake({'model.data_preprocessor.size_divisor': 0}, 'data_preprocessor: size_divisor', 'got 0', 'positive int'),
    Mistake({'model.data_preprocessor.mean': [1, 2]}, 'data_preprocessor: mean', '[1, 2]', 'a number per channel'),
    Mistake({'model.data_preprocessor.test_cfg.sise': 3}, 'data_preprocessor.test_cfg', "unknown keys ['sise']", "'size', 'size_divisor'"),
]  # fmt: skip

DATA_MISTAKES = [
    Mistake({TRAIN + 'data_rot': 'x'}, 'PascalContextMTDataset', "no ['data_rot']", "'data_root', "),
    Mistake({TRAIN + 'data_root': 'nowhere'}, 'the list of images', 'nowhere/ImageSets/Context/train.txt', 'check data_root: \'nowhere\' is no folder'),
    Mistake({TRAIN + 'ann_file': 'all.txt'}, 'the list of images', 'all.txt', 'check data_root and ann_file'),
    Mistake({VAL + 'data_root': '{root}_other'}, 'human_parts: 2 of 2', '_other', 'name in `tasks` only what you have labels for'),
    Mistake({TRAIN + 'data_prefix': dict(img_path='images')}, '2 do not exist', 'images/a.jpg', 'Check data_root'),
    Mistake({TRAIN + 'data_prefix': dict(saliancy='sal')}, "'saliancy'", "data_prefix has ['context'", 'suffixes has'),
    Mistake({TRAIN + 'metainfo': dict(classes=('cat',))}, 'metainfo', "['cat']", 'the labels have'),
    Mistake({TRAIN + 'pipeline.4.scale': (96,)}, 'MultiTaskResize: scale', '(96,)', '(width, height)'),
    Mistake({TRAIN + 'pipeline.4.scale': (96, 96, 3)}, 'MultiTaskResize: scale', '(96, 96, 3)', '(width, height)'),
    Mistake({TRAIN + 'pipeline.4.scale': '96'}, 'MultiTaskResize: scale', "'96'", '(width, height)'),
    Mistake({TRAIN + 'pipeline.4.scale': (0, 96)}, 'MultiTaskResize: scale', '(0, 96)', 'both positive'),
    Mistake({TRAIN + 'pipeline.2.prob': 50}, 'MultiTaskRandomFlip: prob', 'got 50', 'in 0..1'),
    Mistake({TRAIN + 'pipeline.2.prob': '0.5'}, 'MultiTaskRandomFlip: prob', "got '0.5'", 'in 0..1'),
    Mistake({TRAIN + 'pipeline.3.scale_range': (1.25, 0.75)}, 'scale_range', '1.25, 0.75', 'low <= high'),
]  # fmt: skip

RUN_MISTAKES = [
    Mistake({'val_evaluator.reference': 'paper'}, 'reference row', "'paper'", "['paper_pascal_context_swin_t']"),
    Mistake({'val_evaluator.reference': dict(semseg=1.0)}, 'reference row', "{'semseg': 1.0}", "['human_parts', 'normals', 'saliency']"),
    Mistake(
        {CHECKPOINT + 'save_best': 'mIoU'}, 'default_hooks.checkpoint.save_best', "'mIoU'", "'semseg.mIoU', 'semseg.aAcc'",
    ),
    Mistake({CHECKPOINT + 'save_best': ['semseg.mIoU', 'acc']}, 'default_hooks.checkpoint.save_best', "'acc'", "'semseg.mIoU', "),
    Mistake(
        {'val_evaluator.reference': None, BACKBONE + 'arch': SMALL, HEADS + '.in_channels': [24, 48, 96, 192], ADAPTER + 'ratio': 8},
        'default_hooks.checkpoint.save_best', "'gain'", 'val_evaluator.reference=', 'polyhistor/swin-t_pascal.py',
    ),
    Mistake({CHECKPOINT + 'save_best': 'normals.mean'}, 'rule', 'normals.mean', 'specific rule must be specified'),
    Mistake({CHECKPOINT + 'intervall': 1}, 'SafeCheckpointHook', "no ['intervall']", "'interval', "),
    Mistake(
        {'custom_hooks': [dict(type='TaskCheckHook'), dict(type='EarlyStoppingHook', monitor='mIoU', rule='greater')]},
        'monitor of EarlyStoppingHook', "'mIoU'", "'semseg.mIoU', ",
    ),
    Mistake({'custom_hooks.1.on_nonfinite': 'raise'}, 'FiniteTrainingHook: on_nonfinite', "got 'raise'", "('stop', 'skip')"),
    Mistake({'optim_wrapper.optimizer.type': 'Adamm'}, 'optim_wrapper.optimizer.type', "'Adamm'", "'Adam', 'AdamW'"),
    Mistake({'optim_wrapper.clip_grad': dict(norm=1.0)}, 'optim_wrapper.clip_grad', "no ['norm']", "['max_norm', "),
    Mistake({'optim_wrapper.clip_grad': 1.0}, 'clip_grad', 'clip_grad', 'it should be a `dict`'),
]  # fmt: skip

# Where mmengine or Python tells the mistake: by the name of the class and what was given.
STACK_MISTAKES = [
    Mistake({'model.type': 'MultitaskSegmentor'}, 'model registry', 'MultitaskSegmentor is not in'),
    Mistake({BACKBONE + 'type': 'AdaptedSwinn'}, 'model registry', 'AdaptedSwinn is not in'),
    Mistake({TRAIN + 'type': 'PascalMT'}, 'dataset registry', 'PascalMT is not in'),
    Mistake({TRAIN + 'pipeline.4.type': 'MultiTaskRezise'}, 'transform registry', 'MultiTaskRezise is not in'),
    Mistake({'val_evaluator.type': 'MultiTaskMetrics'}, 'metric registry', 'MultiTaskMetrics is not in'),
    Mistake({'custom_hooks.1.type': 'FiniteTrainingHok'}, 'hook registry', 'FiniteTrainingHok is not in'),
    Mistake({'train_cfg.type': 'SeededEpochLoop'}, 'loop registry', 'SeededEpochLoop is not in'),
    Mistake({'model.excution': 'stacked'}, 'MultiTaskSegmentor', "'excution'"),
    Mistake({'model.decode_head': HEAD}, 'MultiTaskSegmentor', "'decode_head'"),
    Mistake({'model.data_preprocessor.men': 3}, 'MultiTaskDataPreProcessor', "'men'"),
    Mistake({TRAIN + 'pipeline.4.scal': (96, 96)}, 'MultiTaskResize', "'scal'"),
    Mistake({'val_evaluator.refrence': 'x'}, 'MultiTaskMetric', "'refrence'"),
    Mistake({'custom_hooks.1.on_nan': 'skip'}, 'FiniteTrainingHook', "'on_nan'"),
    Mistake({'optim_wrapper.optimizer.learning_rate': 1}, 'Adam', "'learning_rate'"),
    Mistake({'train_cfg.max_epoch': 3}, 'EpochBasedTrainLoop', "'max_epoch'"),
]  # fmt: skip

ALL = (
    TASK_MISTAKES
    + ADAPTER_MISTAKES
    + HEAD_MISTAKES
    + MODEL_MISTAKES
    + DATA_MISTAKES
    + RUN_MISTAKES
    + STACK_MISTAKES
)


def identify(mistake):
    return ' '.join(f'{key}={value}' for key, value in mistake.changes.items() if 'arch' not in key)[:70]


@pytest.mark.parametrize('mistake', ALL, ids=identify)
def test_a_mistake_is_told_before_training(start, data_root, mistake):
    changes = {
        key: value.format(root=data_root) if isinstance(value, str) else value
        for key, value in mistake.changes.items()
    }
    with pytest.raises((ValueError, TypeError, KeyError, AssertionError, FileNotFoundError)) as e:
        start(changes, mistake.config)
    message = str(e.value)
    for part in (mistake.key, mistake.given, mistake.allowed):
        assert part in message, message


SEMSEG_HEAD = {HEADS: dict(_delete_=True, semseg=HEAD)}


@pytest.mark.parametrize(
    'changes',
    [
        {},
        # one order of the tasks in the model, another in the data
        {'model.tasks': TASKS[::-1], TRAIN + 'tasks': TASKS[2:] + TASKS[:2]},
        {**tasks_of_model(['semseg']), **{place + 'tasks': ['semseg'] for place in (TRAIN, VAL)}},
        {**tasks_of_model(['semseg']), **SEMSEG_HEAD, **{place + 'tasks': ['semseg'] for place in (TRAIN, VAL)}},
        # some of the tasks evaluated, by name
        {'val_evaluator.tasks': ['semseg']},
        {VAL + 'tasks': THREE, 'val_evaluator.tasks': ['semseg']},
        {CHECKPOINT + 'save_best': 'semseg.mIoU', CHECKPOINT + 'rule': 'greater'},
        {CHECKPOINT + 'save_best': 'x/semseg.mIoU', CHECKPOINT + 'rule': 'greater', 'val_evaluator.prefix': 'x'},
        {CHECKPOINT + 'save_best': 'auto', CHECKPOINT + 'rule': 'greater'},
        {CHECKPOINT + 'save_best': 'gain', CHECKPOINT + 'rule': 'greater', 'val_evaluator.reference': 'paper_pascal_context_swin_t'},
        {'optim_wrapper.clip_grad': dict(max_norm=1.0)},
        {'optim_wrapper.clip_grad': dict(type='value', clip_value=1.0)},
        {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None},
        {HEADS + '.in_index': [3, 0], HEADS + '.in_channels': [384, 48]},
        heads(type='FCNHead', in_channels=[48, 96], in_index=[0, 1], channels=16, input_transform='resize_concat'),
        heads(type='FCNHead', in_channels=384, in_index=-1, channels=16),
    ],
    ids=lambda c: ' '.join(f'{k}={v}' for k, v in c.items())[:70] or 'as it is',
)  # fmt: skip
def test_what_is_no_mistake_begins(start, changes):
    with pytest.raises(_Begins):
        start(changes)


@pytest.mark.parametrize(
    ('changes', 'parts'),
    [
        ({TEST + 'tasks': THREE}, (f'test_dataloader.dataset.tasks={THREE}', f'model.tasks={TASKS}', 'test_evaluator.tasks=')),
        ({TEST + 'tasks': ['edge']}, ("test_dataloader.dataset.tasks=['edge']", f'model.tasks={TASKS}')),
        ({'test_evaluator.tasks': ['edge']}, ("test_evaluator.tasks=['edge']", f'model.tasks={TASKS}')),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_told_before_testing(start, changes, parts):
    """A test looks at nothing of the training: its tasks may be any."""
    with pytest.raises(ValueError) as e:
        start({TRAIN + 'tasks': ['edge'], **changes}, what='test')
    assert all(part in str(e.value) for part in parts), str(e.value)


@pytest.mark.parametrize(
    'changes',
    [
        {TRAIN + 'tasks': ['edge']},
        {TEST + 'tasks': ['semseg'], 'test_evaluator.tasks': ['semseg']},
        # predictions alone need no labels
        {TEST + 'tasks': ['semseg'], 'test_evaluator': dict(tasks=TASKS, format_only=True, output_dir='x')},
    ],
    ids=str,
)
def test_what_is_no_mistake_is_tested(start, changes):
    with pytest.raises(_Begins):
        start(changes, what='test')


@pytest.mark.integration
@pytest.mark.parametrize(
    ('options', 'parts'),
    [
        (['model.tasks=semseg,depht', 'model.backbone.tasks=semseg,depht'], ("unknown task 'depht'", KNOWN)),
        (['train_dataloader.dataset.tasks=semseg,normals'], ("train_dataloader.dataset.tasks=['semseg', 'normals']", 'model.tasks=')),
    ],
)  # fmt: skip
def test_tools_train_tells_it(data_root, tmp_path, options, parts):
    """`tools/train.py --cfg-options`: the message is the last thing on the screen."""
    roots = [f'{split}_dataloader.dataset.data_root={data_root}' for split in ('train', 'val', 'test')]
    options = ['train_dataloader.batch_size=2', *roots, *options]
    command = [sys.executable, '-W', 'ignore', str(REPO / 'tools' / 'train.py'), str(REPO / 'configs' / PICO)]
    command += ['--work-dir', str(tmp_path), '--cfg-options', *options]
    env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('ValueError: ') and all(part in last for part in parts), done.stderr[-2000:]
