"""The composite metric: same figures under any batching and any number of processes, and errors that help."""

from __future__ import annotations

import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_polyhistor.evaluation import MultiTaskMetric, build_accumulator, multi_task_gain, reference_row
from mmseg_polyhistor.tasks import get_task, get_tasks, known_tasks

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
PRESET = 'paper_pascal_context_swin_t'
WORKER = Path(__file__).with_name('two_process_worker.py')


@pytest.fixture
def samples(make_sample) -> list[dict]:
    """Seven samples of several sizes; one has no person, one no valid normal."""
    samples = [make_sample(seed, size=(10 + seed, 15 - seed)) for seed in range(7)]
    samples[2]['gt_human_parts']['data'].fill_(255)
    samples[4]['gt_normals']['data'].fill_(255)
    return samples


@pytest.fixture
def logged(monkeypatch) -> list[tuple[int, str]]:
    """What is logged, as (level, message)."""
    records: list[tuple[int, str]] = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'log', lambda level, message, *a, **k: records.append((level, message)))
    return records


def _evaluate(samples, batch_size=1, **kwargs) -> dict[str, float]:
    metric = MultiTaskMetric(**{'tasks': TASKS, **kwargs})
    for start in range(0, len(samples), batch_size):
        metric.process(None, samples[start : start + batch_size])
    return metric.evaluate(len(samples))


def test_keys_and_values_are_those_of_the_accumulators(samples):
    metrics = _evaluate(samples, reference=PRESET)
    expected, headline = {}, {}
    for spec in get_tasks(TASKS):
        accumulator = build_accumulator(spec)
        values = accumulator.reduce(
            [accumulator.count(s[spec.pred_field]['data'], s[spec.gt_field]['data']) for s in samples]
        )
        expected.update({f'{spec.name}.{key}': value for key, value in values.items()})
        headline[spec.name] = values[spec.metric]
    expected['gain'] = multi_task_gain(headline, reference_row(PRESET), get_tasks(TASKS))
    assert metrics == expected
    assert list(metrics) == [
        'semseg.mIoU', 'semseg.aAcc', 'semseg.mAcc', 'human_parts.mIoU', 'human_parts.aAcc', 'human_parts.mAcc',
        'saliency.mIoU', 'saliency.maxF', 'saliency.maxF1', 'normals.mean', 'normals.median', 'normals.rmse',
        'normals.under_11.25', 'normals.under_22.5', 'normals.under_30', 'gain',
    ]  # fmt: skip
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())


def test_batch_size_and_order_leave_no_trace(samples):
    expected = _evaluate(samples, reference=PRESET)
    for batch_size in (2, 3, 7):
        assert _evaluate(samples, batch_size, reference=PRESET) == expected
    assert _evaluate(samples[::-1], 2, reference=PRESET) == expected


def test_two_processes_with_an_odd_number_of_samples_equal_one(samples, tmp_path, repo):
    torch.save(samples, tmp_path / 'samples.pt')
    environment = {**os.environ, 'PYTHONPATH': str(repo), 'OMP_NUM_THREADS': '1'}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), '2', str(tmp_path)], env=environment, cwd=tmp_path
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    first, second = (json.loads((tmp_path / f'metrics_{rank}.json').read_text()) for rank in range(2))
    assert (
        len(first['share']) == len(second['share']) == 4
    )  # 7 samples and one duplicate, which must not count
    assert first['metrics'] == second['metrics'] == _evaluate(samples, reference=PRESET)


def test_a_metric_can_evaluate_again(samples):
    metric = MultiTaskMetric(tasks=TASKS)
    metric.process(None, samples)
    first = metric.evaluate(7)
    metric.process(None, samples)
    assert metric.evaluate(7) == first


def test_keeps_little_of_an_image(make_sample):
    metric = MultiTaskMetric(tasks=TASKS)
    metric.process(None, [make_sample(0, size=(200, 300))])
    assert len(pickle.dumps(metric.results)) < 10_000


def test_under_the_evaluator_beside_dump_results(samples, tmp_path):
    """As mmengine's runner uses it: a dict config, real data samples, and another metric at its side."""
    out = tmp_path / 'predictions.pkl'
    with DefaultScope.overwrite_default_scope('mmseg'):
        evaluator = Evaluator([dict(type='MultiTaskMetric', reference=PRESET), DumpResults(str(out))])
    evaluator.dataset_meta = dict(tasks=TASKS, classes=get_task('semseg').classes)
    for sample in samples:
        data_sample = SegDataSample(metainfo=dict(img_path=sample['img_path']))
        for field, value in sample.items():
            if field != 'img_path':
                data_sample.set_field(PixelData(data=value['data']), field)
        evaluator.process([data_sample])
    assert evaluator.evaluate(7) == _evaluate(samples, reference=PRESET)
    assert len(pickle.loads(out.read_bytes())) == 7


def test_output_dir_as_mmsegs_test_script_sets_it(samples, tmp_path):
    config = dict(type='MultiTaskMetric', tasks=TASKS)
    config['output_dir'] = str(
        tmp_path / 'out'
    )  # what tools/test.py --out writes into the evaluator's config
    config['keep_results'] = True
    metric = METRICS.build(config)
    metric.process(None, samples)
    assert metric.evaluate(7) == _evaluate(samples)
    for task in TASKS:
        assert len(list((tmp_path / 'out' / task).glob('*.png'))) == 7
    written = np.array(Image.open(tmp_path / 'out' / 'semseg' / 'image_3.png'))
    np.testing.assert_array_equal(written, samples[3]['pred_sem_seg']['data'][0])


def test_format_only_needs_no_truth(samples, tmp_path):
    for sample in samples:
        for spec in get_tasks(TASKS):
            del sample[spec.gt_field]
    assert _evaluate(samples, format_only=True, output_dir=str(tmp_path)) == {}
    assert len(list(tmp_path.glob('normals/*.png'))) == 7
    with pytest.raises(ValueError, match='needs output_dir'):
        MultiTaskMetric(format_only=True)


# ------------------------------------------------------------------------------------------------- logs
def test_a_task_without_a_valid_pixel_is_nan_and_warned_about(samples, logged):
    for sample in samples:
        sample['gt_human_parts']['data'].fill_(255)
    metrics = _evaluate(samples, reference=PRESET)
    assert math.isnan(metrics['human_parts.mIoU'])
    assert math.isnan(metrics['gain'])
    assert not math.isnan(metrics['semseg.mIoU'])
    warnings = [message for level, message in logged if level >= 30]
    assert warnings == ['human_parts: none of the 7 images has a valid pixel, its metrics are nan']


def test_says_how_many_images_do_not_count(samples, logged):
    """Images without people are most of PASCAL's: the table of a task does not show how many images it speaks of."""
    for sample in samples[:3]:
        sample['gt_human_parts']['data'].fill_(255)
    samples[5]['gt_normals']['data'].fill_(255)
    samples[6]['gt_saliency']['data'].fill_(255)
    metrics = _evaluate(samples)
    assert not any(math.isnan(value) for value in metrics.values())
    told = [message for _, message in logged if 'no valid pixel' in message]
    assert told == [
        'human_parts: 3 of 7 images have no valid pixel and do not count',
        'saliency: 1 of 7 images have no valid pixel and do not count',
        'normals: 2 of 7 images have no valid pixel and do not count',
    ]


@pytest.mark.parametrize('name', known_tasks())
def test_valid_pixels_of_every_kind_of_count(make_sample, name):
    spec = get_task(name)
    sample = make_sample(3, tasks=(name,))
    accumulator = build_accumulator(spec)
    truth = sample[spec.gt_field]['data']
    expected = int((truth != spec.ignore_value).any(dim=0).sum())
    assert 0 < expected < truth[0].numel()
    count = accumulator.count(sample[spec.pred_field]['data'], truth)
    assert accumulator.valid_pixels(count) == expected


def test_says_which_classes_are_left_out_and_logs_the_table_on_demand(samples, logged):
    for sample in samples:
        for field in ('pred_sem_seg', 'gt_sem_seg'):
            data = sample[field]['data']
            data[data == 15] = 0
    _evaluate(samples)
    text = '\n'.join(message for _, message in logged)
    assert 'semseg: mIoU is the mean over 20 of 21 classes; in neither truth nor prediction: person' in text
    assert 'per class' not in text
    _evaluate(samples, per_class=True)
    text = '\n'.join(message for _, message in logged)
    assert 'semseg, per class:' in text
    assert 'lower_leg' in text


# ------------------------------------------------------------------------------------------------- gain
def test_no_gain_without_a_reference(samples):
    assert 'gain' not in _evaluate(samples)


def test_the_gain_of_some_tasks_of_the_row_is_their_mean_and_says_so(samples, logged):
    """Training with a subset of tasks keeps the metric that `save_best='gain'` asks for."""
    metrics = _evaluate(samples, tasks=('semseg', 'normals'), reference=PRESET)
    expected = 50 * ((metrics['semseg.mIoU'] - 67.21) / 67.21 - (metrics['normals.mean'] - 17.97) / 17.97)
    assert metrics['gain'] == pytest.approx(expected)
    assert logged[-1][1] == (
        "gain: the mean over ['semseg', 'normals']; the reference row also holds ['human_parts', 'saliency'], "
        'which are not evaluated'
    )


def test_gain_with_a_row_of_its_own(samples):
    metrics = _evaluate(samples, tasks=('semseg', 'normals'), reference=dict(semseg=2.0, normals=80.0))
    expected = 50 * ((metrics['semseg.mIoU'] - 2) / 2 - (metrics['normals.mean'] - 80) / 80)
    assert metrics['gain'] == pytest.approx(expected)


def test_a_reference_that_lacks_a_task_is_refused_before_the_first_image():
    metric = MultiTaskMetric(reference=dict(semseg=60.0))
    with pytest.raises(ValueError, match=r"lacks the evaluated tasks \['normals'\]"):
        metric.dataset_meta = dict(tasks=('semseg', 'normals'))
    with pytest.raises(ValueError, match='unknown reference row'):
        MultiTaskMetric(reference='the_paper')


# ----------------------------------------------------------------------------------------------- errors
def test_needs_tasks():
    with pytest.raises(ValueError, match=r"names no tasks \(its keys: \['classes'\]\)"):
        MultiTaskMetric().dataset_meta = dict(classes=('a',))
    with pytest.raises(ValueError, match='no task to evaluate'):
        MultiTaskMetric().process(None, [{}])


def test_tasks_of_the_config_come_before_those_of_the_dataset(samples):
    metric = MultiTaskMetric(tasks=('saliency',))
    metric.dataset_meta = dict(tasks=TASKS)
    metric.process(None, samples)
    assert set(metric.evaluate(7)) == {'saliency.mIoU', 'saliency.maxF', 'saliency.maxF1'}


@pytest.mark.parametrize('field', ['gt_saliency', 'pred_saliency'])
def test_a_missing_field_names_the_image_and_the_field(samples, field):
    del samples[5][field]
    with pytest.raises(
        ValueError, match=rf"task 'saliency' of .*image_5\.jpg: the sample has no field '{field}'"
    ):
        _evaluate(samples)


def test_sizes_that_differ_name_the_image_both_sizes_and_the_remedy(samples):
    samples[0]['pred_normals']['data'] = samples[0]['pred_normals']['data'][:, :-1]
    message = r"'normals' of .*image_0\.jpg: the prediction has 9 x 15 pixels and the truth 10 x 15.*test_cfg\.resolution"
    with pytest.raises(ValueError, match=message):
        _evaluate(samples)


@pytest.mark.parametrize('field', ['pred_saliency', 'pred_normals'])
@pytest.mark.parametrize('value', [math.nan, -math.inf])
def test_a_prediction_that_is_not_finite_names_the_image(samples, field, value):
    samples[6][field]['data'][0, 3, 4] = value
    with pytest.raises(ValueError, match=r'image_6\.jpg: the prediction holds 1 NaN or infinite values'):
        _evaluate(samples)


def test_written_predictions_are_checked_and_named_after_the_image(samples, tmp_path):
    del samples[0]['img_path']
    with pytest.raises(
        ValueError, match=r'a sample without img_path: the file of a prediction is named after img_path'
    ):
        _evaluate(samples, output_dir=str(tmp_path))


def test_two_images_of_one_name_do_not_overwrite_each_others_prediction(samples, tmp_path):
    samples[0]['img_path'], samples[1]['img_path'] = 'aachen/000.jpg', 'bochum/000.jpg'
    with pytest.raises(
        ValueError, match=r'bochum/000\.jpg: its prediction would overwrite that of aachen/000\.jpg'
    ):
        _evaluate(samples, output_dir=str(tmp_path))
    _evaluate([samples[0], samples[0]], output_dir=str(tmp_path))  # the duplicate of a distributed sampler
