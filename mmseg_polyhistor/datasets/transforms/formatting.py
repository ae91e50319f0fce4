"""Packing a sample for the model."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import to_tensor
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS

from ..labels import without_empty
from .base import MultiTaskTransform
from .geometry import label_specs

__all__ = ['PackMultiTaskInputs']


@TRANSFORMS.register_module()
class PackMultiTaskInputs(MultiTaskTransform, PackSegInputs):
    """The last transform: `dict(inputs=<image>, data_samples=<SegDataSample>)`.

    `inputs` is the image, uint8 (3, H, W). The sample has a `PixelData` per label map under the task's `gt_field`:
    uint8 (1, H, W) for classes, float32 (3, H, W) for vectors, float32 (1, H, W) for quantities, at the image's size,
    or at the image file's own size where the labels were loaded behind the resize. A map without any object of a task
    with `ignore_if_empty` (human parts) is packed as all ignore.

    Args:
        meta_keys: Keys of the results that become metainfo, where they exist. Defaults to the keys below.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = (
            'img_path',
            'ori_shape',
            'img_shape',
            'pad_shape',
            'scale_factor',
            'flip',
            'flip_direction',
            'tasks',
        ),
    ) -> None:
        super().__init__(meta_keys=tuple(meta_keys))

    def transform(self, results: dict) -> dict:
        """Pack the sample; ValueError if a label map has neither the image's size nor the image file's."""
        labels = label_specs(results)
        keys = {key for key, _ in labels}
        others = {key: value for key, value in results.items() if key not in keys}
        if results['img'].ndim == 3:  # a view that the base class turns back, without copying
            others['img'] = axes_first(results['img']).transpose(1, 2, 0)
        packed = super().transform(others)
        sizes = [results['img'].shape[:2], tuple(results.get('ori_shape', ())[:2])]
        for key, spec in labels:
            label = results[key]
            if label.shape[:2] not in sizes:
                raise ValueError(
                    f'the label map {key!r} is {label.shape[:2]} (height, width), neither as large as the image, '
                    f'{sizes[0]}, nor as the image file, {sizes[1]}: a transform moved the one without the other'
                )
            label = without_empty(label, spec)
            planes = axes_first(label) if label.ndim == 3 else np.ascontiguousarray(label[None])
            field = PixelData(data=to_tensor(planes))
            packed['data_samples'].set_data({spec.gt_field: field})
        return packed


def axes_first(array: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (C, H, W), contiguous; several times as fast as a copy of the transposed array."""
    planes = np.empty((array.shape[2], *array.shape[:2]), array.dtype)
    cv2.split(array, list(planes))
    return planes
