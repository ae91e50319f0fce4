"""Semantic metrics against a hand-made case, plain loops and mmseg's IoUMetric."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from mmseg_polyhistor.evaluation import SemanticAccumulator
from mmseg_polyhistor.tasks import get_task


def _pair(pred, gt):
    return torch.tensor(pred)[None], torch.tensor(gt, dtype=torch.uint8)[None]


def test_by_hand(small_semantic):
    accumulator = SemanticAccumulator(small_semantic)
    # valid pixels: (0,0) (0,1) (1,1) (1,1) | class a: 1 / 2, class b: 2 / 3, c and d nowhere
    counts = accumulator.count(*_pair([[0, 0, 1], [1, 1, 3]], [[0, 1, 255], [1, 1, 255]]))
    np.testing.assert_array_equal(counts, [[1, 2, 0, 0], [2, 2, 0, 0], [1, 3, 0, 0]])
    assert accumulator.reduce([counts]) == pytest.approx(
        {'mIoU': 100 * (1 / 2 + 2 / 3) / 2, 'aAcc': 75.0, 'mAcc': 100 * (1 + 2 / 3) / 2}
    )


def test_a_class_only_predicted_counts_as_zero_and_an_absent_one_is_left_out_and_named(small_semantic):
    accumulator = SemanticAccumulator(small_semantic)
    counts = [accumulator.count(*_pair([[0, 2]], [[0, 0]]))]
    assert accumulator.reduce(counts)['mIoU'] == pytest.approx(100 * (1 / 2 + 0) / 2)
    (remark,) = accumulator.remarks(counts)
    assert '2 of 4 classes' in remark
    assert remark.endswith(': b, d')


def test_says_nothing_where_all_classes_are_there(small_semantic):
    accumulator = SemanticAccumulator(small_semantic)
    assert accumulator.remarks([accumulator.count(*_pair([[0, 1, 2, 3]], [[0, 1, 2, 3]]))]) == []


def test_ignored_pixels_never_count(small_semantic):
    accumulator = SemanticAccumulator(small_semantic)
    counts = accumulator.count(*_pair([[0, 1, 2]], [[255, 255, 255]]))
    assert counts.sum() == 0
    assert all(math.isnan(v) for v in accumulator.reduce([counts]).values())
    assert accumulator.reduce([]).keys() == accumulator.reduce([counts]).keys()
    assert all(math.isnan(v) for v in accumulator.reduce([]).values())


def test_equals_plain_loops(make_sample):
    spec = get_task('human_parts')
    accumulator = SemanticAccumulator(spec)
    samples = [make_sample(seed) for seed in range(3)]
    pairs = [(s[spec.pred_field]['data'], s[spec.gt_field]['data']) for s in samples]
    ious, right, valid = [], 0, 0
    for c in range(spec.channels):
        intersection = union = 0
        for pred, gt in pairs:
            for p, g in zip(pred.flatten().tolist(), gt.flatten().tolist(), strict=True):
                if g == 255:
                    continue
                intersection += p == c and g == c
                union += p == c or g == c
                valid += c == 0
                right += c == 0 and p == g
        ious.append(100 * intersection / union)
    counts = [accumulator.count(pred, gt) for pred, gt in pairs]
    metrics = accumulator.reduce(counts)
    assert metrics['mIoU'] == pytest.approx(np.mean(ious), abs=1e-12)
    assert metrics['aAcc'] == pytest.approx(100 * right / valid, abs=1e-12)
    np.testing.assert_allclose(accumulator.per_class(counts)[0], ious)


@pytest.mark.parametrize('classes_used', [21, 5])
def test_equals_mmseg_iou_metric(make_sample, classes_used):
    spec = get_task('semseg')
    accumulator = SemanticAccumulator(spec)
    stock = IoUMetric(prefix='stock')
    stock.dataset_meta = dict(classes=spec.classes)
    counts = []
    for seed in range(5):
        sample = make_sample(seed, size=(32, 24))
        pred, gt = (sample[f]['data'] for f in (spec.pred_field, spec.gt_field))
        pred %= classes_used
        gt[gt != 255] %= classes_used
        gt = torch.where((gt != 255) & (torch.rand(gt.shape) < 0.5), pred, gt.long()).byte()
        sample[spec.gt_field]['data'] = gt
        stock.process(None, [sample])
        counts.append(accumulator.count(pred, gt))
    expected = {k.removeprefix('stock/'): v for k, v in stock.evaluate(5).items()}
    metrics = accumulator.reduce(counts)
    assert metrics.keys() == expected.keys()
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(float(value), abs=0.0051), key  # mmseg rounds to two decimals


def test_table_lists_every_class(small_semantic):
    accumulator = SemanticAccumulator(small_semantic)
    table = accumulator.table([accumulator.count(*_pair([[0, 1]], [[0, 0]]))])
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines() if '|' in line
    ]
    assert rows == [
        ['Class', 'IoU', 'Acc'], ['a', '50.00', '50.00'], ['b', '0.00', 'nan'], ['c', 'nan', 'nan'], ['d', 'nan', 'nan'],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('pred', 'gt', 'message'),
    [
        ([[0, 4]], [[0, 1]], r'the prediction ranges over 0\.\.4; classes must lie in 0\.\.3'),
        ([[0, 1]], [[0, 7]], r'the truth ranges over 0\.\.7; classes other than ignore \(255\)'),
        ([[0.0, 1.0]], [[0, 1]], 'must hold class indices'),
        ([[0, 1, 2]], [[0, 1]], r'the prediction has 1 x 3 pixels and the truth 1 x 2.*test_cfg\.resolution'),
    ],
)
def test_refuses_bad_maps(small_semantic, pred, gt, message):
    with pytest.raises(ValueError, match=message):
        SemanticAccumulator(small_semantic).count(*_pair(pred, gt))


def test_refuses_a_wrong_shape(small_semantic):
    with pytest.raises(ValueError, match=r'the prediction must have shape \(1, H, W\), got \(2, 2\)'):
        SemanticAccumulator(small_semantic).count(torch.zeros(2, 2).long(), torch.zeros(1, 2, 2).byte())
