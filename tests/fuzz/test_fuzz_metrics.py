"""Random maps of a few pixels, with nothing labelled in many of them, against metrics that are counted pixel by pixel."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from cases import fuzz, random_label
from hypothesis import given
from hypothesis import strategies as st

from mmseg_polyhistor.evaluation import build_accumulator
from mmseg_polyhistor.evaluation.binary import THRESHOLDS
from mmseg_polyhistor.tasks import TaskSpec, get_task

Pairs = list[
    tuple[np.ndarray, np.ndarray]
]  # (prediction, truth) of images, as the pipeline has them, (H, W, ..)
FOUR = TaskSpec(
    name='four',
    kind='semantic',
    channels=4,
    gt_key='gt_four',
    gt_field='gt_four',
    pred_field='pred_four',
    loss=dict(type='CrossEntropyLoss'),
    metric='mIoU',
    classes=tuple('abcd'),
    palette=((0, 0, 0),) * 4,
)
SALIENCY, NORMALS, DEPTH = get_task('saliency'), get_task('normals'), get_task('depth')


def image_sets(spec: TaskSpec) -> st.SearchStrategy[Pairs]:
    """Up to four images of one to sixteen pixels; predictions are now and then the truth, or all alike."""

    def make(sizes: list[tuple[int, int, float, int]], seed: int) -> Pairs:
        rng = np.random.default_rng(seed)
        pairs = []
        for height, width, share, kind in sizes:
            truth = random_label(spec, (height, width), rng, share)
            guess = random_label(spec, (height, width), rng, 1.0)
            if spec.kind == 'binary':
                guess = rng.choice(np.array([0, 0.2, 0.25, 0.5, 0.9, 1], np.float32), (height, width))
            if kind == 1:
                known = np.where(truth == spec.ignore_value, guess, truth)
                guess = known.astype(guess.dtype)
            elif kind == 2:
                guess = np.broadcast_to(guess[:1, :1], guess.shape).copy()
            elif kind == 3 and spec.kind in ('unit_vector', 'scalar', 'binary'):
                guess = np.zeros_like(guess)
            pairs.append((guess, truth))
        return pairs

    sizes = st.tuples(
        st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0]), st.integers(0, 3)
    )
    return st.builds(make, st.lists(sizes, max_size=4), st.integers(0, 2**16))


def evaluate(spec: TaskSpec, pairs: Pairs) -> dict[str, float]:
    """The metrics by the accumulator, which must not warn."""

    def planes(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(
            np.ascontiguousarray(array.transpose(2, 0, 1) if array.ndim == 3 else array[None])
        )

    accumulator = build_accumulator(spec)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        counts = []
        for guess, truth in pairs:
            guess = planes(guess)
            counts.append(
                accumulator.count(guess.long() if spec.kind == 'semantic' else guess, planes(truth))
            )
        metrics = accumulator.reduce(counts)
        remarks = accumulator.remarks(counts)
        table = accumulator.table(counts)
    labelled = [int((t != spec.ignore_value).reshape(*t.shape[:2], -1).any(axis=2).sum()) for _, t in pairs]
    assert [accumulator.valid_pixels(count) for count in counts] == labelled
    assert math.isnan(metrics[spec.metric]) == (sum(labelled) == 0), (
        'nan without a valid pixel, and only then'
    )
    assert all(isinstance(remark, str) for remark in remarks)
    assert table is None or isinstance(table, str)
    return metrics


def pixels(spec: TaskSpec, pairs: Pairs) -> list[tuple]:
    """(prediction, truth) of every labelled pixel, as plain numbers or lists."""
    found = []
    for guess, truth in pairs:
        for row in range(truth.shape[0]):
            for column in range(truth.shape[1]):
                value = truth[row, column].tolist()
                if value not in (spec.ignore_value, [spec.ignore_value] * 3):
                    found.append((guess[row, column].tolist(), value))
    return found


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


@fuzz(250)
@given(pairs=image_sets(FOUR))
def test_classes(pairs: Pairs) -> None:
    known = pixels(FOUR, pairs)
    iou, accuracy = [], []
    for c in range(4):
        both = sum(g == t == c for g, t in known)
        either, true = sum(c in pair for pair in known), sum(t == c for _, t in known)
        iou += [100 * both / either] if either else []
        accuracy += [100 * both / true] if true else []
    expected = dict(mIoU=mean(iou), aAcc=100 * mean([g == t for g, t in known]), mAcc=mean(accuracy))
    assert evaluate(FOUR, pairs) == pytest.approx(expected, nan_ok=True)


@fuzz(250)
@given(pairs=image_sets(SALIENCY))
def test_probabilities(pairs: Pairs) -> None:
    ious, f, f1 = [], [], []
    images = [known for known in (pixels(SALIENCY, [pair]) for pair in pairs) if known]
    for threshold in THRESHOLDS:
        iou, precision, recall = [], [], []
        for known in images:
            above = [(np.float32(g) > np.float32(threshold), t == 1) for g, t in known]
            both, guessed, true = (sum(map(key, above)) for key in (all, lambda p: p[0], lambda p: p[1]))
            iou.append(both / (guessed + true - both) if guessed + true else 1)
            precision.append(both / guessed if guessed else float(not true))
            recall.append(both / true if true else float(not guessed))
        p, r = mean(precision), mean(recall)
        ious.append(100 * mean(iou))
        for scores, beta2 in ((f, 0.3), (f1, 1)):
            scores.append(100 * (1 + beta2) * p * r / (beta2 * p + r) if p + r else 0)
    expected = dict(mIoU=max(ious), maxF=max(f), maxF1=max(f1)) if images else dict.fromkeys(KEYS, math.nan)
    assert evaluate(SALIENCY, pairs) == pytest.approx(expected, nan_ok=True)


KEYS = ('mIoU', 'maxF', 'maxF1')


@fuzz(250)
@given(pairs=image_sets(NORMALS))
def test_directions(pairs: Pairs) -> None:
    angles = []
    for guess, truth in pixels(NORMALS, pairs):
        length = math.hypot(*guess) * math.hypot(*truth)
        cosine = sum(a * b for a, b in zip(guess, truth, strict=True)) / length if length else 0
        angles.append(math.degrees(math.acos(min(1, max(-1, cosine)))))
    metrics = evaluate(NORMALS, pairs)
    assert metrics['mean'] == pytest.approx(mean(angles), abs=0.05, nan_ok=True)
    assert metrics['rmse'] == pytest.approx(math.sqrt(mean([a * a for a in angles])), abs=0.05, nan_ok=True)
    for limit in (11.25, 22.5, 30):
        assert metrics[f'under_{limit:g}'] == pytest.approx(
            100 * mean([a < limit for a in angles]), nan_ok=True
        )
    median = float(np.median(angles)) if angles else math.nan
    assert metrics['median'] == pytest.approx(median, abs=0.15, nan_ok=True)


@fuzz(250)
@given(pairs=image_sets(DEPTH))
def test_quantities(pairs: Pairs) -> None:
    known = pixels(DEPTH, pairs)
    ratios = [max(g / t, t / g) if g else math.inf for g, t in known]
    expected = {
        'rmse': math.sqrt(mean([(g - t) ** 2 for g, t in known])),
        'abs_rel': mean([abs(g - t) / t for g, t in known]),
        **{f'delta{k}': 100 * mean([r < 1.25**k for r in ratios]) for k in (1, 2, 3)},
    }
    assert evaluate(DEPTH, pairs) == pytest.approx(expected, nan_ok=True)


@fuzz(100)
@given(pairs=image_sets(get_task('edge')))
def test_edges_are_defined(pairs: Pairs) -> None:
    """Their matching has tests of its own; here, that a set of tiny maps gives numbers between 0 and 100."""
    metrics = evaluate(get_task('edge'), pairs)
    assert all(math.isnan(value) or 0 <= value <= 100 for value in metrics.values())
