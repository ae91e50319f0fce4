"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

import mmseg_polyhistor  # noqa: F401  (before anything of mmseg: its repairs let the stack import)

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def repo() -> Path:
    """The repository's root."""
    return REPO


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The folder with sample data beside the repository; tests that need it skip where it is absent.

    The environment variable `POLYHISTOR_SHARED_DATA` names another place.
    """
    path = Path(os.environ.get('POLYHISTOR_SHARED_DATA', REPO.parent / 'shared' / 'data'))
    if not path.is_dir():
        pytest.skip('the sample data is not there: set POLYHISTOR_SHARED_DATA to its folder to run this test')
    return path


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    """Every test runs in the scope that a config's `default_scope = 'mmseg'` sets."""
    init_default_scope('mmseg')
