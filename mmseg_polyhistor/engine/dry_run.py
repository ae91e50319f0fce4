"""A training in small, before the long one: `tools/train.py CONFIG --check`."""

from __future__ import annotations

import copy
import os
import os.path as osp
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.hooks import CheckpointHook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import DATASETS

from .param_count import count_parameters
from .resume import find_candidates, reason_against

__all__ = ['dry_run', 'inner_datasets']

ITERATIONS = 3  # the first one also pays for what is made only once
NEEDED_TO_RESUME = ('meta', 'state_dict', 'message_hub', 'optimizer', 'param_schedulers')


def dry_run(cfg: Config, work_dir: str, *, say: Callable[[str], None] = print) -> None:
    """Go through everything that a training does, with a few images and in a folder that is removed again.

    Reads the lists of all data sets (absent files are told here), builds model, optimiser and schedules, loads pretrained
    weights, `load_from` or the checkpoint that would be resumed, trains three iterations with the real batch size and data
    workers, writes a checkpoint, validates on two batches of each data set, and says how long the training will take and how much
    room its checkpoints need. Predictions, drawings and logs are not written, wherever the config wants them, and caches of
    labels are filled in that folder. It does not read every file: `tools/check_dataset.py` does.

    Args:
        cfg: The config of the training, with `resume` and `load_from` as they will be.
        work_dir: Where the training would run; only its free space, and its checkpoints, are looked at.
        say: What each finding is told to. Defaults to `print`.

    Raises:
        Exception: what the training would raise.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    validation = _size_of(cfg.get('val_dataloader'))
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner.from_cfg(_small(cfg, folder, validation))
        say(f'model: {_counted(runner)}')
        runner.train()
        say(
            f'training data: {len(runner.train_dataloader.dataset):,} images, {len(runner.train_dataloader):,} batches of '
            f'{cfg.train_dataloader.get("batch_size")}; {ITERATIONS} iterations were trained'
        )
        if validation is not None:
            evaluated = len(runner.val_dataloader.dataset)
            say(f'validation data: {validation:,} images; {evaluated} were evaluated')
        _tell_time(cfg, runner, say)
        if torch.cuda.is_available():
            say(f'memory: {torch.cuda.max_memory_reserved() / 1e9:.2f} GB of the GPU')
        _tell_room(runner, _checkpoint_folder(cfg, work_dir), say)
        if cfg.get('resume'):
            _tell_resume(cfg, runner, work_dir, say)
        elif cfg.get('load_from'):
            say(f'load_from: {cfg.load_from} fits')


def _small(cfg: Config, folder: str, validation: int | None) -> Config:
    """The config of the training in small; `validation` is the number of validation samples."""
    small = copy.deepcopy(cfg)
    small.work_dir = folder
    small.experiment_name = Path(folder).name
    small.resume = False
    if cfg.get('resume'):
        small.load_from = None
    small.log_level = 'WARNING'
    small.log_processor = dict(by_epoch=False)
    small.train_cfg = ConfigDict(
        type='SeededIterBasedTrainLoop'
        if 'Seeded' in str(cfg.train_cfg.get('type'))
        else 'IterBasedTrainLoop',
        max_iters=ITERATIONS,
        val_interval=ITERATIONS,
    )
    for scheduler in _dicts(small.get('param_scheduler')):
        # A schedule without an end lasts as long as the training, which is long.
        by_epoch = scheduler.get('by_epoch', True)
        scheduler.setdefault('end', cfg.train_cfg.get('max_epochs' if by_epoch else 'max_iters') or 10**9)
    hooks = small.setdefault('default_hooks', ConfigDict())
    for name, changes in (
        ('checkpoint', dict(interval=ITERATIONS, by_epoch=False)),
        ('logger', dict(interval=1)),
    ):
        if hooks.get(name):
            hooks[name].update(changes)
    hooks.pop('visualization', None)
    for hook in (*hooks.values(), *small.get('custom_hooks', [])):
        if isinstance(hook, dict):
            hook.pop('out_dir', None)  # of checkpoints and logs
    if small.get('visualizer'):
        small.visualizer.vis_backends = []
    evaluators = small.get('val_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        evaluator.pop('output_dir', None)  # of predictions
        evaluator.pop('format_only', None)
    for loader in (small.train_dataloader, small.get('val_dataloader')):
        if loader:
            loader.persistent_workers = False
            for dataset in inner_datasets(loader.dataset):
                if dataset.get('parts_cache_dir') is not None:
                    dataset.parts_cache_dir = osp.join(folder, 'parts_cache')
    if small.get('val_dataloader'):
        outer = small.val_dataloader.dataset
        for dataset in inner_datasets(outer):
            if issubclass(DATASETS.get(dataset.type), BaseDataset):
                number = validation if dataset is outer else len(DATASETS.build(copy.deepcopy(dataset)))
                dataset.indices = min(2 * small.val_dataloader.get('batch_size', 1), number)
    return small


def inner_datasets(cfg: dict) -> Iterator[dict]:
    """The configs of the data sets that wrappers (`ConcatDataset`, `RepeatDataset`, ...) hold, at any depth; `cfg` itself where
    it is no wrapper."""
    if 'datasets' in cfg:
        for inner in cfg['datasets']:
            yield from inner_datasets(inner)
    elif 'dataset' in cfg:
        yield from inner_datasets(cfg['dataset'])
    else:
        yield cfg


def _dicts(schedulers: Any) -> list[dict]:
    """Configs of schedulers, given as one, as a list, or as a dict of these."""
    if not schedulers:
        return []
    if isinstance(schedulers, (list, tuple)):
        return list(schedulers)
    if 'type' in schedulers:
        return [schedulers]
    return [scheduler for of_one in schedulers.values() for scheduler in _dicts(of_one)]


def _size_of(loader: Any) -> int | None:
    """How many samples the data set of a data loader has; None without one."""
    return len(DATASETS.build(copy.deepcopy(loader.dataset))) if loader else None


def _counted(runner: Runner) -> str:
    model = runner.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not hasattr(model, 'backbone'):
        return f'{trained:,} trained parameters'
    counts = count_parameters(model)
    return f'{counts.total:,} trained parameters ({counts.encoder:,} of them in the encoder), {counts.frozen:,} frozen'


def _tell_time(cfg: Config, runner: Runner, say: Callable[[str], None]) -> None:
    times = runner.message_hub.get_scalar('train/time').data[0]
    seconds = float(min(times))
    train_cfg = cfg.train_cfg
    iterations = train_cfg.get('max_iters') or train_cfg.get('max_epochs', 0) * len(runner.train_dataloader)
    left = timedelta(seconds=round(seconds * iterations))
    say(
        f'time: {seconds:.2f} s for an iteration, {iterations:,} iterations: about {left} without validations'
    )


def _checkpoint_folder(cfg: Config, work_dir: str) -> str:
    hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
    return hook.get('out_dir') or work_dir


def _tell_room(runner: Runner, checkpoints: str, say: Callable[[str], None]) -> None:
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if hook is None:
        say('room: no checkpoints are written')
        return
    size = os.path.getsize(osp.join(hook.out_dir, hook.filename_tmpl.format(ITERATIONS)))
    place = Path(checkpoints).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    say(f'room: {size / 1e6:.1f} MB a checkpoint; {free / 1e6:,.0f} MB free at {place}')
    if free < 4 * size:
        raise OSError(
            f'{place} has {free / 1e6:,.0f} MB free, less than four checkpoints of {size / 1e6:.1f} MB'
        )


def _tell_resume(cfg: Config, runner: Runner, work_dir: str, say: Callable[[str], None]) -> None:
    template = (cfg.get('default_hooks', {}).get('checkpoint') or {}).get('filename_tmpl', 'epoch_{}.pth')
    candidates = [cfg.load_from] if cfg.get('load_from') else []
    if not candidates and osp.isdir(work_dir):
        candidates = find_candidates(work_dir, work_dir, [p.name for p in Path(work_dir).iterdir()], template)
    against = []
    for path in candidates:
        reason = reason_against(runner, path, NEEDED_TO_RESUME)
        if reason is None:
            say(f'resume: {path} fits')
            return
        against.append(f'{path}: {reason}')
        say(f'resume: {against[-1]}')
    if against:
        raise RuntimeError('the training could not be resumed from any checkpoint: ' + '; '.join(against))
    say(f'resume: there is no checkpoint in {work_dir}; the training would start afresh')
