"""Random batches are what a data loader could have handed over."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS

from mmseg_polyhistor.profiling.batches import random_batch
from mmseg_polyhistor.tasks import get_task, known_tasks


@pytest.mark.parametrize('task', known_tasks())
def test_labels_are_of_the_tasks_kind(task):
    spec = get_task(task)
    (sample,) = random_batch([task], (32, 48), 1)['data_samples']
    label = sample.get(spec.gt_field).data
    ignored = (label == spec.ignore_value).all(0)
    assert 0.05 < ignored.float().mean() < 0.2
    valid = label[:, ~ignored]
    if spec.kind == 'unit_vector':
        assert label.shape == (3, 32, 48)
        torch.testing.assert_close(valid.norm(dim=0), torch.ones(valid.shape[1]))
    elif spec.kind == 'scalar':
        assert label.dtype == torch.float32
        assert (valid > 0).all()
    else:
        assert label.shape == (1, 32, 48)
        assert label.dtype == torch.uint8
        assert set(valid.unique().tolist()) == set(range(2 if spec.kind == 'binary' else spec.channels))


def test_a_batch_trains_a_model_and_repeats(model_cfg):
    model = MODELS.build(model_cfg())
    batch = random_batch(model.tasks, (64, 96), 2)
    assert [image.shape for image in batch['inputs']] == [(3, 64, 96)] * 2
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert all(torch.isfinite(value).all() for value in losses.values())
    again = random_batch(model.tasks, (64, 96), 2)
    assert torch.equal(batch['inputs'][1], again['inputs'][1])
    other = random_batch(model.tasks, (64, 96), 2, seed=1)
    assert not torch.equal(batch['inputs'][1], other['inputs'][1])
