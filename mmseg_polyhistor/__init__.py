"""Polyhistor for MMSegmentation: one frozen Swin, several dense tasks, a few trained parameters."""

from .compat import ensure_stack
from .version import __version__

ensure_stack()

__all__ = ['__version__']
