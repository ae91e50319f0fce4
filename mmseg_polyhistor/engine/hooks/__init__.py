"""Hooks of the runner."""

from .adapter_checkpoint_hook import AdapterCheckpointHook
from .bounded_history_hook import BoundedHistoryHook
from .finite_training_hook import FiniteTrainingHook, NonFiniteError
from .parameter_report_hook import ParameterReportHook
from .progress_bar_hook import ProgressBarHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .task_check_hook import TaskCheckHook

__all__ = [
    'AdapterCheckpointHook',
    'BoundedHistoryHook',
    'FiniteTrainingHook',
    'NonFiniteError',
    'ParameterReportHook',
    'ProgressBarHook',
    'SafeCheckpointHook',
    'TaskCheckHook',
]
