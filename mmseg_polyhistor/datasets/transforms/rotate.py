"""Rotating an image and its label maps, and zooming them in the same step."""

# ruff: noqa: NPY002 - numpy's global generator is the one that mmengine seeds in every worker

from __future__ import annotations

import cv2
import numpy as np
from mmcv.image.geometric import cv2_interp_codes
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS

from .base import MultiTaskTransform, check_vector_interpolation, colour, number_range
from .geometry import label_maps, warp_label

__all__ = ['MultiTaskRandomRotate']


@TRANSFORMS.register_module()
class MultiTaskRandomRotate(MultiTaskTransform):
    """Rotate the image and all its label maps about the image's centre by a random angle; optionally zoom them.

    The canvas keeps its size. What comes in from outside is ignore in every label map. Vectors turn with the image
    (`TaskSpec.rotate`), and depths are divided by the zoom (`TaskSpec.zoom`). Angle and zoom are one warp, so that nothing
    is resampled twice.

    Required Keys: img, seg_fields (optional). Modified Keys: img, every label map.

    Args:
        degree: Range (lowest, highest) of the angle in degrees, clockwise; one number means (-degree, degree).
            Drawn uniformly.
        prob: Probability that the sample is rotated and zoomed at all. Defaults to 1.
        scale_range: (lowest, highest) zoom, drawn uniformly; above 1 enlarges. Defaults to (1, 1): no zoom.
        pad_val: What the image is filled with: a grey level or (blue, green, red). Defaults to 0.
        interpolation: mmcv's name of the image's interpolation. Defaults to 'bilinear'.
        vector_interpolation: 'nearest' or 'bilinear', see `geometry.resize_label`. Defaults to 'bilinear'.
    """

    def __init__(
        self,
        degree: float | tuple[float, float],
        prob: float = 1.0,
        *,
        scale_range: tuple[float, float] = (1.0, 1.0),
        pad_val: float | tuple[float, float, float] = 0,
        interpolation: str = 'bilinear',
        vector_interpolation: str = 'bilinear',
    ) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must lie in 0..1, got {prob!r}')
        if interpolation not in cv2_interp_codes:
            raise ValueError(f'interpolation must be one of {list(cv2_interp_codes)}, got {interpolation!r}')
        symmetric = isinstance(degree, (int, float))
        self.degree = number_range('degree', (-abs(degree), abs(degree)) if symmetric else degree)
        self.prob = prob
        self.scale_range = number_range('scale_range', scale_range)
        if self.scale_range[0] <= 0:
            raise ValueError(f'scale_range must be positive, got {scale_range!r}')
        self.pad_val = colour(pad_val)
        self.interpolation = interpolation
        self.vector_interpolation = check_vector_interpolation(vector_interpolation)

    @cache_randomness
    def random_motion(self) -> tuple[bool, float, float]:
        """(is the sample moved, angle in degrees, zoom); always draws three numbers."""
        move = np.random.uniform() < self.prob
        return move, np.random.uniform(*self.degree), np.random.uniform(*self.scale_range)

    def transform(self, results: dict) -> dict:
        """Draw a motion and warp image and labels."""
        move, degree, scale = self.random_motion()
        if not move:
            return results
        labels = label_maps(results)
        height, width = results['img'].shape[:2]
        centre = ((width - 1) / 2, (height - 1) / 2)
        matrix = cv2.getRotationMatrix2D(centre, -degree, scale)  # OpenCV counts angles counter-clockwise
        results['img'] = cv2.warpAffine(
            results['img'],
            matrix,
            (width, height),
            flags=cv2_interp_codes[self.interpolation],
            borderValue=self.pad_val,
        )
        for key, spec in labels:
            results[key] = warp_label(results[key], matrix, spec, self.vector_interpolation)
        return results
