"""Predictions as PNG files, in the formats that PASCAL-Context's labels have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ..tasks import TaskSpec

__all__ = ['PREDICTION_IMAGES', 'write_prediction']


def _palette_image(pred: np.ndarray, spec: TaskSpec) -> Image.Image:
    """Class indices (1, H, W) as a palette PNG: its indices are the classes, its colours the task's."""
    image = Image.fromarray(pred[0].astype(np.uint8))
    image.putpalette(np.array(spec.palette, np.uint8).tobytes())
    return image


def _grey_image(pred: np.ndarray, spec: TaskSpec) -> Image.Image:
    """Probabilities (1, H, W) as 8-bit grey: p = value / 255."""
    return Image.fromarray(np.rint(255 * pred[0]).astype(np.uint8))


def _direction_image(pred: np.ndarray, spec: TaskSpec) -> Image.Image:
    """Vectors (3, H, W) of any length as 8-bit RGB: n = 2 * rgb / 255 - 1 for the direction n."""
    length = np.linalg.norm(pred, axis=0, keepdims=True)
    pred = pred / np.where(length > 0, length, 1)
    return Image.fromarray(np.rint(127.5 * (pred.transpose(1, 2, 0) + 1)).astype(np.uint8))


def _thousandths_image(pred: np.ndarray, spec: TaskSpec) -> Image.Image:
    """Quantities (1, H, W) as 16-bit grey: thousandths, of metres millimetres; 65.535 and above are 65535."""
    return Image.fromarray(np.rint(np.minimum(1000 * pred[0].astype(np.float64), 65535)).astype(np.uint16))


PREDICTION_IMAGES: dict[str, Callable[[np.ndarray, TaskSpec], Image.Image]] = {
    'semantic': _palette_image,
    'binary': _grey_image,
    'unit_vector': _direction_image,
    'scalar': _thousandths_image,
}


def write_prediction(pred: np.ndarray, spec: TaskSpec, path: str | Path) -> None:
    """Write one prediction, in the shape that `mmseg_polyhistor.tasks` lists for its kind, as a PNG."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    PREDICTION_IMAGES[spec.kind](pred, spec).save(path, format='PNG')
