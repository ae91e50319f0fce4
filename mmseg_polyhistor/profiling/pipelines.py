"""How fast a data set's files are read and augmented, and where the time goes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmseg.registry import DATASETS

from ..datasets.transforms import loading
from ..tasks import TaskSpec

__all__ = ['PassProfile', 'build_dataset', 'loader_rate', 'profile_pass']


@dataclass(frozen=True, kw_only=True)
class PassProfile:
    """A pass through some images in this process.

    Args:
        images: How many.
        wall: Seconds by the clock.
        cpu: Seconds of the processor.
        transforms: Name of each transform, in order -> its seconds (wall, CPU).
        readers: Task -> seconds for its labels, a part of the transform that loads them.
    """

    images: int
    wall: float
    cpu: float
    transforms: Mapping[str, tuple[float, float]]
    readers: Mapping[str, tuple[float, float]]


class _Stopwatch:
    """Adds up the seconds (wall, CPU) that calls take, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}

    def call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            known = self.seconds.get(name, (0.0, 0.0))
            self.seconds[name] = (
                known[0] + time.perf_counter() - wall,
                known[1] + time.process_time() - cpu,
            )


def build_dataset(cfg: Mapping[str, Any], **changes: Any) -> BaseDataset:
    """Build the data set of a dataloader's config, with some arguments changed where it is not wrapped in another.

    Args:
        cfg: Config of the data set.
        **changes: Arguments that replace those of the config.
    """
    dataset = DATASETS.build({**copy.deepcopy(dict(cfg)), **changes})
    dataset.full_init()
    return dataset


def profile_pass(dataset: BaseDataset, images: int) -> PassProfile:
    """Run the pipeline on the first images of a data set, from the start again where it has fewer.

    Args:
        dataset: A data set with a pipeline; it is the same afterwards.
        images: Number of images.
    """
    transforms, readers = _Stopwatch(), _Stopwatch()
    before = dataset.pipeline.transforms
    names = [type(t).__name__ for t in before]
    numbered = [f'{n} ({names[: i + 1].count(n)})' if names.count(n) > 1 else n for i, n in enumerate(names)]
    dataset.pipeline.transforms = [
        partial(transforms.call, name, transform) for name, transform in zip(numbered, before, strict=True)
    ]
    try:
        with _timed_readers(readers):
            wall, cpu = time.perf_counter(), time.process_time()
            for i in range(images):
                dataset[i % len(dataset)]
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        dataset.pipeline.transforms = before
    return PassProfile(
        images=images, wall=wall, cpu=cpu, transforms=transforms.seconds, readers=readers.seconds
    )


@contextmanager
def _timed_readers(watch: _Stopwatch) -> Iterator[None]:
    """Time the reading of labels per task."""
    read_label = loading.read_label

    def timed(path: str, spec: TaskSpec, *args: Any, **kwargs: Any) -> Any:
        return watch.call(spec.name, read_label, path, spec, *args, **kwargs)

    loading.read_label = timed
    try:
        yield
    finally:
        loading.read_label = read_label


def loader_rate(dataloader: Mapping[str, Any], dataset: BaseDataset, workers: int, images: int) -> float:
    """Images per second of a dataloader, after a first pass in which workers start and caches fill.

    Args:
        dataloader: Its config; number of workers and data set are replaced.
        dataset: The data set.
        workers: Processes that load; 0 loads in this one.
        images: Number of images at least; whole batches are loaded, from the start again where the data set has fewer.
    """
    cfg = {**copy.deepcopy(dict(dataloader)), 'dataset': dataset, 'num_workers': workers}
    cfg['persistent_workers'] = workers > 0
    loader = Runner.build_dataloader(cfg)
    if len(loader) == 0:
        raise ValueError(
            f'{len(dataset)} images make no batch of {loader.batch_size} (drop_last): take fewer a batch, or more images'
        )
    for _ in loader:
        pass
    loaded, start = 0, time.perf_counter()
    while loaded < images:
        for batch in loader:
            loaded += len(batch['inputs'])
    return loaded / (time.perf_counter() - start)
