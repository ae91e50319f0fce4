"""Backbones."""

from .adapted_swin import AdaptedSwin
from .baking import bake
from .merging import merged_encoder, merged_segmentor
from .task_encoders import TaskEncoders

__all__ = ['AdaptedSwin', 'TaskEncoders', 'bake', 'merged_encoder', 'merged_segmentor']
