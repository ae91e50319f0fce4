"""Random images with random, valid labels, in the shapes that the data loader hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from ..tasks import TaskSpec, get_tasks

__all__ = ['random_batch', 'random_label']

IGNORED = 0.1  # share of the pixels without label


def random_label(spec: TaskSpec, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A label map of a task as the pipeline packs it, a tenth of its pixels ignored.

    Args:
        spec: The task.
        shape: (height, width).
        generator: Where the randomness comes from.
    """
    if spec.kind == 'unit_vector':
        label = F.normalize(torch.randn(3, *shape, generator=generator), dim=0)
    elif spec.kind == 'scalar':
        label = 0.5 + 10 * torch.rand(1, *shape, generator=generator)
    else:
        classes = 2 if spec.kind == 'binary' else spec.channels
        label = torch.randint(classes, (1, *shape), generator=generator, dtype=torch.uint8)
    ignored = torch.rand(1, *shape, generator=generator) < IGNORED
    return label.masked_fill(ignored, spec.ignore_value)


def random_batch(
    tasks: Sequence[str], shape: tuple[int, int], batch: int, *, seed: int = 0
) -> dict[str, list[Any]]:
    """What a data preprocessor takes: `inputs`, uint8 images (3, H, W), and `data_samples` with a label per task.

    Args:
        tasks: Names of the tasks.
        shape: (height, width).
        batch: Number of images.
        seed: Of the random numbers. Defaults to 0.
    """
    generator = torch.Generator().manual_seed(seed)
    images = list(torch.randint(256, (batch, 3, *shape), generator=generator, dtype=torch.uint8))
    samples = []
    for number in range(batch):
        sample = SegDataSample(
            metainfo=dict(img_path=f'random_{number}.jpg', ori_shape=shape, img_shape=shape)
        )
        for spec in get_tasks(tasks):
            sample.set_data({spec.gt_field: PixelData(data=random_label(spec, shape, generator))})
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)
