"""`tools/collect_results.py` and `tools/analysis/plot_results.py`, on runs that the real tools made."""

from __future__ import annotations

import csv
import io
import re
import statistics
from pathlib import Path

import pytest

CONFIG = """
tasks = ('semseg', 'saliency')
arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
custom_imports = dict(imports=['mmseg_polyhistor', 'tiny_segmentor'], allow_failed_imports=False)
default_scope = 'mmseg'
model = dict(
    type='MultiTaskSegmentor', tasks=tasks,
    backbone=dict(type='AdaptedSwin', arch=arch, tasks=tasks, adapter=dict(type='LoRA', rank=2)),
    decode_heads=dict(type='AllMLPHead', in_channels=[8, 16, 32, 64], channels=8),
    data_preprocessor=dict(type='MultiTaskDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3))
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(type='TinyImages'),
    sampler=dict(type='DefaultSampler', shuffle=False))
train_cfg = dict(type='SeededEpochBasedTrainLoop', max_epochs=2)
val_dataloader = test_dataloader = train_dataloader
val_cfg, test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
val_evaluator = test_evaluator = dict(type='MultiTaskMetric', reference=dict(semseg=2.0, saliency=30.0))
optim_wrapper = dict(
    type='OptimWrapper', constructor='TrainableOptimWrapperConstructor', optimizer=dict(type='Adam', lr=0.01))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='SafeCheckpointHook', interval=1))
custom_hooks = [dict(type='ParameterReportHook')]
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def trained(tools, tmp_path_factory):
    """Two seeds of a tiny method under `work`: the first in two starts, and tested elsewhere."""
    folder = tmp_path_factory.mktemp('my results')
    (folder / 'tiny.py').write_text(CONFIG)
    train = ['train.py', 'tiny.py', '--work-dir']
    tools.start(*train, 'work/seed0', '--cfg-options', 'train_cfg.max_epochs=1', cwd=folder)
    (stamp,) = (folder / 'work/seed0').glob('2*_*')
    stamp.rename(stamp.with_name('20200101_000000'))  # the second start may come within the same second
    tools.start(*train, 'work/seed0', '--resume', cwd=folder)
    tools.start(*train, 'work/seed1', '--cfg-options', 'randomness.seed=1', cwd=folder)
    test = ['test.py', 'tiny.py', 'work/seed0/epoch_1.pth', '--work-dir', 'tests/one']
    tools.start(*test, cwd=folder)
    return folder


@pytest.fixture
def collect(tools, trained):
    """A function: arguments -> rows of the CSV, and what was said on stderr."""

    def run(*arguments):
        out = trained / 'out' / 'table.csv'
        _, printed = tools.start(
            'collect_results.py', *arguments, '--format', 'csv', '--out', out, cwd=trained
        )
        return list(csv.DictReader(io.StringIO(out.read_text()))), printed

    return run


def logged(folder, pattern):
    """What the log of a run's last start says."""
    log = max(folder.glob('*/*.log')).read_text()
    return re.findall(pattern, log)


@pytest.mark.integration
def test_the_table_says_what_the_logs_say(collect, trained):
    """Metrics, parameters and times, beside those in mmengine's log and in the report of the parameters."""
    (first, _), printed = collect('work')
    work = trained / 'work/seed0'
    *_, mean_iou = logged(work, r'Epoch\(val\) \[2\]\[2/2\].* saliency\.mIoU: ([\d.]+)')
    assert float(first['saliency.mIoU']) == pytest.approx(float(mean_iou), abs=1e-4)
    for row, part in (('encoder', 'encoder_parameters'), ('total', 'parameters')):
        (count,) = logged(work, rf'(?m)^{row} +([\d,]+)')
        assert int(first[part]) == int(count.replace(',', '')) > 0
    assert (first['trained'], first['result']) == ('2/2 epochs', 'val, epoch 2')
    assert float(first['seconds_per_iteration']) > 0
    (trained / 'row.json').write_text('{"semseg": 2.0, "saliency": 30.0}')  # the reference of its evaluator
    (again, _), _ = collect('work', '--reference', 'row.json')
    *_, gain = logged(work, r'Epoch\(val\) \[2\]\[2/2\].* gain: ([-\d.]+)')
    assert float(again['gain']) == pytest.approx(float(gain), abs=1e-4)
    assert 'gain' not in first and 'no gain, as there is nothing to compare with' in printed
    assert '2/2' in printed  # the progress


@pytest.mark.integration
def test_the_gain_over_a_run_and_the_test_instead(collect, trained):
    """Over itself it is 0; the test of the first checkpoint gives what was validated after the first epoch."""
    (first, second), printed = collect('work', '--reference', 'work/seed0')
    assert float(first['gain']) == 0.0
    tasks = ('semseg.mIoU', 'saliency.mIoU')
    ratios = [(float(second[t]) - float(first[t])) / float(first[t]) for t in tasks]
    assert float(second['gain']) == pytest.approx(100 * sum(ratios) / 2)
    assert 'so that it is no single-task run' in printed
    (tested, untested), printed = collect('work', 'tests', '--select', 'test')
    assert tested['result'] == 'test of epoch_1.pth'
    *_, after_first = logged(trained / 'tests/one', r'Epoch\(test\) \[2/2\].* saliency\.mIoU: ([\d.]+)')
    assert float(tested['saliency.mIoU']) == pytest.approx(float(after_first), abs=1e-4)
    assert untested['saliency.mIoU'] == '' and 'note: seed1: no result of a test' in printed


@pytest.mark.integration
def test_all_figures_in_all_formats(tools, trained):
    arguments = ['--reference', 'work/seed0', '--paper', '--format', 'png', 'svg', 'pdf', '--out', 'figures']
    _, printed = tools.start('analysis/plot_results.py', 'work', *arguments, cwd=trained)
    starts = dict(png=b'\x89PNG', svg=b'<?xml', pdf=b'%PDF')
    for plot in ('tradeoff', 'losses', 'validations'):
        for form, start in starts.items():
            path = Path('figures') / f'{plot}.{form}'
            assert (trained / path).read_bytes().startswith(start) and str(path) in printed
    drawn = (trained / 'figures/tradeoff.svg').read_text()
    assert 'id="paper"' in drawn and 'id="ours"' in drawn


@pytest.mark.integration
def test_seeds_in_one_row_beside_the_papers(tools, collect, trained):
    """As a user sees it; the mean is that of the rows of the seeds."""
    apart, _ = collect('work')
    arguments = ['--spread', '--paper', '--reference', 'paper_pascal_context_swin_t', '--format', 'markdown']
    _, printed = tools.start('collect_results.py', 'work', *arguments, cwd=trained)
    _, _, ours, *theirs = (re.sub(' +', ' ', line) for line in printed.splitlines() if line.startswith('| '))
    values = [float(row['saliency.mIoU']) for row in apart]
    assert f'| {statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} |' in ours
    assert ours.startswith('| seed0 | seed0, seed1 |') and ours.endswith('| 2 |')
    assert len(theirs) == sum('(paper) | PASCAL-Context, Swin-T |' in line for line in theirs) == 17
    assert 'figures as it prints them, not results of these runs' in printed


@pytest.mark.integration
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['collect_results.py', 'nowhere'], 'nowhere: no such folder'),
        (['collect_results.py', 'figs'], 'figs: no run in it or below'),
        (['collect_results.py', 'work', '--reference', 'nowhere'], '--reference nowhere: neither a folder'),
        (['collect_results.py', 'work', '--metrics', 'semseg.maxF'], 'no run has semseg.maxF; there are ['),
        (['collect_results.py', 'work', '--select', 'best', '--best-by', 'x'], "no validation has 'x'"),
        (
            ['collect_results.py', 'work', '--best-by', 'semseg.mIoU'],
            'goes with --select best, not with --select last',
        ),
        (['analysis/plot_results.py', 'nowhere'], 'nowhere: no such folder'),
        (['analysis/plot_results.py', 'work', '--smooth', '0'], '--smooth and --dpi must be positive'),
        (['analysis/plot_results.py', 'work', '--out', 'f'], "no tradeoff: no row has both 'gain'"),
    ],
)
def test_wrong_arguments_are_answered(tools, trained, arguments, message):
    (trained / 'figs').mkdir(exist_ok=True)
    (status,), printed = tools.start(*arguments, cwd=trained, expect=None)
    assert status != 0 and message in printed and 'Traceback' not in printed


@pytest.mark.integration
@pytest.mark.parametrize('tool', ['collect_results.py', 'analysis/plot_results.py'])
def test_help_has_examples(tools, tmp_path, tool):
    _, printed = tools.start(tool, '--help', cwd=tmp_path)
    assert printed.count(f'python tools/{tool}') >= 4
