"""The reference of the gain: a preset, a file, one run, several runs."""

from __future__ import annotations

import pytest

from mmseg_polyhistor.evaluation import REFERENCE_ROWS
from mmseg_polyhistor.results.reference import read_reference
from mmseg_polyhistor.results.rows import tasks_of
from mmseg_polyhistor.results.runs import read_run

START = '20260101_000000'
PRESET = 'paper_pascal_context_swin_t'


def test_a_preset():
    assert read_reference([PRESET], []) == REFERENCE_ROWS[PRESET]


@pytest.mark.parametrize(
    ('name', 'text'),
    [('row.json', '{"semseg": 60, "normals": 18.5}'), ('row.yml', 'semseg: 60\nnormals: 18.5\n')],
)
def test_a_file(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert read_reference([str(path)], []) == dict(semseg=60, normals=18.5)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"semseg": 60', 'row.json: '),
        ('[1, 2]', 'row.json: it must map tasks to values'),
        ('{"semseg": 0}', "the reference of task 'semseg' must be a positive mIoU"),
        ('{"semsegs": 60}', "unknown task 'semsegs'"),
    ],
    ids=['broken', 'list', 'zero', 'task'],
)
def test_a_wrong_file(tmp_path, text, message):
    path = tmp_path / 'row.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_reference([str(path)], [])


def test_one_run_with_all_tasks_at_its_last_validation(make_run):
    """Its tasks share an encoder here, which a row of single-task models must not: said."""
    remarks = []
    assert read_reference([str(make_run())], remarks) == dict(semseg=50.0, normals=25.0)
    assert remarks == [
        'reference method/config: 2 tasks share its BackboneOfResults, so that it is no single-task run'
    ]


def test_a_run_of_an_encoder_per_task_is_as_it_should_be(make_run):
    more = (
        "model['backbone'] = dict(type='TaskEncoders', tasks=tasks, encoder=dict(type='BackboneOfResults'))\n"
    )
    remarks = []
    read_reference([str(make_run(more=more))], remarks)
    assert not any('single-task' in remark for remark in remarks)


@pytest.fixture
def single(make_run, lines):
    """A function: a run of one task, with a value."""

    def make(name, task, value, **options):
        key = dict(semseg='semseg.mIoU', normals='normals.mean')[task]
        starts = {START: [lines.train(20, 2), {key: value, 'step': 2}]}
        return str(make_run(f'runs/{name}', starts, tasks=(task,), **options))

    return make


def test_several_runs_with_some_tasks_each_and_the_mean_of_seeds(single):
    sources = [
        single('semseg/0', 'semseg', 60.0),
        single('semseg/1', 'semseg', 62.0, seed=1),
        single('n', 'normals', 18.0),
    ]
    remarks = []
    assert read_reference(sources, remarks) == dict(semseg=61.0, normals=18.0)
    assert remarks == ['reference: semseg is the mean of 2 runs']


def test_a_folder_with_all_of_them(single, tmp_path):
    single('semseg', 'semseg', 60.0)
    single('n', 'normals', 18.0)
    assert read_reference([str(tmp_path / 'runs')], []) == dict(semseg=60.0, normals=18.0)


def test_the_test_instead(make_run):
    folder = make_run(tests={'20260102_000000': ({'semseg.mIoU': 7.0}, None)})
    assert read_reference([str(folder)], [], select='test') == dict(semseg=7.0)


def test_two_configs_with_one_task_are_refused(single):
    one = single('a', 'semseg', 60.0)
    other = single('b', 'semseg', 61.0, more='optim_wrapper = dict(lr=1)\n')
    with pytest.raises(ValueError, match=r"runs/a and .*runs/b are runs of different configs.*'semseg'"):
        read_reference([one, other], [])


def test_what_cannot_be_a_reference(make_run, lines, tmp_path):
    with pytest.raises(FileNotFoundError, match=f'neither a folder with runs, nor alone one of .*{PRESET}'):
        read_reference(['nowhere'], [])
    with pytest.raises(FileNotFoundError, match='neither a folder'):
        read_reference([PRESET, PRESET], [])
    bare = make_run('bare', {START: [lines.train(5)]})
    with pytest.raises(ValueError, match='bare: the run has no result of any task'):
        read_reference([str(bare)], [])
    nan = make_run('nan', {START: [lines.train(5), lines.val(1, float('nan'), 1.0)]})
    with pytest.raises(ValueError, match="reference of task 'semseg' must be a positive mIoU"):
        read_reference([str(nan)], [])


def test_an_unfinished_reference_is_told(make_run, lines):
    folder = make_run(starts={START: [lines.train(5), lines.val(1, 1.0, 1.0)]})
    remarks = []
    read_reference([str(folder)], remarks)
    assert 'reference method/config: unfinished: 1/2 epochs' in remarks


def test_tasks_that_configs_define(make_own_run, tmp_path):
    """A file may name them if the runs do; the metric of a run's value is kept."""
    deep = dict(name='deep', kind='scalar', metric='delta1')
    folder = make_own_run('r/one', deep, dict(rmse=0.5, delta1=80.0))
    found = read_reference([str(folder)], [])
    assert found == dict(deep=80.0) and found.metrics == dict(deep='deep.delta1')
    path = tmp_path / 'row.json'
    path.write_text('{"deep": 75.0}')
    tasks = tasks_of(read_run(folder))
    assert read_reference([str(path)], [], tasks=tasks) == dict(deep=75.0)
    with pytest.raises(ValueError, match="unknown task 'deep'"):
        read_reference([str(path)], [])


def test_runs_whose_task_has_two_metrics_are_no_reference(make_own_run):
    one, other = (
        make_own_run(
            f'r/{metric}', dict(name='deep', kind='scalar', metric=metric), dict(rmse=0.5, delta1=80.0)
        )
        for metric in ('rmse', 'delta1')
    )
    with pytest.raises(ValueError, match="different configs, and both have the task 'deep'"):
        read_reference([str(one), str(other)], [])
