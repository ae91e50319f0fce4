"""What no adapter method can go below: T passes through the bare frozen encoder, with the gradient of their input.

A method that gives every task features of its own from the first block on has to run every frozen block once per task,
and back through it, without gradients of its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from ..adapters import AdapterMethod, Change, Site
from ..models.segmentors import MultiTaskSegmentor
from ..models.segmentors.head_losses import head_losses
from .plain_reference import Maps, StockEncoder

__all__ = ['FloorEncoder', 'FloorSegmentor', 'InputShift']


class FloorEncoder(StockEncoder):
    """A frozen stock Swin, run once per task from behind the patch embedding, whose output requires a gradient.

    For the arguments see `StockEncoder`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(frozen=True, **kwargs)

    def passes(self, images: Tensor) -> Iterator[tuple[str, Maps]]:
        """A task and its maps, one after another."""
        with torch.no_grad():
            x, hw = self.embed(images)
        for task in self.tasks:
            outs = self.stages_forward(x.detach().requires_grad_(torch.is_grad_enabled()), hw)
            yield task, tuple(self.normed_map(task, i, *out) for i, out in enumerate(outs))

    def forward(self, images: Tensor) -> dict[str, Maps]:
        """The maps of all tasks."""
        return dict(self.passes(images))


class FloorSegmentor(MultiTaskSegmentor):
    """A segmentor around a `FloorEncoder` that trains its heads: forward and backward of one task after another."""

    def train_step(self, data: dict[str, Any], optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """As `BaseModel.train_step`, with a backward pass per task and one step of the optimiser for all."""
        with optim_wrapper.optim_context(self):
            data = self.data_preprocessor(data, True)
        logged: dict[str, Tensor] = {}
        passes = self.backbone.passes(data['inputs'])
        for spec in self.specs:
            with optim_wrapper.optim_context(self):
                task, maps = next(passes)
                losses = head_losses(self.decode_heads[task], spec, maps, data['data_samples'])
                total, values = self.parse_losses(losses)
            del maps, losses
            optim_wrapper.backward(total)
            logged.update(values)
        optim_wrapper.step()
        optim_wrapper.zero_grad()
        return logged


class InputShift(AdapterMethod):
    """The floor in this package's own terms: a bias per task at the patch embedding's output, and nothing else.

    Task streams part there and require a gradient, so that the encoder of this package does the work of the floor, in
    any of its execution modes. What a real method costs above it are its own operations.

    Args:
        **kwargs: See `AdapterMethod`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width = self.layout.widths[0]
        self.shifts = nn.ParameterDict({task: nn.Parameter(torch.zeros(width)) for task in self.tasks})

    def generate(self, tasks: Sequence[str]) -> dict[Site, Change]:
        """The shifts (T, C)."""
        owners = self.owners_of(tasks)
        shifts = torch.stack([self.shifts[task] for task in owners])
        return {Site(0, None, 'patch_embed.projection.bias'): shifts}
