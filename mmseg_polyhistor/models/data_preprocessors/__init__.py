"""From samples to the batch that the network reads."""

from .multi_task_preprocessor import MultiTaskDataPreProcessor

__all__ = ['MultiTaskDataPreProcessor']
