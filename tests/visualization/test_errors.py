"""Error maps against hand-made cases, and their colours."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pytest

from mmseg_polyhistor.tasks import KINDS, get_task
from mmseg_polyhistor.visualization import colourise_error, error_map
from mmseg_polyhistor.visualization.colours import hatch
from mmseg_polyhistor.visualization.errors import ERROR_STYLES, error_legend

INFERNO = 255 * np.array(matplotlib.colormaps['inferno'].colors)  # 256 colours


def test_every_kind_has_errors():
    assert set(ERROR_STYLES) == set(KINDS)


def test_classes_are_right_or_wrong():
    errors = error_map(np.array([[[3, 4, 4]]]), np.array([[[3, 3, 255]]], np.uint8), get_task('semseg'))
    np.testing.assert_array_equal(errors, [[0, 1, np.nan]])


def test_probabilities_and_quantities_by_their_difference():
    pred, truth = np.array([[[0.25, 0.25, 1]]], np.float32), np.array([[[1, 0, 255]]], np.uint8)
    np.testing.assert_array_equal(error_map(pred, truth, get_task('saliency')), [[0.75, 0.25, np.nan]])
    pred, truth = np.array([[[2.5, 0, 3]]], np.float32), np.array([[[3, 2, 0]]], np.float32)
    np.testing.assert_array_equal(error_map(pred, truth, get_task('depth')), [[0.5, 2, np.nan]])


def test_vectors_by_their_angle():
    """In the x-y plane, of any length; opposite ones, equal ones, and a hundredth of a degree."""
    degrees = np.array([0, 0.01, 30, 90, 150, 180])
    pred = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0 * degrees])[:, None]
    truth = np.zeros((3, 1, 6), np.float32)
    truth[0] = 1
    spec = get_task('normals')
    np.testing.assert_allclose(error_map(2.5 * pred, truth, spec), [degrees], atol=1e-9)
    truth[:, :, 2] = 255
    assert np.isnan(error_map(pred, truth, spec)[0, 2])


def test_refuses_other_shapes():
    with pytest.raises(
        ValueError, match=r"task 'normals': an array .* must have shape \(3, H, W\), got \(1, 2, 2\)"
    ):
        error_map(np.zeros((3, 2, 2)), np.zeros((1, 2, 2)), get_task('normals'))  # fmt: skip
    with pytest.raises(
        ValueError, match=r"'depth': the prediction has shape \(1, 2, 2\), the truth \(1, 2, 3\)"
    ):
        error_map(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)), get_task('depth'))  # fmt: skip


def test_colours_of_known_errors():
    """matplotlib's inferno: linear up to 1 and to 60 degrees, for quantities half-way at 0.5."""
    first, middle, last = INFERNO[0], INFERNO[128], INFERNO[255]
    for task, errors in (('saliency', [0, 0.5, 1]), ('normals', [0, 30, 170]), ('depth', [0, 0.5, math.inf])):
        (colours,) = colourise_error(np.array([errors]), get_task(task)).astype(float)
        np.testing.assert_allclose(colours, [first, middle, last], atol=0.51, err_msg=task)
    (colours,) = colourise_error(np.array([[0.0, 1.0]]), get_task('semseg')).tolist()
    assert colours == [[228, 228, 228], [200, 30, 30]]


def test_the_legend_is_the_scale():
    for kind, task in (('binary', 'saliency'), ('unit_vector', 'normals'), ('scalar', 'depth')):
        marks = [mark for mark, _ in ERROR_STYLES[kind].marks]
        drawn = colourise_error(np.array([marks]), get_task(task))[0].tolist()
        assert [list(colour) for colour, _ in error_legend(get_task(task))] == drawn
        assert [float(text.split()[-1].rstrip('°')) for _, text in error_legend(get_task(task))] == marks
    assert error_legend(get_task('semseg')) == [((228, 228, 228), 'right'), ((200, 30, 30), 'wrong')]


def test_where_there_is_no_truth_it_is_hatched_and_only_classes_are_laid_over_the_image():
    backdrop = np.full((16, 16, 3), 60, np.uint8)
    errors = np.zeros((16, 16))
    errors[:, 8:] = np.nan
    for task in ('semseg', 'normals'):
        picture = colourise_error(errors, get_task(task), backdrop, alpha=0.75)
        np.testing.assert_array_equal(picture[:, 8:], hatch(16, 16)[:, 8:])
        value = 0.75 * 228 + 0.25 * 60 if task == 'semseg' else np.rint(INFERNO[0])
        assert (picture[:, :8] == value).all()
