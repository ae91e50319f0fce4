"""What a user calls from his own programs."""

from .inferencer import MultiTaskInferencer, TaskPredictions
from .sources import InputError, Source, count_images, expand_inputs

__all__ = ['InputError', 'MultiTaskInferencer', 'Source', 'TaskPredictions', 'count_images', 'expand_inputs']
