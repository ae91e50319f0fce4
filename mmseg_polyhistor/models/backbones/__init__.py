"""Backbones."""

from .adapted_swin import AdaptedSwin
from .merging import merged_encoder, merged_segmentor
from .task_encoders import TaskEncoders

__all__ = ['AdaptedSwin', 'TaskEncoders', 'merged_encoder', 'merged_segmentor']
