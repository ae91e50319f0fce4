"""Unit vectors (surface normals): the angle between prediction and truth, in degrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .base import Accumulator, Metric, as_map, demand_finite, truth_for

__all__ = ['LIMITS', 'RESOLUTION', 'AngleCounts', 'UnitVectorAccumulator', 'angles_between']

RESOLUTION = 0.1
"""Width in degrees of a bin of the histogram that the median is read from."""

LIMITS = (11.25, 22.5, 30.0)
"""The angles in degrees of the 'share of pixels below' metrics."""

BINS = round(180 / RESOLUTION)


@dataclass(frozen=True)
class AngleCounts:
    """The angular errors of one image.

    Args:
        pixels: Number of valid pixels.
        total: Sum of their errors, in degrees.
        squares: Sum of their squared errors.
        below: Number of errors below each of `LIMITS`.
        histogram: uint32 (1800,), number of errors per 0.1 degrees; 7,200 bytes.
    """

    pixels: int
    total: float
    squares: float
    below: tuple[int, ...]
    histogram: np.ndarray


class UnitVectorAccumulator(Accumulator):
    """Angular error over all valid pixels of a set.

    The metrics:

    - `mean`: mean error in degrees. **What the ASTMT line of work prints as "rmse" of the normals is this mean**
      (an alias in its meter): compare its tables, and the paper's, with `mean`.
    - `rmse`: the true root of the mean squared error, in degrees; never below `mean`.
    - `median`: in degrees, from a histogram of 0.1 degree bins with values spread evenly over a bin: within 0.1 of
      the exact median.
    - `under_11.25`, `under_22.5`, `under_30`: share of the pixels whose error is smaller, in percent, exact.

    A prediction of length 0 has no direction; its error counts as 90 degrees, what a zero dot product gives.
    """

    METRICS: ClassVar = {
        **dict.fromkeys(('mean', 'median', 'rmse'), Metric(lower_is_better=True)),
        **dict.fromkeys((f'under_{limit:g}' for limit in LIMITS), Metric()),
    }

    def prediction(self, pred: Any) -> Tensor:
        """See `Accumulator.prediction`; (3, H, W), finite, of any length."""
        pred = as_map(pred, 3, 'the prediction')
        demand_finite(pred, 'the prediction')
        return pred

    def count(self, pred: Any, gt: Any) -> AngleCounts:
        """See `Accumulator.count`; pred and gt float (3, H, W), of any length but 0 in the truth."""
        pred = self.prediction(pred)
        gt = truth_for(pred, gt)
        valid = ~(gt == self.spec.ignore_value).all(dim=0)
        pred, gt = pred[:, valid], gt[:, valid]
        demand_finite(gt, 'the truth')
        zeros = int((gt == 0).all(dim=0).sum())
        if zeros:
            raise ValueError(
                f'the truth holds {zeros} vectors of length 0; a pixel without label must be '
                f'{self.spec.ignore_value} in all three components'
            )
        angles = angles_between(pred, gt)
        bins = (angles / RESOLUTION).long().clamp_(max=BINS - 1)
        return AngleCounts(
            pixels=angles.numel(),
            total=angles.sum().item(),
            squares=angles.square().sum().item(),
            below=tuple(int((angles < limit).sum()) for limit in LIMITS),
            histogram=torch.bincount(bins, minlength=BINS).cpu().numpy().astype(np.uint32),
        )

    def valid_pixels(self, count: AngleCounts) -> int:
        """See `Accumulator.valid_pixels`."""
        return count.pixels

    def reduce(self, counts: Sequence[AngleCounts]) -> dict[str, float]:
        """See `Accumulator.reduce`; keys `mean`, `median`, `rmse` in degrees, `under_*` in percent."""
        pixels = sum(c.pixels for c in counts)
        if pixels == 0:
            return dict.fromkeys(self.METRICS, float('nan'))
        histogram = np.sum([c.histogram for c in counts], axis=0, dtype=np.int64)
        below = np.sum([c.below for c in counts], axis=0)
        return {
            'mean': math.fsum(c.total for c in counts) / pixels,
            'median': _median(histogram),
            'rmse': math.sqrt(math.fsum(c.squares for c in counts) / pixels),
            **{f'under_{limit:g}': 100 * int(n) / pixels for limit, n in zip(LIMITS, below, strict=True)},
        }


def angles_between(a: Tensor, b: Tensor) -> Tensor:
    """Angle in degrees between the vectors of two arrays, in double precision.

    2 atan2(|a - b|, |a + b|) of the normalised vectors (Kahan): exact to the last digits where acos of the dot
    product loses half of them, near 0 and 180 degrees. A vector of length 0 stands at 90 degrees to any other.

    Shape:
        a, b: (3, N). Returns: float64 (N,), in [0, 180].
    """
    a, b = (v / _length(v).clamp_min(1e-300) for v in (a.double(), b.double()))
    return torch.rad2deg(2 * torch.atan2(_length(a - b), _length(a + b)))


def _length(vectors: Tensor) -> Tensor:
    """Lengths (N,) of vectors (3, N); several times faster than `Tensor.norm` over so short an axis."""
    return vectors.square().sum(dim=0).sqrt()


def _median(histogram: np.ndarray) -> float:
    """Median from counts per bin; as np.median, the mean of the two middle values where their number is even."""
    cumulated = histogram.cumsum()
    n = int(cumulated[-1])

    def value_at(rank: int) -> float:
        index = int(np.searchsorted(cumulated, rank, side='right'))
        rank_in_bin = rank - (int(cumulated[index]) - int(histogram[index]))
        return RESOLUTION * (index + (rank_in_bin + 0.5) / int(histogram[index]))

    return (value_at((n - 1) // 2) + value_at(n // 2)) / 2
