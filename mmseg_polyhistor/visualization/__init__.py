"""Drawing: pictures of label maps, sheets of several tasks, and the visualizer that configs name."""

from .colours import colourise
from .sheet import draw_sheets
from .visualizer import MultiTaskVisualizer

__all__ = ['MultiTaskVisualizer', 'colourise', 'draw_sheets']
