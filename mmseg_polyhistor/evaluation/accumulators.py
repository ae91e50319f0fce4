"""The table that says which accumulators count which kind of task."""

from __future__ import annotations

from ..tasks import TaskSpec
from .base import Accumulator, Metric
from .binary import BinaryAccumulator
from .boundary import BoundaryAccumulator
from .scalar import ScalarAccumulator
from .semantic import SemanticAccumulator
from .unit_vector import UnitVectorAccumulator

__all__ = [
    'ACCUMULATORS',
    'Accumulator',
    'build_accumulator',
    'check_metric',
    'lower_is_better',
    'metrics_of_kind',
]

ACCUMULATORS: dict[str, tuple[type[Accumulator], ...]] = {
    'semantic': (SemanticAccumulator,),
    'binary': (BinaryAccumulator, BoundaryAccumulator),
    'unit_vector': (UnitVectorAccumulator,),
    'scalar': (ScalarAccumulator,),
}
"""Kind of task -> its accumulators; the first one that reports a task's `metric` counts the task."""


def metrics_of_kind(kind: str) -> dict[str, Metric]:
    """What the accumulators of a kind of task report: name -> direction and digits."""
    return {name: metric for cls in reversed(ACCUMULATORS[kind]) for name, metric in cls.METRICS.items()}


def lower_is_better(kind: str, metric: str) -> bool:
    """Direction of a metric of a kind of task.

    Raises:
        ValueError: if no accumulator of the kind reports the metric; the message lists those that there are.
    """
    for cls in ACCUMULATORS[kind]:
        if metric in cls.METRICS:
            return cls.METRICS[metric].lower_is_better
    reported = [name for cls in ACCUMULATORS[kind] for name in cls.METRICS]
    raise ValueError(f'metric {metric!r} is not among those of kind {kind!r}: {reported}')


def check_metric(spec: TaskSpec) -> None:
    """Demand that a task's metric is reported for its kind, and has the direction that the task says.

    Raises:
        ValueError: if not; the message names the task.
    """
    try:
        less = lower_is_better(spec.kind, spec.metric)
    except ValueError as e:
        raise ValueError(f'task {spec.name!r}: {e}') from None
    if spec.lower_is_better is not less:
        direction = 'lower' if less else 'higher'
        raise ValueError(
            f'task {spec.name!r}: lower_is_better must be {less}, as of {spec.metric!r} {direction} values are better, '
            f'got {spec.lower_is_better}'
        )


def build_accumulator(spec: TaskSpec) -> Accumulator:
    """The accumulator of a task.

    Raises:
        ValueError: if no accumulator of its kind reports `spec.metric`, the metric of the multi-task gain, or
            `spec.lower_is_better` contradicts it.
    """
    check_metric(spec)
    return next(cls for cls in ACCUMULATORS[spec.kind] if spec.metric in cls.METRICS)(spec)
