"""Evaluation: accumulators of counts per kind of task, and one composite metric."""

from .accumulators import ACCUMULATORS, Accumulator, build_accumulator, metrics_of_kind
from .base import Metric
from .binary import BinaryAccumulator
from .boundary import BoundaryAccumulator
from .gain import REFERENCE_ROWS, multi_task_gain, reference_row
from .multi_task_metric import MultiTaskMetric
from .scalar import ScalarAccumulator
from .semantic import SemanticAccumulator
from .unit_vector import UnitVectorAccumulator

__all__ = [
    'ACCUMULATORS',
    'REFERENCE_ROWS',
    'Accumulator',
    'BinaryAccumulator',
    'BoundaryAccumulator',
    'Metric',
    'MultiTaskMetric',
    'ScalarAccumulator',
    'SemanticAccumulator',
    'UnitVectorAccumulator',
    'build_accumulator',
    'metrics_of_kind',
    'multi_task_gain',
    'reference_row',
]
