"""Mirroring an image and its label maps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
from mmcv.transforms import RandomFlip
from mmseg.registry import TRANSFORMS

from .base import MultiTaskTransform
from .geometry import CV2_FLIP, flip_label, label_maps

__all__ = ['MultiTaskRandomFlip']


@TRANSFORMS.register_module()
class MultiTaskRandomFlip(MultiTaskTransform, RandomFlip):
    """Mirror the image and all its label maps; vectors are mirrored too (`TaskSpec.flip`).

    Left and right of a person are one class in the merged human parts, so that no class changes.

    Required Keys: img, seg_fields (optional). Modified Keys: img, every label map. Added Keys: flip, flip_direction.

    Args:
        prob: Probability, or one per direction. Defaults to 0.5.
        direction: 'horizontal', 'vertical' or 'diagonal' (both), or several to choose from. Defaults to 'horizontal'.
    """

    def __init__(
        self, prob: float | Sequence[float] = 0.5, direction: str | Sequence[str] = 'horizontal'
    ) -> None:
        shares = [prob] if isinstance(prob, (int, float)) else prob
        if isinstance(shares, str) or not all(0 <= p <= 1 for p in shares):
            raise ValueError(
                f'MultiTaskRandomFlip: prob must lie in 0..1, or be one such number per direction, got {prob!r}'
            )
        super().__init__(
            prob=float(prob) if isinstance(prob, (int, float)) else [float(p) for p in prob],
            direction=direction if isinstance(direction, str) else list(direction),
        )

    def _flip(self, results: dict) -> None:
        direction = results['flip_direction']
        labels = label_maps(results)
        results['img'] = cv2.flip(results['img'], CV2_FLIP[direction])
        for key, spec in labels:
            results[key] = flip_label(results[key], direction, spec)
