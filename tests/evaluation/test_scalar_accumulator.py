"""Depth metrics against hand-made cases and plain loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mmseg_polyhistor.evaluation import ScalarAccumulator
from mmseg_polyhistor.tasks import get_task

NAMES = ('rmse', 'abs_rel', 'delta1', 'delta2', 'delta3')


@pytest.fixture
def accumulator() -> ScalarAccumulator:
    return ScalarAccumulator(get_task('depth'))


def _pair(pred, gt):
    return torch.tensor([[pred]], dtype=torch.float32), torch.tensor([[gt]], dtype=torch.float32)


def test_by_hand(accumulator):
    # ratios 1, 1.2, 1.5 and 2 (half as much): one is within 1.25 beside the exact one, three within 1.5625 and 1.953
    counts = [accumulator.count(*_pair([2, 2.4, 3, 1, 9], [2, 2, 2, 2, 0]))]
    metrics = accumulator.reduce(counts)
    assert metrics['rmse'] == pytest.approx(math.sqrt((0 + 0.16 + 1 + 1) / 4), rel=1e-6)
    assert metrics['abs_rel'] == pytest.approx((0 + 0.2 + 0.5 + 0.5) / 4, rel=1e-6)
    assert [metrics[f'delta{k}'] for k in (1, 2, 3)] == [50, 75, 75]


def test_a_perfect_prediction(accumulator):
    assert accumulator.reduce([accumulator.count(*_pair([1, 7.5], [1, 7.5]))]) == dict(
        zip(NAMES, (0, 0, 100, 100, 100), strict=True)
    )


def test_a_predicted_zero_is_wrong_by_the_whole_depth(accumulator):
    assert accumulator.reduce([accumulator.count(*_pair([0], [4]))]) == dict(
        zip(NAMES, (4, 1, 0, 0, 0), strict=True)
    )


def test_means_run_over_the_pixels_of_the_set(accumulator, make_sample):
    samples = [make_sample(seed, size=(5 + seed, 7), tasks=('depth',)) for seed in range(4)]
    samples[2]['gt_depth_map']['data'].zero_()  # an image without truth
    pairs = [(s['pred_depth_map']['data'], s['gt_depth_map']['data']) for s in samples]
    squares, relative, ratios = [], [], []
    for pred, gt in pairs:
        for p, g in zip(pred.flatten().tolist(), gt.flatten().tolist(), strict=True):
            if g != 0:
                squares.append((p - g) ** 2)
                relative.append(abs(p - g) / g)
                ratios.append(max(p / g, g / p))
    n = len(squares)
    expected = [math.sqrt(sum(squares) / n), sum(relative) / n]
    expected += [100 * sum(r < 1.25**k for r in ratios) / n for k in (1, 2, 3)]
    counts = [accumulator.count(*pair) for pair in pairs]
    metrics = accumulator.reduce(counts)
    assert list(metrics) == list(NAMES)
    assert list(metrics.values()) == pytest.approx(expected, rel=1e-9)
    assert accumulator.reduce(counts[::-1]) == metrics
    assert accumulator.reduce([counts[i] for i in (0, 1, 3)]) == metrics


def test_a_set_without_truth_is_nan(accumulator):
    for counts in ([], [accumulator.count(*_pair([1, 2], [0, 0]))]):
        metrics = accumulator.reduce(counts)
        assert list(metrics) == list(NAMES)
        assert all(math.isnan(value) for value in metrics.values())


def test_a_true_zero_where_the_task_allows_it():
    accumulator = ScalarAccumulator(replace(get_task('depth'), ignore_value=-1))
    counts = [accumulator.count(*_pair([3, 2, 5], [0, 2, -1])), accumulator.count(*_pair([2], [2]))]
    assert accumulator.reduce(counts[:1]) == dict(zip(NAMES, (math.sqrt(4.5), 0, 100, 100, 100), strict=True))
    assert accumulator.remarks(counts) == ['1 pixels whose truth is 0 count in rmse alone']
    assert accumulator.remarks(counts[1:]) == []


@pytest.mark.parametrize(
    ('pred', 'gt', 'message'),
    [
        ([1, math.inf], [1, 1], r'the prediction holds 1 NaN or infinite values \(of 2\)'),
        ([1, -0.5], [1, 1], r'the prediction ranges over -0\.5\.\.1; quantities must lie in 0\.\.inf'),
        ([1, 1], [1, math.nan], 'the truth holds 1 NaN or infinite values'),
        ([1, 1], [1, -2], r'the truth ranges over -2\.\.1; quantities other than ignore \(0\)'),
        ([1], [1, 1], 'the prediction has 1 x 1 pixels and the truth 1 x 2'),
    ],
)
def test_refuses_bad_maps(accumulator, pred, gt, message):
    with pytest.raises(ValueError, match=message):
        accumulator.count(*_pair(pred, gt))
