"""The seeded loops: what is resumed equals, bit for bit, what was never interrupted."""

from __future__ import annotations

import pytest
import torch
from mmengine.runner import Runner, ValLoop
from torch.utils.data import DataLoader
from toy_training import assert_identical

from mmseg_polyhistor.engine import SeededDataset
from mmseg_polyhistor.engine.loops import shared_seed

pytestmark = pytest.mark.stack

EPOCHS = dict(type='SeededEpochBasedTrainLoop', max_epochs=4)
ITERS = dict(_delete_=True, type='SeededIterBasedTrainLoop', max_iters=12)
BY_EPOCH = {'train_cfg': EPOCHS}
BY_ITER = {
    'train_cfg': ITERS,
    'train_dataloader.sampler.type': 'InfiniteSampler',
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 5,
}
ITER_FINITE = BY_ITER | {'train_dataloader.sampler.type': 'DefaultSampler'}
WORKERS = {
    'no worker': {'train_dataloader.num_workers': 0},
    'two workers': {'train_dataloader.num_workers': 2},
    'persistent': {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True},
    'own batches': {'train_dataloader.batch_sampler': dict(type='ToyBatchSampler', drop_last=True)},
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """mmengine waits two seconds between passes of a finite sampler."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)


def _resume(path, **changes):
    return dict(load_from=str(path), resume=True, **changes)


@pytest.mark.parametrize('workers', WORKERS.values(), ids=WORKERS)
@pytest.mark.parametrize('loop', [BY_EPOCH, BY_ITER, ITER_FINITE], ids=['epochs', 'iters', 'iters-finite'])
def test_resumed_equals_uninterrupted(train_toy, tmp_path, loop, workers):
    """Losses, log history, weights and optimiser state after a resume are those of a run without break."""
    losses, whole = train_toy('whole', **loop, **workers)
    middle, last = ('epoch_2.pth', 'epoch_4.pth') if loop is BY_EPOCH else ('iter_5.pth', 'iter_12.pth')
    later, resumed = train_toy('resumed', **loop, **workers, **_resume(tmp_path / 'whole' / middle))
    assert len(losses) == whole.iter and 0 < len(later) < len(losses)
    assert later == {i: losses[i] for i in later}
    assert min(later) == (8 if loop is BY_EPOCH else 5)
    ends = [torch.load(tmp_path / run / last, weights_only=True) for run in ('whole', 'resumed')]
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_identical(ends[0][key], ends[1][key])
    histories = [run.message_hub.get_scalar('train/loss').data for run in (whole, resumed)]
    assert_identical(histories[0], histories[1])


@pytest.mark.parametrize('loop', [BY_EPOCH, BY_ITER], ids=['epochs', 'iters'])
def test_workers_do_not_matter(train_toy, loop):
    """The losses do not depend on how many processes read the data."""
    runs = [train_toy(f'run{i}', **loop, **workers)[0] for i, workers in enumerate(WORKERS.values())]
    assert all(run == runs[0] for run in runs[1:])


def test_resume_without_a_fixed_seed(train_toy, tmp_path):
    """Where the config names no seed, the resumed run goes on with the checkpoint's random one."""
    losses, _ = train_toy('whole', **BY_EPOCH, randomness={'seed': None})
    resume = _resume(tmp_path / 'whole' / 'epoch_2.pth')
    later, _ = train_toy('resumed', **BY_EPOCH, randomness={'seed': None}, **resume)
    assert later == {i: losses[i] for i in later}
    assert train_toy('other', **BY_EPOCH, randomness={'seed': None})[0] != losses


def test_randomness_differs_between_iterations_and_seeds(train_toy):
    """Nothing learns here (lr 0), and one sample is seen for ever: the loss still differs every time."""
    still = {
        **BY_EPOCH,
        'optim_wrapper.optimizer.lr': 0.0,
        'train_dataloader.dataset.size': 1,
        'train_dataloader.batch_size': 1,
    }
    sources = {
        'augmentation': {'model.dropout': 0.0},
        'dropout': {'train_dataloader.dataset.noise': 0.0, 'model.dropout': 0.2, 'train_cfg.max_epochs': 12},
    }
    for name, source in sources.items():
        one, two = (
            set(train_toy(f'{name}{s}', **(still | source), randomness={'seed': s})[0].values())
            for s in (0, 1)
        )
        assert len(one) > 3 and one != two, name


def test_seed_that_ranks_share(toy_runner, monkeypatch):
    """With `diff_rank_seed` mmengine adds the rank to each rank's seed; the samples still need one seed."""
    monkeypatch.setattr('mmengine.runner.utils.get_rank', lambda: 2)
    monkeypatch.setattr('mmseg_polyhistor.engine.loops.get_rank', lambda: 2)
    runner = toy_runner('own', randomness=dict(seed=3, diff_rank_seed=True))
    assert runner.seed == 5 and shared_seed(runner) == 3
    assert shared_seed(toy_runner('same', randomness=dict(seed=3))) == 3


def test_a_built_data_loader_is_refused(toy_runner):
    """The loop has to put its own sampler in."""
    runner = toy_runner(**BY_EPOCH)
    loader = Runner.build_dataloader(runner.cfg.train_dataloader)
    assert isinstance(loader, DataLoader)
    runner._train_dataloader = loader
    with pytest.raises(TypeError, match='give train_dataloader as a config'):
        runner.build_train_loop(EPOCHS)


def test_resuming_by_iteration_reads_no_past_data(toy_runner, train_toy, tmp_path, monkeypatch):
    """With an infinite sampler, the samples before the checkpoint are not read again."""
    train_toy('whole', **BY_ITER)
    read = []
    monkeypatch.setattr(SeededDataset, '__getitem__', lambda self, i: read.append(i) or self.dataset[i])
    train_toy('resumed', **BY_ITER, **_resume(tmp_path / 'whole' / 'iter_10.pth'))
    assert len(read) == 2 * 4  # iterations 11 and 12, with batches of 4


@pytest.mark.parametrize('loop', ['SeededEpochBasedTrainLoop', 'SeededIterBasedTrainLoop'])
def test_a_loader_without_a_batch_is_refused(toy_runner, loop):
    """Otherwise whole epochs would pass in which nothing is trained."""
    length = dict(max_epochs=2) if 'Epoch' in loop else dict(max_iters=2)
    changes = dict(
        train_cfg=dict(type=loop, _delete_=True, **length),
        train_dataloader=dict(batch_size=17, drop_last=True),
        param_scheduler=None,
    )
    message = r'no batch: 16 samples, dealt out to 1 processes.*batch_size=17, drop_last=True'
    with pytest.raises(ValueError, match=message):
        toy_runner(**changes).train()


VALIDATED = {
    'uneven': dict(val_interval=3),
    'late': dict(val_begin=3),
    'denser': dict(val_interval=5, dynamic_intervals=[(3, 1)]),
}


@pytest.mark.parametrize('when', VALIDATED)
@pytest.mark.parametrize('loop', ['epoch', 'iter'])
def test_validations_after_a_resume(toy_runner, tmp_path, monkeypatch, loop, when):
    """Resumed at any checkpoint, all of which were saved before the validation, a run validates as the whole one did."""
    changes = {
        'epoch': dict(train_cfg=EPOCHS | dict(max_epochs=4)),
        'iter': BY_ITER | dict(train_cfg=ITERS | dict(max_iters=4)),
    }[loop]
    changes = changes | {'default_hooks.checkpoint.interval': 1}
    changes['train_cfg'] = changes['train_cfg'] | dict(val_interval=1) | VALIDATED[when]
    done = []

    def run(self):
        hub = self.runner.message_hub
        done.append((getattr(self.runner, loop), hub.get_info('loop_stage'), hub.get_info('max_iters')))
        return validate(self)

    validate = ValLoop.run
    monkeypatch.setattr(ValLoop, 'run', run)
    toy_runner('whole', **changes).train()
    whole = list(done)
    assert whole and whole[-1][0] == 4
    for position in range(1, 5):
        done.clear()
        resume = _resume(tmp_path / 'whole' / f'{loop}_{position}.pth')
        toy_runner(f'from {position}', **changes, **resume).train()
        assert done == [v for v in whole if v[0] >= position], position


@pytest.mark.parametrize('loop', [BY_EPOCH, BY_ITER], ids=['epochs', 'iters'])
def test_what_was_validated_is_not_validated_again(train_toy, toy_runner, tmp_path, monkeypatch, loop):
    """A checkpoint that was saved once more with its best score says so; without validation loop nothing is due."""
    best = {'default_hooks.checkpoint.save_best': 'mse', 'default_hooks.checkpoint.rule': 'less'}
    _, whole = train_toy('whole', **loop, **best)
    last = 'epoch_4.pth' if loop is BY_EPOCH else 'iter_12.pth'
    info = whole.message_hub.get_info('last_validation')
    again = []
    monkeypatch.setattr(ValLoop, 'run', lambda self: again.append(1))
    checkpoint = torch.load(tmp_path / 'whole' / last, weights_only=True)
    for validated in (True, False):
        checkpoint['message_hub']['runtime_info']['last_validation'] = (
            info if validated else dict(epoch=1, iter=1)
        )
        torch.save(checkpoint, tmp_path / 'whole' / last)
        for with_validation in (True, False):
            none = {} if with_validation else dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
            changes = {**loop, **(best if with_validation else {}), **none}
            toy_runner('resumed', **changes, **_resume(tmp_path / 'whole' / last)).train()
            assert bool(again) == (with_validation and not validated)
            again.clear()
