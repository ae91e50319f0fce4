"""The losses of all tasks, one task after another: forward and backward of one before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ['losses_task_by_task']

#: Gradients under float16 autocast are computed times this: the loss scaler of the training has no part in them.
FP16_SCALE = 1024.0


def losses_task_by_task(
    losses: Callable[[], Iterable[Mapping[str, Tensor]]], parameters: Sequence[nn.Parameter]
) -> dict[str, Tensor]:
    """Losses whose gradients are ready: the graph of each task is freed before that of the next is built.

    The peak of the memory is that of one task. Every task's gradients are computed while its losses are, and handed out
    in the backward pass, so that loss scalers, gradient accumulation and distributed training see an ordinary loss with
    respect to the parameters. Gradients with respect to anything else, such as the images, are not available.

    Args:
        losses: Gives an iterable over the tasks' losses, each a dict of scalars; it builds the graphs while iterated.
        parameters: All trainable parameters that the losses may depend on.

    Returns:
        All losses by name. The sum of those of one task with 'loss' in their name is what gradients are ready for, so
        the losses of a task must be weighted alike.
    """
    names: list[list[str]] = []
    values = _TaskByTask.apply(losses, names, *parameters)
    return dict(zip((name for task in names for name in task), values, strict=True))


class _TaskByTask(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        losses: Callable[[], Iterable[Mapping[str, Tensor]]],
        names: list[list[str]],
        *parameters: nn.Parameter,
    ) -> tuple[Tensor, ...]:
        scale = _inner_scale(parameters)
        values: list[Tensor] = []
        others: list[Tensor] = []
        ctx.gradients = []
        ctx.parts = []
        with torch.enable_grad():
            for task_losses in losses():
                named = {name: value.mean() for name, value in task_losses.items()}
                trained = [name for name in named if 'loss' in name]  # as mmengine's `parse_losses` has it
                total = sum(named[name] for name in trained)
                if total.requires_grad:
                    gradients = torch.autograd.grad(scale * total, parameters, allow_unused=True)
                else:  # a constant, as of a loss that found nothing to count
                    gradients = (None,) * len(parameters)
                ctx.gradients.append(gradients)
                ctx.parts.append([len(values) + i for i, name in enumerate(named) if name in trained])
                names.append(list(named))
                detached = [value.detach() for value in named.values()]
                others += [v for v, name in zip(detached, named, strict=True) if name not in trained]
                values += detached
                del task_losses, named, total, gradients
        ctx.scale = scale
        ctx.mark_non_differentiable(*others)
        return tuple(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights = []
        for parts in ctx.parts:
            first, *rest = (grads[i] for i in parts)
            if any(not torch.equal(first, other) for other in rest):
                raise RuntimeError(
                    'the losses of one task have different weights in the total loss, but with '
                    "execution='sequential' their gradients are ready as one sum; take execution='stacked'"
                )
            weights.append(first / ctx.scale)
        out: list[Tensor | None] = []
        for of_parameter in zip(*ctx.gradients, strict=True):
            terms = [w * g for w, g in zip(weights, of_parameter, strict=True) if g is not None]
            out.append(sum(terms[1:], start=terms[0]) if terms else None)
        ctx.gradients = None
        return None, None, *out


def _inner_scale(parameters: Sequence[nn.Parameter]) -> float:
    device = parameters[0].device.type
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return FP16_SCALE if half else 1.0
