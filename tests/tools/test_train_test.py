"""The real tools, as a user starts them, on the toy training: kill and resume, several processes, mmseg's own tools."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmseg
import pytest

from tests.tool_runner import user_environment

REPO = Path(__file__).resolve().parents[2]
TOYS = REPO / 'tests' / 'engine'
CONFIG = TOYS / 'toy_config.py'
MMSEG_TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'
PYTHON = [sys.executable, '-W', 'ignore']
NO_DROPOUT = ['--cfg-options', 'model.dropout=0.0']


@pytest.fixture
def env():
    return user_environment()


@pytest.fixture
def run(env, tmp_path):
    """Run a command elsewhere than in the repository; returns the finished process, which must have succeeded."""

    def run(*command, ok=True, **extra):
        command = [str(c) for c in command]
        done = subprocess.run(
            command, cwd=tmp_path, env={**env, **extra}, capture_output=True, text=True, timeout=170
        )
        if ok:
            assert done.returncode == 0, f'{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
        return done

    return run


def losses(work_dir, rank=0):
    lines = (Path(work_dir) / f'losses_rank{rank}.txt').read_text().splitlines()
    return {int(i): float.fromhex(loss) for i, loss in (line.split() for line in lines)}


def metric(work_dir):
    """What the last test run wrote into its work dir."""
    return json.loads(max(Path(work_dir).glob('*/*.json'), key=os.path.getmtime).read_text())['mse']


@pytest.mark.integration
@pytest.mark.stack
@pytest.mark.parametrize('workers', [2])
def test_killed_and_resumed_equals_uninterrupted(tools, env, tmp_path, workers):
    """SIGKILL after the first checkpoint, then --resume: every loss is that of a run that nobody disturbed."""
    options = ['--cfg-options', f'train_dataloader.num_workers={workers}']
    train = ['train.py', CONFIG, '--work-dir']
    tools.start(*train, tmp_path / 'whole', *options, cwd=tmp_path)

    killed = tmp_path / 'killed run'
    slow = [
        *PYTHON,
        REPO / 'tools' / 'train.py',
        CONFIG,
        '--work-dir',
        killed,
        *options,
        'custom_hooks.0.pause=0.2',
    ]
    process = subprocess.Popen(
        list(map(str, slow)), cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not (killed / 'last_checkpoint').exists() or len(losses(killed)) < 6:
            assert process.poll() is None and time.monotonic() < deadline, 'no checkpoint was written'
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = losses(killed)
    assert 4 < len(before) < 16

    tools.start(*train, killed, '--resume', *options, cwd=tmp_path)
    after = losses(killed)
    assert after == losses(tmp_path / 'whole') and len(after) == 16
    ran = [int(line.split()[0]) for line in (killed / 'losses_rank0.txt').read_text().splitlines()]
    assert (
        ran.count(0) == 1 and ran[len(before)] % 4 == 0
    )  # it went on at the end of an epoch, not at the beginning


@pytest.mark.integration
@pytest.mark.stack
def test_two_processes_equal_one_with_the_double_batch(run, tools, tmp_path):
    """dist_train.sh with gloo: rank by rank half the batch, together the losses of one process."""
    options = [*NO_DROPOUT, 'optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.lr=0.1']
    dist = ['bash', REPO / 'tools' / 'dist_train.sh', CONFIG, 2]
    run(*dist, '--work-dir', tmp_path / 'two', *options, 'train_dataloader.batch_size=2')
    tools.start('train.py', CONFIG, '--work-dir', tmp_path / 'one', *options, cwd=tmp_path)
    one = losses(tmp_path / 'one')
    ranks = [losses(tmp_path / 'two', rank) for rank in (0, 1)]
    assert one.keys() == ranks[0].keys() == ranks[1].keys() and len(one) == 16
    for i, loss in one.items():
        assert (ranks[0][i] + ranks[1][i]) / 2 == pytest.approx(loss, rel=1e-5), i
    assert any(abs(ranks[0][i] - ranks[1][i]) > 1e-3 for i in one)

    # resumed after the second epoch, two processes go on bit for bit
    for epoch in (3, 4):
        (tmp_path / 'two' / f'epoch_{epoch}.pth').unlink()
    (tmp_path / 'two' / 'last_checkpoint').write_text(str(tmp_path / 'two' / 'epoch_2.pth'))
    resume = ['--work-dir', tmp_path / 'two', '--resume', *options, 'train_dataloader.batch_size=2']
    run(*dist, *resume)
    assert [losses(tmp_path / 'two', rank) for rank in (0, 1)] == ranks
    lines = (tmp_path / 'two' / 'losses_rank1.txt').read_text().splitlines()
    assert len(lines) == 16 + 8


@pytest.mark.integration
@pytest.mark.stack
def test_mmseg_tools_do_the_same(run, tools, tmp_path):
    """The config runs under mmseg's own train.py and test.py, with the same losses and metric as under ours."""
    path = dict(PYTHONPATH=f'{TOYS}{os.pathsep}{REPO}')  # stands for an installed package
    short = ['--cfg-options', 'train_cfg.max_epochs=2']
    tools.start('train.py', CONFIG, '--work-dir', tmp_path / 'ours', *short, cwd=tmp_path)
    run(*PYTHON, MMSEG_TOOLS / 'train.py', CONFIG, '--work-dir', tmp_path / 'theirs', *short, **path)
    assert losses(tmp_path / 'ours') == losses(tmp_path / 'theirs')
    checkpoint = tmp_path / 'ours' / 'epoch_2.pth'
    tools.start('test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'test_ours', cwd=tmp_path)
    run(*PYTHON, MMSEG_TOOLS / 'test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'test_theirs', **path)
    run('bash', REPO / 'tools' / 'dist_test.sh', CONFIG, checkpoint, 2, '--work-dir', tmp_path / 'test_two')
    metrics = [metric(tmp_path / name) for name in ('test_ours', 'test_theirs', 'test_two')]
    assert metrics[0] == metrics[1] == pytest.approx(metrics[2], rel=1e-6)


@pytest.mark.integration
@pytest.mark.stack
def test_a_real_config_resumes(tools, tmp_path):
    """Polyhistor-Lite on rendered data: bit for bit the same after a resume, and with another number of workers."""
    data = tmp_path / 'data'
    arguments = [data, '--train', 8, '--val', 2, '--size', 64, '--seed', 0]
    tools.start('dataset_converters/make_mini_pascal.py', *arguments, cwd=tmp_path)
    config = tmp_path / 'config.py'
    config.write_text(
        f"""
_base_ = {str(REPO / 'configs' / 'polyhistor_lite' / 'swin-pico_mini-pascal.py')!r}
custom_imports = dict(imports=['mmseg_polyhistor', 'toy_training'], allow_failed_imports=False)
data = dict(data_root={str(data)!r})
train_dataloader = dict(batch_size=4, dataset=data)
val_dataloader = dict(dataset=data)
test_dataloader = dict(dataset=data)
train_cfg = dict(max_epochs=2, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
custom_hooks = [dict(type='ToyLossLog')]
"""
    )
    train = ['train.py', config, '--work-dir']
    alone = ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    tools.start(*train, tmp_path / 'whole', cwd=tmp_path)
    checkpoint = tmp_path / 'whole' / 'epoch_1.pth'
    options = ['--resume', '--cfg-options', f'load_from={checkpoint}', *alone]
    tools.start(*train, tmp_path / 'resumed', *options, cwd=tmp_path)
    whole, resumed = losses(tmp_path / 'whole'), losses(tmp_path / 'resumed')
    assert list(whole) == [0, 1, 2, 3] and resumed == {i: whole[i] for i in (2, 3)}


@pytest.mark.integration
@pytest.mark.stack
def test_command_lines_that_cannot_work(tools, tmp_path):
    """Each says why, and that before any training."""
    for arguments, message in [
        (['--amp'], '--amp needs a GPU'),
        (['--launcher', 'slurm'], 'use --launcher pytorch'),
    ]:
        _, printed = tools.start('train.py', CONFIG, *arguments, cwd=tmp_path, expect=1)
        assert message in printed


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('dist_train.sh', ['a.py']),
        ('dist_test.sh', ['a.py', 'b.pth']),
        ('slurm_train.sh', ['part', 'job']),
        ('slurm_test.sh', ['part', 'job', 'a.py']),
    ],
)
def test_scripts_tell_their_usage(run, script, arguments):
    """One argument too few, and the script says what it wants."""
    done = run('bash', REPO / 'tools' / script, *arguments, ok=False)
    assert done.returncode == 2 and 'usage: ' in done.stderr and script in done.stderr


@pytest.mark.parametrize(
    ('script', 'arguments', 'tool'),
    [
        ('slurm_train.sh', ['part', 'job', 'my config.py'], 'train.py'),
        ('slurm_test.sh', ['part', 'job', 'my config.py', 'c.pth'], 'test.py'),
    ],
)
def test_slurm_scripts_pass_everything_on(run, tmp_path, script, arguments, tool):
    """srun gets the resources and, word by word, the command; a stand-in for srun prints its arguments."""
    srun = tmp_path / 'bin' / 'srun'
    srun.parent.mkdir()
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    environment = dict(
        PATH=f'{srun.parent}:{os.environ["PATH"]}',
        PYTHON='py',
        GPUS='8',
        GPUS_PER_NODE='2',
        SRUN_ARGS='--qos=high -x n1',
    )
    words = run(
        'bash', REPO / 'tools' / script, *arguments, '--work-dir', 'my dir', **environment
    ).stdout.splitlines()
    start = words.index('py')
    assert words[:start] == [
        '-p', 'part', '--job-name=job', '--gres=gpu:2', '--ntasks=8', '--ntasks-per-node=2', '--cpus-per-task=5',
        '--kill-on-bad-exit=1', '--qos=high', '-x', 'n1',
    ]  # fmt: skip
    assert words[start:] == [
        'py', '-u', str(REPO / 'tools' / tool), *arguments[2:], '--launcher', 'slurm', '--work-dir', 'my dir'
    ]  # fmt: skip
