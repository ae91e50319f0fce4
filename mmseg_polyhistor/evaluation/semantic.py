"""Semantic segmentation: intersections and areas per class, mIoU over the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from prettytable import PrettyTable
from torch import Tensor

from .base import Accumulator, Metric, as_map, demand_range, truth_for

__all__ = ['SemanticAccumulator']


class SemanticAccumulator(Accumulator):
    """IoU of the classes over a set of images.

    An image becomes an int64 array (3, classes): pixels where prediction and truth agree, pixels predicted, pixels
    true, per class, over the image's valid pixels (504 bytes for 21 classes).

    The metrics, in percent, are those of mmseg's `IoUMetric`, unrounded:

    - `mIoU`: mean of intersection over union of each class, both summed over the set. A class in neither truth nor
      prediction has no IoU and is left out of the mean (`remarks` names it); background is a class like others.
    - `aAcc`: share of the pixels whose class is right.
    - `mAcc`: mean over the classes in the truth of the share of their pixels that is found.
    """

    METRICS: ClassVar = dict(mIoU=Metric(), aAcc=Metric(), mAcc=Metric())

    def prediction(self, pred: Any) -> Tensor:
        """See `Accumulator.prediction`; integers (1, H, W) in 0..channels-1."""
        pred = as_map(pred, 1, 'the prediction')
        if pred.is_floating_point():
            raise ValueError(f'the prediction must hold class indices, got {pred.dtype} values')
        demand_range(pred, 0, self.spec.channels - 1, 'the prediction', 'classes')
        return pred

    def count(self, pred: Any, gt: Any) -> np.ndarray:
        """See `Accumulator.count`; pred int64 and gt uint8, both (1, H, W)."""
        pred = self.prediction(pred)
        gt = truth_for(pred, gt)
        classes = self.spec.channels
        valid = gt != self.spec.ignore_value
        truth, guess = gt[valid].long(), pred[valid].long()
        demand_range(
            truth, 0, classes - 1, 'the truth', f'classes other than ignore ({self.spec.ignore_value})'
        )
        areas = [torch.bincount(x, minlength=classes) for x in (guess[guess == truth], guess, truth)]
        return torch.stack(areas).cpu().numpy()

    def valid_pixels(self, count: np.ndarray) -> int:
        """See `Accumulator.valid_pixels`."""
        return int(count[2].sum())

    def reduce(self, counts: Sequence[np.ndarray]) -> dict[str, float]:
        """See `Accumulator.reduce`; keys `mIoU`, `aAcc`, `mAcc`, in percent."""
        hits, _, true = self._sum(counts)
        iou, accuracy = self.per_class(counts)
        return {
            'mIoU': _mean(iou),
            'aAcc': float(100 * hits.sum() / true.sum()) if true.sum() else float('nan'),
            'mAcc': _mean(accuracy),
        }

    def per_class(self, counts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """IoU and accuracy of each class, in percent; nan where a class has none."""
        hits, guessed, true = self._sum(counts).astype(np.float64)
        with np.errstate(invalid='ignore'):  # 0 / 0 is the nan of a class without a pixel
            return 100 * hits / (guessed + true - hits), 100 * hits / true

    def remarks(self, counts: Sequence[np.ndarray]) -> list[str]:
        """Names the classes that the mean leaves out."""
        iou, _ = self.per_class(counts)
        absent = [name for name, value in zip(self.spec.classes, iou, strict=True) if np.isnan(value)]
        if not absent or len(absent) == len(iou):
            return []
        return [
            f'mIoU is the mean over {len(iou) - len(absent)} of {len(iou)} classes; '
            f'in neither truth nor prediction: {", ".join(absent)}'
        ]

    def table(self, counts: Sequence[np.ndarray]) -> str:
        """IoU and accuracy class by class."""
        table = PrettyTable()
        table.add_column('Class', list(self.spec.classes))
        for name, column in zip(('IoU', 'Acc'), self.per_class(counts), strict=True):
            table.add_column(name, [f'{value:.2f}' for value in column])
        return table.get_string()

    def _sum(self, counts: Sequence[np.ndarray]) -> np.ndarray:
        return np.sum(counts, axis=0) if len(counts) else np.zeros((3, self.spec.channels), np.int64)


def _mean(values: np.ndarray) -> float:
    """Mean of the values that are not nan; nan where all are."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')
