"""Drawing: pictures of label maps, sheets of several tasks, and the visualizer that configs name."""

from .colours import colourise
from .errors import colourise_error, error_map
from .sheet import MIN_CELL, draw_sheets
from .visualizer import MultiTaskVisualizer

__all__ = ['MIN_CELL', 'MultiTaskVisualizer', 'colourise', 'colourise_error', 'draw_sheets', 'error_map']
