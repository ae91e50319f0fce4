"""Predictions written as PNG come back as they were."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmseg_polyhistor.datasets import read_label
from mmseg_polyhistor.evaluation.prediction_files import PREDICTION_IMAGES, write_prediction
from mmseg_polyhistor.tasks import KINDS, get_task


def test_every_kind_has_a_format():
    assert set(PREDICTION_IMAGES) == set(KINDS)


def test_class_indices_round_trip_with_the_tasks_colours(tmp_path):
    spec = get_task('semseg')
    pred = np.arange(21, dtype=np.int64).reshape(1, 3, 7)
    write_prediction(pred, spec, tmp_path / 'deep' / 'down' / 'a.png')
    image = Image.open(tmp_path / 'deep' / 'down' / 'a.png')
    assert image.mode == 'P'
    np.testing.assert_array_equal(np.array(image), pred[0])
    np.testing.assert_array_equal(np.array(image.convert('RGB'))[2, 1], (192, 128, 128))  # 15, person, in VOC


def test_probabilities_are_grey(tmp_path):
    write_prediction(np.array([[[0.0, 0.2, 1.0]]], np.float32), get_task('saliency'), tmp_path / 'a.png')
    image = Image.open(tmp_path / 'a.png')
    assert image.mode == 'L'
    np.testing.assert_array_equal(np.array(image), [[0, 51, 255]])


def test_normals_round_trip_within_half_a_step(tmp_path):
    rng = np.random.default_rng(0)
    pred = rng.normal(size=(3, 8, 9)).astype(np.float32)
    pred /= np.linalg.norm(pred, axis=0)
    pred[:, 0, 0] = (0, 0, -1)
    write_prediction(pred, get_task('normals'), tmp_path / 'a.png')
    rgb = np.array(Image.open(tmp_path / 'a.png')).astype(np.float32)
    np.testing.assert_allclose(2 * rgb / 255 - 1, pred.transpose(1, 2, 0), atol=1.001 / 255)


def test_directions_of_any_length_are_drawn(tmp_path):
    """The metrics take vectors of any length; 8 bits must not wrap around."""
    pred = np.array([(0, 0, 5), (-3, 4, 0), (0.01, 0, 0), (0, 0, 0)], np.float32).T[:, None]
    write_prediction(pred, get_task('normals'), tmp_path / 'a.png')
    rgb = np.array(Image.open(tmp_path / 'a.png')).astype(float)
    expected = [[(0, 0, 1), (-0.6, 0.8, 0), (1, 0, 0), (0, 0, 0)]]
    np.testing.assert_allclose(2 * rgb / 255 - 1, expected, atol=1.001 / 255)


def test_quantities_are_thousandths_in_16_bits(tmp_path):
    pred = np.array([[[0.0, 0.0014, 2.5, 65.535, 65.6, 1e30]]], np.float32)
    write_prediction(pred, get_task('depth'), tmp_path / 'a.png')
    image = Image.open(tmp_path / 'a.png')
    assert image.mode == 'I;16'
    np.testing.assert_array_equal(np.array(image), [[0, 1, 2500, 65535, 65535, 65535]])
    reader = dict(type='scalar_image', factor=0.001)
    label = read_label(str(tmp_path / 'a.png'), get_task('depth'), (1, 6), reader)
    np.testing.assert_allclose(label[0, :4], pred[0, 0, :4], atol=0.0005)
