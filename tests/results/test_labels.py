"""Labels beside points: none covers another, a point, or leaves the axes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

from mmseg_polyhistor.results.labels import place_labels


def overlap(one, other):
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0) * max(height, 0)


@pytest.fixture
def place():
    """A function: points -> boxes of the labels in pixels, the points in pixels, the axes."""

    def make(points, names=None, bars=None):
        figure = Figure(figsize=(8, 5.6), layout='constrained')
        axes = figure.add_subplot()
        axes.plot(*zip(*points, strict=True), 'o')
        axes.margins(0.15)
        names = names or [f'method {i}' for i in range(len(points))]
        if bars:
            axes.errorbar(*zip(*points, strict=True), yerr=bars, fmt='none', capsize=3)
        labels = place_labels(axes, points, names, colours=['black'] * len(points), bars=bars)
        figure.draw_without_rendering()
        boxes = [label.get_window_extent(figure.canvas.get_renderer()) for label in labels]
        assert [label.get_text() for label in labels] == names
        return boxes, axes.transData.transform(points), axes

    return make


@pytest.mark.parametrize('seed', range(3))
def test_twenty_points(place, seed):
    """Spread at random, half of them in a heap."""
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(size=(10, 2)), rng.normal(size=(10, 2)) * 0.2]).tolist()
    boxes, pixels, axes = place(points)
    frame = axes.get_window_extent()
    for one, other in itertools.combinations(boxes, 2):
        assert overlap(one, other) == pytest.approx(0, abs=1e-3)
    for box, (x, y) in itertools.product(boxes, pixels):
        assert not (box.x0 < x < box.x1 and box.y0 < y < box.y1)
    for box in boxes:
        assert overlap(box, frame) == pytest.approx(box.width * box.height)


def test_points_at_one_place(place):
    boxes, _, _ = place([(1.0, 1.0)] * 8)
    for one, other in itertools.combinations(boxes, 2):
        assert overlap(one, other) == pytest.approx(0, abs=1e-3)


def test_a_label_with_room_stands_to_the_right_of_its_point(place):
    (box, _), ((x, y), _), axes = place([(0.0, 0.0), (10.0, 10.0)])
    assert 0 < box.x0 - x < 15 and box.y0 < y < box.y1
    assert sum(text.arrow_patch is not None for text in axes.texts) == 0


def test_a_distant_label_has_a_line(place):
    _, _, axes = place([(1.0, 1.0)] * 20, ['a rather long name'] * 20)
    assert sum(text.arrow_patch is not None for text in axes.texts) > 0


def test_labels_do_not_lie_on_bars(place):
    """The first's place is to its right, where without the second's bar it is."""
    points = [(1.0, 1.0), (1.3, 2.0), (5.0, 0.0)]
    free, pixels, _ = place(points)
    assert free[0].x0 < pixels[1][0] < free[0].x1
    boxes, pixels, axes = place(points, bars=[0.1, 1.8, 0.0])
    low, high = axes.transData.transform([(1.3, 2.0 - 1.8), (1.3, 2.0 + 1.8)])
    for box in boxes:
        assert box.x1 < low[0] or box.x0 > low[0] or box.y1 < low[1] or box.y0 > high[1]


def test_names_are_no_mathematics(place):
    boxes, _, _ = place([(0.0, 0.0), (1.0, 1.0)], ['$a$ $$', '_$_{'])
    assert len(boxes) == 2


def test_a_label_at_the_edge_stays_inside(place):
    """To the right of the point is the first choice, and there is no room."""
    boxes, pixels, axes = place([(0.0, 0.0), (10.0, 10.0)], ['left', 'the name of a method that is long'])
    frame = axes.get_window_extent()
    assert boxes[1].x1 < pixels[1][0] < frame.x1
    assert overlap(boxes[1], frame) == pytest.approx(boxes[1].width * boxes[1].height)
