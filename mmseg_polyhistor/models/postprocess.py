"""From logits to predictions: one pure function per kind of task, and the mirror image taken back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ['POSTPROCESS', 'most_likely_class', 'probability', 'quantity', 'undo_flip', 'unit_vector']


def most_likely_class(logits: Tensor) -> Tensor:
    """The class with the largest logit: (..., C, H, W) -> int64 (..., 1, H, W)."""
    return logits.argmax(dim=-3, keepdim=True)


def probability(logits: Tensor) -> Tensor:
    """The probability of the positive class: (..., 1, H, W) -> float32 (..., 1, H, W) in [0, 1]."""
    return logits.float().sigmoid()


def unit_vector(logits: Tensor) -> Tensor:
    """The vector at length one: (..., 3, H, W) -> float32 (..., 3, H, W); (0, 0, 1) where the length is zero.

    Vectors of any finite length keep their direction: they are scaled by their largest component before they are
    squared, which can then neither overflow nor vanish.
    """
    vectors = logits.float()
    largest = vectors.abs().amax(dim=-3, keepdim=True)
    towards_viewer = vectors.new_tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    vectors = torch.where(largest == 0, towards_viewer, vectors / largest)
    return vectors / torch.linalg.vector_norm(vectors, dim=-3, keepdim=True)


def quantity(logits: Tensor) -> Tensor:
    """The quantity, 0 where the network says less: (..., 1, H, W) -> float32 (..., 1, H, W)."""
    return logits.float().clamp(min=0)


POSTPROCESS: dict[str, Callable[[Tensor], Tensor]] = {
    'semantic': most_likely_class,
    'binary': probability,
    'unit_vector': unit_vector,
    'scalar': quantity,
}
"""Kind of task -> the function that turns its logits into its prediction."""

# Direction of an image's flip -> the axis that it reverses. The component of a vector that points along the axis
# (0: x, 1: y) changes its sign where the task's flip rule says so.
_FLIPPED_AXIS = {'horizontal': -1, 'vertical': -2}
_NEGATED_COMPONENT = {'keep': {}, 'negate_x': {'horizontal': 0, 'vertical': 1}}


def undo_flip(logits: Tensor, *, direction: str, rule: str) -> Tensor:
    """The logits of a mirrored image as those of the image itself.

    Args:
        logits: (..., C, H, W).
        direction: How the image was mirrored: 'horizontal' or 'vertical'.
        rule: The task's flip rule (`TaskSpec.flip`).

    Returns:
        The logits, moved back and, for vectors, turned back.

    Raises:
        ValueError: if the direction is another one.
    """
    if direction not in _FLIPPED_AXIS:
        raise ValueError(
            f'cannot undo a flip with flip_direction={direction!r}; it must be one of {tuple(_FLIPPED_AXIS)}'
        )
    logits = logits.flip(_FLIPPED_AXIS[direction])
    component = _NEGATED_COMPONENT[rule].get(direction)
    if component is not None:
        logits.select(-3, component).neg_()  # in place: `flip` has made a copy
    return logits
