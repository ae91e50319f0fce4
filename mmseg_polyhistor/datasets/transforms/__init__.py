"""Transforms that read a sample's label maps, move all of them together with the image, and pack them."""

from .crop import MultiTaskPad, MultiTaskRandomCrop
from .flip import MultiTaskRandomFlip
from .formatting import PackMultiTaskInputs
from .loading import LoadMultiTaskAnnotations
from .resize import MultiTaskRandomScale, MultiTaskResize
from .rotate import MultiTaskRandomRotate

__all__ = [
    'LoadMultiTaskAnnotations',
    'MultiTaskPad',
    'MultiTaskRandomCrop',
    'MultiTaskRandomFlip',
    'MultiTaskRandomRotate',
    'MultiTaskRandomScale',
    'MultiTaskResize',
    'PackMultiTaskInputs',
]
