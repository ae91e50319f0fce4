"""How far a prediction is from the truth, pixel by pixel, as a map and as an RGB picture: one style per kind of task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np

from ..tasks import TaskSpec
from .colours import Entry, demand_shape, hatch, ignored_pixels, over_backdrop

__all__ = ['ERROR_STYLES', 'ErrorStyle', 'colourise_error', 'error_legend', 'error_map']

RIGHT, WRONG = (228, 228, 228), (200, 30, 30)
SCALE = 'inferno'  # matplotlib's: black at 0, light yellow at the largest errors
LARGE_ANGLE = 60.0  # degrees; this error and larger ones have the last colour
MIDDLE_DIFFERENCE = 0.5  # of quantities: the difference in the middle of the scale


@dataclass(frozen=True)
class ErrorStyle:
    """How the errors of a kind of task are measured and drawn.

    Args:
        measure: (prediction, truth), both (channels, H, W) float64 -> errors (H, W), 0 or above.
        colours: Errors (H, W) -> uint8 RGB (H, W, 3).
        marks: Errors that the legend shows, and what they are called.
        blend: Whether the picture may be laid over the image.
    """

    measure: Callable[[np.ndarray, np.ndarray], np.ndarray]
    colours: Callable[[np.ndarray], np.ndarray]
    marks: tuple[tuple[float, str], ...]
    blend: bool = False


def _differs(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (pred[0] != truth[0]).astype(np.float64)


def _difference(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.abs(pred[0] - truth[0])


def _angle(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Degrees between vectors of any length, exact for small angles too (Kahan): 2 atan2(|a - b|, |a + b|), |a| = |b| = 1."""
    a, b = (v / np.maximum(np.linalg.norm(v, axis=0), 1e-12) for v in (pred, truth))
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=0), np.linalg.norm(a + b, axis=0)))


def _shades(positions: np.ndarray) -> np.ndarray:
    """Positions on the scale, 0 to 1, as uint8 RGB."""
    return np.rint(255 * matplotlib.colormaps[SCALE](positions)[..., :3]).astype(np.uint8)


ERROR_STYLES: dict[str, ErrorStyle] = {
    'semantic': ErrorStyle(
        _differs,
        lambda errors: np.where(errors[..., None] > 0, WRONG, RIGHT).astype(np.uint8),
        ((0, 'right'), (1, 'wrong')),
        blend=True,
    ),
    'binary': ErrorStyle(
        _difference, _shades, tuple((mark, f'error {mark:g}') for mark in (0.0, 0.25, 0.5, 0.75, 1.0))
    ),
    'unit_vector': ErrorStyle(
        _angle,
        lambda errors: _shades(np.minimum(errors / LARGE_ANGLE, 1.0)),
        (*((mark, f'error {mark:g}°') for mark in (0.0, 11.25, 22.5, 30.0)), (LARGE_ANGLE, 'error ≥ 60°')),
    ),
    'scalar': ErrorStyle(
        _difference,
        lambda errors: _shades(1 - MIDDLE_DIFFERENCE / (errors + MIDDLE_DIFFERENCE)),
        tuple((mark, f'error {mark:g}') for mark in (0.0, 0.1, 0.25, 0.5, 1.0, 5.0)),
    ),
}


def error_map(pred: np.ndarray, truth: np.ndarray, spec: TaskSpec) -> np.ndarray:
    """The error of every pixel.

    Args:
        pred: The prediction, (1, H, W) or, for unit vectors, (3, H, W), with values as `mmseg_polyhistor.tasks` lists them.
        truth: Likewise.
        spec: The task.

    Returns:
        float64 (H, W): of a semantic task 1 where the classes differ, else 0; of a binary or scalar one the absolute
        difference (of probabilities, or in the label's unit); of vectors the angle in degrees. NaN where the truth has no
        label.

    Raises:
        ValueError: if an array has another shape than its kind, or the two differ in size.
    """
    for array in (pred, truth):
        demand_shape(array, spec)
    if pred.shape != truth.shape:
        raise ValueError(
            f'task {spec.name!r}: the prediction has shape {pred.shape}, the truth {truth.shape}'
        )
    errors = ERROR_STYLES[spec.kind].measure(pred.astype(np.float64), truth.astype(np.float64))
    return np.where(ignored_pixels(truth, spec), np.nan, errors)


def colourise_error(
    errors: np.ndarray, spec: TaskSpec, backdrop: np.ndarray | None = None, alpha: float = 1.0
) -> np.ndarray:
    """A map of errors as a picture; pixels without truth are hatched in grey.

    Args:
        errors: (H, W), as `error_map` gives them.
        spec: The task.
        backdrop: uint8 RGB (H, W, 3), over whose grey shades the right and wrong pixels of a semantic task are laid;
            other kinds are drawn flat. Defaults to None: all are.
        alpha: Opacity over the backdrop, in [0, 1]. Defaults to 1.

    Returns:
        uint8 RGB (H, W, 3).
    """
    style = ERROR_STYLES[spec.kind]
    unknown = np.isnan(errors)
    picture = style.colours(np.where(unknown, 0.0, errors))
    if style.blend and backdrop is not None:
        picture = over_backdrop(picture, backdrop, alpha)
    return np.where(unknown[..., None], hatch(*errors.shape), picture)


def error_legend(spec: TaskSpec) -> list[Entry]:
    """Colour and meaning: the scale of the errors."""
    style = ERROR_STYLES[spec.kind]
    colours = style.colours(np.array([[mark for mark, _ in style.marks]]))[0].tolist()
    return [(tuple(colour), text) for colour, (_, text) in zip(colours, style.marks, strict=True)]
