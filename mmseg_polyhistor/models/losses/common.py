"""What the losses share: the precision that they are computed in and the check of their arguments."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32, or unchanged where it is float64: losses are never computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


def check_shapes(loss: str, expected: str, *, pred: Tensor, target: Tensor, fits: bool) -> None:
    """Refuse shapes that broadcasting would make a wrong number of.

    Raises:
        ValueError: if `fits` is False; the message names the loss and both shapes.
    """
    if not fits:
        raise ValueError(
            f'{loss} expects {expected}, got pred {tuple(pred.shape)} and target {tuple(target.shape)}'
        )
