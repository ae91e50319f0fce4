"""Fixtures for the drawing's tests: a sample with truth and prediction of the four tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

SIZE = (96, 128)  # as large as a sheet's cell in these tests, so that pixels can be found again


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def sample() -> SegDataSample:
    """Truth: a person on the right half, normals to the right, a strip on top without label. Prediction: all wrong."""
    right = torch.zeros(1, *SIZE, dtype=torch.uint8)
    right[..., SIZE[1] // 2 :] = 1
    maps = {
        'gt_sem_seg': 15 * right,
        'gt_human_parts': 2 * right,
        'gt_saliency': right.clone(),
        'gt_normals': torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, *SIZE).clone(),
        'pred_sem_seg': torch.full((1, *SIZE), 7),
        'pred_human_parts': torch.full((1, *SIZE), 6),
        'pred_saliency': torch.full((1, *SIZE), 0.4),
        'pred_normals': torch.tensor([0.0, -1.0, 0.0]).view(3, 1, 1).expand(3, *SIZE).clone(),
    }
    for field in ('gt_sem_seg', 'gt_human_parts', 'gt_saliency', 'gt_normals'):
        maps[field][:, :16] = 255
    sample = SegDataSample(metainfo=dict(img_path='somewhere/a.jpg'))
    for field, data in maps.items():
        sample.set_field(PixelData(data=data), field)
    return sample
