"""A progress bar over a whole training or evaluation, with the loss and the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TextIO

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

__all__ = ['ProgressBarHook']


class _Bar:
    """One line that grows; where the stream is no terminal, a line for every tenth part."""

    def __init__(self, what: str, done: int, total: int, width: int, stream: TextIO) -> None:
        self.what, self.first, self.total, self.width, self.stream = what, done, total, width, stream
        self.started = time.monotonic()
        self.live = stream.isatty()
        self.shown = self._step(done)

    def _step(self, done: int) -> float:
        return time.monotonic() // 0.2 if self.live else done * 10 // self.total

    def update(self, done: int, note: str = '') -> None:
        step = self._step(done)
        if step == self.shown and done < self.total:
            return
        self.shown = step
        left = (time.monotonic() - self.started) / (done - self.first) * (self.total - done)
        filled = self.width * done // self.total
        line = (
            f'{self.what} [{"=" * filled}{" " * (self.width - filled)}] {done}/{self.total}{note}'
            f'  {timedelta(seconds=round(left))} left'
        )
        end = '\n' if done == self.total or not self.live else ''
        self.stream.write(('\r' if self.live else '') + line + end)
        self.stream.flush()


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Draws a bar over all iterations of a training, and one over every evaluation.

    Args:
        width: Characters of the bar. Defaults to 30.
        stream: Where it goes. Defaults to None, the standard error.
    """

    priority = 'LOWEST'

    def __init__(self, width: int = 30, stream: TextIO | None = None) -> None:
        self.width = width
        self.stream = stream
        self._bars: dict[str, _Bar] = {}

    def _start(self, mode: str, done: int, total: int) -> None:
        self._bars[mode] = _Bar(mode, done, total, self.width, self.stream or sys.stderr)

    def before_train(self, runner: Runner) -> None:
        self._start('train', runner.iter, runner.max_iters)

    def before_val_epoch(self, runner: Runner) -> None:
        self._start('val', 0, len(runner.val_dataloader))

    def before_test_epoch(self, runner: Runner) -> None:
        self._start('test', 0, len(runner.test_dataloader))

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Sequence[dict] | None = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        if not is_main_process():
            return
        if mode == 'train':
            self._bars[mode].update(runner.iter + 1, f'  loss {outputs["loss"].item():.3f}')
        else:
            self._bars[mode].update(batch_idx + 1)
