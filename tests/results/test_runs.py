"""Reading work dirs: several starts, broken lines, unfinished runs, tests."""

from __future__ import annotations

import pytest

from mmseg_polyhistor.results.runs import find_runs, read_run, read_runs

FIRST, SECOND, THIRD = '20260101_000000', '20260102_000000', '20260103_000000'
ITER_CONFIG = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=40)
default_hooks = dict(logger=dict(type='LoggerHook', log_metric_by_epoch=False))
"""


def iterations(run):
    return [row['iter'] for row in run.train]


def said(run, text):
    return any(text in remark for remark in run.remarks)


def test_a_run_of_one_start(make_run):
    run = read_run(make_run())
    assert (run.name, run.config_name, run.seed) == ('method/config', 'config', 0)
    assert iterations(run) == [5, 10, 15, 20]
    assert [(v.step, v.iteration) for v in run.validations] == [(1, 10), (2, 20)]
    assert run.validations[1].values == {
        'semseg.mIoU': 50.0, 'semseg.aAcc': 90.0, 'normals.mean': 25.0, 'normals.rmse': 40.0
    }  # fmt: skip
    assert str(run.progress) == '2/2 epochs' and run.progress.finished
    assert (run.tests, run.remarks, run.memory) == ((), (), None)


def test_time_is_the_median_and_memory_the_maximum(make_run, lines):
    """The time of a validation is not among them."""
    rows = [
        lines.train(i, time=t, memory=m)
        for i, t, m in [(5, 9.0, 100), (10, 1.0, 300), (15, 2.0, 200), (20, 3.0, 250)]
    ]
    run = read_run(make_run(starts={FIRST: [*rows, lines.val(2, 1.0, 1.0)]}))
    assert run.seconds_per_iteration == 2.5
    assert run.memory == 300


def test_a_resumed_run_is_one_run(make_run, lines):
    """Killed at iteration 24, resumed at 20: what the first start did after 20 led to nothing."""
    first = [*lines.whole, lines.train(22, 3, loss=9.0), lines.train(24, 3, loss=9.0)]
    second = [lines.train(22, 3), lines.train(24, 3), lines.train(26, 3), lines.val(3, 60.0, 20.0)]
    run = read_run(make_run(starts={SECOND: second, FIRST: first}, more='train_cfg = dict(max_epochs=3)\n'))
    assert iterations(run) == [5, 10, 15, 20, 22, 24, 26]
    assert [row['loss'] for row in run.train] == [2.0] * 7
    assert [(v.step, v.iteration) for v in run.validations] == [(1, 10), (2, 20), (3, 26)]
    assert said(run, f'the start of {SECOND} replaces 2 logged steps and 0 validations')


def test_a_later_start_replaces_what_came_after_its_first_step(make_run, lines):
    """The validation of the second epoch, of the earlier start, is of weights that are gone."""
    run = read_run(make_run(starts={FIRST: lines.whole, SECOND: [lines.train(15, 2, loss=1.0)]}))
    assert [(row['iter'], row['loss']) for row in run.train] == [(5, 2.0), (10, 2.0), (15, 1.0)]
    assert [v.step for v in run.validations] == [1]
    assert said(run, 'replaces 2 logged steps and 1 validations')
    assert not run.progress.finished


def test_a_start_from_the_beginning_replaces_everything(make_run, lines):
    run = read_run(make_run(starts={FIRST: lines.whole, SECOND: [lines.train(5, loss=1.0)]}))
    assert [row['loss'] for row in run.train] == [1.0]
    assert run.validations == ()


def test_a_start_that_only_validates_replaces_the_validation_of_its_step(make_run, lines):
    run = read_run(make_run(starts={FIRST: lines.whole, SECOND: [lines.val(2, 77.0, 1.0)]}))
    assert [(v.step, v.iteration, v.values['semseg.mIoU']) for v in run.validations] == [
        (1, 10, 40.0),
        (2, 20, 77.0),
    ]
    assert len(run.train) == 4


def test_a_run_that_counts_iterations(make_run, lines):
    """mmengine logs no epoch then, and the steps of validations are iterations."""

    def train(i):
        row = lines.train(i)
        del row['epoch']
        return row

    first = [train(5), lines.val(8, 1.0, 1.0), train(10), lines.val(16, 2.0, 1.0)]
    second = [train(15), lines.val(16, 3.0, 1.0), train(20), lines.val(24, 4.0, 1.0)]
    run = read_run(make_run(starts={FIRST: first, SECOND: second}, more=ITER_CONFIG))
    found = [(v.step, v.iteration, v.values['semseg.mIoU']) for v in run.validations]
    assert found == [(8, 8, 1.0), (16, 16, 3.0), (24, 24, 4.0)]
    assert str(run.progress) == '24/40 iterations'
    assert said(run, 'unfinished: 24/40 iterations')


def test_keys_with_their_mode_in_front(make_run, lines):
    """`LogProcessor(log_with_hierarchy=True)` and an evaluator with a prefix."""
    rows = [
        {'train/loss': 1.0, 'train/time': 0.25, 'epoch': 1, 'iter': 5, 'step': 5},
        {'val/mine/semseg.mIoU': 33.0, 'val/time': 1.0, 'step': 1},
    ]
    run = read_run(make_run(starts={FIRST: rows}))
    assert run.seconds_per_iteration == 0.25 and run.losses == ('loss',)
    assert run.validations[0].values == {'semseg.mIoU': 33.0}


@pytest.mark.parametrize(
    ('tail', 'message'),
    [
        ('{"loss": 1.0, "it', 'scalars.json: line 7, the last, is broken'),
        ('\x00\x00\xff', 'scalars.json: line 7, the last, is broken'),
        ('3\n', 'scalars.json: line 7, the last, is broken'),
        ('{"iter": "twenty"}', 'scalars.json: line 7, the last, is broken'),
    ],
    ids=['cut off', 'zeros', 'no object', 'no number'],
)
def test_a_line_broken_by_a_kill_is_told(make_run, lines, tail, message):
    run = read_run(make_run(starts={FIRST: [*lines.whole, tail]}))
    assert said(run, message)
    assert iterations(run) == [5, 10, 15, 20] and len(run.validations) == 2


def test_a_broken_line_in_the_middle_costs_that_line_alone(make_run, lines):
    run = read_run(make_run(starts={FIRST: [lines.train(5), '{"loss"\n', lines.train(15, 2)]}))
    assert said(run, 'line 2 is broken')
    assert iterations(run) == [5, 15]


def test_nan_is_a_value(make_run, lines):
    run = read_run(make_run(starts={FIRST: [lines.train(5), lines.val(1, float('nan'), 1.0)]}))
    assert run.validations[0].values['semseg.mIoU'] != run.validations[0].values['semseg.mIoU']


def test_how_far_it_came(make_run, lines):
    """Three of ten logged steps into the third of five epochs; the length of an epoch follows from the log."""
    more = 'train_cfg = dict(max_epochs=5)\n'
    rows = [lines.train(i, 1 + (i - 1) // 10) for i in range(2, 25, 2)]
    run = read_run(make_run('a', starts={FIRST: rows}, more=more))
    assert run.progress.done == pytest.approx(2.4)
    assert said(run, 'unfinished: 2.4/5 epochs') and said(run, 'no validation is logged')


def test_the_last_checkpoint_tells_what_the_log_leaves_out(make_run, lines):
    """Iterations after the last logged one of an epoch; and a run of which one epoch alone is logged."""
    rows = [lines.train(4), lines.train(8), lines.train(14, 2), lines.train(18, 2)]
    assert str(read_run(make_run('a', starts={FIRST: rows})).progress) == '1.8/2 epochs'
    run = read_run(make_run('b', starts={FIRST: rows}, last_checkpoint='epoch_2.pth'))
    assert str(run.progress) == '2/2 epochs'
    run = read_run(make_run('c', starts={FIRST: rows[:2]}, last_checkpoint='epoch_1.pth'))
    assert str(run.progress) == '1/2 epochs'
    assert str(read_run(make_run('d', starts={FIRST: rows[:1]})).progress) == '0/2 epochs'


def test_almost_finished_is_not_rounded_to_finished(make_run, lines):
    rows = [lines.train(1), lines.train(101, 2), lines.train(199, 2)]
    run = read_run(make_run(starts={FIRST: rows}))
    assert run.progress.done == 1.99 and str(run.progress) == '1.9/2 epochs'


def test_losses_by_name_the_sum_last(make_run, lines):
    rows = [lines.train(5, loss_normals=1.0), lines.train(10, **{'decode.loss_ce': 1.0})]
    assert read_run(make_run(starts={FIRST: rows})).losses == ('loss_normals', 'decode.loss_ce', 'loss')


def test_nothing_was_logged(make_run):
    run = read_run(make_run(starts={FIRST: []}))
    assert run.progress is None and said(run, 'nothing is logged')


def test_without_a_config(make_run):
    folder = make_run()
    for path in folder.rglob('*.py'):
        path.unlink()
    run = read_run(folder)
    assert (run.config, run.config_name, run.seed) == (None, None, None)
    assert said(run, 'there is no config in it') and str(run.progress) == '2 epochs'
    scalars = folder / FIRST / 'vis_data' / 'scalars.json'
    scalars.write_text('{"loss": 1.0, "iter": 7, "step": 7}\n')  # as a run that counts iterations logs
    assert str(read_run(folder).progress) == '7 iterations'


def test_a_config_that_is_broken(make_run):
    folder = make_run()
    (folder / FIRST / 'vis_data' / 'config.py').write_text('model = dict(')
    run = read_run(folder)
    assert run.config is None and said(run, 'config.py cannot be read (SyntaxError')


def test_the_config_of_the_last_training_counts(make_run, lines):
    """Not the one of a later test, and not that of an earlier start."""
    folder = make_run(
        starts={FIRST: lines.whole, SECOND: [lines.train(25, 3)]}, tests={THIRD: ({'semseg.mIoU': 1.0}, None)}
    )
    path = folder / SECOND / 'vis_data' / 'config.py'
    path.write_text(path.read_text() + 'train_cfg = dict(max_epochs=9)\n')
    assert str(read_run(folder).progress).endswith('/9 epochs')


# ----------------------------------------------------------------------------------------------------------- tests
def test_results_of_a_test(make_run):
    values = {'semseg.mIoU': 44.0, 'normals.mean': 22.0, 'time': 1.0, 'data_time': 0.1}
    tests = {SECOND: (values, '/x/epoch_1.pth'), THIRD: ('{"semseg.mIoU": 4', None)}
    run = read_run(make_run(tests=tests))
    (test,) = run.tests
    assert test.values == {'semseg.mIoU': 44.0, 'normals.mean': 22.0}
    assert (test.step, test.checkpoint) == (None, 'epoch_1.pth')
    assert said(run, f'{THIRD}/{THIRD}.json is broken')


def test_a_test_in_a_folder_of_its_own_goes_to_its_run(make_run, tmp_path):
    result = {SECOND: ({'semseg.mIoU': 44.0}, None)}
    make_run('runs/a/one')
    make_run('runs/a/one/report', starts={}, tests=result)
    make_run('runs/a/two')
    elsewhere = {SECOND: ({'semseg.mIoU': 55.0}, str(tmp_path / 'runs/a/two/epoch_2.pth'))}
    make_run('runs/tests_of_two', starts={}, tests=elsewhere)
    relative = {THIRD: ({'semseg.mIoU': 66.0}, 'a/two/epoch_2.pth')}
    make_run('runs/more_of_two', starts={}, tests=relative)
    make_run('runs/alone', starts={}, tests={SECOND: ({'semseg.mIoU': 77.0}, 'elsewhere/epoch_2.pth')})
    runs = {run.name: run for run in read_runs([tmp_path / 'runs'])}
    found = {name: [test.values['semseg.mIoU'] for test in run.tests] for name, run in runs.items()}
    assert found == {'a/one': [44.0], 'a/two': [55.0, 66.0], 'alone': [77.0]}


@pytest.mark.parametrize('load_from', ['work_dirs/first/epoch_2.pth', 'first/epoch_2.pth'])
def test_a_relative_checkpoint_is_that_of_the_nearest_run(make_run, tmp_path, load_from):
    """Two folders from which the tools were started hold runs of one name."""
    for seed in (0, 1):
        make_run(f'seed{seed}/work_dirs/first', seed=seed)
    tests = {SECOND: ({'semseg.mIoU': 44.0}, load_from)}
    make_run('seed1/work_dirs/first_test', starts={}, tests=tests, seed=1)
    runs = {run.name: run for run in read_runs([tmp_path])}
    found = {name: [test.values['semseg.mIoU'] for test in run.tests] for name, run in runs.items()}
    assert found == {'seed0/work_dirs/first': [], 'seed1/work_dirs/first': [44.0]}


def test_a_test_inside_two_runs_is_that_of_the_inner_one(make_run, tmp_path):
    make_run('run')
    make_run('run/again')
    make_run('run/again/report', starts={}, tests={SECOND: ({'semseg.mIoU': 44.0}, None)})
    assert {run.name: len(run.tests) for run in read_runs([tmp_path])} == {'run': 0, 'run/again': 1}


def test_a_test_of_one_of_several_runs_is_its_own(make_run, tmp_path):
    for seed in (0, 1):
        make_run(f'seed{seed}/first', seed=seed)
    tests = {SECOND: ({'semseg.mIoU': 44.0}, 'first/epoch_2.pth')}
    make_run('tests/first', starts={}, tests=tests)
    runs = {run.name: run for run in read_runs([tmp_path])}
    assert {name: len(run.tests) for name, run in runs.items()} == {
        'seed0/first': 0,
        'seed1/first': 0,
        'tests/first': 1,
    }
    assert said(runs['tests/first'], "checkpoint 'first/epoch_2.pth' may be one of seed0/first, seed1/first")
    assert not any('checkpoint' in remark for remark in runs['seed0/first'].remarks)


def test_a_test_of_another_model_inside_a_run_is_its_own(make_run, tmp_path):
    make_run('run')
    make_run('run/other', starts={}, tests={SECOND: ({'semseg.mIoU': 1.0}, None)}, backbone='Another')
    assert [run.name for run in read_runs([tmp_path])] == ['run', 'run/other']


# --------------------------------------------------------------------------------------------------------- finding
def test_a_folder_may_be_a_run_or_hold_many(make_run, tmp_path):
    one, two = make_run('runs/a/x'), make_run('runs/b/deep/er/y')
    nested = make_run('runs/a/x/again')
    assert find_runs([tmp_path / 'runs']) == {one: 'a/x', nested: 'a/x/again', two: 'b/deep/er/y'}
    assert find_runs([one, tmp_path / 'runs']) == {one: 'a/x', nested: 'again', two: 'b/deep/er/y'}


def test_a_folder_of_one_start_is_answered_with_the_one_above(make_run):
    folder = make_run()
    with pytest.raises(FileNotFoundError, match=f'give {folder}$'):
        find_runs([folder / FIRST])


@pytest.mark.parametrize(('made', 'message'), [(False, 'no such folder'), (True, 'no run in it or below')])
def test_folders_without_runs_are_refused(tmp_path, made, message):
    folder = tmp_path / 'empty'
    if made:
        (folder / 'logs').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=message):
        read_runs([folder])


def test_a_progress_bar_counts_the_runs(make_run, tmp_path, capsys):
    make_run('runs/a')
    make_run('runs/b')
    read_runs([tmp_path])
    out, err = capsys.readouterr()
    assert '2/2' in err and not out


def test_reading_what_is_no_work_dir(tmp_path):
    with pytest.raises(FileNotFoundError, match='is no work dir'):
        read_run(tmp_path)
