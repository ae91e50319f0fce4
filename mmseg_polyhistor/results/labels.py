"""Names beside the points of a figure, where there is room for them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

__all__ = ['place_labels']

# Directions from the point (to the right, up), the best first; distances from it, in points.
DIRECTIONS = (
    (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1),
    (1, 0.5), (1, -0.5), (-1, 0.5), (-1, -0.5), (0.5, 1), (0.5, -1), (-0.5, 1), (-0.5, -1),
)  # fmt: skip
DISTANCES = (7, 14, 22, 32, 44, 58, 74)
POINT = 4.5  # half the side of the square that a point takes, in points
CAP = 3.5  # half the width of a bar, in points
FAR = 14  # from this distance, in points, a line leads from the label to its point
STEPS = 12  # places on that line which should not lie on another label
PLACE = 1.5  # half the side of the square that such a place takes, in points


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    *,
    colours: Sequence[str],
    bars: Sequence[float] | None = None,
    size: float = 8,
) -> list[Annotation]:
    """Write a name beside each point, so that names cover neither each other, nor points, nor bars, nor leave the axes.

    Greedy, where it is crowded first: a label takes the place, among those around its point, where it (and the line that
    leads to a distant one) covers least of what stands there already; of equal places the nearest. The limits and the size
    of the axes must be settled before.

    Args:
        axes: Where the points are.
        points: (x, y) in data coordinates.
        names: As many; not read as mathematics.
        colours: As many, of the letters.
        bars: As many, how far an upright bar reaches above and below its point, in data coordinates; 0 for none. Defaults
            to none at all.
        size: Of the letters, in points. Defaults to 8.

    Returns:
        The labels, as many, in the same order.
    """
    figure = axes.figure
    canvas = figure.canvas if isinstance(figure.canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)
    canvas.draw()  # settles the layout
    pixel = figure.dpi / 72
    inside = axes.get_window_extent().extents
    centres = axes.transData.transform(np.asarray(points, float).reshape(-1, 2))
    taken = np.concatenate(
        [_squares(centres, POINT * pixel), _bars(axes, points, bars or [0.0] * len(points), CAP * pixel)]
    )
    labels: dict[int, Annotation] = {}
    for i in _crowded_first(centres):
        label = axes.annotate(
            names[i],
            points[i],
            xytext=(0, 0),
            textcoords='offset points',
            fontsize=size,
            color=colours[i],
            va='bottom',
            parse_math=False,
        )
        label.set_in_layout(False)  # else the axes would move away from under what is placed here
        extent = label.get_window_extent(canvas.get_renderer())
        others = np.delete(taken, i, axis=0)
        box, line = _best_place(centres[i], extent.size, pixel, taken, others, inside)
        label.set_position(tuple((box[:2] - centres[i]) / pixel))
        taken = np.concatenate([taken, box[None], line])
        if len(line):
            near = np.clip(centres[i], box[:2], box[2:])
            _lead(axes, points[i], (near - centres[i]) / pixel, colours[i])
        labels[i] = label
    return [labels[i] for i in range(len(names))]


def _crowded_first(centres: np.ndarray) -> list[int]:
    """The points by the mean nearness of the others, in pixels."""
    distances = np.linalg.norm(centres[:, None] - centres, axis=-1)
    return np.argsort(-np.exp(-distances / 50).sum(axis=1), kind='stable').tolist()


def _best_place(
    centre: np.ndarray,
    size: np.ndarray,
    pixel: float,
    taken: np.ndarray,
    others: np.ndarray,
    inside: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The box of a label, and the places on its line, none if it stands close to its point."""
    best = None
    for distance, (right, up) in itertools.product(DISTANCES, DIRECTIONS):
        direction = np.array([right, up])
        corner = centre + direction / np.linalg.norm(direction) * distance * pixel
        corner = corner - size * (0.5 - direction / 2)
        box = np.concatenate([corner, corner + size])
        line = np.empty((0, 4))
        if distance >= FAR:
            near = np.clip(centre, box[:2], box[2:])
            steps = np.linspace(0, 1, STEPS + 2)[1:-1, None]
            line = _squares(centre + steps * (near - centre), PLACE * pixel)
        outside = size.prod() - _common(box, inside[None]).sum()
        crossed = sum(_common(place, others).sum() for place in line)
        cost = _common(box, taken).sum() + 4 * outside + 2 * crossed
        if best is None or cost < best[0] - 1e-6:
            best = (cost, box, line)
        if cost <= 1e-6:
            break
    return best[1], best[2]


def _squares(centres: np.ndarray, half: float) -> np.ndarray:
    """Boxes (N, 4) as x0, y0, x1, y1 around places (N, 2)."""
    return np.concatenate([centres - half, centres + half], axis=1)


def _bars(
    axes: Axes, points: Sequence[tuple[float, float]], bars: Sequence[float], half: float
) -> np.ndarray:
    """The boxes of the upright bars through points."""
    ends = [((x, y - bar), (x, y + bar)) for (x, y), bar in zip(points, bars, strict=True) if bar > 0]
    pixels = axes.transData.transform(np.asarray(ends, float).reshape(-1, 2)).reshape(-1, 4)
    return pixels + np.array([-half, 0, half, 0])


def _common(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The areas (N,) that a box (4,) shares with others (N, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return np.maximum(sides, 0).prod(axis=1)


def _lead(axes: Axes, point: tuple[float, float], offset: np.ndarray, colour: str) -> None:
    """A thin line from a place near a point, in points from it, to the point."""
    line = axes.annotate(
        '',
        point,
        xytext=tuple(offset),
        textcoords='offset points',
        arrowprops=dict(arrowstyle='-', color=colour, linewidth=0.5, shrinkA=0, shrinkB=3),
    )
    line.set_in_layout(False)
