"""Hooks of the runner."""

from .parameter_report_hook import ParameterReportHook
from .progress_bar_hook import ProgressBarHook
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = ['ParameterReportHook', 'ProgressBarHook', 'SafeCheckpointHook']
