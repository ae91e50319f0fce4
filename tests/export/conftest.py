"""`export_models` can be imported by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def onnx() -> None:
    """Skips where the extra `export` is not installed."""
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package, reason=f"{package} is missing: pip install -e '.[export]'")
