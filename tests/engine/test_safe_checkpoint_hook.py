"""Checkpoints of a real runner: plain on disk, whole after loading, and never destroyed by the next one."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import find_latest_checkpoint
from toy_training import assert_identical

from mmseg_polyhistor.engine import AtomicLocalBackend, NotPlainError, SafeCheckpointHook


def checkpoints(runner):
    return sorted(f for f in os.listdir(runner.work_dir) if f.endswith('.pth'))


def test_message_hub_comes_back_exactly(train_toy, toy_runner, tmp_path):
    """Every history of the log, of any length and type, equals the original after a resume."""
    _, runner = train_toy('first', **{'train_cfg.max_epochs': 1})
    hub = runner.message_hub
    for i in range(5):
        hub.update_scalar('ints', i, count=i + 1)
    hub.update_scalar('extremes', 1e308)
    hub.update_scalar('extremes', float('nan'))
    hub.update_scalar('extremes', 5e-324)
    hub.log_scalars['short'] = HistoryBuffer(list(range(10)), [1] * 10, max_length=4)
    hub.log_scalars['empty'] = HistoryBuffer()
    hub._resumed_keys.update(short=True, empty=True)
    hub.update_info('numbers', dict(a=np.float32(0.1), b={2, 1}, c=np.arange(3)))
    runner.save_checkpoint(runner.work_dir, 'x.pth')
    assert 'x.pth' in checkpoints(runner)

    resumed = toy_runner('second', load_from=str(tmp_path / 'first' / 'x.pth'), resume=True)
    resumed.train()
    loaded = resumed.message_hub
    for key, buffer in hub.log_scalars.items():
        if key.split('/')[0] in ('ints', 'extremes', 'short', 'empty'):
            assert_identical(loaded.get_scalar(key).data, buffer.data)
        if key in ('train/loss', 'train/lr'):  # four iterations of the first run, then those of the second
            assert_identical(tuple(d[:4] for d in loaded.get_scalar(key).data), buffer.data)
        assert loaded.get_scalar(key).max_length == buffer.max_length
    assert_identical(loaded.get_info('numbers'), dict(a=float(np.float32(0.1)), b=[1, 2], c=torch.arange(3)))


def test_mapped_to_another_device(monkeypatch):
    """`Runner.resume` maps all tensors to the GPU; the buffers come back as numpy arrays all the same."""
    moved = []
    monkeypatch.setattr(torch.Tensor, 'cpu', lambda self: moved.append(self) or self)
    checkpoint = dict(message_hub=dict(log_scalars=dict(loss=HistoryBuffer([0.5, 0.25], [1, 1]))))
    hook = SafeCheckpointHook()
    hook.before_save_checkpoint(None, checkpoint)
    hook.after_load_checkpoint(None, checkpoint)
    buffer = checkpoint['message_hub']['log_scalars']['loss']
    assert buffer.mean() == 0.375 and buffer.data[0].dtype == np.float64 and len(moved) == 2


def test_what_cannot_be_saved_is_named(train_toy):
    """Nothing is dropped in silence: the message gives the place."""
    _, runner = train_toy(**{'train_cfg.max_epochs': 1})
    runner.message_hub.update_info('bad', dict(x=[object()]))
    place = r"checkpoint\['message_hub'\]\['runtime_info'\]\['bad'\]\['x'\]\[0\] is a builtins.object"
    with pytest.raises(NotPlainError, match=place):
        runner.save_checkpoint(runner.work_dir, 'bad.pth')
    assert checkpoints(runner) == ['epoch_1.pth']


@pytest.mark.parametrize(
    'changes',
    [
        {'param_scheduler': [dict(type='OneCycleLR', eta_max=0.1, total_steps=16, by_epoch=False)]},
        {'custom_hooks': [dict(type='ToyLossLog'), dict(type='EMAHook', momentum=0.1)]},
        {'optim_wrapper': dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9))},
    ],
    ids=['one-cycle', 'ema', 'sgd'],
)  # fmt: skip
def test_resume_with_other_state(train_toy, tmp_path, changes):
    """Schedulers with functions, averaged weights, momentum: a resumed run ends where the whole one does."""
    losses, _ = train_toy('whole', **changes)
    resume = dict(load_from=str(tmp_path / 'whole' / 'epoch_2.pth'), resume=True)
    later, _ = train_toy('resumed', **changes, **resume)
    assert later == {i: losses[i] for i in later} and len(later) == 8
    ends = [torch.load(tmp_path / run / 'epoch_4.pth', weights_only=True) for run in ('whole', 'resumed')]
    for key in set(ends[0]) - {'meta', 'message_hub'}:
        assert_identical(ends[0][key], ends[1][key])
    assert ('ema_state_dict' in ends[0]) == ('custom_hooks' in changes)


@pytest.mark.parametrize('best', ['mse', ['mse', 'mae']], ids=['one best', 'two bests'])
@pytest.mark.parametrize('keep', [1, 2])
def test_old_checkpoints_go(train_toy, keep, best):
    """`max_keep_ckpts` and `save_best` leave the files that mmengine's hook leaves."""
    changes = {'max_keep_ckpts': keep, 'save_best': best, 'rule': 'less'}
    changes = {f'default_hooks.checkpoint.{k}': v for k, v in changes.items()}
    runs = {}
    for kind in ('CheckpointHook', 'SafeCheckpointHook'):
        changes['default_hooks.checkpoint.type'] = kind
        _, runs[kind] = train_toy(kind, **changes)
    kept = checkpoints(runs['SafeCheckpointHook'])
    assert kept == checkpoints(runs['CheckpointHook'])
    assert [name for name in kept if name.startswith('epoch')] == ['epoch_3.pth', 'epoch_4.pth'][-keep:]
    assert len([name for name in kept if name.startswith('best')]) == (1 if best == 'mse' else 2)


def test_publishing(train_toy):
    """`published_keys` reads a checkpoint back, which mmengine's own ones do not stand under torch >= 2.6."""
    _, runner = train_toy(**{'default_hooks.checkpoint.published_keys': ['meta', 'state_dict']})
    (published,) = [name for name in checkpoints(runner) if name.startswith('epoch_4-')]
    content = torch.load(os.path.join(runner.work_dir, published), weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    assert_identical(content['state_dict'], runner.model.state_dict())


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize('write', range(1, 9))
def test_whenever_it_dies_it_can_resume(train_toy, tmp_path, monkeypatch, write):
    """Die in the n-th write, keeping only one checkpoint: the run resumes, and ends as an undisturbed one does."""
    changes = {'max_keep_ckpts': 1, 'save_best': 'mse', 'rule': 'less'}
    changes = {f'default_hooks.checkpoint.{k}': v for k, v in changes.items()}
    losses, _ = train_toy('whole', **changes)

    put, writes = AtomicLocalBackend.put, []

    def mortal_put(self, obj, filepath):
        writes.append(filepath)
        if len(writes) == write:
            with open(f'{filepath}.part', 'wb') as f:
                f.write(obj[: len(obj) // 2])
            raise Killed
        put(self, obj, filepath)

    with monkeypatch.context() as patch:
        patch.setattr(AtomicLocalBackend, 'put', mortal_put)
        try:
            train_toy('killed', **changes)
        except Killed:
            pass
        else:
            pytest.skip(f'a run has only {len(writes)} writes')
    if write > 1:
        assert os.path.isfile(find_latest_checkpoint(str(tmp_path / 'killed')))
        left = [name for name in os.listdir(tmp_path / 'killed') if name.endswith('.pth')]
        assert any(name.startswith('best') for name in left) == (write > 2)
    after, runner = train_toy('killed', **changes, resume=True)
    assert after == losses
    assert [name for name in checkpoints(runner) if name.startswith('epoch')] == ['epoch_4.pth']


def test_a_failed_best_leaves_the_best_before(tmp_path):
    """A best checkpoint that could not be written does not cost the one before."""
    hook = SafeCheckpointHook(save_best='mse', rule='less')
    hook.file_backend = AtomicLocalBackend()
    old = tmp_path / 'best_old.pth'
    old.write_bytes(b'old')
    with pytest.raises(Killed), hook._removing_last():
        hook.file_backend.remove(str(old))
        raise Killed
    assert old.read_bytes() == b'old' and isinstance(hook.file_backend, AtomicLocalBackend)
    with hook._removing_last():
        hook.file_backend.remove(str(old))
        assert hook.file_backend.isfile(str(old))
    assert not old.exists()


def test_a_best_of_the_same_name_stays(tmp_path):
    """A best checkpoint that replaces one of the same name is not removed after it was written."""
    hook = SafeCheckpointHook(save_best='mse', rule='less')
    hook.file_backend = AtomicLocalBackend()
    path = str(tmp_path / 'best.pth')
    with hook._removing_last():
        hook.file_backend.remove(path)
        hook.best_ckpt_path = path
        hook.file_backend.put(b'new', path)
    assert os.listdir(tmp_path) == ['best.pth']


def test_it_is_a_checkpoint_hook():
    """Same arguments, same priority as mmengine's; another backend may be named."""
    hook = SafeCheckpointHook(interval=3, backend_args=dict(backend='local'))
    assert isinstance(hook, CheckpointHook) and hook.priority == CheckpointHook.priority == 'VERY_LOW'
    assert (hook.interval, hook.backend_args) == (3, dict(backend='local'))
