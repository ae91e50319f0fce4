"""Changing the size of an image and its label maps."""

# ruff: noqa: NPY002 - numpy's global generator is the one that mmengine seeds in every worker

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from mmcv import imresize, rescale_size
from mmcv.transforms import Resize
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS

from .base import MultiTaskTransform, check_vector_interpolation, number_range
from .geometry import label_maps, resize_label, zoom_label

__all__ = ['MultiTaskRandomScale', 'MultiTaskResize']


@TRANSFORMS.register_module()
class MultiTaskResize(MultiTaskTransform, Resize):
    """Resize the image and all its label maps: classes by nearest neighbour, aligned at pixel centres as the image is.

    For sizes drawn from a range around `scale`, use mmcv's `RandomResize(scale=..., ratio_range=...,
    resize_type='MultiTaskResize')`; for a random factor of the image's own size, `MultiTaskRandomScale`. No value of a
    label changes: for tasks whose values a zoom changes (`TaskSpec.zoom`, depth), zoom with `MultiTaskRandomScale` or
    `MultiTaskRandomRotate`.

    Required Keys: img, seg_fields (optional). Modified Keys: img, img_shape, every label map. Added Keys: scale,
    scale_factor, keep_ratio.

    Args:
        scale: (width, height), or one number for both. Defaults to None: `scale_factor` counts.
        scale_factor: Factor of the image's own size, or (x, y). Defaults to None.
        keep_ratio: Make the image as large as fits into `scale` (the longer side into the larger number) instead of
            squashing it. Defaults to False.
        interpolation: mmcv's name of the image's interpolation. Defaults to 'bilinear'.
        vector_interpolation: 'nearest' or 'bilinear', see `geometry.resize_label`. Defaults to 'bilinear'.
    """

    def __init__(
        self,
        scale: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        keep_ratio: bool = False,
        *,
        interpolation: str = 'bilinear',
        vector_interpolation: str = 'bilinear',
    ) -> None:
        super().__init__(
            scale=_pair('scale', scale),
            scale_factor=_factors(scale_factor),
            keep_ratio=keep_ratio,
            interpolation=interpolation,
        )
        self.vector_interpolation = check_vector_interpolation(vector_interpolation)

    def transform(self, results: dict) -> dict:
        """Resize the image, then every label map to the size that the image has got."""
        labels = label_maps(results)
        results = super().transform(results)
        size = results['img_shape'][::-1]
        for key, spec in labels:
            results[key] = resize_label(results[key], size, spec, self.vector_interpolation)
        return results

    def _resize_img(self, results: dict) -> None:
        """As mmcv's; but a side that would vanish, of a long and narrow image, keeps one pixel."""
        image, size = results['img'], results['scale']
        if self.keep_ratio:
            size = rescale_size(image.shape[1::-1], size)
        results['img'], across, down = imresize(
            image,
            tuple(max(side, 1) for side in size),
            interpolation=self.interpolation,
            return_scale=True,
            backend=self.backend,
        )
        results['img_shape'] = results['img'].shape[:2]
        results['scale_factor'] = (across, down)
        results['keep_ratio'] = self.keep_ratio

    def _resize_seg(self, results: dict) -> None:
        """Nothing: `transform` resizes the label maps, `gt_seg_map` among them."""


def _pair(name: str, value: Any) -> int | tuple[float, float] | None:
    """A pair as a tuple; None and one number (mmcv's `RandomResize` begins with 0) as they are; else ValueError."""
    if value is None or isinstance(value, int):
        return value
    if (
        not isinstance(value, Sequence)
        or len(value) != 2
        or not all(isinstance(v, Real) and v > 0 for v in value)
    ):
        raise ValueError(
            f'MultiTaskResize: {name} must be (width, height), both positive, or one number, got {value!r}'
        )
    return tuple(value)


def _factors(value: float | tuple[float, float] | None) -> tuple[float, float] | None:
    if value is None:
        return None
    return (float(value),) * 2 if isinstance(value, (int, float)) else tuple(map(float, value))


@TRANSFORMS.register_module()
class MultiTaskRandomScale(MultiTaskTransform):
    """Zoom the image and all its label maps by a random factor, and their size with it; depths are divided by the factor
    (`TaskSpec.zoom`).

    To zoom on a canvas of unchanged size, see `MultiTaskRandomRotate(scale_range=...)`.

    Required Keys, Modified Keys, Added Keys: as `MultiTaskResize`.

    Args:
        scale_range: (lowest, highest) factor, drawn uniformly. Defaults to (0.75, 1.25).
        interpolation: mmcv's name of the image's interpolation. Defaults to 'bilinear'.
        vector_interpolation: 'nearest' or 'bilinear', see `geometry.resize_label`. Defaults to 'bilinear'.
    """

    def __init__(
        self,
        scale_range: tuple[float, float] = (0.75, 1.25),
        *,
        interpolation: str = 'bilinear',
        vector_interpolation: str = 'bilinear',
    ) -> None:
        self.scale_range = number_range('scale_range', scale_range)
        if self.scale_range[0] <= 0:
            raise ValueError(f'scale_range must be positive, got {scale_range!r}')
        self.resize = MultiTaskResize(
            scale=(1, 1), interpolation=interpolation, vector_interpolation=vector_interpolation
        )

    @cache_randomness
    def random_factor(self) -> float:
        """The factor of this sample."""
        return np.random.uniform(*self.scale_range)

    def transform(self, results: dict) -> dict:
        """Draw a factor and resize."""
        factor = self.random_factor()
        height, width = results['img'].shape[:2]
        self.resize.scale = tuple(max(round(side * factor), 1) for side in (width, height))
        results = self.resize(results)
        for key, spec in label_maps(results):
            results[key] = zoom_label(results[key], factor, spec)
        return results
