"""Batches and normalises images, and pads every task's labels with the task's own ignore value."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any

import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch
from torch import Tensor, nn

from mmseg_polyhistor.tasks import get_task, known_tasks


@MODELS.register_module()
class MultiTaskDataPreProcessor(SegDataPreProcessor):
    """mmseg's `SegDataPreProcessor` for samples with labels of several tasks.

    The images come out as mmseg's, to the bit: moved to the device, channels reversed, normalised, padded at the
    right and at the bottom, stacked. What differs:

    - In training, the label of every known task is padded with the task's `ignore_value`.
    - Without `size` and `size_divisor` a batch is padded to its largest height and width, also at test time, where
      mmseg refuses images of different sizes.
    - At test time labels stay as they are, and images without data samples get samples with their sizes, so that the
      padding can be cut off the prediction.

    Args:
        mean: Mean of the channels after the conversion of their order. Defaults to None, no normalisation.
        std: Standard deviation of the channels. Defaults to None.
        size: (height, width) to pad training images to. Defaults to None.
        size_divisor: Pad training batches to multiples of this, where `size` is None. Defaults to None.
        pad_val: Value of padded pixels, after normalisation. Defaults to 0.
        bgr_to_rgb: Reverse the order of the channels. Defaults to False.
        rgb_to_bgr: The same, for RGB images and BGR weights. Defaults to False.
        batch_augments: Configs of modules `(images, data_samples) -> (images, data_samples)`, registered in
            `MODELS`, that see every training batch. Defaults to None.
        test_cfg: `size` or `size_divisor` at test time. Defaults to None.

    Raises:
        ValueError: if both `size` and `size_divisor` are given, one is none, `mean` and `std` differ in length, or `test_cfg`
            has another key.
    """

    def __init__(
        self,
        *,
        mean: Sequence[Number] | None = None,
        std: Sequence[Number] | None = None,
        size: tuple[int, int] | None = None,
        size_divisor: int | None = None,
        pad_val: Number = 0,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        batch_augments: Sequence[dict[str, Any]] | None = None,
        test_cfg: dict[str, Any] | None = None,
    ) -> None:
        if len(mean or ()) != len(std or ()):
            raise ValueError(
                f'data_preprocessor: mean and std must have a number per channel each, got mean={mean!r}, std={std!r}'
            )
        super().__init__(
            mean=mean,
            std=std,
            pad_val=pad_val,
            bgr_to_rgb=bgr_to_rgb,
            rgb_to_bgr=rgb_to_bgr,
            test_cfg=test_cfg,
        )
        test_cfg = test_cfg or {}
        if unknown := sorted(set(test_cfg) - {'size', 'size_divisor'}):
            raise ValueError(
                f"data_preprocessor.test_cfg: unknown keys {unknown}; allowed: 'size', 'size_divisor'"
            )
        self.reverse_channels = bgr_to_rgb or rgb_to_bgr
        self.train_padding = _padding('data_preprocessor', size, size_divisor)
        self.test_padding = _padding('data_preprocessor.test_cfg', **test_cfg)
        self.batch_augments = nn.ModuleList(MODELS.build(augment) for augment in batch_augments or ())

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """The batch of a list of samples.

        Args:
            data: `inputs`, images (3, H, W) of any dtype and of equal or different sizes, and `data_samples`,
                which may be absent at test time.
            training: Pad the labels too and apply `batch_augments`. Defaults to False.

        Returns:
            `inputs`, float32 (B, 3, H, W), and `data_samples`, a list of `SegDataSample`.

        Raises:
            ValueError: if an image is larger than `size`, a label's size differs from its image's in training, or
                there are no data samples in training.
        """
        data = self.cast_data(data)
        images = [self._normalise(image) for image in data['inputs']]
        samples = data.get('data_samples')
        if samples is None:
            if training:
                raise ValueError('the batch has no data_samples: training needs labels')
            samples = [SegDataSample(metainfo=_own_size(image)) for image in images]

        padding = self.train_padding if training else self.test_padding
        if padding.get('size') is not None:
            _check_fits(images, samples, padding['size'])
        batch, infos = stack_batch(images, pad_val=self.pad_val, **padding)
        for image, sample, info in zip(images, samples, infos, strict=True):
            if training:
                _pad_labels(sample, image, info['img_padding_size'])
                info = dict(info, img_shape=tuple(image.shape[-2:]))
            sample.set_metainfo(info)
        if training:
            for augment in self.batch_augments:
                batch, samples = augment(batch, samples)
        return dict(inputs=batch, data_samples=samples)

    def _normalise(self, image: Tensor) -> Tensor:
        """(3, H, W) -> float32 (3, H, W), in mmseg's order of operations."""
        if self.reverse_channels and image.shape[0] == 3:
            image = image[[2, 1, 0]]
        image = image.float()
        return (image - self.mean) / self.std if self._enable_normalize else image


def _padding(
    where: str, size: Sequence[int] | None = None, size_divisor: int | None = None
) -> dict[str, Any]:
    """The arguments of mmseg's `stack_batch`, which demands exactly one of the two."""
    fits = isinstance(size, Sequence) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
    if size is not None and not fits:
        raise ValueError(f'{where}: size must be a pair (height, width) of positive integers, got {size!r}')
    if size_divisor is not None and not (isinstance(size_divisor, int) and size_divisor > 0):
        raise ValueError(f'{where}: size_divisor must be a positive int, got {size_divisor!r}')
    if size is not None and size_divisor is not None:
        raise ValueError(
            f'{where}: only one of size and size_divisor can be given, got {size!r} and {size_divisor!r}'
        )
    return dict(size=tuple(size)) if size is not None else dict(size_divisor=size_divisor or 1)


def _own_size(image: Tensor) -> dict[str, tuple[int, int]]:
    """Metainfo of an image that came without any: its size is its original one."""
    return dict.fromkeys(('ori_shape', 'img_shape'), tuple(image.shape[-2:]))


def _check_fits(images: list[Tensor], samples: list[SegDataSample], size: tuple[int, int]) -> None:
    for image, sample in zip(images, samples, strict=True):
        if image.shape[-2] > size[0] or image.shape[-1] > size[1]:
            raise ValueError(
                f'{sample.get("img_path", "an image")} has the size {tuple(image.shape[-2:])}, larger than the '
                f'size to pad to, {size}; crop it in the pipeline, or use size_divisor'
            )


def _pad_labels(sample: SegDataSample, image: Tensor, padding: Sequence[int]) -> None:
    """Pad the labels of all tasks in place of the old ones.

    Args:
        sample: The sample of the batch (a copy of the data set's, made when it was moved to the device).
        image: Its image before the padding, (3, H, W).
        padding: Added columns and rows: left, right, top, bottom.
    """
    for spec in map(get_task, known_tasks()):
        if spec.gt_field not in sample:
            continue
        field = sample.get(spec.gt_field)
        label = field.data
        if label.shape[-2:] != image.shape[-2:]:
            raise ValueError(
                f'{sample.get("img_path", "an image")}: the label of task {spec.name!r} has the size '
                f'{tuple(label.shape[-2:])}, its image {tuple(image.shape[-2:])}'
            )
        if any(padding):
            label = F.pad(label, tuple(padding), value=spec.ignore_value)
            sample.set_data({spec.gt_field: PixelData(metainfo=field.metainfo, data=label)})
