"""Randomness as a function of position: the seed of a sample depends on where it stands in training, on nothing else.

Random augmentation then does not depend on the number of workers, on whether they persist, or on what ran before, so
a resumed run draws the same numbers as an uninterrupted one, and N processes the same as one with N times the batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmseg.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import Dataset, Sampler

__all__ = ['SeededDataset', 'SeededIndex', 'SeededSampler', 'seed_generators']

DATA_STREAM, MODEL_STREAM = 0, 1  # first word of the entropy: the two streams never meet


def seed_generators(*entropy: int, devices: bool = False) -> None:
    """Seed the global generators of `random`, numpy and torch's CPU from a few integers.

    Args:
        *entropy: Integers >= 0, mixed by `numpy.random.SeedSequence`, so that neighbours give unrelated streams.
        devices: Seed the generators of all torch devices as well. Defaults to False.
    """
    words = np.random.SeedSequence(entropy).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])  # noqa: NPY002  (transforms draw from the global generator)
    seed = int(words[2]) << 32 | int(words[3])
    if devices:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


class SeededIndex(int):
    """An index into a data set that carries the entropy of its sample's random numbers."""

    entropy: tuple[int, ...]

    def __new__(cls, index: int, entropy: tuple[int, ...]) -> SeededIndex:
        self = super().__new__(cls, index)
        self.entropy = entropy
        return self

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:  # the way to a worker process
        return int(self), self.entropy


@DATASETS.register_module()
class SeededDataset(Dataset):
    """Seeds the global generators before it reads a sample that is asked for by a `SeededIndex`.

    Everything else is the wrapped data set's, so that it may stand for it (`metainfo`, `full_init`, ...).

    Args:
        dataset: The data set, or its config.
    """

    def __init__(self, dataset: Dataset | Mapping) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, SeededIndex):
            seed_generators(*index.entropy)
        return self.dataset[int(index)]

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def pipeline(self) -> Any:
        """The wrapped data set's; hooks that switch it during training set it here."""
        return self.dataset.pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        self.dataset.pipeline = pipeline

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'dataset':  # while unpickling, `dataset` is not there yet
            raise AttributeError(name)
        return getattr(self.dataset, name)


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Yields the indices of another sampler as `SeededIndex`.

    The entropy of the n-th index of rank r among w processes is (seed, epoch, r + n * w): mmengine's samplers deal
    their order out to the ranks in turn, so this is the index's position in the order of all ranks together.

    The other sampler is built afresh for every pass. `InfiniteSampler`, which otherwise goes on where the last
    iterator stopped reading ahead, so starts at its beginning too.

    Args:
        sampler: Config of the sampler.
        dataset: The data set to draw from.
        seed: Seed of the order and of the samples, the same on all ranks. Defaults to None: a random one.
    """

    def __init__(self, sampler: Mapping, dataset: Dataset, seed: int | None = None) -> None:
        self.cfg = dict(sampler)
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.start = 0
        self.sampler = self._build()

    def _build(self) -> Sampler:
        return DATA_SAMPLERS.build(self.cfg, default_args=dict(dataset=self.dataset, seed=self.seed))

    def __iter__(self) -> Iterator[SeededIndex]:
        self.sampler = self._build()
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(self.epoch)
        rank, world_size = get_dist_info()
        for n, index in islice(enumerate(self.sampler), self.start, None):
            yield SeededIndex(index, (DATA_STREAM, self.seed, self.epoch, rank + n * world_size))

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which selects the order and the random numbers of the next pass."""
        self.epoch = epoch

    def set_start(self, start: int) -> None:
        """Let the next passes leave out their first `start` indices."""
        self.start = start
