"""Drawing: pictures of label maps, sheets of several tasks, and the visualizer that configs name."""

from .colours import colourise
from .errors import colourise_error, error_map
from .sheet import draw_sheets
from .visualizer import MultiTaskVisualizer

__all__ = ['MultiTaskVisualizer', 'colourise', 'colourise_error', 'draw_sheets', 'error_map']
