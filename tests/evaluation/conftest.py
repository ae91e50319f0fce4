"""Fixtures for the evaluation's tests: samples with a known share of ignored pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmseg_polyhistor.tasks import TaskSpec, get_tasks

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')


def _labels(classes: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.randint(0, classes, (1, *size), generator=generator)


def _directions(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(3, *size, generator=generator), dim=0)


def _quantities(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    return 0.5 + 10 * torch.rand(1, *size, generator=generator)


PREDICT = {
    'semantic': lambda spec, size, g: _labels(spec.channels, size, g),
    'binary': lambda spec, size, g: torch.rand(1, *size, generator=g),
    'unit_vector': lambda spec, size, g: _directions(size, g),
    'scalar': lambda spec, size, g: _quantities(size, g),
}
LABEL = {
    'semantic': lambda spec, size, g: _labels(spec.channels, size, g).byte(),
    'binary': lambda spec, size, g: _labels(2, size, g).byte(),
    'unit_vector': lambda spec, size, g: _directions(size, g),
    'scalar': lambda spec, size, g: _quantities(size, g),
}


@pytest.fixture(scope='session')
def make_sample() -> Callable[..., dict]:
    """Makes a sample with random truth and prediction, as mmengine's Evaluator hands it to a metric."""

    def make(seed: int, size: tuple[int, int] = (13, 17), ignored: float = 0.2, tasks=TASKS) -> dict:
        generator = torch.Generator().manual_seed(seed)
        sample: dict = {'img_path': f'somewhere/image_{seed}.jpg'}
        for spec in get_tasks(tasks):
            pred, gt = (table[spec.kind](spec, size, generator) for table in (PREDICT, LABEL))
            gt[:, torch.rand(size, generator=generator) < ignored] = spec.ignore_value
            sample[spec.pred_field] = {'data': pred}
            sample[spec.gt_field] = {'data': gt}
        return sample

    return make


@pytest.fixture
def small_semantic() -> TaskSpec:
    """A semantic task with four classes that stands in no table."""
    return TaskSpec(
        name='four',
        kind='semantic',
        channels=4,
        gt_key='gt_four',
        gt_field='gt_four',
        pred_field='pred_four',
        loss=dict(type='CrossEntropyLoss'),
        metric='mIoU',
        classes=('a', 'b', 'c', 'd'),
        palette=((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)),
    )
