"""A small ray caster that writes rendered scenes with exact labels in the PASCAL_MT layout (numpy, pillow, scipy.io)."""

from .layout import OutputFolderError, write_dataset
from .scene import Scene, render_scene

__all__ = ['OutputFolderError', 'Scene', 'render_scene', 'write_dataset']
