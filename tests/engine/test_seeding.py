"""Seeds by position: independent of history, of processes and of read-ahead."""

from __future__ import annotations

import pickle
import random
from itertools import islice

import numpy as np
import pytest
import torch
from toy_training import ToyDataset

from mmseg_polyhistor.engine import SeededDataset, SeededSampler, seed_generators
from mmseg_polyhistor.engine.seeding import SeededIndex


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def seeded_draw(*entropy, devices=False):
    seed_generators(*entropy, devices=devices)
    return draw()


@pytest.mark.parametrize('devices', [False, True])
def test_seeding_forgets_the_past(devices):
    """The same entropy gives the same numbers, whatever was drawn before; neighbours give others."""
    first = seeded_draw(1, 2, 3, devices=devices)
    draw()
    assert seeded_draw(1, 2, 3, devices=devices) == first
    others = [seeded_draw(*e, devices=devices) for e in [(1, 2, 4), (1, 3, 3), (0, 2, 3), (3, 2, 1)]]
    for kind in zip(first, *others, strict=True):
        assert len(set(kind)) == 5


def test_data_set_seeds_before_reading():
    """A `SeededIndex` fixes the augmentation; a plain index leaves the generators alone."""
    dataset = SeededDataset(dict(type='ToyDataset', size=5))
    index = SeededIndex(3, (0, 7, 1, 40))
    first = dataset[index]['inputs']
    assert torch.equal(dataset[index]['inputs'], first)
    assert not torch.equal(dataset[SeededIndex(3, (0, 7, 1, 41))]['inputs'], first)
    assert not torch.equal(dataset[3]['inputs'], dataset[3]['inputs'])
    assert index == 3 and dataset[index]['data_samples'] == 1


def test_data_set_stands_for_the_one_it_wraps():
    """Length and attributes are the other's; a copy in another process works."""
    dataset = SeededDataset(ToyDataset(size=5))
    assert len(dataset) == 5 and dataset.metainfo is ToyDataset.metainfo and not hasattr(dataset, 'nothing')
    copy = pickle.loads(pickle.dumps(dataset))
    index = pickle.loads(pickle.dumps(SeededIndex(2, (1, 2))))
    assert type(index) is SeededIndex and index == 2 and index.entropy == (1, 2)
    assert torch.equal(copy[index]['inputs'], dataset[index]['inputs'])


def sampler(kind, rank=0, world=1, monkeypatch=None, size=12, **kwargs):
    if monkeypatch is not None:
        for module in ('mmengine.dataset.sampler', 'mmseg_polyhistor.engine.seeding'):
            monkeypatch.setattr(f'{module}.get_dist_info', lambda: (rank, world))
    return SeededSampler(dict(type=kind, shuffle=True), dataset=range(size), seed=5, **kwargs)


@pytest.mark.parametrize('kind', ['DefaultSampler', 'InfiniteSampler'])
def test_ranks_share_the_order_of_one_process(monkeypatch, kind):
    """Two ranks together draw the samples, with the seeds, that a single process draws."""
    alone = list(islice(sampler(kind), 12))
    parts = [list(islice(sampler(kind, rank, 2, monkeypatch), 6)) for rank in (0, 1)]
    together = [index for pair in zip(*parts, strict=True) for index in pair]
    assert [(int(i), i.entropy) for i in together] == [(int(i), i.entropy) for i in alone]
    assert len({i.entropy for i in alone}) == 12


def test_every_pass_starts_at_the_beginning():
    """An infinite sampler does not go on where an earlier iterator had read ahead to."""
    s = sampler('InfiniteSampler')
    first = list(islice(s, 20))
    assert list(islice(s, 20)) == first
    s.set_start(7)
    later = list(islice(s, 13))
    assert later == first[7:] and [i.entropy for i in later] == [i.entropy for i in first[7:]]


def test_epochs_differ():
    """Another epoch has another order and other seeds; the same epoch has the same."""
    s = sampler('DefaultSampler')
    orders = []
    for epoch in (0, 1, 0):
        s.set_epoch(epoch)
        orders.append([(int(i), i.entropy) for i in s])
    assert orders[0] == orders[2] and not set(orders[0]) & set(orders[1]) and len(s) == 12
