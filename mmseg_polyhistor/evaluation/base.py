"""What every accumulator has in common: one image becomes a few counts, the counts of a set become metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..tasks import TaskSpec

__all__ = ['Accumulator', 'Metric', 'as_map', 'demand_finite', 'demand_range', 'truth_for']


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What the readers of a metric go by.

    Args:
        lower_is_better: Whether it is an error. Defaults to False.
        digits: Decimals in print. Defaults to 2, which suits percent and degrees.
    """

    lower_is_better: bool = False
    digits: int = 2


class Accumulator(ABC):
    """Counts one task, image by image, and turns the counts of a whole set into metrics.

    An image is counted alone and `reduce` adds in a way that does not depend on the order (integers, or exactly
    rounded sums), so the metrics are the same for any batch size, order of images and number of processes.

    Args:
        spec: The task.

    Attributes:
        METRICS: What `reduce` reports, in its order, the usual choice for `TaskSpec.metric` first: name -> its direction and
            digits. No other place tells them.
    """

    METRICS: ClassVar[Mapping[str, Metric]]

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    @abstractmethod
    def prediction(self, pred: Any) -> Tensor:
        """The prediction of one image as a checked tensor, in the shape that `mmseg_polyhistor.tasks` lists.

        Raises:
            ValueError: if its shape is another, or it holds values that the kind does not allow.
        """

    @abstractmethod
    def count(self, pred: Any, gt: Any) -> Any:
        """Count one image.

        Args:
            pred: The prediction, in the shape and type that `mmseg_polyhistor.tasks` lists for the kind.
            gt: The truth, likewise; pixels that equal `spec.ignore_value` do not count.

        Returns:
            A small picklable object, to be handed to `reduce`.

        Raises:
            ValueError: if the two have other shapes than the kind's, or hold values that the kind does not allow.
        """

    @abstractmethod
    def reduce(self, counts: Sequence[Any]) -> dict[str, float]:
        """The metrics of a set of counted images; all are nan where no image has a valid pixel."""

    @abstractmethod
    def valid_pixels(self, count: Any) -> int:
        """How many pixels of a counted image have a truth."""

    def remarks(self, counts: Sequence[Any]) -> list[str]:
        """What a reader of the metrics must know, a sentence each."""
        return []

    def table(self, counts: Sequence[Any]) -> str | None:
        """The metrics class by class, as a printable table; None for a task without classes of its own."""
        return None


def as_map(array: Any, channels: int, what: str) -> Tensor:
    """The array as a tensor (channels, H, W), on the CPU unless it lies on a CUDA device.

    Raises:
        ValueError: if the shape is another; the message says whose it is, via `what`.
    """
    tensor = torch.as_tensor(array)
    if tensor.ndim != 3 or tensor.shape[0] != channels:
        raise ValueError(f'{what} must have shape ({channels}, H, W), got {tuple(tensor.shape)}')
    return tensor if tensor.is_cuda else tensor.cpu()


def truth_for(pred: Tensor, gt: Any) -> Tensor:
    """The truth as a tensor of the prediction's shape, on its device.

    Raises:
        ValueError: if its shape is wrong, or its size is not the prediction's; the message says what to set.
    """
    gt = as_map(gt, pred.shape[0], 'the truth').to(pred.device)
    if pred.shape != gt.shape:
        (h, w), (truth_h, truth_w) = pred.shape[1:], gt.shape[1:]
        raise ValueError(
            f'the prediction has {h} x {w} pixels and the truth {truth_h} x {truth_w} (height x width). '
            "Set the model's test_cfg.resolution to what the test pipeline does: 'input' where it loads the labels "
            "before Resize (labels at the network's input size), 'original' where it loads them after Resize "
            "(labels at the image's own size)"
        )
    return gt


def demand_finite(values: Tensor, what: str) -> None:
    """Raises ValueError if a value is NaN or infinite; the message says how many, and whose, via `what`."""
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise ValueError(f'{what} holds {bad} NaN or infinite values (of {values.numel()})')


def demand_range(values: Tensor, low: float, high: float, what: str, meant: str) -> None:
    """Raises ValueError if a value lies outside low..high; the message says whose, via `what`, and what is `meant`."""
    if values.numel() == 0:
        return
    least, most = values.min().item(), values.max().item()
    if least < low or most > high:
        raise ValueError(f'{what} ranges over {least:g}..{most:g}; {meant} must lie in {low:g}..{high:g}')
