"""`SafeCheckpointHook`: checkpoints that load without running code, and that an interruption cannot destroy."""

from __future__ import annotations

import os
import os.path as osp
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from ...adapters.checks import check_keywords
from ..file_backend import PART, AtomicLocalBackend
from ..loops import LAST_VALIDATION
from ..plain_data import to_plain
from ..resume import POINTER, ResumeError, checkpoint_pattern, find_candidates, reason_against

__all__ = ['SafeCheckpointHook']

#: Key of the message hub: names of checkpoints that are to go.
SUPERSEDED = 'superseded_ckpts'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook`, to be used in its place (`default_hooks.checkpoint`), with the same arguments.

    **Loading.** `torch.load` of torch >= 2.6 refuses mmengine's checkpoints, since their message hub holds
    `HistoryBuffer` objects, whose unpickling calls functions. Here everything in a checkpoint becomes plain data
    before it is saved (`to_plain`), and the message hub gets its buffers back, value by value the same, when it is
    loaded, so that `Runner.resume` works with the protection on. What has no plain form is an error that names its
    place. Functions in the state of a parameter scheduler are left out: its constructor makes them anew.

    **Interruption.** A file is written completely before it takes its name (`AtomicLocalBackend`), the file
    `last_checkpoint` too, and a checkpoint that is to go (`max_keep_ckpts`, `save_best`) goes only when the new one is
    there and named. What a killed run left half done, a resumed one finishes: incomplete files, checkpoints that were
    to go.

    **Resuming.** `resume=True` (`--resume`) takes the last good checkpoint of the work dir: the one that `last_checkpoint`
    names, else, with a warning that gives the reason, the next older one. Good is a file that can be read without running
    code, is undamaged, holds all that resuming needs, and fits model, optimiser and schedulers. Where there are
    checkpoints and none is good, it is an error, and so is a `load_from` with `resume=True` that is not good; where
    there are none, training starts afresh. A work dir may have been moved or copied meanwhile.

    Args:
        backend_args: See `CheckpointHook`. Defaults to `dict(backend='atomic_local')`.
        **kwargs: See `CheckpointHook`.

    Raises:
        ResumeError: (before a resumed training) if there are checkpoints, and none is good.
    """

    def __init__(self, *args: Any, backend_args: dict | None = None, **kwargs: Any) -> None:
        check_keywords(type(self), kwargs)  # the base would hand a misspelt one to the first save
        backend_args = backend_args or dict(backend='atomic_local')
        super().__init__(*args, backend_args=backend_args, **kwargs)

    # ------------------------------------------------------------------------------------------- loading
    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn everything in the checkpoint into plain data.

        Raises:
            NotPlainError: if something has no plain form.
        """
        if 'message_hub' in checkpoint:
            hub = checkpoint['message_hub']
            scalars = {k: _pack(v) for k, v in hub['log_scalars'].items()}
            checkpoint['message_hub'] = dict(hub, log_scalars=scalars)
        if 'param_schedulers' in checkpoint:
            checkpoint['param_schedulers'] = _without_functions(checkpoint['param_schedulers'])
        for key, value in checkpoint.items():
            checkpoint[key] = to_plain(value, f'checkpoint[{key!r}]')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give the message hub of a checkpoint its history buffers back."""
        if 'message_hub' in checkpoint:
            hub = checkpoint['message_hub']
            scalars = {k: _unpack(v) for k, v in hub['log_scalars'].items()}
            checkpoint['message_hub'] = dict(hub, log_scalars=scalars)

    # ------------------------------------------------------------------------------------------ resuming
    def before_run(self, runner: Runner) -> None:
        """Choose what a training is resumed from; nothing in front of a validation or a test."""
        resumes = runner._resume and not runner._has_loaded
        if not (resumes and isinstance(runner._train_loop, BaseLoop)):
            return
        given = runner._load_from
        if given is not None and '://' in given:  # all processes fetch it together
            chosen, error = self._choose(runner, given)
        else:
            result = [self._choose(runner, given) if is_main_process() else None]
            broadcast_object_list(result)
            chosen, error = result[0]
        if error is not None:
            raise ResumeError(error)
        runner._load_from = chosen
        runner._resume = chosen is not None

    def _choose(self, runner: Runner, given: str | None) -> tuple[str | None, str | None]:
        """(checkpoint or None, error message or None)."""
        keys = ['meta', 'state_dict', 'message_hub']
        if self.save_optimizer:
            keys.append('optimizer')
        if self.save_param_scheduler and runner.param_schedulers is not None:
            keys.append('param_schedulers')
        if given is not None:
            reason = reason_against(runner, given, keys)
            return given, reason and f'load_from={given!r} cannot be resumed from: {reason}'
        folder = self._folder(runner)
        try:
            candidates = find_candidates(runner.work_dir, folder, self._names(folder), self.filename_tmpl)
        except OSError as e:  # raised by one process alone, it would leave the others waiting
            return None, f'the work dir {runner.work_dir!r} cannot be searched for checkpoints: {e}'
        against = []
        for path in candidates:
            reason = reason_against(runner, path, keys)
            if reason is None:
                runner.logger.info(f'Training is resumed from {path}')
                return path, None
            against.append(reason if path in reason else f'the checkpoint {path!r}: {reason}')
            runner.logger.warning(f'{against[-1]}\nIt is passed over.')
        if against:
            listed = '\n'.join(against)
            return None, (
                f'no checkpoint of the work dir {runner.work_dir!r} can be resumed from:\n{listed}\nTo start afresh, '
                f'train without --resume, or remove these files and {POINTER!r}'
            )
        runner.logger.info(f'There is no checkpoint in {folder}: training starts at the beginning')
        return None, None

    def _folder(self, runner: Runner) -> str:
        """Where `before_train` of `CheckpointHook` will put `out_dir`."""
        if self.out_dir in (None, runner.work_dir):
            return runner.work_dir
        backend = get_file_backend(self.out_dir, backend_args=self.backend_args)
        return backend.join_path(self.out_dir, osp.basename(runner.work_dir.rstrip(osp.sep)))

    def _names(self, folder: str) -> list[str]:
        """Names of the files in a folder, which need not exist."""
        backend = get_file_backend(folder, backend_args=self.backend_args)
        return list(backend.list_dir_or_file(folder, list_dir=False)) if backend.isdir(folder) else []

    def before_train(self, runner: Runner) -> None:
        """As `CheckpointHook`'s; after a resume, go on with the checkpoints that are in the folder now."""
        folder, hub = self._folder(runner), runner.message_hub
        names = self._names(folder)
        for key, path in list(hub.runtime_info.items()):
            if key.startswith(('best_ckpt', 'last_ckpt')) and path and osp.basename(path) in names:
                hub.update_info(
                    key, osp.join(folder, osp.basename(path))
                )  # the work dir may have been elsewhere
        super().before_train(runner)
        self.file_backend = _RemoveLater(
            self.file_backend, lambda path: self._supersede(runner, osp.basename(path))
        )
        resumed = runner._load_from if runner._resume else None
        if resumed is not None and osp.abspath(resumed) == osp.abspath(self._here(resumed)):
            self.last_ckpt = resumed
        self._remove_superseded(runner)
        if is_main_process():
            names = re.compile(
                f'(best_.+_)?{checkpoint_pattern(self.filename_tmpl).pattern}{re.escape(PART)}'
            )
            for name in filter(names.fullmatch, self._names(self.out_dir)):
                self.file_backend.remove_now(self._here(name))
            Path(runner.work_dir, POINTER + PART).unlink(missing_ok=True)

    def _here(self, path: str) -> str:
        """The file of the same name in the folder of the checkpoints."""
        return self.file_backend.join_path(self.out_dir, osp.basename(path))

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """As `CheckpointHook`'s; what it saves knows that this validation was done."""
        runner.message_hub.update_info(LAST_VALIDATION, dict(epoch=runner.epoch, iter=runner.iter))
        super().after_val_epoch(runner, metrics)

    # -------------------------------------------------------------------------------------- interruption
    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """As `CheckpointHook`'s, in another order: write the file, name it, and only then remove others."""
        hub = runner.message_hub
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                self._supersede(runner, self.filename_tmpl.format(self.keep_ckpt_ids[0]))
            self.keep_ckpt_ids.append(step)
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            AtomicLocalBackend().put(os.fsencode(self.last_ckpt), osp.join(runner.work_dir, POINTER))
        self._remove_superseded(runner)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_superseded(runner)

    def _supersede(self, runner: Runner, name: str) -> None:
        """Have a checkpoint removed when its successor is there; by this run, or by one that is resumed from it."""
        names = runner.message_hub.get_info(SUPERSEDED, [])
        runner.message_hub.update_info(SUPERSEDED, [*names, name])

    def _remove_superseded(self, runner: Runner) -> None:
        names = runner.message_hub.get_info(SUPERSEDED, [])
        if not names:
            return
        best = getattr(self, 'best_ckpt_path_dict', {None: getattr(self, 'best_ckpt_path', None)})
        for path in map(self._here, names):
            gone = path not in (self.last_ckpt, *best.values()) and is_main_process()
            if gone and self.file_backend.isfile(path):
                self.file_backend.remove_now(path)
        runner.message_hub.update_info(SUPERSEDED, [])


class _RemoveLater:
    """A file backend that lets somebody else decide on what it is told to remove."""

    def __init__(self, backend: Any, remove: Callable[[str], None]) -> None:
        self.backend = backend
        self.remove = remove
        self.remove_now = backend.remove

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def _pack(value: Any) -> Any:
    """A history buffer as plain data; anything else as it is."""
    if not isinstance(value, HistoryBuffer):
        return value
    values, counts = value.data
    return dict(log_history=values, count_history=counts, max_length=value.max_length)


def _unpack(value: Any) -> Any:
    """A history buffer from `_pack`'s data, wherever the tensors were mapped to; anything else as it is."""
    if not (isinstance(value, Mapping) and 'log_history' in value):
        return value
    values, counts = (
        v.cpu().numpy() if isinstance(v, torch.Tensor) else v
        for v in (value['log_history'], value['count_history'])
    )
    return HistoryBuffer(values, counts, value['max_length'])


def _without_functions(states: Any) -> Any:
    """States of schedulers (a list, or a dict of lists) without their functions."""
    if isinstance(states, Mapping):
        return {name: _without_functions(of_one) for name, of_one in states.items()}
    return [{k: v for k, v in state.items() if not callable(v)} for state in states]
