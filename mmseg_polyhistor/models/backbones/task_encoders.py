"""`TaskEncoders`: one whole backbone per task, the single-task reference of every multi-task comparison."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

from mmengine.model import BaseModule, ModuleDict
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...adapters.base import resolve_tasks
from ...adapters.checks import check_keys

__all__ = ['TaskEncoders']


@MODELS.register_module()
class TaskEncoders(BaseModule):
    """T encoders that share nothing, trained side by side in one run.

    With an optimiser that treats each parameter by itself (SGD, Adam, AdamW) and no gradient clipping over all
    parameters, this equals T separate single-task trainings on the same batches.

    Args:
        tasks: Names of the tasks.
        encoder: Config of a backbone that returns a tuple of maps, built once per task. Each encoder is initialised
            by its own `init_cfg`.

    Raises:
        ValueError: if no task is named, one twice, or the encoder has tasks of its own.

    Shape:
        Images (B, 3, H, W) -> {task: tuple of maps}; the bare tuple for one task.
    """

    def __init__(self, *, tasks: Sequence[str], encoder: Mapping) -> None:
        super().__init__()
        self.tasks = check_keys('tasks', tasks)
        # mmengine's ModuleDict: under torch's own, `init_weights` would not reach the encoders.
        self.encoders = ModuleDict({t: MODELS.build(copy.deepcopy(dict(encoder))) for t in self.tasks})
        for module in self.encoders.values():
            if getattr(module, 'tasks', None):
                raise ValueError(
                    f'each encoder serves one task and returns a tuple of maps: leave tasks={module.tasks} out of the '
                    'config `encoder`'
                )

    def output_norm_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the output norms of all encoders that tell them."""
        for encoder in self.encoders.values():
            yield from getattr(encoder, 'output_norm_parameters', tuple)()

    def forward(
        self, images: Tensor, tasks: Sequence[str] | None = None
    ) -> dict[str, tuple[Tensor, ...]] | tuple[Tensor, ...]:
        """Encode the images once per task (all of them, or those named).

        Raises:
            ValueError: if a task is unknown, or named twice.
        """
        names = self.tasks if tasks is None else resolve_tasks(tasks, self.tasks)
        maps = {t: self.encoders[t](images) for t in names}
        return maps[self.tasks[0]] if len(self.tasks) == 1 else maps
