"""The table that says which accumulator counts which kind of task."""

from __future__ import annotations

from ..tasks import TaskSpec
from .base import Accumulator
from .binary import BinaryAccumulator
from .semantic import SemanticAccumulator
from .unit_vector import UnitVectorAccumulator

__all__ = ['ACCUMULATORS', 'Accumulator', 'build_accumulator']

ACCUMULATORS: dict[str, type[Accumulator]] = {
    'semantic': SemanticAccumulator,
    'binary': BinaryAccumulator,
    'unit_vector': UnitVectorAccumulator,
}


def build_accumulator(spec: TaskSpec) -> Accumulator:
    """The accumulator of a task.

    Raises:
        ValueError: if the accumulator of its kind does not report `spec.metric`, the metric of the multi-task gain.
    """
    accumulator = ACCUMULATORS[spec.kind](spec)
    reported = list(accumulator.reduce([]))
    if spec.metric not in reported:
        raise ValueError(
            f'task {spec.name!r}: metric {spec.metric!r} is not among those of kind {spec.kind!r}: {reported}'
        )
    return accumulator
