"""Training machinery: loops with reproducible randomness, safe checkpoints, reports, the optimiser's parameters."""

from . import safe_load  # noqa: F401  (replaces mmengine's loaders)
from .file_backend import AtomicLocalBackend
from .hooks import (
    AdapterCheckpointHook,
    BoundedHistoryHook,
    FiniteTrainingHook,
    NonFiniteError,
    ParameterReportHook,
    ProgressBarHook,
    SafeCheckpointHook,
    TaskCheckHook,
)
from .loops import SeededEpochBasedTrainLoop, SeededIterBasedTrainLoop
from .optim_wrapper_constructor import TrainableOptimWrapperConstructor
from .param_count import ParameterCounts, count_parameters
from .plain_data import NotPlainError, to_plain
from .seeding import SeededDataset, SeededSampler, seed_generators

__all__ = [
    'AdapterCheckpointHook',
    'AtomicLocalBackend',
    'BoundedHistoryHook',
    'FiniteTrainingHook',
    'NonFiniteError',
    'NotPlainError',
    'ParameterCounts',
    'ParameterReportHook',
    'ProgressBarHook',
    'SafeCheckpointHook',
    'SeededDataset',
    'SeededEpochBasedTrainLoop',
    'SeededIterBasedTrainLoop',
    'SeededSampler',
    'TaskCheckHook',
    'TrainableOptimWrapperConstructor',
    'count_parameters',
    'seed_generators',
    'to_plain',
]
