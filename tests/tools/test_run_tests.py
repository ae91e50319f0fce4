"""`tools/run_tests.sh` and `.ci/run`: which environment and which tests they take, and that no failure is lost."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


@pytest.fixture
def clone(repo, tmp_path):
    """The scripts in a folder with a space in its name; `python` there writes its arguments to calls.txt."""
    folder = tmp_path / 'a clone'
    (folder / 'tools').mkdir(parents=True)
    for name in ('run_tests.sh', 'environment.sh', 'constraints.txt'):
        shutil.copy(repo / 'tools' / name, folder / 'tools' / name)
    shutil.copytree(repo / '.ci', folder / '.ci')
    shutil.copy(repo / 'setup.py', folder)
    return folder


def fake_python(path, log, *, fails=''):
    """An interpreter that notes its arguments, and fails where they hold the words `fails`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    failing = f'case "$*" in *{fails}*) exit 3;; esac\n' if fails else ''
    path.write_text(f'#!/bin/sh\necho "$0 $*" >> "{log}"\n{failing}')
    path.chmod(0o755)


def run(clone, script, *arguments, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith('POLYHISTOR_')} | environment
    return subprocess.run(
        ['bash', str(clone / script), *arguments],
        cwd=clone.parent, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ('arguments', 'folder', 'extras', 'tests'),
    [
        ([], '.venv', 'openmmlab,test,export,timm', '-m pytest -n'),
        (['tests/adapters', '-x'], '.venv', 'openmmlab,test,export,timm', '-m pytest tests/adapters -x'),
        (['--stack', 'onedl'], '.venv-onedl', 'onedl,test', '--dist loadscope -m stack'),
        (['--stack', 'onedl', 'tests/engine'], '.venv-onedl', 'onedl,test', '-m pytest tests/engine'),
    ],
)
def test_each_stack_has_an_environment_of_its_own(clone, tmp_path, arguments, folder, extras, tests):
    log = tmp_path / 'calls.txt'
    python = clone / folder / 'bin' / 'python'
    fake_python(python, log)
    done = run(clone, 'tools/run_tests.sh', *arguments)
    assert done.returncode == 0, done.stderr
    calls = log.read_text().splitlines()
    assert {call.split(' -')[0] for call in calls} == {str(python)}
    assert any('pip install' in call and call.endswith(f'--editable {clone}[{extras}]') for call in calls)
    assert any('ruff check' in call for call in calls)
    assert tests in calls[-1] and (not arguments or calls[-1].endswith(tests))


def test_forks_that_are_not_there(clone, tmp_path):
    """Where an environment is taken as it is, the forks must be in it."""
    fake_python(tmp_path / 'python', tmp_path / 'calls.txt', fails='importlib.metadata')
    own = dict(POLYHISTOR_NO_VENV='1', POLYHISTOR_PYTHON=str(tmp_path / 'python'))
    done = run(clone, 'tools/run_tests.sh', '--stack', 'onedl', **own)
    assert done.returncode == 1 and "pip install -e '.[onedl,test]'" in done.stderr
    assert '-m pytest' not in (tmp_path / 'calls.txt').read_text()
    assert run(clone, 'tools/run_tests.sh', **own).returncode == 0


def test_an_unknown_stack(clone):
    done = run(clone, 'tools/run_tests.sh', '--stack', 'mine')
    assert done.returncode == 1 and "--stack takes 'onedl', got 'mine'" in done.stderr


@pytest.mark.parametrize(
    ('broken', 'fails', 'failed'),
    [
        (None, '', []),
        ('.venv', 'pytest', ['']),
        ('.venv-onedl', 'pytest', [' --stack onedl']),
        ('.venv-onedl', 'pip', [' --stack onedl']),
        ('.venv', 'ruff', ['']),
    ],
)
def test_a_failure_on_either_stack_fails_the_whole(clone, tmp_path, broken, fails, failed):
    """Tests, style and installation; what follows is run all the same."""
    log = tmp_path / 'calls.txt'
    for folder in ('.venv', '.venv-onedl'):
        fake_python(clone / folder / 'bin' / 'python', log, fails=fails if folder == broken else '')
    done = run(clone, '.ci/run')
    assert done.returncode == bool(failed), done.stderr
    named = [line for line in done.stderr.splitlines() if line.startswith('FAILED')]
    assert named == [f'FAILED: tools/run_tests.sh{which}' for which in failed]
    assert f'{clone}/.venv-onedl/bin/python -m pip' in log.read_text()
