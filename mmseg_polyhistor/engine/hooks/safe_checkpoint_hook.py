"""`SafeCheckpointHook`: checkpoints that load without running code, and that an interruption cannot destroy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from ..file_backend import AtomicLocalBackend  # noqa: F401  (registers 'atomic_local')
from ..plain_data import to_plain

__all__ = ['SafeCheckpointHook']


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook`, to be used in its place (`default_hooks.checkpoint`), with the same arguments.

    **Loading.** `torch.load` of torch >= 2.6 refuses mmengine's checkpoints, since their message hub holds
    `HistoryBuffer` objects, whose unpickling calls functions. Here everything in a checkpoint becomes plain data
    before it is saved (`to_plain`), and the message hub gets its buffers back, value by value the same, when it is
    loaded, so that `Runner.resume` works with the protection on. What has no plain form is an error that names its
    place. Functions in the state of a parameter scheduler are left out: its constructor makes them anew.

    **Interruption.** A file is written completely before it takes its name (`AtomicLocalBackend`), and a checkpoint
    that is to go (`max_keep_ckpts`, `save_best`) goes only when the new one is there.

    Args:
        backend_args: See `CheckpointHook`. Defaults to `dict(backend='atomic_local')`.
        **kwargs: See `CheckpointHook`.
    """

    def __init__(self, *args: Any, backend_args: dict | None = None, **kwargs: Any) -> None:
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

    # -------------------------------------------------------------------------------------- interruption
    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._removing_last():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._removing_last():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_last(self) -> Iterator[None]:
        """Put off the removal of files to the end of the block, and leave it if the block fails."""
        backend, self.file_backend = self.file_backend, _RemoveLater(self.file_backend)
        later = self.file_backend.later
        try:
            yield
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', {None: getattr(self, 'best_ckpt_path', None)})
        current = {self.last_ckpt, *best.values()}
        for remove, path in later:
            if path not in current:
                remove(path)


class _RemoveLater:
    """A file backend that writes down what it is told to remove."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.later: list[tuple[Any, str]] = []

    def remove(self, path: str) -> None:
        self.later.append((self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.later.append((self.backend.rmtree, path))

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
