"""Modules that configs name: backbones, decode heads, losses, segmentors and data preprocessors.

Importing the package registers them in `mmseg.registry.MODELS`.
"""

from . import backbones, data_preprocessors, decode_heads, losses, segmentors

__all__ = ['backbones', 'data_preprocessors', 'decode_heads', 'losses', 'segmentors']
