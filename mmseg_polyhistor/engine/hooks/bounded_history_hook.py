"""`BoundedHistoryHook`: a long training keeps as much of its log's history as the log needs, not all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import LogProcessor, Runner
from mmseg.registry import HOOKS

__all__ = ['BoundedHistoryHook', 'longest_window']


@HOOKS.register_module()
class BoundedHistoryHook(Hook):
    """Bounds the history of every logged scalar by the longest window that the log is averaged over.

    mmengine keeps the last million values of each scalar, in memory and in every checkpoint: 16 bytes per scalar and
    iteration, copied whole in every iteration. What is logged does not change. Where `log_processor.custom_cfg`
    asks for the whole history (`window_size='global'`, or none named), nothing is bounded.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.length: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Find out how much is needed."""
        loops = [loop for loop in (runner.train_loop, runner.val_loop) if loop is not None]
        self.length = longest_window(runner.log_processor, [len(loop.dataloader) for loop in loops])

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Bound the buffers, among them those that are new; each drops what is too much at its next update."""
        if self.length is not None:
            for buffer in runner.message_hub.log_scalars.values():
                buffer.max_length = self.length


def longest_window(log_processor: LogProcessor, epochs: Sequence[int]) -> int | None:
    """How many values of a scalar a log processor reads at most; None: all of them.

    Args:
        log_processor: The log processor.
        epochs: Iterations of an epoch of training and of validation. The latter's times are averaged over all of it.
    """
    windows = [log_processor.window_size, *(cfg.get('window_size') for cfg in log_processor.custom_cfg)]
    if None in windows or 'global' in windows:
        return None
    return max(*epochs, *(window for window in windows if window != 'epoch'))
