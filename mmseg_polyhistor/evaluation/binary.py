"""Binary tasks (saliency): IoU per image, mean over images, best of 15 thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .base import Accumulator, Metric, as_map, demand_finite, demand_range, truth_for

__all__ = ['THRESHOLDS', 'BinaryAccumulator']

THRESHOLDS = tuple(round(0.20 + 0.05 * k, 2) for k in range(15))
"""0.20, 0.25 .. 0.90: a pixel is foreground where its probability lies strictly above the threshold."""


class BinaryAccumulator(Accumulator):
    """Foreground IoU and F-measure, as the ASTMT line of work reports saliency.

    An image becomes an int64 array (2, 16): its valid pixels by truth (0, 1) and by the number of thresholds below
    their probability (256 bytes). An image without a valid pixel counts nowhere.

    The metrics, in percent:

    - `mIoU`: the IoU of the foreground of each image (1 where neither truth nor prediction has any), averaged over
      the images for each threshold; the best threshold's mean.
    - `maxF`: the F-measure with beta^2 = 0.3, the weight of the field of salient object detection (Achanta et al.,
      CVPR 2009). Precision and recall are taken per image and averaged over the images for each threshold, F is
      formed from the two averages (Borji et al., TIP 2015), and the best threshold's is reported.
      In an image where neither truth nor prediction has foreground both are 1, as its IoU is; otherwise
      precision without a predicted pixel, and recall without a true one, are 0.
    - `maxF1`: the same with beta^2 = 1.

    Averages over images, not over batches, and so the same for any batch size.
    """

    METRICS: ClassVar = dict(mIoU=Metric(), maxF=Metric(), maxF1=Metric())

    def prediction(self, pred: Any) -> Tensor:
        """See `Accumulator.prediction`; (1, H, W) in [0, 1], returned as float32."""
        pred = as_map(pred, 1, 'the prediction').float()
        demand_finite(pred, 'the prediction')
        demand_range(pred, 0, 1, 'the prediction', 'probabilities')
        return pred

    def count(self, pred: Any, gt: Any) -> np.ndarray:
        """See `Accumulator.count`; pred float in [0, 1] and gt uint8, both (1, H, W)."""
        pred = self.prediction(pred)
        gt = truth_for(pred, gt)
        valid = gt != self.spec.ignore_value
        truth = gt[valid].long()
        demand_range(truth, 0, 1, 'the truth', f'labels other than ignore ({self.spec.ignore_value})')
        passed = torch.bucketize(pred[valid], torch.tensor(THRESHOLDS, device=pred.device))
        bins = len(THRESHOLDS) + 1
        return torch.bincount(truth * bins + passed, minlength=2 * bins).view(2, bins).cpu().numpy()

    def valid_pixels(self, count: np.ndarray) -> int:
        """See `Accumulator.valid_pixels`."""
        return int(count.sum())

    def reduce(self, counts: Sequence[np.ndarray]) -> dict[str, float]:
        """See `Accumulator.reduce`; keys `mIoU`, `maxF`, `maxF1`, in percent."""
        counts = [c for c in counts if c.sum()]
        if not counts:
            return dict.fromkeys(self.METRICS, float('nan'))
        table = np.stack(counts)  # (images, 2, 16)
        above = table[:, :, ::-1].cumsum(axis=2)[:, :, -2::-1]  # (images, 2, 15): pixels above each threshold
        hits, guessed = above[:, 1], above.sum(axis=1)
        true = np.broadcast_to(table[:, 1].sum(axis=1, keepdims=True), hits.shape)
        empty = (guessed + true) == 0
        iou = np.where(empty, 1.0, hits / np.maximum(guessed + true - hits, 1))
        precision, recall = (
            _mean_over_images(np.where(empty, 1.0, hits / np.maximum(n, 1))) for n in (guessed, true)
        )
        return {
            'mIoU': 100 * float(_mean_over_images(iou).max()),
            'maxF': 100 * float(_f_measure(precision, recall, beta2=0.3).max()),
            'maxF1': 100 * float(_f_measure(precision, recall, beta2=1.0).max()),
        }


def _mean_over_images(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis, exactly rounded, so that the order of the images leaves no trace."""
    return np.array([math.fsum(column) / len(column) for column in values.T])


def _f_measure(precision: np.ndarray, recall: np.ndarray, beta2: float) -> np.ndarray:
    """F = (1 + b^2) P R / (b^2 P + R); 0 where P = R = 0."""
    weighted = beta2 * precision + recall
    return (1 + beta2) * precision * recall / np.where(weighted > 0, weighted, 1.0)
