"""`tools/train.py`, killed wherever it hurts and resumed with `--resume`, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest
import torch

TOYS = Path(__file__).resolve().parents[1] / 'engine'
CONFIG = """
_base_ = {toy!r}
custom_imports = dict(imports=['mmseg_polyhistor', 'toy_training', 'killing'], allow_failed_imports=False)
custom_hooks = [dict(type='ToyLossLog'), dict(type='KillAtIteration')]
param_scheduler = [dict(type='LinearLR', start_factor=1.0, end_factor=0.1, by_epoch=False, end=48)]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='mse', rule='less'))
log_level = 'INFO'
{more}
"""
LOOPS = {
    'epochs': 'train_cfg = dict(max_epochs=12)',
    'iters': """
train_cfg = dict(_delete_=True, type='SeededIterBasedTrainLoop', max_iters=48, val_interval=4)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=4, max_keep_ckpts=1, save_best='mse', rule='less'))
log_processor = dict(by_epoch=False)
""",
}
LAST, BEST, POINTER = (
    r'(epoch|iter)_\d+\.pth(\.part)?',
    r'best_mse_.*\.pth(\.part)?',
    r'last_checkpoint(\.part)?',
)
#: The moments of a save, in their order, at which a process is killed.
MOMENTS = {
    'checkpoint empty': dict(call='fsync', name=LAST, bytes=0),
    'checkpoint of a third': dict(call='fsync', name=LAST, bytes=0.34),
    'checkpoint whole, not on disk': dict(call='fsync', name=LAST),
    'checkpoint on disk, without its name': dict(call='replace', name=LAST),
    'checkpoint named, pointer old': dict(call='replace', name=LAST, after=True),
    'pointer half written': dict(call='fsync', name=POINTER, bytes=0.5),
    'pointer whole, without its name': dict(call='replace', name=POINTER),
    'pointer new, old checkpoint there': dict(call='remove', name=LAST),
    'old checkpoint gone': dict(call='remove', name=LAST, after=True),
    'best half written': dict(call='fsync', name=BEST, bytes=0.5),
    'best named, last checkpoint without it': dict(call='replace', name=BEST, after=True),
    'best new and known, old best there': dict(call='remove', name=BEST),
    'old best gone': dict(call='remove', name=BEST, after=True),
}


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A function: name of a loop -> config file."""

    def write(loop):
        path = folder / f'{loop}.py'
        path.write_text(CONFIG.format(toy=str(TOYS / 'toy_config.py'), more=LOOPS[loop]))
        return path

    folder = tmp_path_factory.mktemp('configs')
    return write


@pytest.fixture(scope='module')
def whole(tools, config, tmp_path_factory):
    """A function: name of a loop -> how a run without break ends."""

    def train(loop):
        if loop not in ends:
            tools.start('train.py', config(loop), '--work-dir', folder / loop, cwd=folder)
            ends[loop] = end_of(folder / loop)
        return ends[loop]

    ends, folder = {}, tmp_path_factory.mktemp('whole')
    return train


def end_of(work_dir):
    """All that a training leaves, but for times and paths."""
    checkpoints = {
        p.name: torch.load(p, weights_only=True) for p in work_dir.iterdir() if p.suffix in ('.pth', '.part')
    }
    for checkpoint in checkpoints.values():
        hub = checkpoint['message_hub']
        hub['log_scalars'] = {k: v for k, v in hub['log_scalars'].items() if not k.endswith('time')}
        for name in ('cfg', 'experiment_name'):
            del hub['runtime_info'][name]
        for name in ('best_ckpt', 'last_ckpt'):
            hub['runtime_info'][name] = os.path.basename(hub['runtime_info'].get(name, ''))
        checkpoint['meta'] = {k: checkpoint['meta'][k] for k in ('epoch', 'iter', 'seed')}
    metrics = {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in log.read_text().splitlines():
            if 'mse' in (entry := json.loads(line)):
                metrics[entry['step']] = {k: v for k, v in entry.items() if 'time' not in k}
    lines = (line.split() for line in (work_dir / 'losses_rank0.txt').read_text().splitlines())
    return dict(
        losses={
            int(i): loss for i, loss in lines
        },  # written with all bits; of an iteration that ran twice, the later
        metrics=metrics,
        files={p.name for p in work_dir.iterdir() if not p.is_dir()},
        pointer=Path((work_dir / 'last_checkpoint').read_text()).name,
        checkpoints=checkpoints,
    )


def assert_same(one, other):
    """The same values, bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    else:
        assert one == other


def killed_at(tools, work_dir, config, kill=None):
    """Whether a resumed training was killed before its end."""
    environments = [dict(KILL=json.dumps(kill))] if kill else [{}]
    ((status,), printed) = tools.start(
        'train.py', config, '--work-dir', work_dir, '--resume', cwd=work_dir.parent,
        environments=environments, expect=None,
    )  # fmt: skip
    assert status in (-9, 0), printed[-4000:]
    return status == -9


@pytest.mark.integration
@pytest.mark.stack
@pytest.mark.parametrize('loop', LOOPS)
def test_killed_in_every_moment_of_a_save(tools, config, whole, tmp_path, loop):
    """One training, killed 13 times, each time in another moment of writing, naming and removing checkpoints."""
    work_dir = tmp_path / 'run'
    for moment, kill in MOMENTS.items():
        assert killed_at(tools, work_dir, config(loop), kill), f'the training ended before: {moment}'
    assert not killed_at(tools, work_dir, config(loop))
    end = whole(loop)
    assert end['files'] >= {'last_checkpoint', f'{loop.rstrip("s")}_{12 if loop == "epochs" else 48}.pth'}
    assert len(end['checkpoints']) == 2 and len(end['metrics']) == 12
    assert_same(end_of(work_dir), end)


@pytest.mark.integration
@pytest.mark.stack
@pytest.mark.parametrize('loop', LOOPS)
def test_killed_at_random(tools, config, whole, tmp_path, loop):
    """One training, killed again and again, after a random number of iterations, often some milliseconds before that."""
    seed = time.time_ns() % 2**32
    draw = random.Random(seed)
    work_dir, kills = tmp_path / 'run', 0
    for run in range(8):
        kill = dict(iter=draw.randint(1, 8), **dict(seconds=draw.uniform(0.0, 0.4)) if run % 2 else {})
        if not killed_at(tools, work_dir, config(loop), kill):
            break
        kills += 1
    else:
        assert not killed_at(tools, work_dir, config(loop))
    print(f'seed {seed}, {kills} kills')  # pytest shows it where the test fails
    assert kills >= 6  # of at most eight iterations each
    assert_same(end_of(work_dir), whole(loop))


@pytest.mark.integration
@pytest.mark.stack
@pytest.mark.parametrize(
    ('loop', 'kill'),
    [('epochs', dict(call='replace', name=POINTER, after=True)), ('iters', dict(iter=6))],
    ids=['before the validation', 'long after it'],
)
def test_a_validation_that_was_skipped_is_made_up_for(tools, config, whole, tmp_path, loop, kill):
    """The checkpoint knows nothing of the validation that follows it: the resumed run begins with that."""
    work_dir = tmp_path / 'run'
    assert killed_at(tools, work_dir, config(loop), kill)
    before = {p.name for p in work_dir.iterdir()}
    assert any(name.startswith('best') for name in before) == (loop == 'iters')
    assert not killed_at(tools, work_dir, config(loop))
    assert_same(end_of(work_dir), whole(loop))


def _of_another_model(path):
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['state_dict']['decode_head.weight'] = checkpoint['state_dict'].pop('head.weight')
    torch.save(checkpoint, path)


def _with_code(path):
    torch.save(torch.load(path, weights_only=True) | dict(code=_Code(path.with_name('trap'))), path)


class _Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return os.mkdir, (str(self.trap),)


@pytest.mark.integration
@pytest.mark.stack
def test_newest_checkpoint_is_bad(tools, tmp_path):
    """It is refused by name, nothing of it is used or run, the one before is taken, and the end is the same."""
    toy, work_dir = TOYS / 'toy_config.py', tmp_path / 'run'
    tools.start('train.py', toy, '--work-dir', work_dir, cwd=tmp_path)
    last = work_dir / 'epoch_4.pth'
    end, losses = torch.load(last, weights_only=True), (work_dir / 'losses_rank0.txt').read_text()
    faults = {
        'cut off': lambda: last.write_bytes(last.read_bytes()[:-1000]),
        'empty': lambda: last.write_bytes(b''),
        'text': lambda: last.write_text('these are not the weights that you are looking for'),
        'other model': lambda: _of_another_model(last),
        'code': lambda: _with_code(last),
    }
    for fault, spoil in faults.items():
        spoil()
        (work_dir / 'losses_rank0.txt').unlink()
        _, printed = tools.start('train.py', toy, '--work-dir', work_dir, '--resume', cwd=tmp_path)
        assert f"WARNING - the checkpoint '{last}'" in printed and 'It is passed over' in printed, fault
        assert ('decode_head.' in printed) == (fault == 'other model')
        assert (work_dir / 'losses_rank0.txt').read_text() == ''.join(losses.splitlines(True)[12:]), fault
        now = torch.load(last, weights_only=True)
        for key in ('state_dict', 'optimizer', 'param_schedulers'):
            assert_same(now[key], end[key])
    assert not (work_dir / 'trap').exists()
