"""Training loops whose random numbers are a function of the position in training, see `seeding`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmseg.registry import LOOPS
from torch import nn

from .seeding import MODEL_STREAM, SeededDataset, SeededSampler, seed_generators

__all__ = ['LAST_VALIDATION', 'SeededEpochBasedTrainLoop', 'SeededIterBasedTrainLoop']

#: Key of the message hub: epoch and iteration of the last validation, in a checkpoint that was saved after it.
LAST_VALIDATION = 'last_validation'


def shared_seed(runner: Runner) -> int:
    """The seed that all ranks share: `runner.seed`, without the rank that `diff_rank_seed` adds to it."""
    own = runner.seed
    return own - get_rank() if runner._randomness_cfg.get('diff_rank_seed') else own


class _SeededLoop:
    """What both loops add to mmengine's: seeded samples, and seeded generators in front of each iteration."""

    def __init__(self, runner: Runner, dataloader: Mapping, *args: Any, **kwargs: Any) -> None:
        if not isinstance(dataloader, Mapping):
            raise TypeError(
                f'{type(self).__name__} builds the data loader itself: give train_dataloader as a config (dict), '
                f'not as a {type(dataloader).__name__}'
            )
        dataloader = dict(
            dataloader,
            dataset=dict(type=SeededDataset, dataset=dataloader['dataset']),
            sampler=dict(type=SeededSampler, sampler=dataloader['sampler'], seed=shared_seed(runner)),
        )
        super().__init__(runner, dataloader, *args, **kwargs)
        if len(self.dataloader) == 0:
            raise ValueError(
                f'train_dataloader gives no batch: {len(self.dataloader.dataset)} samples, dealt out to '
                f'{get_world_size()} processes, are less than a batch each (batch_size='
                f'{dataloader.get("batch_size")}, drop_last={dataloader.get("drop_last", False)}); take a smaller batch '
                'or fewer processes, or drop_last=False'
            )
        runner.register_hook(_DueValidation())

    @property
    def sampler(self) -> SeededSampler:
        """The sampler of the data loader, directly or within a batch sampler."""
        sampler = self.dataloader.sampler
        return sampler if isinstance(sampler, SeededSampler) else self.dataloader.batch_sampler.sampler

    def run(self) -> nn.Module:
        """Train, with the seed of the checkpoint where one was resumed."""
        self.sampler.seed = shared_seed(self.runner)
        return super().run()

    def validate_if_due(self) -> None:
        """Run the validation that belongs to the current position, unless it was run before the checkpoint was saved.

        A checkpoint is saved before the validation that follows the same iteration. Where the run was killed before it
        saved the next one, the checkpoint knows nothing of that validation: of its metrics, and of the best one.
        """
        position = getattr(self, f'_{self.unit}')
        last = self.runner.message_hub.get_info(LAST_VALIDATION, {}).get(self.unit, 0)
        self._decide_current_val_interval()
        end = position == getattr(self, f'max_{self.unit}s')
        on_time = position >= self.val_begin and (position % self.val_interval == 0 or end)
        if last < position and on_time and self.runner.val_loop is not None:
            self.runner.logger.info(
                f'The checkpoint of {self.unit} {position} was saved before its validation, which follows now'
            )
            # As after training: the hub has the numbers that the last epoch and the last iteration began with.
            hub = self.runner.message_hub
            hub.update_info('iter', self._iter - 1)
            hub.update_info('epoch', self._epoch - (self.unit == 'epoch'))
            self.runner.val_loop.run()

    def run_iter(self, *args: Any) -> None:
        """One iteration, with the global generators seeded from the seed, the iteration and the rank."""
        seed_generators(MODEL_STREAM, shared_seed(self.runner), self._iter, get_rank(), devices=True)
        super().run_iter(*args)


@LOOPS.register_module()
class SeededEpochBasedTrainLoop(_SeededLoop, EpochBasedTrainLoop):
    """mmengine's `EpochBasedTrainLoop`, resumable at the end of any epoch with exactly the same random numbers.

    Same arguments; `train_dataloader` must be a config. A validation that was due when the checkpoint was saved is run
    first.
    """

    unit = 'epoch'


@LOOPS.register_module()
class SeededIterBasedTrainLoop(_SeededLoop, IterBasedTrainLoop):
    """mmengine's `IterBasedTrainLoop`, resumable after any iteration with exactly the same random numbers.

    Same arguments; `train_dataloader` must be a config. With an `InfiniteSampler` a resumed run starts at its place
    in the order at once; with other samplers the data before it are read and dropped, as mmengine does. A validation
    that was due when the checkpoint was saved is run first.
    """

    unit = 'iter'

    def run(self) -> nn.Module:
        """Train, from the place in the order of the data that belongs to the current iteration."""
        self.sampler.seed = shared_seed(self.runner)
        if self._iter > 0:
            restarted = type(self.dataloader_iterator)
            if isinstance(self.sampler.sampler, InfiniteSampler) and self.dataloader.batch_size:
                self.sampler.set_start(self._iter * self.dataloader.batch_size)
                passed = 0 if getattr(self, 'fast_forward_on_resume', False) else self._iter
                self.dataloader_iterator = _AlreadyThere(restarted(self.dataloader), passed)
            else:
                self.dataloader_iterator = restarted(self.dataloader)
        return super().run()


class _DueValidation(Hook):
    """Lets the loop of a resumed run begin with the validation that is due, when all other hooks are ready to train."""

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        if runner.iter > 0:
            runner.train_loop.validate_if_due()


class _AlreadyThere:
    """A data iterator at its place, for a loop that insists on advancing it `passed` steps first."""

    def __init__(self, iterator: Iterator, passed: int) -> None:
        self.iterator = iterator
        self.passed = passed

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        if self.passed:  # mmengine 0.10.7 calls `next` for each step that it skips
            self.passed -= 1
            return None
        return next(self.iterator)

    def skip_iter(self, num_iters: int) -> None:
        """The forks' way to skip steps."""
        self.passed -= num_iters
