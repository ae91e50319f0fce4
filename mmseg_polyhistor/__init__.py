"""Polyhistor for MMSegmentation: one frozen Swin, several dense tasks, a few trained parameters.

Importing the package (which `custom_imports` in a config does under any tool) checks and repairs the OpenMMLab stack
and registers everything in `mmseg.registry`.
"""

from .compat import ensure_stack
from .version import __version__

ensure_stack()

from . import datasets, engine, evaluation, models, visualization  # noqa: E402

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models', 'visualization']
