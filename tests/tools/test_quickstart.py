"""The README's first command, made small: in a folder with a space in its name, twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image


@pytest.mark.integration
@pytest.mark.stack
def test_quickstart_runs_twice_and_leaves_a_picture(repo, tmp_path):
    clone = tmp_path / 'a clone'
    clone.mkdir()
    for name in ('mmseg_polyhistor', 'configs', 'tools'):
        shutil.copytree(repo / name, clone / name, ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    env = dict(
        os.environ,
        POLYHISTOR_NO_VENV='1',
        POLYHISTOR_PYTHON=sys.executable,
        QUICKSTART_TRAIN='16',
        QUICKSTART_VAL='6',
        OMP_NUM_THREADS='1',
    )
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1']
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            ['bash', str(clone / 'tools' / 'quickstart.sh'), *options],
            env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done)

    first, second = outputs
    assert 'train [' in first.stderr and 'test [' in first.stderr, 'no progress bar'
    assert 'train [' not in second.stderr, 'the second run trained again'
    rows = [line.split()[:2] for line in first.stdout.splitlines() if 'mIoU' in line or 'mean' in line]
    assert rows == [['semseg', 'mIoU'], ['human_parts', 'mIoU'], ['normals', 'mean'], ['saliency', 'mIoU']]
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1]
    picture = first.stdout.splitlines()[-1].split(': ', 1)[1]
    assert picture == str(clone / 'work_dirs' / 'quickstart' / 'quickstart.png')
    with Image.open(picture) as sheet:
        assert min(sheet.size) > 300
    assert len(list((clone / 'data' / 'mini_pascal' / 'JPEGImages').iterdir())) == 22


def test_a_failing_training_shows_the_end_of_its_log(repo, tmp_path):
    env = dict(os.environ, POLYHISTOR_NO_VENV='1', POLYHISTOR_PYTHON=str(tmp_path / 'python'))
    (tmp_path / 'python').write_text('#!/bin/sh\necho "what went wrong"\nexit 3\n')
    (tmp_path / 'python').chmod(0o755)
    clone = tmp_path / 'clone'
    (clone / 'data' / 'mini_pascal' / 'ImageSets' / 'Context').mkdir(parents=True)
    (clone / 'data' / 'mini_pascal' / 'ImageSets' / 'Context' / 'val.txt').touch()
    shutil.copytree(repo / 'tools', clone / 'tools', ignore=shutil.ignore_patterns('__pycache__'))
    done = subprocess.run(
        ['bash', str(clone / 'tools' / 'quickstart.sh')], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'what went wrong' in done.stderr and 'training failed' in done.stderr
