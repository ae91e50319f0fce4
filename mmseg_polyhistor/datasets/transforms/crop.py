"""Cutting an image and its label maps to a size, and filling them up to one."""

# ruff: noqa: NPY002 - numpy's global generator is the one that mmengine seeds in every worker

from __future__ import annotations

import numpy as np
from mmcv.transforms import Pad
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS

from ...tasks import get_task
from ..labels import valid_pixels
from .base import MultiTaskTransform, colour
from .geometry import label_maps, window

__all__ = ['MultiTaskPad', 'MultiTaskRandomCrop']

TRIES = 10  # windows drawn for cat_max_ratio before the last one is taken as it is (mmseg's RandomCrop)


@TRANSFORMS.register_module()
class MultiTaskRandomCrop(MultiTaskTransform):
    """Cut a random window out of the image and all its label maps.

    An image that is smaller than the window comes to lie at a random place in it; around it, every label map is
    ignore.

    Required Keys: img, seg_fields (optional). Modified Keys: img, img_shape, every label map. Added Keys: pad_shape.

    Args:
        crop_size: (height, width) of the window, as mmseg's `RandomCrop` orders it, or one number for both.
        pad_val: What the image is filled with: a grey level or (blue, green, red). Defaults to 0.
        cat_max_ratio: Up to ten windows are drawn until the labelled pixels of `cat_task` have at least two classes
            and no class has this share of them or more. Defaults to 1: the first window is taken.
        cat_task: The semantic task that `cat_max_ratio` looks at; without that label map in the sample, the first
            window is taken. Defaults to None.
    """

    def __init__(
        self,
        crop_size: int | tuple[int, int],
        *,
        pad_val: float | tuple[float, float, float] = 0,
        cat_max_ratio: float = 1.0,
        cat_task: str | None = None,
    ) -> None:
        self.crop_size = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
        if len(self.crop_size) != 2 or not all(isinstance(s, int) and s > 0 for s in self.crop_size):
            raise ValueError(f'crop_size must be a positive int or (height, width), got {crop_size!r}')
        if not 0 < cat_max_ratio <= 1:
            raise ValueError(f'cat_max_ratio must lie in 0..1, got {cat_max_ratio!r}')
        if cat_max_ratio < 1 and (cat_task is None or get_task(cat_task).kind != 'semantic'):
            raise ValueError(f'cat_max_ratio needs cat_task, the name of a semantic task; got {cat_task!r}')
        self.pad_val = colour(pad_val)
        self.cat_max_ratio = cat_max_ratio
        self.cat_task = cat_task

    @cache_randomness
    def random_window(self, results: dict) -> tuple[int, int]:
        """(top, left) of the window; negative where the image is smaller."""
        spec = None if self.cat_max_ratio == 1 else get_task(self.cat_task)
        tries = 1 if spec is None or spec.gt_key not in results.get('seg_fields', ()) else TRIES
        for _ in range(tries):
            corner = tuple(
                _place(image, cut) for image, cut in zip(results['img'].shape, self.crop_size, strict=False)
            )
            if tries > 1:
                part = window(results[spec.gt_key], *corner, self.crop_size, spec.ignore_value)
                counts = np.bincount(part[valid_pixels(part, spec)])
                counts = counts[counts > 0]
                if len(counts) > 1 and counts.max() < self.cat_max_ratio * counts.sum():
                    break
        return corner

    def transform(self, results: dict) -> dict:
        """Draw a window and cut."""
        labels = label_maps(results)
        top, left = self.random_window(results)
        results['img'] = window(results['img'], top, left, self.crop_size, self.pad_val)
        for key, spec in labels:
            results[key] = window(results[key], top, left, self.crop_size, spec.ignore_value)
        results['img_shape'] = results['pad_shape'] = self.crop_size
        return results


def _place(image: int, cut: int) -> int:
    """A random start of a window of length `cut`: inside the image, or around it where the image is shorter."""
    return int(np.random.randint(min(image - cut, 0), max(image - cut, 0) + 1))


@TRANSFORMS.register_module()
class MultiTaskPad(MultiTaskTransform, Pad):
    """Fill up the image and all its label maps at the bottom and the right; label maps with ignore.

    Required Keys: img, seg_fields (optional). Modified Keys: img, img_shape, every label map. Added Keys: pad_shape,
    pad_fixed_size, pad_size_divisor.

    Args:
        size: (width, height) to reach; a larger image stays as it is. Defaults to None.
        size_divisor: Number that both sides must be multiples of. Defaults to None.
        pad_to_square: Make the shorter side as long as the longer one. Defaults to False.
        pad_val: What the image is filled with: a grey level or (blue, green, red). Defaults to 0.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        *,
        size_divisor: int | None = None,
        pad_to_square: bool = False,
        pad_val: float | tuple[float, float, float] = 0,
    ) -> None:
        super().__init__(
            size=None if size is None else tuple(size),
            size_divisor=size_divisor,
            pad_to_square=pad_to_square,
            pad_val=dict(img=colour(pad_val)),
        )

    def transform(self, results: dict) -> dict:
        """Pad the image, then every label map to the size that the image has got."""
        labels = label_maps(results)
        results = super().transform(results)
        for key, spec in labels:
            results[key] = window(results[key], 0, 0, results['img_shape'], spec.ignore_value)
        return results

    def _pad_seg(self, results: dict) -> None:
        """Nothing: `transform` pads the label maps, `gt_seg_map` among them."""
