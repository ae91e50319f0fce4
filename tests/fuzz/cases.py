"""What the fuzz tests share: the number of their cases, and random sizes and labels."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from mmseg_polyhistor.datasets.labels import ignore_map
from mmseg_polyhistor.tasks import TaskSpec

FACTOR = int(os.environ.get('POLYHISTOR_FUZZ', '1'))
CASES: dict[str, int] = {}
"""Test -> cases that it tries at `FACTOR` 1."""


def fuzz(number: int) -> Callable[[Callable], Callable]:
    """Settings of a fuzz test: the same `number` of cases in every run, or `FACTOR` times as many, others each time."""

    def decorate(test: Callable) -> Callable:
        CASES[test.__name__] = number
        return settings(
            max_examples=FACTOR * number,
            derandomize=FACTOR == 1,
            database=None if FACTOR == 1 else settings.default.database,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(test)

    return decorate


def sides(most: int = 40) -> st.SearchStrategy[int]:
    """Lengths of a side, with an eye on 1 and on odd ones."""
    return st.one_of(st.sampled_from((1, 2, 3, 5, 7)), st.integers(1, most))


def random_label(
    spec: TaskSpec, shape: tuple[int, int], rng: np.random.Generator, share: float
) -> np.ndarray:
    """A label map of random values; of each pixel `share` is the probability that it is labelled."""
    label = ignore_map(spec, shape)
    valid = rng.random(shape) < share
    if spec.kind == 'unit_vector':
        vectors = rng.normal(size=(*shape, 3))
        label[valid] = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True))[valid]
    elif spec.kind == 'scalar':
        label[valid] = rng.uniform(0.5, 10, valid.sum())
    else:
        label[valid] = rng.integers(0, 2 if spec.kind == 'binary' else spec.channels, valid.sum())
    return label
