"""Boundaries (edges): thin lines, matched one to one with the true ones; F-measure at the set's best threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

from ..datasets.thinning import thin
from .base import Accumulator, Metric, as_map, demand_finite, demand_range, truth_for

__all__ = ['THRESHOLDS', 'TOLERANCE', 'BoundaryAccumulator', 'BoundaryCounts', 'matched_pixels']

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""0.05, 0.10 .. 0.95: a pixel is an edge where its probability lies strictly above the threshold."""

TOLERANCE = 0.0075
"""The distance up to which two edge pixels can be matched, as a share of the map's diagonal (BSDS benchmark)."""


@dataclass(frozen=True)
class BoundaryCounts:
    """The edges of one image.

    Args:
        pixels: Number of valid pixels.
        true: Number of true edge pixels, thinned.
        guessed: int64 (19,), number of predicted edge pixels, thinned, at each of `THRESHOLDS`.
        matched: int64 (19,), how many of them are matched with a true one, one to one.
    """

    pixels: int
    true: int
    guessed: np.ndarray
    matched: np.ndarray


class BoundaryAccumulator(Accumulator):
    """F-measure of boundaries at the optimal scale of the data set (ODS), after Martin et al. (PAMI 2004; BSDS).

    At every threshold the predicted edges are thinned to lines and matched with the true ones: as many pairs of
    pixels as possible that are at most 0.0075 of the map's diagonal apart, each pixel in one pair. The counts of all
    images are added up; precision = matched / predicted, recall = matched / true. The metrics, in percent:

    - `odsF`: 2 P R / (P + R) at the threshold where it is largest; 100 where a set has neither true nor predicted edges;
    - `odsP`, `odsR`: precision and recall at that threshold (nan where they divide by 0).

    What differs from the benchmark's code: 19 thresholds (it has 99 by default), and no non-maximum suppression before
    them; predictions are thinned by `mmseg_polyhistor.datasets.thinning.thin`, and so is the truth, so that the two are
    alike. Pixels without label are emptied before the thinning: they neither count nor are matched.
    """

    METRICS: ClassVar = dict(odsF=Metric(), odsP=Metric(), odsR=Metric())

    def prediction(self, pred: Any) -> Tensor:
        """See `Accumulator.prediction`; (1, H, W) in [0, 1], returned as float32."""
        pred = as_map(pred, 1, 'the prediction').float()
        demand_finite(pred, 'the prediction')
        demand_range(pred, 0, 1, 'the prediction', 'probabilities')
        return pred

    def count(self, pred: Any, gt: Any) -> BoundaryCounts:
        """See `Accumulator.count`; pred float in [0, 1] and gt uint8, both (1, H, W)."""
        pred = self.prediction(pred)
        gt = truth_for(pred, gt)
        valid = gt != self.spec.ignore_value
        demand_range(gt[valid], 0, 1, 'the truth', f'labels other than ignore ({self.spec.ignore_value})')
        pred, gt, valid = (x[0].cpu().numpy() for x in (pred, gt, valid))
        true = thin((gt == 1) & valid)
        pred = np.where(valid, pred, 0)
        radius = TOLERANCE * math.hypot(*pred.shape)
        counts = np.zeros((2, len(THRESHOLDS)), np.int64)
        last = None
        for index, threshold in enumerate(np.array(THRESHOLDS, np.float32)):
            guess = pred > threshold
            if last is not None and np.array_equal(guess, last):
                counts[:, index] = counts[:, index - 1]
                continue
            last, lines = guess, thin(guess)
            counts[:, index] = lines.sum(), matched_pixels(lines, true, radius)
        return BoundaryCounts(int(valid.sum()), int(true.sum()), *counts)

    def valid_pixels(self, count: BoundaryCounts) -> int:
        """See `Accumulator.valid_pixels`."""
        return count.pixels

    def reduce(self, counts: Sequence[BoundaryCounts]) -> dict[str, float]:
        """See `Accumulator.reduce`; keys `odsF`, `odsP`, `odsR`, in percent."""
        best = _best(counts)
        if best is None:
            return dict.fromkeys(self.METRICS, math.nan)
        _, f, matched, guessed, true = best
        return {
            'odsF': 100 * f,
            'odsP': 100 * matched / guessed if guessed else math.nan,
            'odsR': 100 * matched / true if true else math.nan,
        }

    def remarks(self, counts: Sequence[BoundaryCounts]) -> list[str]:
        """The best threshold."""
        best = _best(counts)
        return (
            []
            if best is None
            else [f'odsF is that of the threshold {best[0]:g}, the best of {len(THRESHOLDS)}']
        )


def _best(counts: Sequence[BoundaryCounts]) -> tuple[float, float, int, int, int] | None:
    """(threshold, F in 0..1, matched, guessed, true) of a set; the lowest of equally good thresholds."""
    counts = [c for c in counts if c.pixels]
    if not counts:
        return None
    true = sum(c.true for c in counts)
    guessed, matched = (np.sum([getattr(c, key) for c in counts], axis=0) for key in ('guessed', 'matched'))
    total = guessed + true
    f = np.where(total > 0, 2 * matched / np.maximum(total, 1), 1.0)  # = 2 P R / (P + R)
    k = int(f.argmax())
    return THRESHOLDS[k], float(f[k]), int(matched[k]), int(guessed[k]), true


def matched_pixels(first: np.ndarray, second: np.ndarray, radius: float) -> int:
    """The largest number of pairs of set pixels, one of each map, at most `radius` pixels apart, each in one pair.

    Args:
        first, second: bool (H, W).
        radius: In pixels; their centres count.
    """
    if second.sum() < first.sum():  # the number is the same, and the table of neighbours shorter
        first, second = second, first
    rows, columns = np.nonzero(first)
    if not rows.size:
        return 0
    number = int(second.sum())
    reach, offsets = _disc(radius)
    index = np.full((first.shape[0] + 2 * reach, first.shape[1] + 2 * reach), -1, np.int32)
    inner = index[reach : index.shape[0] - reach, reach : index.shape[1] - reach]
    inner[second] = np.arange(number)
    near = index[rows[:, None] + reach + offsets[:, 0], columns[:, None] + reach + offsets[:, 1]]
    hit = near >= 0
    # A flow of 1 from the source (node 0) through a pixel of the first map, one of the second near it, and to the sink. scipy's
    # `maximum_bipartite_matching` gives the same number, but on long lines it may take minutes.
    size = len(rows)
    sink = size + number + 1
    targets = [np.arange(1, size + 1), size + 1 + near[hit], np.full(number, sink)]
    degrees = [[0], [size], hit.sum(axis=1), np.ones(number, np.int64), [0]]
    graph = csr_array(
        (
            np.ones(sum(map(len, targets)), np.int32),
            np.concatenate(targets).astype(np.int32),
            np.concatenate(degrees).cumsum().astype(np.int32),
        ),
        shape=(sink + 1, sink + 1),
    )
    return int(maximum_flow(graph, 0, sink, method='dinic').flow_value)


@lru_cache(maxsize=64)
def _disc(radius: float) -> tuple[int, np.ndarray]:
    """Its reach in whole pixels, and the (row, column) offsets within it, the nearest first: int64 (N, 2)."""
    reach = int(radius)
    grid = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing='ij'), axis=-1).reshape(-1, 2)
    squares = (grid**2).sum(axis=1)
    inside = squares <= radius**2
    return reach, grid[inside][np.argsort(squares[inside], kind='stable')]
