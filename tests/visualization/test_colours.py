"""Colours at known pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmseg_polyhistor.tasks import KINDS, get_task
from mmseg_polyhistor.visualization import colourise
from mmseg_polyhistor.visualization.colours import STYLES, hatch, legend_entries


def test_every_kind_has_a_style():
    assert set(STYLES) == set(KINDS)


def test_classes_have_their_palette_colour():
    picture = colourise(np.array([[[0, 15, 20]]]), get_task('semseg'))
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, [[(0, 0, 0), (192, 128, 128), (0, 64, 128)]])  # VOC's colour map


def test_probabilities_are_grey():
    picture = colourise(np.array([[[0.0, 0.2, 1.0]]], np.float32), get_task('saliency'))
    np.testing.assert_array_equal(picture, [[(0, 0, 0), (51, 51, 51), (255, 255, 255)]])


def test_labels_of_a_binary_task_are_black_and_white():
    picture = colourise(np.array([[[0, 1]]], np.uint8), get_task('saliency'))
    np.testing.assert_array_equal(picture, [[(0, 0, 0), (255, 255, 255)]])


def test_directions_are_half_of_one_plus_n():
    vectors = np.array([(1, 0, 0), (0, -1, 0), (0, 0.6, 0.8)], np.float32).T[:, None]
    expected = [[np.rint(255 * (np.array(v) + 1) / 2) for v in [(1, 0, 0), (0, -1, 0), (0, 0.6, 0.8)]]]
    np.testing.assert_array_equal(colourise(vectors, get_task('normals')), expected)


@pytest.mark.parametrize(('task', 'channels'), [('semseg', 1), ('saliency', 1), ('normals', 3)])
def test_ignored_pixels_are_hatched(task, channels):
    array = np.zeros((channels, 20, 30), np.float32 if channels == 3 else np.uint8)
    array[:, :, 10:] = 255
    picture = colourise(array, get_task(task))
    np.testing.assert_array_equal(picture[:, 10:], hatch(20, 30)[:, 10:])
    assert len(np.unique(picture[:, 10:])) == 2  # stripes, so that no grey of a map can be taken for them
    assert not (picture[:, :10] == hatch(20, 30)[:, :10]).any()


def test_only_semantic_maps_are_laid_over_the_image():
    backdrop = np.full((1, 1, 3), (30, 60, 90), np.uint8)  # mean 60
    semantic = colourise(np.array([[[15]]]), get_task('semseg'), backdrop, alpha=0.75)
    np.testing.assert_array_equal(semantic, [[(159, 111, 111)]])  # 0.75 * (192, 128, 128) + 0.25 * 60
    for task, array in (('saliency', np.ones((1, 1, 1))), ('normals', np.ones((3, 1, 1)))):
        picture = colourise(array, get_task(task), backdrop, alpha=0.5)
        np.testing.assert_array_equal(picture, colourise(array, get_task(task)))


def test_the_legend_names_the_classes_present():
    arrays = [np.array([[[0, 255]]], np.uint8), np.array([[[15, 0]]])]
    assert legend_entries(arrays, get_task('semseg')) == [
        ((0, 0, 0), 'background'),
        ((192, 128, 128), 'person'),
    ]
    assert ((255, 128, 128), 'right') in legend_entries([], get_task('normals'))


@pytest.mark.parametrize(
    ('task', 'shape'), [('semseg', (4, 4)), ('semseg', (3, 4, 4)), ('normals', (1, 4, 4))]
)
def test_refuses_another_shape(task, shape):
    with pytest.raises(
        ValueError, match=rf"task '{task}': .* must have shape \({'3' if task == 'normals' else '1'}, H, W\)"
    ):
        colourise(np.zeros(shape, np.uint8), get_task(task))


def test_quantities_have_one_colour_per_value():
    """viridis, dark violet at 0, its middle at 2, towards yellow far away."""
    spec = replace(get_task('depth'), ignore_value=-1)
    picture = colourise(np.array([[[0.0, 2.0, 2.0, 1e9, np.inf]]], np.float32), spec)
    np.testing.assert_array_equal(picture[0, 0], (68, 1, 84))
    np.testing.assert_allclose(picture[0, 1], (33, 145, 140), atol=1)
    np.testing.assert_array_equal(picture[0, 3:], [(253, 231, 37)] * 2)
    alone = colourise(np.array([[[2.0]]], np.float32), spec)
    np.testing.assert_array_equal(alone[0, 0], picture[0, 1])
    assert legend_entries([], spec)[0] == ((68, 1, 84), '0')
    assert (tuple(picture[0, 1].tolist()), '2') in legend_entries([], spec)
    assert legend_entries([], get_task('edge'))[1] == ((255, 255, 255), 'edge')


def test_depths_without_truth_are_hatched():
    array = np.zeros((1, 8, 8), np.float32)
    array[:, :, 4:] = 3
    picture = colourise(array, get_task('depth'))
    np.testing.assert_array_equal(picture[:, :4], hatch(8, 8)[:, :4])
    assert not (picture[:, 4:] == hatch(8, 8)[:, 4:]).all(axis=2).any()


def test_a_prediction_has_no_ignored_pixels():
    array = np.zeros((1, 8, 8), np.float32)
    picture = colourise(array, get_task('depth'), is_truth=False)
    assert (picture == (68, 1, 84)).all()
    vectors = np.zeros((3, 8, 8), np.float32)
    vectors[2] = 1
    for kwargs in (dict(), dict(is_truth=False)):
        assert (colourise(vectors, get_task('normals'), **kwargs) == (128, 128, 255)).all()
