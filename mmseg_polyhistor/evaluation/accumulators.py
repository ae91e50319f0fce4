"""The table that says which accumulators count which kind of task."""

from __future__ import annotations

from ..tasks import TaskSpec
from .base import Accumulator
from .binary import BinaryAccumulator
from .boundary import BoundaryAccumulator
from .scalar import ScalarAccumulator
from .semantic import SemanticAccumulator
from .unit_vector import UnitVectorAccumulator

__all__ = ['ACCUMULATORS', 'Accumulator', 'build_accumulator']

ACCUMULATORS: dict[str, tuple[type[Accumulator], ...]] = {
    'semantic': (SemanticAccumulator,),
    'binary': (BinaryAccumulator, BoundaryAccumulator),
    'unit_vector': (UnitVectorAccumulator,),
    'scalar': (ScalarAccumulator,),
}
"""Kind of task -> its accumulators; the first one that reports a task's `metric` counts the task."""


def build_accumulator(spec: TaskSpec) -> Accumulator:
    """The accumulator of a task.

    Raises:
        ValueError: if no accumulator of its kind reports `spec.metric`, the metric of the multi-task gain.
    """
    reported: list[str] = []
    for accumulator in (cls(spec) for cls in ACCUMULATORS[spec.kind]):
        metrics = list(accumulator.reduce([]))
        if spec.metric in metrics:
            return accumulator
        reported += metrics
    raise ValueError(
        f'task {spec.name!r}: metric {spec.metric!r} is not among those of kind {spec.kind!r}: {reported}'
    )
