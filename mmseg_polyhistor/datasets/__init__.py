"""Data sets of several dense tasks, the readers of their label files, and transforms that move all labels together."""

from .labels import LabelError, SampleError
from .multi_task_dataset import MultiTaskDataset
from .nyud_mt import NYUD_LAYOUTS, NYUDLayout, NYUDMTDataset, detect_layout
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
    'NYUD_LAYOUTS',
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
    'NYUDLayout',
    'NYUDMTDataset',
    'PackMultiTaskInputs',
    'PascalContextMTDataset',
    'SampleError',
    'detect_layout',
    'known_readers',
    'read_label',
    'register_reader',
    'valid_context_ids',
]
