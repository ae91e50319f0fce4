"""What a pass through a pipeline is made of. No test looks at how long anything took."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.dataset import BaseDataset
from mmseg.registry import DATASETS

from mmseg_polyhistor.datasets.transforms import loading
from mmseg_polyhistor.profiling import pipelines
from mmseg_polyhistor.profiling.pipelines import build_dataset, loader_rate, profile_pass


@DATASETS.register_module(force=True)
class CountedSamples(BaseDataset):
    """Five samples, each a number; the pipeline adds to it."""

    def load_data_list(self):
        return [dict(value=i) for i in range(5)]


class Add:
    """Adds, and takes as many seconds on the clock that the test turns."""

    def __init__(self, amount, clock):
        self.amount, self.clock = amount, clock

    def __call__(self, results):
        self.clock[0] += self.amount
        return dict(results, value=results['value'] + self.amount)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pipelines.time, 'perf_counter', lambda: now[0])
    monkeypatch.setattr(pipelines.time, 'process_time', lambda: now[0] / 2)
    return now


def test_every_transform_gets_its_own_time(clock):
    dataset = build_dataset(dict(type='CountedSamples'), pipeline=[Add(2, clock), Add(3, clock), dict])
    before = list(dataset.pipeline.transforms)
    found = profile_pass(dataset, 7)
    assert found.images == 7
    assert (found.wall, found.cpu) == (35.0, 17.5)
    assert found.transforms == {'Add (1)': (14.0, 7.0), 'Add (2)': (21.0, 10.5), 'type': (0.0, 0.0)}
    assert dataset.pipeline.transforms == before
    assert dataset[1]['value'] == 6


def test_labels_are_timed_per_task(clock, monkeypatch):
    def read(path, spec, shape, reader):
        clock[0] += dict(semseg=2, saliency=5)[spec.name]
        return np.zeros(shape, np.uint8)

    monkeypatch.setattr(loading, 'read_label', read)
    sample = dict(
        ori_shape=(4, 6),
        tasks=('semseg', 'saliency'),
        label_paths=dict(semseg='a', saliency='b'),
        label_readers=dict(semseg={}, saliency={}),
    )
    dataset = build_dataset(
        dict(type='CountedSamples'),
        pipeline=[lambda results: dict(sample), dict(type='LoadMultiTaskAnnotations')],
    )
    found = profile_pass(dataset, 3)
    assert found.readers == dict(semseg=(6.0, 3.0), saliency=(15.0, 7.5))
    assert found.transforms['LoadMultiTaskAnnotations'] == (21.0, 10.5)
    assert loading.read_label is read


@pytest.mark.parametrize('workers', [0, 1])
def test_the_rate_counts_images(monkeypatch, workers):
    ticks = iter([10.0, 12.0])
    dataset = build_dataset(dict(type='CountedSamples'), pipeline=[lambda r: dict(inputs=r['value'])])
    dataloader = dict(batch_size=2, num_workers=9, sampler=dict(type='DefaultSampler', shuffle=False))
    monkeypatch.setattr(pipelines.time, 'perf_counter', lambda: next(ticks))
    assert loader_rate(dataloader, dataset, workers, 12) == pytest.approx(15 / 2), 'three times all five'


def test_too_few_images_for_a_batch_are_refused():
    dataset = build_dataset(dict(type='CountedSamples'))
    dataloader = dict(batch_size=8, drop_last=True, sampler=dict(type='DefaultSampler', shuffle=False))
    with pytest.raises(ValueError, match='5 images make no batch of 8'):
        loader_rate(dataloader, dataset, 0, 4)
