"""Data sets of several dense tasks, the readers of their label files, and transforms that move all labels together."""

from .labels import LabelError, SampleError
from .multi_task_dataset import MultiTaskDataset
from .pascal_context_mt import PascalContextMTDataset
from .pascal_labels import PART_GROUPS, PART_IDS, valid_context_ids
from .readers import known_readers, read_label, register_reader
from .transforms import (
    LoadMultiTaskAnnotations,
    MultiTaskPad,
    MultiTaskRandomCrop,
    MultiTaskRandomFlip,
    MultiTaskRandomRotate,
    MultiTaskRandomScale,
    MultiTaskResize,
    PackMultiTaskInputs,
)

__all__ = [
    'PART_GROUPS',
    'PART_IDS',
    'LabelError',
    'LoadMultiTaskAnnotations',
    'MultiTaskDataset',
    'MultiTaskPad',
    'MultiTaskRandomCrop',
    'MultiTaskRandomFlip',
    'MultiTaskRandomRotate',
    'MultiTaskRandomScale',
    'MultiTaskResize',
    'PackMultiTaskInputs',
    'PascalContextMTDataset',
    'SampleError',
    'known_readers',
    'read_label',
    'register_reader',
    'valid_context_ids',
]
