"""Samples in the pipeline, and a sphere whose normals are known everywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mmseg_polyhistor.datasets.labels import ignore_map
from mmseg_polyhistor.tasks import get_task, get_tasks

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')


def make_sample(height: int, width: int, seed: int = 0, tasks: tuple[str, ...] = TASKS) -> dict:
    """A sample of random labels, a third of them ignore; the first row is labelled."""
    rng = np.random.default_rng(seed)
    results = dict(
        img=rng.integers(0, 256, (height, width, 3), np.uint8),
        img_shape=(height, width),
        ori_shape=(height, width),
        tasks=tasks,
        seg_fields=[],
    )
    for spec in get_tasks(tasks):
        label = ignore_map(spec, (height, width))
        valid = rng.random((height, width)) > 1 / 3
        valid[0] = True
        if spec.kind == 'unit_vector':
            vectors = rng.normal(size=(height, width, 3))
            vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
            label[valid] = vectors[valid]
        elif spec.kind == 'scalar':
            label[valid] = rng.uniform(0.5, 10, valid.sum())
        else:
            label[valid] = rng.integers(0, 2 if spec.kind == 'binary' else spec.channels, valid.sum())
        results[spec.gt_key] = label
        results['seg_fields'].append(spec.gt_key)
    return results


def make_sphere(height: int, width: int, x: float, y: float, radius: float) -> dict:
    """A sphere (white, class 15) before nothing: image, class map and normals.

    (x, y) is its centre in pixel coordinates, in which (0, 0) is the centre of the first pixel; rows grow downwards.
    """
    rows, columns = np.mgrid[:height, :width]
    right, up = (columns - x) / radius, -(rows - y) / radius
    inside = right**2 + up**2 < 1
    normals = ignore_map(get_task('normals'), (height, width))
    depth = np.sqrt(np.clip(1 - right**2 - up**2, 0, None))
    normals[inside] = np.stack([right, up, depth], axis=2)[inside]
    return dict(
        img=np.repeat(inside[..., None] * np.uint8(255), 3, axis=2),
        img_shape=(height, width),
        ori_shape=(height, width),
        tasks=('semseg', 'normals'),
        seg_fields=['gt_seg_map', 'gt_normals'],
        gt_seg_map=inside * np.uint8(15),
        gt_normals=normals,
    )


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between vectors, where both are valid."""
    valid = (a[..., 0] != 255) & (b[..., 0] != 255)
    return np.degrees(np.arccos(np.clip((a[valid].astype(float) * b[valid]).sum(-1), -1, 1)))


@pytest.fixture(name='make_sample')
def _make_sample() -> Callable[..., dict]:
    return make_sample


@pytest.fixture(name='make_sphere')
def _make_sphere() -> Callable[..., dict]:
    return make_sphere


@pytest.fixture(name='angles')
def _angles() -> Callable[..., np.ndarray]:
    return angles
