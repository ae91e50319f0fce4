"""A tiny backbone, and what the tests of the segmentor build around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import mmseg_polyhistor.models  # noqa: F401  (registers)
from mmseg_polyhistor.tasks import get_task

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
WIDTHS = (4, 6, 8, 10)


@MODELS.register_module()
class TinyTaskBackbone(nn.Module):
    """Four maps at strides 4 to 32: a dict with maps per task, or one tuple where no tasks are named."""

    def __init__(self, tasks=None):
        super().__init__()
        self.tasks = tasks
        self.stem = nn.ModuleDict(
            {
                task: nn.ModuleList(nn.Conv2d(3, w, 3, padding=1) for w in WIDTHS)
                for task in tasks or ('shared',)
            }
        )
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        maps = {
            task: tuple(conv(F.avg_pool2d(images, 2 ** (i + 2))) for i, conv in enumerate(convs))
            for task, convs in self.stem.items()
        }
        return maps if self.tasks else maps['shared']


@MODELS.register_module()
class PixelBackbone(nn.Module):
    """One map: the image itself. What the heads make of a pixel does not depend on its neighbours."""

    def forward(self, images):
        return (images,)


@pytest.fixture
def tasks():
    return TASKS


@pytest.fixture
def model_cfg():
    """A model config as a user would write it, with any of its keys replaced."""

    def make(**kwargs):
        return (
            dict(
                type='MultiTaskSegmentor',
                data_preprocessor=dict(
                    type='MultiTaskDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True
                ),
                backbone=dict(type='TinyTaskBackbone', tasks=TASKS),
                decode_heads=dict(type='AllMLPHead', in_channels=WIDTHS, channels=8),
                tasks=TASKS,
            )
            | kwargs
        )

    return make


@pytest.fixture
def build(model_cfg):
    def make(**kwargs):
        torch.manual_seed(0)
        model = MODELS.build(model_cfg(**kwargs))
        model.init_weights()
        return model

    return make


def make_label(task, size, generator):
    """A random label as the pipeline packs it, a fifth of it ignored."""
    spec = get_task(task)
    ignored = torch.rand(1, *size, generator=generator) < 0.2
    if spec.kind == 'unit_vector':
        label = F.normalize(torch.randn(3, *size, generator=generator), dim=0)
    elif spec.kind == 'scalar':
        label = 0.5 + 10 * torch.rand(1, *size, generator=generator)
    else:
        classes = 2 if spec.kind == 'binary' else spec.channels
        label = torch.randint(classes, (1, *size), generator=generator, dtype=torch.uint8)
    return label.masked_fill(ignored, spec.ignore_value)


@pytest.fixture
def make_batch():
    """A batch as the data loader hands it over: uint8 images and samples with a label per task."""

    def make(sizes=((64, 64), (64, 64)), *, ori_shape=None, tasks=TASKS, seed=0, **metainfo):
        generator = torch.Generator().manual_seed(seed)
        inputs, samples = [], []
        for i, size in enumerate(sizes):
            image = torch.from_numpy(np.random.default_rng(seed + i).integers(0, 256, (3, *size), np.uint8))
            sample = SegDataSample(
                metainfo=dict(
                    img_path=f'image_{i}.jpg', ori_shape=ori_shape or size, img_shape=size, **metainfo
                )
            )
            for task in tasks:
                label = make_label(task, size, generator)
                sample.set_data({get_task(task).gt_field: PixelData(data=label)})
            inputs.append(image)
            samples.append(sample)
        return dict(inputs=inputs, data_samples=samples)

    return make
