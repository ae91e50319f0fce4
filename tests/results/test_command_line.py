"""What the tools read alike: runs, their reference, and the notes below a table."""

from __future__ import annotations

import argparse
import json

import pytest

from mmseg_polyhistor.results.command_line import add_arguments, collect


@pytest.fixture
def collected(repo):
    """A function: arguments -> what was read."""

    def call(*arguments):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return collect(parser.parse_args([str(argument) for argument in arguments]), repo / 'model-index.yml')

    return call


DEEP = dict(name='deep', kind='scalar')


def test_a_file_may_be_the_reference_of_a_task_that_the_config_defines(collected, make_own_run, tmp_path):
    """Its value stands in the note to the digits of its metric."""
    folder = make_own_run('runs/a', DEEP, dict(rmse=0.5468, abs_rel=0.1, delta1=80.0))
    file = tmp_path / 'row.json'
    file.write_text(json.dumps(dict(deep=0.5512, semseg=60)))
    found = collected(folder, '--reference', file)
    (row,) = found.rows
    assert row.values['gain'] == pytest.approx(100 * (0.5512 - 0.5468) / 0.5512)
    assert found.notes == (f'gain: percent over deep 0.5512, semseg 60.00 ({file})',)


def test_a_run_is_the_reference_of_its_own_metric(collected, make_own_run):
    """Another run of the task, which has another metric, has no gain over it."""
    values = dict(rmse=0.5468, abs_rel=0.1, delta1=80.0)
    one = make_own_run('runs/a', DEEP, values)
    make_own_run('runs/b', dict(DEEP, metric='delta1'), values)
    found = collected(one.parent, '--reference', one)
    assert [row.values.get('gain') for row in found.rows] == [0.0, None]
    assert 'b: no gain: the reference holds deep.rmse, and not deep.delta1' in found.remarks
    assert found.notes[0].startswith('gain: percent over deep 0.5468 (')
