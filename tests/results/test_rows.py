"""Rows of results: which evaluation counts, the gain by hand, parameters by hand, seeds, the paper's rows."""

from __future__ import annotations

import math
import statistics

import pytest

from mmseg_polyhistor.benchmark import BenchmarkRow, read_benchmark
from mmseg_polyhistor.results.rows import (
    Reference,
    gain_over,
    lower_is_better,
    make_rows,
    merge_seeds,
    paper_rows,
    protocols,
)
from mmseg_polyhistor.results.runs import read_run, read_runs
from mmseg_polyhistor.results.table import metrics_of
from mmseg_polyhistor.tasks import known_tasks

TEST, NEXT = '20260201_000000', '20260202_000000'
REFERENCE = dict(semseg=40.0, normals=20.0)
#: semseg 50 is 25 % above 40; normals 25 degrees are 25 % above 20, which is worse; the mean is 0.
#: After epoch 1 both are as the reference, and the gain is 0 as well.


@pytest.fixture
def rows_of():
    """A function: runs -> their rows, and the remarks."""

    def make(*folders, benchmark=(), **options):
        remarks = []
        return make_rows([read_run(f) for f in folders], benchmark, remarks, **options), remarks

    return make


def test_one_row_by_hand(make_run, rows_of):
    (row,), remarks = rows_of(make_run(), reference=dict(semseg=20.0, normals=50.0))
    assert (row.method, row.name) == ('method/config', 'method/config')
    assert row.values['semseg.mIoU'] == 50.0 and row.values['normals.mean'] == 25.0
    # (50 - 20) / 20 = 150 %, and normals fell by half, which is 50 %: (150 + 50) / 2
    assert row.values['gain'] == pytest.approx(100.0)
    assert (row.encoder, row.total) == (224, 224 + 51)
    assert (row.seconds, row.memory, row.trained, row.source) == (0.5, None, '2/2 epochs', 'val, epoch 2')
    assert row.tasks == ('semseg', 'normals') and remarks == []


def test_no_reference_no_gain(make_run, rows_of, lines):
    """Nor the gain that the run logged, which had a reference of its own."""
    folder = make_run(starts={'20260101_000000': [lines.train(20, 2), lines.val(2, 1.0, 1.0, gain=5.0)]})
    (row,), _ = rows_of(folder)
    assert 'gain' not in row.values
    (row,), _ = rows_of(folder, reference=dict(semseg=2.0, normals=2.0))
    assert row.values['gain'] == pytest.approx(0.0)  # -50 % and +50 %


@pytest.fixture
def curve(make_run, lines):
    """Three validations: the gain is best after the second epoch, semseg after the third, the normals after the first."""
    found = [(1, 40.0, 16.0, 1.0), (2, 60.0, 18.0, 3.0), (3, 62.0, 20.0, 2.0)]
    rows = [lines.train(5)]
    rows += [lines.val(step, semseg, normals, gain=gain) for step, semseg, normals, gain in found]
    return make_run(
        starts={'20260101_000000': rows}, tests={TEST: ({'semseg.mIoU': 30.0}, 'x/best_semseg.pth')}
    )


@pytest.mark.parametrize(
    ('options', 'source', 'semseg'),
    [
        (dict(), 'val, epoch 3', 62.0),
        (dict(select='best', reference=REFERENCE), 'val, epoch 2', 60.0),  # 10, 30 and 27.5 %
        (dict(select='best'), 'val, epoch 2', 60.0),  # by the gain that the run logged
        (dict(select='best', best_by='semseg.mIoU'), 'val, epoch 3', 62.0),
        (dict(select='best', best_by='normals.mean'), 'val, epoch 1', 40.0),
        (dict(select='test'), 'test of best_semseg.pth', 30.0),
    ],
    ids=['last', 'gain', 'logged gain', 'greater', 'less', 'test'],
)
def test_which_evaluation_counts(curve, rows_of, options, source, semseg):
    (row,), _ = rows_of(curve, **options)
    assert (row.source, row.values['semseg.mIoU']) == (source, semseg)


def test_the_best_of_what_nobody_measured(make_run, rows_of):
    with pytest.raises(ValueError, match=r"no validation has 'gain'.* Give --reference .*'semseg.mIoU'"):
        rows_of(make_run(), select='best')


def test_nan_is_never_the_best(make_run, rows_of, lines):
    rows = [lines.train(5), lines.val(1, 1.0, 1.0), lines.val(2, float('nan'), 1.0)]
    folder = make_run(starts={'20260101_000000': rows})
    (row,), _ = rows_of(folder, select='best', best_by='semseg.mIoU')
    assert row.source == 'val, epoch 1'
    (row,), remarks = rows_of(folder, reference=REFERENCE)
    assert math.isnan(row.values['gain']) and 'method/config: semseg is nan' in remarks


def test_nan_everywhere(make_run, rows_of, lines):
    """One run that diverged does not keep the others out of the table."""
    nan = float('nan')
    rows = [lines.train(5), lines.val(1, nan, 1.0), lines.val(2, nan, 1.0)]
    (row,), remarks = rows_of(make_run(starts={'20260101_000000': rows}), select='best', reference=REFERENCE)
    assert row.source == 'val, epoch 2'
    assert 'method/config: gain is nan in all validations, the last one counts' in remarks


def test_a_run_without_validation(make_run, rows_of, lines):
    """Its row is there, with its last test or without a result, and a remark says so."""
    train = {'20260101_000000': [lines.train(20, 2)]}
    tests = {NEXT: ({'semseg.mIoU': 2.0}, None), TEST: ({'semseg.mIoU': 1.0}, None)}
    (tested, bare), remarks = rows_of(
        make_run('a/tested', train, tests=tests), make_run('a/bare', train), reference=REFERENCE
    )
    assert (tested.source, tested.values['semseg.mIoU']) == ('test', 2.0)
    assert bare.values == {} and bare.source == '' and bare.total == 275
    assert 'a/tested: no validation is logged, the last test counts' in remarks
    assert 'a/bare: no validation is logged' in remarks and 'a/bare: no result' in remarks
    assert 'a/tested: its gain is the mean over semseg, without normals' in remarks
    assert tested.values['gain'] == pytest.approx(-95.0)


def test_a_reference_that_lacks_a_task(make_run, rows_of):
    (row,), remarks = rows_of(make_run(), reference=dict(semseg=40.0))
    assert 'gain' not in row.values
    assert 'method/config: no gain: the reference has no normals' in remarks


def test_results_of_no_known_task(make_run, rows_of, lines):
    folder = make_run(starts={'20260101_000000': [lines.train(5), {'mse': 1.0, 'step': 1}]})
    (row,), remarks = rows_of(folder)
    assert row.tasks == () and row.values == {'mse': 1.0}
    assert "method/config: no task is known whose metric is among its results ['mse']" in remarks


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(backbone='NoSuchBackbone'), 'its parameters cannot be counted: KeyError'),
        (
            dict(more="custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)\n"),
            'its parameters cannot be counted: ImportError',
        ),
        (dict(more='del model\n'), 'its config has no model'),
    ],
    ids=['unknown', 'import', 'no model'],
)
def test_parameters_that_cannot_be_counted(make_run, rows_of, options, message):
    (row,), remarks = rows_of(make_run(**options))
    assert (row.encoder, row.total) == (None, None) and row.values['semseg.mIoU'] == 50.0
    assert any(message in remark for remark in remarks)


def test_parameters_of_a_real_config(make_run, rows_of, repo):
    """Beside those that the metafile records."""
    text = f'_base_ = [{str(repo / "configs/polyhistor_lite/swin-pico_mini-pascal.py")!r}]\n'
    folder = make_run()
    (folder / '20260101_000000/vis_data/config.py').write_text(text)
    (row,), _ = rows_of(folder)
    recorded = {r.name: r for r in read_benchmark(repo / 'model-index.yml')}[
        'polyhistor_lite_swin-pico_mini-pascal'
    ]
    assert (row.encoder, row.total) == (recorded.encoder, recorded.total)


CLOUDS = dict(name='clouds', kind='binary')
MAPS = dict(name='maps', kind='semantic')


def test_a_task_that_the_config_brings_along(make_own_run, rows_of):
    before = known_tasks()
    (row,), remarks = rows_of(
        make_own_run('a/b', CLOUDS, dict(mIoU=12.0, maxF=30.0)), reference=dict(clouds=10.0)
    )
    assert row.tasks == ('clouds',) and remarks == [] and row.total > 0
    assert row.values['gain'] == pytest.approx(20.0)
    assert known_tasks() == before  # another run's are others


def test_tasks_of_one_name_are_each_runs_own(make_own_run, rows_of):
    """They differ in the number of classes; both models are built, in either order."""
    folders = [make_own_run(f'r/{n}', dict(MAPS, channels=n), dict(mIoU=40.0, aAcc=90.0)) for n in (4, 9)]
    found = {}
    for order in (folders, folders[::-1]):
        rows, remarks = rows_of(*order)
        assert remarks == [] and all(row.tasks == ('maps',) for row in rows)
        found.update({(row.name, order is folders): row.total for row in rows})
    assert found['r/4', True] == found['r/4', False]
    assert found['r/9', True] == found['r/9', False]
    assert found['r/9', True] - found['r/4', True] == 5 * (8 + 1)  # the classifier's weights and biases


def test_a_task_whose_model_cannot_be_built_has_its_results(make_own_run, rows_of, tmp_path):
    """The file of its classes was moved: no parameters, all the rest."""
    gone = dict(MAPS, classes=str(tmp_path / 'classes.txt'), metric='mAcc')
    folder = make_own_run('a/b', gone, dict(mIoU=40.0, aAcc=90.0, mAcc=60.0))
    (row,), remarks = rows_of(folder, reference=dict(maps=50.0))
    assert row.tasks == ('maps',) and row.total is None
    assert row.values['gain'] == pytest.approx(20.0)
    (told,) = remarks
    assert 'its parameters cannot be counted: FileNotFoundError: ' in told and 'classes.txt' in told
    assert metrics_of([row]) == ['maps.mAcc']


@pytest.mark.parametrize(('metric', 'gain', 'best'), [('delta1', 12.5, 2), ('rmse', -12.5, 1)])
def test_direction_and_metric_are_those_of_the_runs_row(make_own_run, rows_of, metric, gain, best):
    row = dict(name='deep', kind='scalar', metric=metric)
    values = [dict(rmse=value, abs_rel=0.1, delta1=value) for value in (80.0, 90.0)]
    folder = make_own_run('a/b', row, *values)
    (found,), _ = rows_of(folder, reference=dict(deep=80.0))
    assert found.values['gain'] == pytest.approx(gain)
    for by in ('gain', f'deep.{metric}'):
        (found,), _ = rows_of(folder, reference=dict(deep=80.0), select='best', best_by=by)
        assert found.source == f'val, epoch {best}'


def test_a_broken_row_costs_its_task_alone(make_own_run, rows_of):
    for number, row in enumerate([dict(name='odd', kind='oddity'), dict(name='odd', kind=['binary'])]):
        (found,), remarks = rows_of(make_own_run(f'r/{number}', row, dict(oddness=1.0)))
        assert found.tasks == () and found.values == {'odd.oddness': 1.0}
        assert any('kind must be one of' in remark for remark in remarks)


def test_a_task_that_is_lost_has_a_column_by_its_metrics(make_run, rows_of, lines):
    """A module that registered it is gone: the usual metric of what was logged is shown, and no gain is made of it."""
    values = {'lost.rmse': 0.5, 'lost.abs_rel': 0.1, 'lost.delta1': 80.0}
    folder = make_run(starts={'20260101_000000': [lines.train(20, 2), lines.val(2, 50.0, 20.0, **values)]})
    (row,), remarks = rows_of(folder, reference={**REFERENCE, 'lost': 1.0})
    assert metrics_of([row]) == ['semseg.mIoU', 'normals.mean', 'lost.rmse']
    assert row.values['gain'] == pytest.approx(12.5)  # of semseg and normals: 25 % and 0
    assert any("the task 'lost' is not known: the table shows its rmse" in remark for remark in remarks)


def test_a_reference_of_another_metric_gives_no_gain(make_own_run, rows_of):
    reference = Reference(dict(clouds=50.0), metrics=dict(clouds='clouds.maxF'))
    (row,), remarks = rows_of(make_own_run('a/b', CLOUDS, dict(mIoU=12.0, maxF=30.0)), reference=reference)
    assert 'gain' not in row.values
    assert remarks == ['a/b: no gain: the reference holds clouds.maxF, and not clouds.mIoU']


@pytest.mark.parametrize(
    ('name', 'config_name', 'more', 'method'),
    [
        ('work/lora/swin-t_pascal', 'swin-t_pascal', '', 'LoRA'),
        ('work/lora/r_plain', 'plain_swin-t_pascal', '', 'LoRA, plain'),
        ('work/lora/swin-t_pascal_seed1', 'swin-t_pascal', '', 'LoRA'),
        ('work/moved', 'swin-t_pascal', "work_dir = 'work_dirs/lora/swin-t_pascal'\n", 'LoRA'),
        ('work/lora/mine', 'mine', '', 'lora/mine'),
    ],
)
def test_names_of_methods(make_run, rows_of, repo, name, config_name, more, method):
    benchmark = read_benchmark(repo / 'model-index.yml')
    (row,), _ = rows_of(make_run(name, config_name=config_name, more=more), benchmark=benchmark)
    assert row.method == method


# ------------------------------------------------------------------------------------------------------------- seeds
@pytest.fixture
def seeds(make_run, lines):
    """Three seeds with 40, 50 and 60 % mIoU, and a run of another recipe."""
    for seed, semseg in enumerate((40.0, 50.0, 60.0)):
        rows = [
            lines.train(20, 2, time=0.1 * (seed + 1), memory=100 + seed),
            lines.val(2, semseg, 20.0 + seed),
        ]
        make_run(
            f'runs/a/seed{seed}',
            {'20260101_000000': rows},
            seed=seed,
            more=f'work_dir = "w{seed}"\nresume = {bool(seed)}\n',
        )
    return make_run('runs/b', more='optim_wrapper = dict(lr=1)\n').parent


def test_seeds_become_one_row(seeds):
    remarks = []
    runs = read_runs([seeds])
    rows = make_rows(runs, (), remarks, reference=REFERENCE)
    mean, other = merge_seeds(runs, rows, remarks)
    assert (mean.runs, other.runs) == (3, 1) and other is rows[3]
    assert mean.name == 'a/seed0, a/seed1, a/seed2'
    assert mean.values['semseg.mIoU'] == pytest.approx(50.0)
    assert mean.spread['semseg.mIoU'] == pytest.approx(10.0)  # sqrt((100 + 0 + 100) / 2)
    gains = [100 * ((s - 40) / 40 - (n - 20) / 20) / 2 for s, n in [(40, 20), (50, 21), (60, 22)]]
    assert mean.values['gain'] == pytest.approx(statistics.fmean(gains))
    assert mean.spread['gain'] == pytest.approx(statistics.stdev(gains))
    assert (mean.seconds, mean.memory, mean.total) == (pytest.approx(0.2), 102, 275)
    assert mean.trained == '2/2 epochs' and mean.source == 'val, epoch 2'
    assert not remarks


def test_seeds_of_which_one_has_no_result(make_run, lines):
    make_run('r/a', seed=1)
    make_run('r/b', {'20260101_000000': [lines.train(5)]}, seed=1)
    runs = read_runs([make_run('r/c', seed=2).parent])
    remarks = []
    (mean,) = merge_seeds(runs, make_rows(runs, (), []), remarks)
    assert mean.values == {} and mean.runs == 3
    assert 'b: no mean of semseg.mIoU, semseg.aAcc, normals.mean, normals.rmse over the seeds' in remarks[1]
    assert remarks[0] == 'a, b, c: runs of one config with the seeds [1, 1, 2]'
    assert mean.trained == '2/2 epochs; 0/2 epochs'


def test_what_changes_the_training_makes_another_config(make_run):
    """A moving average does; the intervals of the log and of checkpoints do not."""
    make_run('r/a')
    make_run('r/b', more="default_hooks = dict(logger=dict(type='LoggerHook', interval=7))\n")
    runs = read_runs([make_run('r/c', more="custom_hooks = [dict(type='EMAHook')]\n").parent])
    assert [row.runs for row in merge_seeds(runs, make_rows(runs, (), []), [])] == [2, 1]


def test_runs_without_a_config_are_never_merged(make_run):
    for name in 'ab':
        for path in make_run(f'r/{name}').rglob('*.py'):
            path.unlink()
    runs = read_runs([make_run('r/c').parent])
    assert len(merge_seeds(runs, make_rows(runs, (), []), [])) == 3


# ------------------------------------------------------------------------------------------------ the paper, the rest
def test_the_papers_rows(repo):
    rows = paper_rows(read_benchmark(repo / 'model-index.yml'))
    lite = next(row for row in rows if row.method == 'Polyhistor-Lite')
    assert (lite.encoder, lite.total, lite.paper) == (410_000, 2_960_000, True)
    assert lite.values == {
        'semseg.mIoU': 70.24, 'human_parts.mIoU': 59.12, 'saliency.mIoU': 64.75, 'normals.mean': 17.40, 'gain': 1.74
    }  # fmt: skip
    assert 'PASCAL-Context' in lite.name and len(rows) == 17


def test_a_method_without_a_row_of_the_paper_has_none(repo):
    row = BenchmarkRow(
        name='x', method='x', config=repo / 'x.py', backbone='', pretraining='', encoder=1, total=1, paper=None
    )  # fmt: skip
    assert paper_rows([row]) == []


def test_gain_over_a_row():
    values = dict(normals=9.0, semseg=44.0)
    assert gain_over(dict(semseg=40.0, normals=10.0, saliency=1.0), values) == pytest.approx(10.0)
    assert gain_over(None, values) is None and gain_over(dict(semseg=1.0), values) is None
    assert gain_over(dict(semseg=1.0), {}) is None


@pytest.mark.parametrize(
    ('metric', 'expected'),
    [
        ('semseg.mIoU', False), ('normals.mean', True), ('normals.rmse', True), ('normals.under_11.25', False),
        ('depth.abs_rel', True), ('depth.delta1', False), ('gain', False), ('aAcc', False), ('mse', None),
    ],
)  # fmt: skip
def test_directions(metric, expected):
    assert lower_is_better(metric) is expected


def test_the_best_by_a_metric_of_unknown_direction_is_refused(make_run, rows_of, lines):
    folder = make_run(starts={'20260101_000000': [lines.train(5), {'mse': 1.0, 'step': 1}]})
    with pytest.raises(ValueError, match=r"whether a higher or a lower 'mse' is better is not known"):
        rows_of(folder, select='best', best_by='mse')


def test_protocols(make_run):
    make_run('r/a')
    make_run('r/b')
    other = "val_dataloader = dict(dataset=dict(type='PascalContextMTDataset', data_root='mini', ann_file='val.txt'))\n"
    runs = read_runs([make_run('r/c', more=other).parent])
    assert protocols(runs) == {
        'PascalContextMTDataset, data, val.txt': ['a', 'b'],
        'PascalContextMTDataset, mini, val.txt': ['c'],
    }
