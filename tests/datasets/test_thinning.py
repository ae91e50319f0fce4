"""Thinning: hand-made lines, and what must hold of any mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from mmseg_polyhistor.datasets.thinning import thin

EIGHT = np.ones((3, 3))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[c == '#' for c in row] for row in rows])


@pytest.mark.parametrize(
    'lines',
    [
        ('.....', '.###.', '.....'),
        ('#....', '.#...', '..#..'),
        ('..#..', '..#..', '..#..', '..#..'),
        ('#...#', '.#.#.', '..#..', '..#..'),
        ('.###.', '#...#', '#...#', '.###.'),
    ],
)
def test_thin_lines_stay_as_they_are(lines: tuple[str, ...]) -> None:
    mask = drawn(*lines)
    np.testing.assert_array_equal(thin(mask), mask)


def test_a_bar_becomes_its_middle_line() -> None:
    mask = np.zeros((9, 30), bool)
    mask[2:7, 3:27] = True
    line = thin(mask)
    rows, columns = np.nonzero(line)
    assert set(rows) == {4}
    assert columns.min() <= 3 + 2
    assert columns.max() >= 26 - 2
    np.testing.assert_array_equal(thin(mask.T).sum(axis=1) > 0, thin(mask.T).sum(axis=1) == 1)


def test_a_border_of_two_pixels_becomes_one() -> None:
    mask = np.zeros((12, 16), bool)
    mask[:, 7:9] = True
    assert (thin(mask)[1:-1].sum(axis=1) == 1).all()


@settings(max_examples=150, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_components_and_holes_are_kept(mask: np.ndarray) -> None:
    before = mask.copy()
    line = thin(mask)
    np.testing.assert_array_equal(mask, before)
    assert line.dtype == bool
    assert not (line & ~mask).any()
    components, number = ndimage.label(mask, EIGHT)
    assert ndimage.label(line, EIGHT)[1] == number
    assert set(components[line]) == set(range(1, number + 1)), 'none is lost'
    holes = [ndimage.label(~np.pad(m, 1))[1] for m in (mask, line)]
    assert holes[0] == holes[1]
    np.testing.assert_array_equal(thin(line), line)


def test_nothing_and_everything() -> None:
    assert not thin(np.zeros((5, 6), bool)).any()
    whole = thin(np.ones((41, 61), bool))
    assert ndimage.label(whole, EIGHT)[1] == 1
    assert whole.sum() < 41 + 61
