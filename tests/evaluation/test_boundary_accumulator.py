"""Edge metrics against hand-made cases and a matching by brute force."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from mmseg_polyhistor.datasets.thinning import thin
from mmseg_polyhistor.evaluation import BoundaryAccumulator, MultiTaskMetric, build_accumulator
from mmseg_polyhistor.evaluation.boundary import THRESHOLDS, TOLERANCE, matched_pixels
from mmseg_polyhistor.tasks import get_task

SIZE = (96, 128)  # diagonal 160: pixels match up to a distance of 1.2


@pytest.fixture
def accumulator() -> BoundaryAccumulator:
    return BoundaryAccumulator(get_task('edge'))


def _pair(pred, gt):
    return torch.as_tensor(pred, dtype=torch.float32)[None], torch.as_tensor(gt, dtype=torch.uint8)[None]


def _columns(*columns, size=SIZE) -> np.ndarray:
    edges = np.zeros(size, np.uint8)
    edges[:, list(columns)] = 1
    return edges


def _odsf(accumulator, *pairs) -> float:
    return accumulator.reduce([accumulator.count(*_pair(*pair)) for pair in pairs])['odsF']


def test_the_metric_of_the_table_chooses_the_accumulator():
    assert isinstance(build_accumulator(get_task('edge')), BoundaryAccumulator)
    assert not isinstance(build_accumulator(get_task('saliency')), BoundaryAccumulator)
    assert set(THRESHOLDS) == {k / 20 for k in range(1, 20)}
    assert TOLERANCE == 0.0075


def test_identical_maps_are_perfect(accumulator):
    noise = np.random.default_rng(0).random(SIZE) < 0.3  # thick and thin parts alike
    for edges in (_columns(10, 50), _columns(*range(20, 31)), noise):
        assert accumulator.reduce([accumulator.count(*_pair(edges, edges))]) == dict(
            odsF=100, odsP=100, odsR=100
        )


@pytest.mark.parametrize(('shift', 'expected'), [(1, 100.0), (2, 0.0)])
def test_a_line_within_and_beyond_the_tolerance(accumulator, shift, expected):
    assert _odsf(accumulator, (_columns(50 + shift), _columns(50))) == expected


def test_the_tolerance_grows_with_the_map(accumulator):
    for size, reach in (((96, 128), 1), ((192, 256), 2), ((300, 400), 3)):
        for shift in (reach, reach + 1):
            pair = (_columns(50 + shift, size=size), _columns(50, size=size))
            assert _odsf(accumulator, pair) == (100 if shift == reach else 0)


def test_pixels_match_one_to_one(accumulator):
    """Of two predicted lines beside a true one only one counts."""
    edges = accumulator.count(*_pair(_columns(49, 51), _columns(50)))
    assert edges.true == SIZE[0]
    assert set(edges.guessed) == {2 * SIZE[0]}
    assert set(edges.matched) == {SIZE[0]}
    metrics = accumulator.reduce([edges])
    assert metrics == dict(odsF=pytest.approx(200 / 3), odsP=50, odsR=100)


def test_the_threshold_is_common_to_all_images(accumulator):
    right, wrong = _columns(20), _columns(90)
    first = (0.8 * right + 0.3 * wrong, right)  # perfect at 0.30 to 0.75
    second = (0.28 * right + 0.2 * wrong, right)  # perfect at 0.20 and 0.25
    n = SIZE[0]
    # at 0.20: 2n of 3n predicted are right, and all 2n found; at 0.30: n of n, and half is found
    assert _odsf(accumulator, first, second) == pytest.approx(100 * 2 * 2 * n / (3 * n + 2 * n))
    counts = [accumulator.count(*_pair(*pair)) for pair in (first, second)]
    assert accumulator.remarks(counts) == ['odsF is that of the threshold 0.2, the best of 19']


def test_thick_predictions_are_thinned(accumulator):
    assert _odsf(accumulator, (_columns(49, 50, 51), _columns(50))) > 97


def test_ignored_pixels_never_count(accumulator):
    truth, pred = _columns(20, 90), _columns(20).astype(np.float32)
    truth[:, 80:] = 255
    assert _odsf(accumulator, (pred, truth)) == 100
    rng = np.random.default_rng(0)
    pred[:, 80:] = rng.random((SIZE[0], SIZE[1] - 80))
    assert _odsf(accumulator, (pred, truth)) == 100
    ignored = accumulator.count(*_pair(pred, np.full(SIZE, 255)))
    good = accumulator.count(*_pair(pred, truth))
    assert accumulator.reduce([good, ignored]) == accumulator.reduce([good])
    for counts in ([], [ignored]):
        assert all(math.isnan(value) for value in accumulator.reduce(counts).values())
        assert accumulator.remarks(counts) == []


def test_sets_without_edges(accumulator):
    nothing = np.zeros(SIZE)
    assert accumulator.reduce([accumulator.count(*_pair(nothing, nothing))])['odsF'] == 100
    assert _odsf(accumulator, (_columns(3), nothing)) == 0
    assert _odsf(accumulator, (nothing, _columns(3))) == 0


def _largest_matching(first, second, radius) -> int:
    """Over all ways to give each pixel of the first map one of the second, or none."""
    a, b = np.argwhere(first).tolist(), np.argwhere(second).tolist()
    best = 0
    for choice in itertools.product([None, *range(len(b))], repeat=len(a)):
        chosen = [j for j in choice if j is not None]
        near = all(math.dist(a[i], b[j]) <= radius for i, j in enumerate(choice) if j is not None)
        if near and len(set(chosen)) == len(chosen):
            best = max(best, len(chosen))
    return best


@pytest.mark.parametrize('seed', range(25))
@pytest.mark.parametrize('radius', [0.5, 1.0, 1.5, 2.3])
def test_the_matching_is_the_largest(seed, radius):
    rng = np.random.default_rng(seed)
    maps = np.zeros((2, 3, 5), bool)
    for edges in maps:
        edges.ravel()[rng.choice(15, rng.integers(0, 6), replace=False)] = True
    assert matched_pixels(*maps, radius) == _largest_matching(*maps, radius)


def _matching_by_augmenting_paths(first, second, radius) -> int:
    """Kuhn's algorithm: one path after another along which one more pair fits in, until there is none."""
    reach = int(radius)
    steps = [range(-reach, reach + 1)] * 2
    disc = [step for step in itertools.product(*steps) if math.hypot(*step) <= radius]
    ends = set(map(tuple, np.argwhere(second).tolist()))
    near = {
        (r, c): [end for dr, dc in disc if (end := (r + dr, c + dc)) in ends]
        for r, c in np.argwhere(first).tolist()
    }
    start_of, end_of = {}, {}
    grown = True
    while grown:
        grown, seen = False, set()
        for start in near:
            if start in end_of:
                continue
            path = [(start, iter(near[start]))]
            while path:
                end = next((e for e in path[-1][1] if e not in seen), None)
                if end is None:
                    path.pop()
                    continue
                seen.add(end)
                if end in start_of:
                    path.append((start_of[end], iter(near[start_of[end]])))
                    continue
                for pixel, _ in reversed(path):
                    start_of[end] = pixel
                    end, end_of[pixel] = end_of.get(pixel), end
                grown = True
                break
    return len(end_of)


@pytest.mark.parametrize('seed', [0, 1])
def test_long_lines_that_waver_are_matched_at_once(seed):
    """Of the size of a photograph; the search must not try all ways, of which there are endlessly many."""
    rng = np.random.default_rng(seed)
    height, width = 375, 500
    straight, wavering = np.zeros((2, height, width), bool)
    for row, column in zip(range(40, 340, 25), range(10, 490, 40), strict=True):
        straight[row], straight[:, column] = True, True
        wavering[row + rng.integers(-4, 5, width), np.arange(width)] = True
        wavering[np.arange(height), column + rng.integers(-4, 5, height)] = True
    radius = TOLERANCE * math.hypot(height, width)
    expected = _matching_by_augmenting_paths(wavering, straight, radius)
    assert matched_pixels(wavering, straight, radius) == expected > 10_000


def test_equals_a_sum_over_images_in_plain_steps(accumulator, make_sample):
    samples = [make_sample(seed, size=(40, 30), tasks=('edge',)) for seed in range(3)]
    pairs = [(s['pred_edge']['data'], s['gt_edge']['data']) for s in samples]
    radius = 0.0075 * 50
    best = 0
    for k in range(1, 20):
        matched = guessed = true = 0
        for pred, gt in pairs:
            valid = gt[0].numpy() != 255
            lines, truth = (
                thin((pred[0].numpy() > np.float32(k / 20)) & valid),
                thin((gt[0].numpy() == 1) & valid),
            )
            matched += (lines & truth).sum()  # the radius is below one pixel
            guessed, true = guessed + lines.sum(), true + truth.sum()
        p, r = matched / max(guessed, 1), matched / true
        best = max(best, 2 * p * r / (p + r) if p + r else 0)
    assert radius < 1
    metrics = accumulator.reduce([accumulator.count(*pair) for pair in pairs])
    assert metrics['odsF'] == pytest.approx(100 * best)


def test_order_and_batches_leave_no_trace(make_sample):
    samples = [make_sample(seed, size=(20 + seed, 31), tasks=('edge', 'depth')) for seed in range(5)]

    def evaluate(samples, size):
        metric = MultiTaskMetric(tasks=('edge', 'depth'), reference=dict(edge=50.0, depth=1.0))
        for start in range(0, len(samples), size):
            metric.process(None, samples[start : start + size])
        assert len(pickle.dumps(metric.results[0])) < 2000
        return metric.evaluate(len(samples))

    expected = evaluate(samples, 1)
    assert list(expected) == [
        'edge.odsF', 'edge.odsP', 'edge.odsR',
        'depth.rmse', 'depth.abs_rel', 'depth.delta1', 'depth.delta2', 'depth.delta3', 'gain',
    ]  # fmt: skip
    assert all(math.isfinite(value) for value in expected.values())
    assert evaluate(samples[::-1], 2) == evaluate([samples[i] for i in (3, 0, 4, 1, 2)], 5) == expected


@pytest.mark.parametrize(
    ('pred', 'gt', 'message'),
    [
        ([[0.5, math.nan]], [[0, 1]], r'the prediction holds 1 NaN or infinite values \(of 2\)'),
        (
            [[0.5, 1.5]],
            [[0, 1]],
            r'the prediction ranges over 0\.5\.\.1\.5; probabilities must lie in 0\.\.1',
        ),
        ([[0.5, 0.5]], [[0, 128]], r'the truth ranges over 0\.\.128; labels other than ignore \(255\)'),
        ([[0.5], [0.5]], [[0, 1]], 'the prediction has 2 x 1 pixels and the truth 1 x 2'),
    ],
)
def test_refuses_bad_maps(accumulator, pred, gt, message):
    with pytest.raises(ValueError, match=message):
        accumulator.count(*_pair(pred, gt))
