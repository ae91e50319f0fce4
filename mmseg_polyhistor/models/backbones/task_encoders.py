"""`TaskEncoders`: one whole backbone per task, the single-task reference of every multi-task comparison."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

__all__ = ['TaskEncoders']


@MODELS.register_module()
class TaskEncoders(BaseModule):
    """T encoders that share nothing, trained side by side in one run.

    With an optimiser that treats each parameter by itself (SGD, Adam, AdamW) and no gradient clipping over all
    parameters, this equals T separate single-task trainings on the same batches.

    Args:
        tasks: Names of the tasks.
        encoder: Config of a backbone that returns a tuple of maps, built once per task.

    Raises:
        ValueError: if no task is named, or one twice.

    Shape:
        Images (B, 3, H, W) -> {task: tuple of maps}; the bare tuple for one task.
    """

    def __init__(self, *, tasks: Sequence[str], encoder: Mapping, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        if isinstance(tasks, str) or not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f'tasks must be a sequence of different names, got {tasks!r}')
        self.tasks = tuple(tasks)
        self.encoders = nn.ModuleDict({t: MODELS.build(copy.deepcopy(dict(encoder))) for t in self.tasks})

    def init_weights(self) -> None:
        """Initialise every encoder by its own `init_cfg`."""
        for encoder in self.encoders.values():
            encoder.init_weights()

    def output_norm_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of all encoders' output norms."""
        for encoder in self.encoders.values():
            yield from encoder.output_norm_parameters()

    def forward(
        self, images: Tensor, tasks: Sequence[str] | None = None
    ) -> dict[str, tuple[Tensor, ...]] | tuple[Tensor, ...]:
        """Encode the images once per task (all of them, or those named)."""
        maps = {t: self.encoders[t](images) for t in (tasks or self.tasks)}
        return maps[self.tasks[0]] if len(self.tasks) == 1 else maps
