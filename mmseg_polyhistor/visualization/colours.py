"""Label maps and predictions as RGB pictures: one style per kind of task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np

from ..tasks import TaskSpec

__all__ = [
    'STYLES',
    'Entry',
    'Style',
    'colourise',
    'demand_shape',
    'hatch',
    'ignored_pixels',
    'legend_entries',
    'legend_picture',
    'over_backdrop',
]

Entry = tuple[tuple[int, int, int], str]  # a colour and what it means

MIDDLE = 2.0  # the quantity in the middle of the colour scale: in metres, between near and far in a room
MARKS = (0, 1, 2, 5, 10, 50)  # the quantities in the legend

HATCH_LIGHT, HATCH_DARK, HATCH_PERIOD = 176, 120, 8


@dataclass(frozen=True)
class Style:
    """How a kind of task is drawn.

    Args:
        colours: (array, spec) -> uint8 RGB (H, W, 3), for an array as `mmseg_polyhistor.tasks` lists it.
        legend: (arrays drawn, spec) -> the colours that need an explanation.
        blend: Whether the picture may be laid over the image (colours that mean classes survive that, shades do not).
        channels: Length of the arrays' first axis.
        picture: (side, spec) -> uint8 RGB (side, side, 3), what explains the colours better than a list of them; None: nothing.
    """

    colours: Callable[[np.ndarray, TaskSpec], np.ndarray]
    legend: Callable[[list[np.ndarray], TaskSpec], list[Entry]]
    blend: bool
    channels: int
    picture: Callable[[int, TaskSpec], np.ndarray] | None = None


def _classes(array: np.ndarray, spec: TaskSpec) -> np.ndarray:
    """Class indices (1, H, W) in the task's palette."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(spec.palette)] = spec.palette
    return table[array[0]]


def _classes_present(arrays: list[np.ndarray], spec: TaskSpec) -> list[Entry]:
    present = sorted(
        set().union(*(np.unique(array).tolist() for array in arrays)) & set(range(spec.channels))
    )
    return [(spec.palette[index], spec.classes[index].replace('_', ' ')) for index in present]


def _probability(array: np.ndarray, spec: TaskSpec) -> np.ndarray:
    """Probabilities or labels (1, H, W) in [0, 1] as grey: 0 black, 1 white."""
    grey = np.rint(255 * np.clip(array[0].astype(np.float32), 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _probability_ends(arrays: list[np.ndarray], spec: TaskSpec) -> list[Entry]:
    names = spec.classes if len(spec.classes) == 2 else ('0', '1')
    return [((0, 0, 0), names[0]), ((255, 255, 255), names[1])]


def _direction(array: np.ndarray, spec: TaskSpec) -> np.ndarray:
    """Unit vectors (3, H, W) as RGB = 255 (n + 1) / 2: red to the right, green up, blue towards the viewer."""
    return np.rint(127.5 * (np.clip(array, -1, 1).transpose(1, 2, 0) + 1)).astype(np.uint8)


def _axes(arrays: list[np.ndarray], spec: TaskSpec) -> list[Entry]:
    names = ('right', 'up', 'to the viewer')
    axes = np.eye(3, dtype=np.float32)[:, :, None, None]
    return [
        (tuple(_direction(axis, spec)[0, 0].tolist()), name) for axis, name in zip(axes, names, strict=True)
    ]


def _disc_of_directions(side: int, spec: TaskSpec) -> np.ndarray:
    """A ball in the colours of its normals, seen from the front: the middle faces the viewer, the rim looks aside."""
    steps = (2 * np.arange(side, dtype=np.float32) + 1) / side - 1
    x, y = np.meshgrid(steps, -steps)
    squared = x**2 + y**2
    colours = _direction(np.stack([x, y, np.sqrt(np.maximum(1 - squared, 0))]), spec)
    return np.where(squared[..., None] <= 1, colours, 255).astype(np.uint8)


def _quantity(array: np.ndarray, spec: TaskSpec) -> np.ndarray:
    """Quantities v (1, H, W) in matplotlib's viridis at v / (v + 2): one colour means one value on every picture."""
    values = np.maximum(array[0].astype(np.float32), 0)
    shades = matplotlib.colormaps['viridis'](1 - MIDDLE / (values + MIDDLE))  # RGBA; holds for infinity too
    return np.rint(255 * shades[..., :3]).astype(np.uint8)


def _marks(arrays: list[np.ndarray], spec: TaskSpec) -> list[Entry]:
    colours = _quantity(np.array([[MARKS]]), spec)[0].tolist()
    return [(tuple(colour), str(mark)) for colour, mark in zip(colours, MARKS, strict=True)]


STYLES: dict[str, Style] = {
    'semantic': Style(_classes, _classes_present, blend=True, channels=1),
    'binary': Style(_probability, _probability_ends, blend=False, channels=1),
    'unit_vector': Style(_direction, _axes, blend=False, channels=3, picture=_disc_of_directions),
    'scalar': Style(_quantity, _marks, blend=False, channels=1),
}


def colourise(
    array: np.ndarray,
    spec: TaskSpec,
    backdrop: np.ndarray | None = None,
    alpha: float = 1.0,
    *,
    is_truth: bool = True,
) -> np.ndarray:
    """One label map or prediction as a picture; pixels of a label map that are ignored are hatched in grey.

    Args:
        array: (1, H, W) or, for unit vectors, (3, H, W), with values as `mmseg_polyhistor.tasks` lists them.
        spec: The task.
        backdrop: uint8 RGB (H, W, 3), over whose grey shades a semantic map is laid; other kinds are drawn flat.
            Defaults to None: all are.
        alpha: Opacity over the backdrop, in [0, 1]. Defaults to 1.
        is_truth: Whether the array is a label map, in which `spec.ignore_value` says that there is no label; in a prediction
            it is a value like others (a depth of 0). Defaults to True.

    Returns:
        uint8 RGB (H, W, 3).

    Raises:
        ValueError: if the array has another shape than its kind.
    """
    demand_shape(array, spec)
    style = STYLES[spec.kind]
    picture = style.colours(array, spec)
    if style.blend and backdrop is not None:
        picture = over_backdrop(picture, backdrop, alpha)
    if not is_truth:
        return picture
    ignored = ignored_pixels(array, spec)
    return np.where(ignored[..., None], hatch(*ignored.shape), picture)


def over_backdrop(picture: np.ndarray, backdrop: np.ndarray, alpha: float) -> np.ndarray:
    """A picture with opacity `alpha` over the grey shades of another (grey, so that hues mean classes alone); both uint8 RGB."""
    shade = backdrop.astype(np.float32).mean(axis=2, keepdims=True)
    return np.rint(alpha * picture + (1 - alpha) * shade).astype(np.uint8)


def demand_shape(array: np.ndarray, spec: TaskSpec) -> None:
    """Raises ValueError if an array has another shape than the task's kind; the message names the task."""
    channels = STYLES[spec.kind].channels
    if array.ndim != 3 or array.shape[0] != channels:
        raise ValueError(
            f'task {spec.name!r}: an array of kind {spec.kind!r} must have shape ({channels}, H, W), got {array.shape}'
        )


def ignored_pixels(array: np.ndarray, spec: TaskSpec) -> np.ndarray:
    """bool (H, W): where the array says that there is no label."""
    return (array == spec.ignore_value).all(axis=0)


def hatch(height: int, width: int) -> np.ndarray:
    """Grey diagonal stripes, uint8 RGB (height, width, 3): the sign for 'no label here'."""
    stripe = (np.arange(height)[:, None] + np.arange(width)) % HATCH_PERIOD < HATCH_PERIOD // 4
    grey = np.where(stripe, HATCH_DARK, HATCH_LIGHT).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def legend_entries(arrays: list[np.ndarray], spec: TaskSpec) -> list[Entry]:
    """Colour and meaning, for the maps of one task that were drawn: of a semantic task the classes present."""
    return STYLES[spec.kind].legend(arrays, spec)


def legend_picture(side: int, spec: TaskSpec) -> np.ndarray | None:
    """A picture (side, side) that explains the colours of a task's kind: for vectors a ball; None for the other kinds."""
    picture = STYLES[spec.kind].picture
    return None if picture is None else picture(side, spec)
