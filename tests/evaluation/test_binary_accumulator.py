"""Saliency metrics against hand-made cases and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmseg_polyhistor.evaluation import BinaryAccumulator
from mmseg_polyhistor.evaluation.binary import THRESHOLDS
from mmseg_polyhistor.tasks import get_task


@pytest.fixture
def accumulator() -> BinaryAccumulator:
    return BinaryAccumulator(get_task('saliency'))


def _pair(pred, gt):
    return torch.tensor(pred, dtype=torch.float32)[None], torch.tensor(gt, dtype=torch.uint8)[None]


def test_the_thresholds():
    assert THRESHOLDS == (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def test_by_hand(accumulator):
    # truth 1 1 0 0; below 0.3: all four are foreground, IoU 2/4, P 1/2, R 1; from 0.3 to 0.5: three, IoU 2/3, P 2/3,
    # R 1; from 0.5 to 0.6: IoU 1/3, P 1/2, R 1/2; from 0.6 to 0.8: IoU 1/2, P 1, R 1/2; above 0.8: nothing, 0
    counts = [accumulator.count(*_pair([[0.8, 0.5, 0.6, 0.3]], [[1, 1, 0, 0]]))]
    metrics = accumulator.reduce(counts)
    assert metrics['mIoU'] == pytest.approx(100 * 2 / 3)
    assert metrics['maxF'] == pytest.approx(100 * 1.3 * 1 * 0.5 / (0.3 * 1 + 0.5))
    assert metrics['maxF1'] == pytest.approx(100 * 2 * (2 / 3) / (2 / 3 + 1))


def test_the_threshold_is_common_to_all_images(accumulator):
    first = accumulator.count(*_pair([[0.95, 0.1]], [[1, 0]]))  # right at every threshold
    second = accumulator.count(*_pair([[0.22, 0.1]], [[1, 0]]))  # right at 0.20 only
    third = accumulator.count(*_pair([[0.95, 0.82]], [[1, 0]]))  # right from 0.85 on, IoU 1/2 before
    assert accumulator.reduce([first, second])['mIoU'] == pytest.approx(100)
    assert accumulator.reduce([first, second, third])['mIoU'] == pytest.approx(100 * (1 + 1 + 0.5) / 3)


def test_foreground_lies_strictly_above_the_threshold(accumulator):
    counts = [accumulator.count(*_pair([[0.2, 0.1]], [[1, 0]]))]
    assert accumulator.reduce(counts)['mIoU'] == 0


def test_empty_truth(accumulator):
    nothing = accumulator.count(*_pair([[0.1, 0.2]], [[0, 0]]))
    assert accumulator.reduce([nothing]) == {'mIoU': 100, 'maxF': 100, 'maxF1': 100}
    everything = accumulator.count(*_pair([[0.95, 0.95]], [[0, 0]]))
    assert accumulator.reduce([everything]) == {'mIoU': 0, 'maxF': 0, 'maxF1': 0}


def test_ignored_pixels_and_images_never_count(accumulator):
    counted = accumulator.count(*_pair([[0.95, 0.1, 0.95]], [[1, 0, 255]]))
    ignored = accumulator.count(*_pair([[0.95, 0.1]], [[255, 255]]))
    assert accumulator.reduce([counted, ignored]) == {'mIoU': 100, 'maxF': 100, 'maxF1': 100}
    for counts in ([], [ignored]):
        assert all(math.isnan(v) for v in accumulator.reduce(counts).values())


def _by_loops(pairs):
    """The three metrics with one loop per threshold, image and pixel."""
    means, f03, f1 = [], [], []
    for k in range(15):
        threshold = np.float32(0.2 + 0.05 * k)
        ious, precisions, recalls = [], [], []
        for pred, gt in pairs:
            both = guessed = true = 0
            for p, g in zip(pred.flatten().numpy(), gt.flatten().tolist(), strict=True):
                if g == 255:
                    continue
                both += p > threshold and g == 1
                guessed += bool(p > threshold)
                true += g == 1
            if guessed == 0 and true == 0:
                ious.append(1), precisions.append(1), recalls.append(1)
                continue
            ious.append(both / (guessed + true - both))
            precisions.append(both / guessed if guessed else 0)
            recalls.append(both / true if true else 0)
        p, r = np.mean(precisions), np.mean(recalls)
        means.append(np.mean(ious))
        f03.append(1.3 * p * r / (0.3 * p + r) if p + r else 0)
        f1.append(2 * p * r / (p + r) if p + r else 0)
    return {'mIoU': 100 * max(means), 'maxF': 100 * max(f03), 'maxF1': 100 * max(f1)}


def test_equals_plain_loops(accumulator, make_sample):
    samples = [make_sample(seed, tasks=('saliency',)) for seed in range(6)]
    pairs = [(s['pred_saliency']['data'], s['gt_saliency']['data']) for s in samples]
    pairs[1][1][pairs[1][1] == 1] = 0  # no truth
    pairs[2][0].mul_(0.15)  # no prediction
    pairs[3][0].mul_(0.15)  # neither
    pairs[3][1][pairs[3][1] == 1] = 0
    pairs[4][0].copy_((pairs[4][0] * 20).round() / 20)  # values on the thresholds
    pairs[5][0].copy_(0.6 * pairs[5][0] + 0.4 * (pairs[5][1] == 1))  # a fair prediction
    metrics = accumulator.reduce([accumulator.count(*pair) for pair in pairs])
    assert metrics == pytest.approx(_by_loops(pairs), abs=1e-9)


@pytest.mark.parametrize(
    ('pred', 'gt', 'message'),
    [
        ([[0.5, math.nan]], [[0, 1]], r'the prediction holds 1 NaN or infinite values \(of 2\)'),
        ([[math.inf, 0.5]], [[0, 1]], 'the prediction holds 1 NaN or infinite'),
        ([[0.5, -3.0]], [[0, 1]], r'the prediction ranges over -3\.\.0\.5; probabilities must lie in 0\.\.1'),
        ([[0.5, 0.5]], [[0, 128]], r'the truth ranges over 0\.\.128; labels other than ignore \(255\)'),
        ([[0.5], [0.5]], [[0, 1]], 'the prediction has 2 x 1 pixels and the truth 1 x 2'),
    ],
)
def test_refuses_bad_maps(accumulator, pred, gt, message):
    with pytest.raises(ValueError, match=message):
        accumulator.count(*_pair(pred, gt))
