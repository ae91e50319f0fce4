"""Backbones."""

from .adapted_mit import AdaptedMiT
from .adapted_swin import AdaptedSwin
from .baking import bake
from .merging import merged_encoder, merged_segmentor
from .optional import build_pvt_v2
from .task_encoders import TaskEncoders

__all__ = [
    'AdaptedMiT',
    'AdaptedSwin',
    'TaskEncoders',
    'bake',
    'build_pvt_v2',
    'merged_encoder',
    'merged_segmentor',
]
