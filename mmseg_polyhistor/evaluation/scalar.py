"""Quantities (depth): absolute and relative errors over all valid pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .base import Accumulator, Metric, as_map, demand_finite, demand_range, truth_for

__all__ = ['RATIOS', 'ScalarAccumulator', 'ScalarCounts']

RATIOS = tuple(1.25**k for k in (1, 2, 3))
"""The ratios between prediction and truth that `delta1`, `delta2`, `delta3` allow."""


@dataclass(frozen=True)
class ScalarCounts:
    """The errors of one image.

    Args:
        pixels: Number of valid pixels.
        squares: Sum of their squared errors, in the square of the label's unit.
        positive: Number of valid pixels whose truth is above 0.
        relative: Sum of |prediction - truth| / truth over those.
        within: Number of those whose ratio lies below each of `RATIOS`.
    """

    pixels: int
    squares: float
    positive: int
    relative: float
    within: tuple[int, ...]


class ScalarAccumulator(Accumulator):
    """Depth's errors, after Eigen et al. (NeurIPS 2014), over all valid pixels of a set.

    The metrics:

    - `rmse`: root of the mean squared error, in the label's unit (metres);
    - `abs_rel`: mean of |prediction - truth| / truth;
    - `delta1`, `delta2`, `delta3`: share of the pixels with max(prediction / truth, truth / prediction) below 1.25,
      1.25^2, 1.25^3, in percent.

    All means run over the pixels of the set, not over images. A true 0 (of a task whose ignore value is negative) has no
    relative error: it counts in `rmse` alone.
    """

    METRICS: ClassVar = {
        **dict.fromkeys(('rmse', 'abs_rel'), Metric(lower_is_better=True, digits=4)),
        **dict.fromkeys(('delta1', 'delta2', 'delta3'), Metric()),
    }

    def prediction(self, pred: Any) -> Tensor:
        """See `Accumulator.prediction`; (1, H, W), finite, 0 or above."""
        pred = as_map(pred, 1, 'the prediction')
        demand_finite(pred, 'the prediction')
        demand_range(pred, 0, math.inf, 'the prediction', 'quantities')
        return pred

    def count(self, pred: Any, gt: Any) -> ScalarCounts:
        """See `Accumulator.count`; pred and gt float (1, H, W), 0 or above."""
        pred = self.prediction(pred)
        gt = truth_for(pred, gt)
        valid = gt != self.spec.ignore_value
        pred, gt = pred[valid].double(), gt[valid].double()
        demand_finite(gt, 'the truth')
        demand_range(gt, 0, math.inf, 'the truth', f'quantities other than ignore ({self.spec.ignore_value})')
        squares = (pred - gt).square().sum().item()
        pixels, positive = gt.numel(), gt > 0
        pred, gt = pred[positive], gt[positive]
        ratio = torch.maximum(pred / gt, gt / pred)  # infinite where the prediction is 0
        return ScalarCounts(
            pixels=pixels,
            squares=squares,
            positive=gt.numel(),
            relative=((pred - gt).abs() / gt).sum().item(),
            within=tuple(int((ratio < limit).sum()) for limit in RATIOS),
        )

    def valid_pixels(self, count: ScalarCounts) -> int:
        """See `Accumulator.valid_pixels`."""
        return count.pixels

    def reduce(self, counts: Sequence[ScalarCounts]) -> dict[str, float]:
        """See `Accumulator.reduce`; keys `rmse` in the label's unit, `abs_rel`, `delta1`, `delta2`, `delta3` in percent."""
        pixels, positive = sum(c.pixels for c in counts), sum(c.positive for c in counts)
        within = np.sum([c.within for c in counts], axis=0, dtype=np.int64).tolist() if counts else [0] * 3
        squares, relative = math.fsum(c.squares for c in counts), math.fsum(c.relative for c in counts)
        return {
            'rmse': math.sqrt(squares / pixels) if pixels else math.nan,
            'abs_rel': relative / positive if positive else math.nan,
            **{
                f'delta{k}': 100 * number / positive if positive else math.nan
                for k, number in enumerate(within, start=1)
            },
        }

    def remarks(self, counts: Sequence[ScalarCounts]) -> list[str]:
        """How many true zeros have no relative error."""
        zeros = sum(c.pixels - c.positive for c in counts)
        return [f'{zeros} pixels whose truth is 0 count in rmse alone'] if zeros else []
