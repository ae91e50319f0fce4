"""Backbones of packages that are not installed say so."""

from __future__ import annotations

import sys

import pytest
from mmseg.registry import MODELS


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, 'mmseg_polyhistor.models.backbones.adapted_pvt', raising=False)
    for name in [name for name in sys.modules if name.split('.')[0] == 'timm']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ImportError, match=r"pip install 'mmseg_polyhistor\[timm\]'"):
        MODELS.build(dict(type='AdaptedPVTv2'))
