"""Backbones of packages that need not be installed."""

from __future__ import annotations

from typing import Any

from mmseg.registry import MODELS
from torch import nn

__all__ = ['build_pvt_v2']


@MODELS.register_module(name='AdaptedPVTv2')
def build_pvt_v2(**kwargs: Any) -> nn.Module:
    """An `adapted_pvt.AdaptedPVTv2`, with its arguments.

    Raises:
        ImportError: if timm is not installed; the message has the command.
    """
    try:
        from .adapted_pvt import AdaptedPVTv2
    except ModuleNotFoundError as e:
        if (e.name or '').split('.')[0] != 'timm':
            raise
        raise ImportError(
            "AdaptedPVTv2 takes its network from timm, which is not installed: pip install 'mmseg_polyhistor[timm]'"
        ) from e
    return AdaptedPVTv2(**kwargs)
