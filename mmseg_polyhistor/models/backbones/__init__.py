"""Backbones."""

from .adapted_swin import AdaptedSwin
from .task_encoders import TaskEncoders

__all__ = ['AdaptedSwin', 'TaskEncoders']
