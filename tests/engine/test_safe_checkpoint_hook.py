"""Checkpoints of a real runner: plain on disk, whole after loading, and never destroyed by the next one."""

from __future__ import annotations

import importlib
import os
import re
import shutil

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import ValLoop
from toy_training import ToyMetric, assert_identical, read_losses

from mmseg_polyhistor.engine import AtomicLocalBackend, NotPlainError, SafeCheckpointHook
from mmseg_polyhistor.engine.resume import ResumeError

pytestmark = pytest.mark.stack


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


def best_changes(**changes):
    """One checkpoint and the best one are kept."""
    changes = {'max_keep_ckpts': 1, 'save_best': 'mse', 'rule': 'less', **changes}
    return {f'default_hooks.checkpoint.{k}': v for k, v in changes.items()}


def test_whenever_it_dies_it_can_resume(train_toy, tmp_path, monkeypatch):
    """Die in the n-th write, keeping only one checkpoint: the run resumes, and ends as an undisturbed one does."""
    put, writes = AtomicLocalBackend.put, []

    def mortal_put(self, obj, filepath):
        writes.append(filepath)
        if len(writes) == deadly:
            with open(f'{filepath}.part', 'wb') as f:
                f.write(obj[: len(obj) // 2])
            raise Killed
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, 'put', mortal_put)
    deadly, short = None, {'train_cfg.max_epochs': 2}
    losses, whole = train_toy('whole', **best_changes(), **short)
    number = len(writes)
    assert number >= 2 * 2 + 3  # checkpoints with their pointers, and a best one with both anew
    for deadly in range(1, number + 1):
        writes.clear()
        name = f'killed{deadly}'
        with pytest.raises(Killed):
            train_toy(name, **best_changes(), **short)
        assert any(file.endswith('.part') for file in os.listdir(tmp_path / name))
        deadly = None
        after, runner = train_toy(name, **best_changes(), **short, resume=True)
        assert after == losses
        assert files(runner) == files(whole)
        for key in ('best_score', 'last_validation', 'keep_ckpt_ids'):
            assert runner.message_hub.get_info(key) == whole.message_hub.get_info(key)


def test_killed_in_the_last_validation(train_toy, toy_runner, tmp_path, monkeypatch):
    """Nothing is left to train, and yet the resumed run ends with the best checkpoint, and knows it."""

    def better_and_better(self, results):
        return dict(mse=-float(MessageHub.get_current_instance().get_info('iter')))

    def last_one_dies(self):
        if self.runner.epoch == 2:
            raise Killed
        return run(self)

    run, short = ValLoop.run, {'train_cfg.max_epochs': 2}
    monkeypatch.setattr(ToyMetric, 'compute_metrics', better_and_better)
    _, whole = train_toy('whole', **best_changes(), **short)
    with monkeypatch.context() as patch:
        patch.setattr(ValLoop, 'run', last_one_dies)
        with pytest.raises(Killed):
            train_toy('killed', **best_changes(), **short)
    toy_runner('killed', **best_changes(), **short, resume=True).train()
    ends = [torch.load(tmp_path / name / 'epoch_2.pth', weights_only=True) for name in ('whole', 'killed')]
    infos = [end['message_hub']['runtime_info'] for end in ends]
    assert infos[0]['best_score'] == -7.0
    for key in ('best_score', 'last_validation', 'keep_ckpt_ids', 'epoch', 'iter'):
        assert infos[0][key] == infos[1][key], key
    assert os.path.basename(infos[1]['best_ckpt']) == 'best_mse_epoch_2.pth'
    assert checkpoints(whole) == sorted(p.name for p in (tmp_path / 'killed').glob('*.pth'))


def files(runner):
    return sorted(f for f in os.listdir(runner.work_dir) if os.path.isfile(os.path.join(runner.work_dir, f)))


def test_a_failed_best_leaves_the_best_before(train_toy, tmp_path, monkeypatch):
    """A best checkpoint that could not be written does not cost the one before."""
    put = AtomicLocalBackend.put

    def no_second_best(self, obj, filepath):
        if 'best' in os.path.basename(filepath) and any('best' in f for f in os.listdir(tmp_path / 'run')):
            raise OSError('disk full')
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, 'put', no_second_best)
    with pytest.raises(OSError, match='disk full'):
        train_toy('run', **best_changes())
    (best,) = tmp_path.glob('run/best*.pth')
    torch.load(best, weights_only=True)


def test_a_best_of_the_same_name_stays(train_toy):
    """A best checkpoint that replaces one of the same name is not removed after it was written."""
    _, runner = train_toy(**best_changes(), **{'train_cfg.max_epochs': 1})
    (hook,) = (h for h in runner.hooks if isinstance(h, SafeCheckpointHook))
    before = checkpoints(runner)
    hook.after_val_epoch(runner, dict(mse=-1.0))
    assert checkpoints(runner) == before and before[0].startswith('best')


def test_newest_checkpoint_is_broken(train_toy, toy_runner, tmp_path):
    """It is named with the reason, the one before is taken, and the end is that of a whole run."""
    losses, _ = train_toy('run')
    folder = tmp_path / 'run'
    last = torch.load(folder / 'epoch_4.pth', weights_only=True)
    (folder / 'epoch_4.pth').write_bytes((folder / 'epoch_4.pth').read_bytes()[:5000])
    (folder / 'epoch_3.pth').write_text('no checkpoint')
    (folder / 'losses_rank0.txt').unlink()
    after, _ = train_toy('run', resume=True)
    assert after == {i: losses[i] for i in range(8, 16)}
    assert_identical(torch.load(folder / 'epoch_4.pth', weights_only=True)['state_dict'], last['state_dict'])
    log = ''.join(path.read_text() for path in folder.glob('*/*.log'))
    for name, reason in (('epoch_4.pth', 'cannot be read'), ('epoch_3.pth', 'was not loaded')):
        assert re.search(rf"WARNING - the checkpoint '{folder}/{name}' {reason}", log)
    assert log.count('It is passed over') == 2


def test_no_checkpoint_is_good(train_toy, toy_runner, tmp_path):
    """An error that names all of them, with the reasons; nothing is trained, nothing is lost."""
    train_toy('run', **{'train_cfg.max_epochs': 2})
    folder = tmp_path / 'run'
    (folder / 'epoch_2.pth').write_bytes(b'')
    before = (folder / 'losses_rank0.txt').read_text()
    sgd = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    with pytest.raises(
        ResumeError,
        match=r'(?s)no checkpoint of .*epoch_2\.pth.*cannot be read.*epoch_1\.pth.*optimiser.*afresh',
    ):
        toy_runner('run', resume=True, optim_wrapper=sgd).train()
    (folder / 'epoch_1.pth').unlink()
    (folder / 'epoch_2.pth').unlink()  # the pointer alone is left
    with pytest.raises(ResumeError, match=r'epoch_2\.pth.*does not exist'):
        toy_runner('run', resume=True).train()
    assert (folder / 'losses_rank0.txt').read_text() == before


def test_pointer_that_is_no_file(toy_runner, tmp_path):
    """The error is told, to all processes, instead of being raised by the one that looks."""
    (tmp_path / 'run' / 'last_checkpoint').mkdir(parents=True)
    with pytest.raises(ResumeError, match=rf"work dir '{tmp_path}/run' cannot be searched.*last_checkpoint"):
        toy_runner('run', resume=True).train()


@pytest.mark.parametrize('pointer', [None, ''])
def test_nothing_to_resume_from(train_toy, tmp_path, pointer):
    """A first run with --resume, or one that was killed before its first checkpoint, starts at the beginning."""
    (tmp_path / 'run').mkdir()
    if pointer is not None:
        (tmp_path / 'run' / 'last_checkpoint').write_text(pointer)
    losses, _ = train_toy('run', resume=True, **{'train_cfg.max_epochs': 1, 'log_level': 'INFO'})
    assert list(losses) == [0, 1, 2, 3]
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert (
        f'There is no checkpoint in {tmp_path / "run"}: training starts at the beginning' in log.read_text()
    )


@pytest.mark.parametrize('name', ['cut.pth', 'best_mse_epoch_1.pth', 'absent.pth'])
def test_named_checkpoint_is_bad(train_toy, toy_runner, tmp_path, name):
    """`load_from` with `resume`: the error names the file; no other one is taken."""
    train_toy('run', **best_changes(), **{'train_cfg.max_epochs': 1})
    (tmp_path / 'run' / 'cut.pth').write_bytes((tmp_path / 'run' / 'epoch_1.pth').read_bytes()[:-100])
    path = str(tmp_path / 'run' / name)
    message = {'best_mse_epoch_1.pth': "lacks .'optimizer'"}.get(name, '(cannot be read|does not exist)')
    with pytest.raises(ResumeError, match=rf'load_from=.{path}. cannot be resumed from: .*{message}'):
        toy_runner('run', resume=True, load_from=path).train()


def test_validation_and_test_runs_choose_nothing(toy_runner, train_toy, tmp_path, monkeypatch):
    """They load what they are told to."""
    train_toy('run', **{'train_cfg.max_epochs': 1})
    (tmp_path / 'run' / 'epoch_1.pth').rename(tmp_path / 'run' / 'epoch_5.pth')
    monkeypatch.setattr('mmseg_polyhistor.engine.hooks.safe_checkpoint_hook.reason_against', None)
    path = str(tmp_path / 'run' / 'epoch_5.pth')
    results = [getattr(toy_runner('run', load_from=path, resume=resume), kind)()
               for kind in ('val', 'test') for resume in (False, True)]  # fmt: skip
    assert all(r == results[0] for r in results) and results[0]['mse'] > 0


@pytest.mark.parametrize('how', ['moved', 'copied'])
def test_work_dir_is_elsewhere(train_toy, tmp_path, how):
    """Moved or copied, it is resumed from its own files, and no file of the old place is touched."""
    losses, whole = train_toy('whole', **best_changes())
    train_toy('old', **best_changes(), **{'train_cfg.max_epochs': 2})
    before = {p: p.read_bytes() for p in (tmp_path / 'old').glob('*') if p.is_file()}
    if how == 'moved':
        (tmp_path / 'old').rename(tmp_path / 'new')
    else:
        shutil.copytree(tmp_path / 'old', tmp_path / 'new')
    after, runner = train_toy('new', **best_changes(), resume=True)
    assert after == losses and files(runner) == files(whole)
    assert runner.message_hub.get_info('best_ckpt').startswith(str(tmp_path / 'new'))
    if how == 'copied':
        assert {p: p.read_bytes() for p in (tmp_path / 'old').glob('*') if p.is_file()} == before


def test_checkpoints_in_another_folder(train_toy, tmp_path):
    """`out_dir`: the pointer is in the work dir, the checkpoints are not."""
    changes = best_changes(out_dir=str(tmp_path / 'out'))
    train_toy('run', **changes)
    (tmp_path / 'run' / 'losses_rank0.txt').unlink()
    (tmp_path / 'out' / 'run' / 'epoch_4.pth').rename(tmp_path / 'out' / 'run' / 'epoch_3.pth')
    (tmp_path / 'run' / 'last_checkpoint').unlink()
    train_toy('run', **changes, resume=True, **{'train_cfg.max_epochs': 5})
    assert set(read_losses(tmp_path / 'run')) == {16, 17, 18, 19}


def test_leftovers_of_killed_runs_go(train_toy, tmp_path):
    """Incomplete files of the hook's own are removed; what looks like another's stays."""
    (tmp_path / 'run').mkdir()
    own = ['epoch_7.pth.part', 'best_mse_epoch_12.pth.part', 'last_checkpoint.part']
    others = ['notes.part', 'epoch_x.pth.part', 'download.pth.part']
    for name in own + others:
        (tmp_path / 'run' / name).write_bytes(b'half')
    _, runner = train_toy('run', **{'train_cfg.max_epochs': 1})
    assert {f for f in files(runner) if f.endswith('.part')} == set(others)


def _resume_two(toy_runner, folder):
    """What each of two processes gets told, and how many checkpoints it looked at."""
    module = 'mmseg_polyhistor.engine.hooks.safe_checkpoint_hook.reason_against'
    looked, reason_against = [], importlib.import_module(module.rpartition('.')[0]).reason_against
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, lambda *args: looked.append(1) or reason_against(*args))
        for name in ('good', 'bad'):
            runner = toy_runner(name, resume=True)
            try:
                runner.train()
                told.append(runner._load_from)
            except ResumeError as e:
                told.append(str(e))
    return dict(told=told, looked=len(looked))


def test_processes_agree(train_toy, toy_runner, tmp_path, run_ranks):
    """Rank 0 alone reads; all take the same file, or get the same error."""
    for name in ('good', 'bad'):
        train_toy(name, **{'train_cfg.max_epochs': 1})
    (tmp_path / 'bad' / 'epoch_1.pth').write_bytes(b'')
    one, two = run_ranks(2, _resume_two, toy_runner, tmp_path)
    assert one['told'] == two['told'] and (one['looked'], two['looked']) == (2, 0)
    assert one['told'][0] == str(tmp_path / 'good' / 'epoch_1.pth') and 'cannot be read' in one['told'][1]


def test_it_is_a_checkpoint_hook():
    """Same arguments, same priority as mmengine's; another backend may be named."""
    hook = SafeCheckpointHook(interval=3, backend_args=dict(backend='local'))
    assert isinstance(hook, CheckpointHook) and hook.priority == CheckpointHook.priority == 'VERY_LOW'
    assert (hook.interval, hook.backend_args) == (3, dict(backend='local'))
