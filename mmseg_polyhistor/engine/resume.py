"""Which checkpoint a run is resumed from: the last one that is whole and fits."""

from __future__ import annotations

import os
import os.path as osp
import re
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import CheckpointLoader, Runner

from .key_accounting import key_differences

__all__ = ['POINTER', 'ResumeError', 'checkpoint_pattern', 'find_candidates', 'reason_against']

#: The file of a work dir that names the last checkpoint.
POINTER = 'last_checkpoint'
#: State of torch's optimisers that has a number per weight.
_PER_WEIGHT = (
    'acc_delta', 'exp_avg', 'exp_avg_sq', 'exp_inf', 'grad_avg', 'max_exp_avg_sq', 'momentum_buffer', 'prev',
    'square_avg', 'step_size', 'sum',
)  # fmt: skip


class ResumeError(RuntimeError):
    """There is no checkpoint that a run could be resumed from; the message says what is wrong with each."""


def checkpoint_pattern(template: str) -> re.Pattern[str]:
    """The names that a template such as 'epoch_{}.pth' gives, with the number as group `step`."""
    head, tail = re.split(r'\{[^}]*\}', template, maxsplit=1)
    return re.compile(f'{re.escape(head)}(?P<step>[0-9]+){re.escape(tail)}')


def find_candidates(work_dir: str, folder: str, names: Iterable[str], template: str) -> list[str]:
    """Paths of the checkpoints that a run could be resumed from, the likeliest first.

    The first is what the pointer names. Its folder does not count where `folder` has a file of that name, so that a work
    dir may be moved, or copied, with its checkpoints. The training checkpoints in `folder` follow, from last to first.

    Args:
        work_dir: Folder of the pointer; that is an absolute path as a rule, and may be absent, empty or cut off.
        folder: Folder of the checkpoints.
        names: Names of the files in `folder`.
        template: Names of the training checkpoints, such as 'epoch_{}.pth'. The standard names are tried as well.
    """
    names = set(names)
    found = []
    try:
        with open(osp.join(work_dir, POINTER), 'rb') as f:
            pointer = os.fsdecode(f.read()).strip()
    except FileNotFoundError:
        pointer = ''
    if pointer:
        name = re.split(r'[\\/]', pointer)[-1]
        found.append(osp.join(folder, name) if name in names else pointer)
    for known in dict.fromkeys((template, 'epoch_{}.pth', 'iter_{}.pth')):
        matches = filter(None, map(checkpoint_pattern(known).fullmatch, names))
        steps = sorted(matches, key=lambda match: int(match['step']), reverse=True)
        found += [osp.join(folder, match.string) for match in steps]
    return list(dict.fromkeys(found))


def reason_against(runner: Runner, path: str, keys: Iterable[str]) -> str | None:
    """Why a run cannot be resumed from a checkpoint; None where it can.

    The file is read once, without running code in it, and let go.

    Args:
        runner: The runner, with its model and optimiser built. It stays as it is.
        path: The checkpoint: a path, or a URL as `load_from` may be.
        keys: What the checkpoint must hold.
    """
    local = osp.expanduser(path)
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        if osp.isfile(local) and zipfile.is_zipfile(local):
            with zipfile.ZipFile(local) as archive:
                if (damaged := archive.testzip()) is not None:  # torch.load does not compare checksums
                    return f'it is damaged: its part {damaged!r} does not have the checksum that was written with it'
        return next(_objections(runner, checkpoint, keys), None)
    except (
        Exception
    ) as e:  # what a file of anybody's can cause is not to be foreseen, and the next one may be good
        return str(e) if isinstance(e, (OSError, RuntimeError)) else f'{type(e).__name__}: {e}'


def _objections(runner: Runner, checkpoint: Any, keys: Iterable[str]) -> Any:
    if not isinstance(checkpoint, Mapping):
        yield f'it is no checkpoint: it holds a {type(checkpoint).__name__}'
    if missing := [key for key in keys if key not in checkpoint]:
        yield f'it lacks {missing}, which resuming needs, and holds {sorted(checkpoint)[:8]}'
    meta = checkpoint['meta']
    if not all(isinstance(meta.get(key), int) for key in ('epoch', 'iter')):
        yield f"its 'meta' lacks the integers 'epoch' and 'iter', and holds {sorted(meta)}"
    if absent := {'log_scalars', 'runtime_info', 'resumed_keys'} - set(checkpoint['message_hub']):
        yield f"its 'message_hub' lacks {sorted(absent)}"
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if differences := key_differences(model, checkpoint['state_dict']):
        yield f'its weights do not fit the model:\n{differences}'
    if 'optimizer' in checkpoint:
        yield from _of_optimiser(runner.optim_wrapper, checkpoint['optimizer'])
    if 'param_schedulers' in checkpoint and runner.param_schedulers is not None:
        yield from _of_schedulers(runner.param_schedulers, checkpoint['param_schedulers'])


def _of_optimiser(wrapper: Any, state: Mapping[str, Any]) -> Any:
    if isinstance(wrapper, OptimWrapperDict):
        wrappers = dict(wrapper.items())
        if set(wrappers) != set(state):
            yield f'it has optimisers for {sorted(state)}, the config has them for {sorted(wrappers)}'
        for name, one in wrappers.items():
            yield from _of_optimiser(one, state[name])
        return
    optimiser = wrapper.optimizer
    groups, given = optimiser.param_groups, state['param_groups']
    sizes, given_sizes = ([len(group['params']) for group in side] for side in (groups, given))
    if sizes != given_sizes:
        yield (
            f'its optimiser has {sum(given_sizes)} parameters in {len(given)} groups, the run has {sum(sizes)} in '
            f'{len(groups)}'
        )
    for group, given_group in zip(groups, given, strict=True):
        own, others = (set(side) - {'params', 'initial_lr'} for side in (group, given_group))
        if own - others and others - own:  # between versions of torch, settings only come or only go
            yield (
                f'it has the state of another optimiser than {type(optimiser).__name__}: with the settings '
                f'{sorted(others - own)}, without {sorted(own - others)}'
            )
        for parameter, index in zip(group['params'], given_group['params'], strict=True):
            for key, value in state['state'].get(index, {}).items():
                if key in _PER_WEIGHT and value is not None and value.shape != parameter.shape:
                    yield (
                        f'its optimiser has {key!r} of shape {tuple(value.shape)} for a parameter of shape '
                        f'{tuple(parameter.shape)}'
                    )


def _of_schedulers(schedulers: Any, states: Any) -> Any:
    """`schedulers` is a list of them or of their configs, or a dict of such lists."""
    if isinstance(schedulers, Mapping) != isinstance(states, Mapping):
        yield "its 'param_schedulers' are of another form than those of the config"
    pairs = [(schedulers, states)]
    if isinstance(schedulers, Mapping):
        if set(schedulers) != set(states):
            yield f'it has schedules for {sorted(states)}, the config has them for {sorted(schedulers)}'
        pairs = [(schedulers[name], states[name]) for name in schedulers]
    for own, given in pairs:
        if len(own) != len(given):
            yield f'it has the state of {len(given)} parameter schedulers, the config has {len(own)}'
