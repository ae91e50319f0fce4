"""The model as mmengine's runner sees it."""

from .multi_task_segmentor import MultiTaskSegmentor

__all__ = ['MultiTaskSegmentor']
