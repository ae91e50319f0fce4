"""Label maps as arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmseg_polyhistor.datasets.labels import (
    STRIP,
    LabelError,
    check_label,
    ignore_map,
    unit_vectors,
    valid_pixels,
    without_empty,
)
from mmseg_polyhistor.tasks import get_task, known_tasks

SEMSEG, PARTS, SALIENCY, NORMALS = (get_task(t) for t in ('semseg', 'human_parts', 'saliency', 'normals'))


@pytest.mark.parametrize('name', known_tasks())
def test_an_ignore_map_has_the_kinds_layout_and_no_valid_pixel(name: str) -> None:
    spec = get_task(name)
    label = ignore_map(spec, (3, 5))
    assert check_label(label, spec, (3, 5), 'x') is label
    assert not valid_pixels(label, spec).any()
    assert valid_pixels(label, spec).shape == (3, 5)


def test_valid_pixels_of_vectors_need_one_component_that_differs() -> None:
    label = ignore_map(NORMALS, (1, 4))
    label[0, 0] = (1, 0, 0)
    label[0, 1, 2] = 0
    label[0, 2, 1] = 0
    assert valid_pixels(label, NORMALS).tolist() == [[True, True, True, False]]


def test_unit_vectors_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(6, 7, 3)).astype(np.float32)
    vectors[0, 0] = 0
    vectors[0, 1] = (0.09, 0, 0)
    vectors[0, 2] = (0.11, 0, 0)
    vectors[0, 3] = (np.nan, 1, 0)
    vectors[0, 4] = (np.inf, 1, 0)
    valid = rng.random((6, 7)) > 0.3
    valid[0, :5] = True
    given = vectors.copy()
    out = unit_vectors(vectors, 255, valid)
    for y in range(6):
        for x in range(7):
            v = given[y, x].astype(float)
            length = float(np.sqrt((v * v).sum()))
            directed = valid[y, x] and np.isfinite(length) and length >= 0.1
            np.testing.assert_allclose(out[y, x], v / length if directed else [255] * 3, rtol=1e-6)
    assert out.dtype == np.float32


def test_a_map_without_any_part_is_all_ignore_and_others_stay() -> None:
    empty = np.zeros((4, 4), np.uint8)
    empty[0] = 255
    assert PARTS.ignore_if_empty
    assert (without_empty(empty, PARTS) == 255).all()
    assert (empty[1:] == 0).all(), 'the map that was given must not change'
    one = empty.copy()
    one[2, 2] = 6
    assert without_empty(one, PARTS) is one
    for spec in (SEMSEG, SALIENCY):
        assert without_empty(empty, spec) is empty


def test_vectors_cannot_be_empty() -> None:
    with pytest.raises(ValueError, match="'normals': ignore_if_empty asks for classes"):
        replace(NORMALS, ignore_if_empty=True)


@pytest.mark.parametrize(
    ('label', 'spec', 'expected'),
    [
        (np.zeros((4, 5), np.uint8), SEMSEG, r'a\.png: found a label map of 4 x 5 .* image.s size, 4 x 4'),
        (np.zeros((4, 4), np.int64), SEMSEG, r'a\.png: found an array of int64'),
        (np.zeros((4, 4, 3), np.uint8), SEMSEG, r'a\.png: found an array of uint8 \(4, 4, 3\)'),
        (np.zeros((4, 4), np.float32), NORMALS, r'a\.png: found an array of float32 \(4, 4\)'),
        (
            np.full((4, 4), 21, np.uint8),
            SEMSEG,
            r'a\.png: found class id 21 in 16 pixels; expected 0\.\.20, or 255',
        ),
        (np.full((4, 4), 7, np.uint8), PARTS, r'found class id 7 in 16 pixels; expected 0\.\.6'),
        (np.full((4, 4), 2, np.uint8), SALIENCY, r'found class id 2 in 16 pixels; expected 0\.\.1'),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_the_file(
    label: np.ndarray, spec: object, expected: str
) -> None:
    with pytest.raises(LabelError, match=expected):
        check_label(label, spec, (4, 4), 'a.png')


@pytest.mark.parametrize(('spec', 'top'), [(SEMSEG, 20), (PARTS, 6), (SALIENCY, 1)])
def test_the_highest_class_and_ignore_pass(spec: object, top: int) -> None:
    label = np.array([[0, top, 255]], np.uint8)
    assert check_label(label, spec, (1, 3), 'a.png') is label


def test_a_turned_label_gets_the_hint_at_exif_and_another_size_does_not() -> None:
    turned, other = np.zeros((4, 6), np.uint8), np.zeros((4, 7), np.uint8)
    with pytest.raises(
        LabelError, match=r'size, 6 x 4\. Height and width are swapped: .* EXIF .*color_ignore_orientation'
    ):
        check_label(turned, SEMSEG, (6, 4), 'a.png')
    with pytest.raises(LabelError, match=r"the image's size, 6 x 4$"):
        check_label(other, SEMSEG, (6, 4), 'a.png')


def at_once(vectors: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """`unit_vectors` without strips, in numpy alone."""
    square = vectors * vectors
    length = np.sqrt(square[..., 0] + square[..., 1] + square[..., 2])
    bad = ~((length >= 0.1) & (length < np.inf))
    if valid is not None:
        bad |= ~valid
    out = vectors / np.where(bad, np.float32(1), length)[..., None]
    out[bad] = 255
    return out


@pytest.mark.parametrize('rows', [1, STRIP - 1, STRIP, STRIP + 1, 3 * STRIP + 5])
@pytest.mark.parametrize('masked', [False, True])
def test_strips_give_what_the_whole_map_gives_to_the_bit(rows: int, masked: bool) -> None:
    rng = np.random.default_rng(rows)
    vectors = rng.normal(size=(rows, 37, 3)).astype(np.float32)
    vectors *= rng.choice(np.array([0, 1e-3, 0.1, 1, 1e20], np.float32), (rows, 37, 1))
    vectors[rng.random((rows, 37)) < 0.05] = np.nan
    valid = rng.random((rows, 37)) > 0.3 if masked else None
    with np.errstate(over='ignore', invalid='ignore'):
        expected = at_once(vectors.copy(), valid)
        given = vectors.copy()
        out = unit_vectors(given, 255, valid)
    assert out is given
    np.testing.assert_array_equal(out, expected)
