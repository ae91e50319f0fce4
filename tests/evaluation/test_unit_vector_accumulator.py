"""Angular errors against directions whose angle is known, and against numpy on all pixels at once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from mmseg_polyhistor.evaluation import UnitVectorAccumulator
from mmseg_polyhistor.evaluation.unit_vector import RESOLUTION, angles_between
from mmseg_polyhistor.tasks import get_task


@pytest.fixture
def accumulator() -> UnitVectorAccumulator:
    return UnitVectorAccumulator(get_task('normals'))


def _at(degrees) -> torch.Tensor:
    """Directions (3, 1, N) at the given angles to the z axis, each turned about it by another angle."""
    angle = np.deg2rad(np.asarray(degrees, np.float64))
    turn = np.arange(len(angle))
    return torch.tensor(
        np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)])[:, None]
    )


def _z(n: int) -> torch.Tensor:
    return torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1).expand(3, 1, n).clone()


def test_by_hand(accumulator):
    metrics = accumulator.reduce([accumulator.count(_at([10, 20, 30, 60]), _z(4))])
    assert metrics['mean'] == pytest.approx(30)
    assert metrics['rmse'] == pytest.approx(math.sqrt((100 + 400 + 900 + 3600) / 4))
    assert metrics['median'] == pytest.approx(25, abs=RESOLUTION)
    assert metrics['under_11.25'] == 25
    assert metrics['under_22.5'] == 50


def test_limits_are_exact(accumulator):
    errors = [11.2499999, 11.2500001, 22.4999999, 22.5000001, 29.9999999, 30.0000001]
    metrics = accumulator.reduce([accumulator.count(_at(errors), _z(6))])
    assert [metrics[f'under_{limit}'] for limit in ('11.25', '22.5', '30')] == pytest.approx(
        [100 / 6, 300 / 6, 500 / 6]
    )


@pytest.mark.parametrize('degrees', [0.0, 1e-6, 1e-3, 45.0, 90.0, 179.999, 180.0])
def test_angles_are_exact_everywhere(degrees):
    assert angles_between(_at([degrees])[:, 0], _z(1)[:, 0]).item() == pytest.approx(degrees, abs=1e-9)


def test_a_prediction_of_length_zero_is_ninety_degrees_off(accumulator):
    metrics = accumulator.reduce([accumulator.count(torch.zeros(3, 1, 2), _z(2))])
    assert metrics['mean'] == pytest.approx(90)


def test_the_length_of_the_prediction_does_not_matter(accumulator):
    errors = accumulator.count(7.5 * _at([10, 20, 30]), _z(3))
    assert errors.total == pytest.approx(60)


@pytest.mark.parametrize('spread', [0.01, 0.1, 0.5, 3.0])
def test_equals_numpy_over_all_pixels(accumulator, spread):
    rng = np.random.default_rng(0)
    counts, errors = [], []
    for size in ((9, 11), (20, 13), (5, 8)):
        gt = rng.normal(size=(3, *size))
        pred = gt + spread * rng.normal(size=gt.shape)
        gt, pred = (v / np.linalg.norm(v, axis=0) for v in (gt, pred))
        valid = rng.random(size) < 0.7
        dot = np.clip((gt * pred).sum(0), -1, 1)[valid]
        errors.append(np.rad2deg(np.arccos(dot)))
        gt[:, ~valid] = 255
        counts.append(accumulator.count(torch.tensor(pred), torch.tensor(gt)))
    errors = np.concatenate(errors)
    metrics = accumulator.reduce(counts)
    assert metrics['mean'] == pytest.approx(errors.mean(), abs=1e-6)
    assert metrics['rmse'] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-6)
    assert metrics['median'] == pytest.approx(np.median(errors), abs=RESOLUTION)
    assert metrics['rmse'] >= metrics['mean']
    for limit in (11.25, 22.5, 30):
        assert metrics[f'under_{limit:g}'] == pytest.approx(100 * (errors < limit).mean(), abs=1e-9)


@pytest.mark.parametrize('errors', [[5], [5, 50], [5, 50, 170], [0, 180], [12.3, 12.3, 12.3, 90], [180, 180]])
def test_median_of_few_values_lies_within_the_resolution(accumulator, errors):
    metrics = accumulator.reduce([accumulator.count(_at(errors), _z(len(errors)))])
    assert metrics['median'] == pytest.approx(np.median(errors), abs=RESOLUTION)


def test_the_median_is_read_from_inside_a_bin(accumulator):
    """Values spread evenly over one bin of the histogram, half of them in a second image."""
    errors = np.linspace(10.0005, 10.0995, 100)
    counts = [accumulator.count(_at(half), _z(50)) for half in (errors[::2], errors[1::2])]
    assert accumulator.reduce(counts)['median'] == pytest.approx(10.05, abs=0.001)


def test_opposite_directions_fit_into_the_histogram(accumulator):
    counts = [accumulator.count(_at([degrees]), _z(1)) for degrees in (180, 20, 180)]
    assert accumulator.reduce(counts)['median'] == pytest.approx(180, abs=RESOLUTION)
    assert accumulator.reduce(counts)['mean'] == pytest.approx(380 / 3)


def test_only_pixels_ignored_in_all_components_are_left_out(accumulator):
    gt = _z(4)
    gt[:, 0, 1] = 255
    gt[:, 0, 3] = 255
    counts = accumulator.count(_at([10, 90, 20, 90]), gt)
    assert counts.pixels == 2
    assert counts.total == pytest.approx(30)


def test_one_component_that_equals_the_ignore_value_is_not_enough():
    accumulator = UnitVectorAccumulator(dataclasses.replace(get_task('normals'), ignore_value=0))
    gt = _z(3)  # two components are 0
    gt[:, 0, 2] = 0
    counts = accumulator.count(_at([10, 20, 90]), gt)
    assert counts.pixels == 2
    assert counts.total == pytest.approx(30)


def test_the_order_of_the_images_leaves_no_trace(accumulator):
    rng = np.random.default_rng(0)
    counts = [accumulator.count(_at(rng.uniform(0, 10.0 ** -(i % 8) * 180, 5)), _z(5)) for i in range(40)]
    expected = accumulator.reduce(counts)
    for _ in range(20):
        rng.shuffle(counts)
        assert accumulator.reduce(counts) == expected


def test_without_valid_pixels_all_is_nan(accumulator):
    ignored = accumulator.count(_at([10, 20]), torch.full((3, 1, 2), 255.0))
    counted = accumulator.count(_at([10, 20]), _z(2))
    assert accumulator.reduce([ignored, counted]) == accumulator.reduce([counted])
    for counts in ([], [ignored]):
        metrics = accumulator.reduce(counts)
        assert metrics.keys() == accumulator.reduce([counted]).keys()
        assert all(math.isnan(v) for v in metrics.values())


def test_refuses_bad_maps(accumulator):
    bad = _at([10, 20])
    bad[1, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r'the prediction holds 1 NaN or infinite values \(of 6\)'):
        accumulator.count(bad, _z(2))
    with pytest.raises(ValueError, match='the truth holds 1 NaN'):
        accumulator.count(_z(2), bad)
    with pytest.raises(ValueError, match='the truth holds 2 vectors of length 0'):
        accumulator.count(_z(2), torch.zeros(3, 1, 2))
    with pytest.raises(ValueError, match=r'the truth must have shape \(3, H, W\), got \(1, 1, 2\)'):
        accumulator.count(_z(2), torch.zeros(1, 1, 2))
