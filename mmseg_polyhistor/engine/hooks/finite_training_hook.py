"""`FiniteTrainingHook`: a loss or gradient that is NaN or infinite stops the training, or its step is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor, nn
from torch.optim import Optimizer

from ...adapters.checks import check_positive

__all__ = ['FiniteTrainingHook', 'NonFiniteError']

CHOICES = ('stop', 'skip')
SKIPPED, SCALER_SKIPS = 'finite_training/skipped_steps', 'finite_training/scaler_skips'  # in the message hub
SHOWN = 5  # parameters named

ADVICE = (
    'What to try: look at these images and their labels; a smaller learning rate or a longer warm-up; gradient clipping, '
    'optim_wrapper.clip_grad=dict(max_norm=1.0); bfloat16 in the place of float16; or, to leave such steps out and '
    "count them, on_nonfinite='skip' of FiniteTrainingHook."
)


class NonFiniteError(FloatingPointError):
    """A training met a loss or a gradient that is NaN or infinite."""


class _Report(NamedTuple):
    """What one process saw since the last update."""

    losses: list[str]
    gradients: list[str]
    images: list[str]


@HOOKS.register_module()
class FiniteTrainingHook(Hook):
    """Looks at all losses before the backward pass, and at all gradients before the optimiser's step.

    With 'stop', a value that is not finite ends the training with an error that names the losses and their tasks, or
    the parameters, the iteration, and the images since the last update. No parameter has changed by then, and no
    checkpoint is written. With 'skip', the optimiser's step is left out: parameters and the optimiser's state stay as
    they are, buffers that the forward pass changes (running statistics of BatchNorm) are put back, and a warning says
    the same as the error would. Learning rates and the data go on as if the step had been done. With gradient
    accumulation, all iterations of the update count as one step.

    A loss scaler (`AmpOptimWrapper`) leaves out the steps whose float16 gradients overflow and lowers its scale: that is
    how it finds the scale and no reason to stop. Such steps are counted apart; a loss that is not finite is reported
    all the same, as no scale mends it.

    In a distributed training all processes decide alike, and each names the images of all. They meet where the
    gradients are complete, so 'stop' ends them behind the backward pass there.

    Counts are kept in the message hub (`finite_training/skipped_steps`, `finite_training/scaler_skips`), and so in the
    checkpoints, and go on after a resume. Works with every model of mmengine whose losses are those of `mode='loss'`.
    It costs one synchronisation with the device per iteration, and one per update.

    Args:
        on_nonfinite: 'stop' or 'skip'. Defaults to 'stop'.
        max_consecutive: As many skipped steps in a row, the scaler's counted apart, are an error. Defaults to 50.

    Raises:
        ValueError: for other values. In the training `NonFiniteError`, as above; `TypeError` for several optimisers.
    """

    # Before the hooks that average weights (EMA), log or save.
    priority = 'VERY_HIGH'

    def __init__(self, on_nonfinite: str = 'stop', max_consecutive: int = 50) -> None:
        if on_nonfinite not in CHOICES:
            raise ValueError(
                f'FiniteTrainingHook: on_nonfinite must be one of {CHOICES}, got {on_nonfinite!r}'
            )
        check_positive(max_consecutive=max_consecutive)
        self.on_nonfinite = on_nonfinite
        self.max_consecutive = max_consecutive
        self._handles: list[Any] = []

    # ----------------------------------------------------------------------------------------- the runner's calls
    def before_train(self, runner: Runner) -> None:
        """Attach to model and optimiser."""
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise TypeError(
                'FiniteTrainingHook watches the steps of one optimiser; optim_wrapper has '
                f'{list(runner.optim_wrapper.keys())}. Leave the hook out of custom_hooks'
            )
        self._runner = runner
        self._model: nn.Module = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._in_a_row = self._scaler_in_a_row = 0
        self._begin_update()
        self._handles = [
            self._model.register_forward_hook(self._look_at_losses, with_kwargs=True),
            runner.optim_wrapper.optimizer.register_step_pre_hook(self._look_at_gradients),
        ]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the images of the batch."""
        self._images += _image_paths(data_batch)
        if self.on_nonfinite == 'skip' and self._buffers is None:
            self._buffers = [(b, b.clone()) for b in self._model.buffers() if _may_change(b)]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Put buffers back, and tell the steps that a loss scaler left out."""
        updated = runner.optim_wrapper.should_update()
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if updated and scaler is not None and (self._overflowed or not self._stepped):
            if self._everywhere(not self._losses):
                self._count_scaler_skip(scaler.get_scale())
            else:
                self._refuse(gradients=[])
        if self._losses or self._refused:
            for buffer, before in self._buffers or ():
                buffer.copy_(before)
        if updated:
            self._begin_update()

    def after_train(self, runner: Runner) -> None:
        """Detach, and log the totals."""
        for handle in self._handles:
            handle.remove()
        skipped, by_scaler = (runner.message_hub.get_info(key, 0) for key in (SKIPPED, SCALER_SKIPS))
        if self.on_nonfinite == 'skip' or skipped:
            runner.logger.info(f'FiniteTrainingHook: {skipped} steps skipped in the whole training')
        if by_scaler:
            runner.logger.info(f'FiniteTrainingHook: {by_scaler} steps left out by the loss scaler')

    def _begin_update(self) -> None:
        self._images: list[str] = []
        self._losses: list[str] = []  # those that are not finite
        self._buffers: list[tuple[Tensor, Tensor]] | None = None
        self._stepped = self._overflowed = self._refused = False

    # ----------------------------------------------------------------------------------- what model and optimiser call
    def _look_at_losses(self, model: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        if kwargs.get('mode') != 'loss' or not isinstance(output, Mapping):
            return
        losses = {name: _total(value) for name, value in output.items() if 'loss' in name}
        if not losses or bool(torch.stack(list(losses.values())).isfinite().all()):
            return
        tasks = getattr(model, 'tasks', None) or ()
        self._losses += [_named(name, value, tasks) for name, value in losses.items() if not value.isfinite()]
        if self.on_nonfinite == 'stop' and get_world_size() == 1:
            self._refuse(gradients=[])

    def _look_at_gradients(self, optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]) -> None:
        self._stepped = True
        parameters = [p for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        # A fused optimiser gets scaled gradients, with the scaler's verdict, and leaves the step out by itself.
        verdict = getattr(optimizer, 'found_inf', None)
        if verdict is not None:
            self._overflowed = bool(verdict)
        finite = verdict is not None or _all_finite([p.grad for p in parameters])
        if self._everywhere(finite and not self._losses):
            if not self._overflowed:
                self._in_a_row = self._scaler_in_a_row = 0
            return
        self._refuse(gradients=[] if finite else self._names(parameters))
        for parameter in parameters:
            parameter.grad = None  # with which an optimiser leaves a parameter and its state alone
        self._overflowed = False

    # ------------------------------------------------------------------------------------------------ consequences
    def _everywhere(self, fine: bool) -> bool:
        """Whether it is fine in all processes."""
        if get_world_size() == 1:
            return fine
        flag = torch.tensor(float(fine))
        all_reduce(flag, 'min')
        return bool(flag)

    def _names(self, parameters: Sequence[nn.Parameter]) -> list[str]:
        """Names of those whose gradients are not finite."""
        names = {id(p): name for name, p in self._model.named_parameters()}
        return [
            names.get(id(p), '(a parameter outside the model)')
            for p in parameters
            if not p.grad.isfinite().all()
        ]

    def _refuse(self, gradients: list[str]) -> None:
        """Stop with an error, or count a skipped step."""
        own = _Report(self._losses, gradients, self._images)
        text = self._describe(all_gather_object(own) if get_world_size() > 1 else [own])
        if self.on_nonfinite == 'stop':
            raise NonFiniteError(
                f'{text}\nStopped before the step: no parameter has changed since the last finite one. {ADVICE}'
            )
        self._refused = True
        self._in_a_row += 1
        total = self._count(SKIPPED)
        self._runner.logger.warning(
            f'{text}\nStep skipped ({total} in the whole training, {self._in_a_row} in a row).'
        )
        if self._in_a_row >= self.max_consecutive:
            raise NonFiniteError(
                f'{text}\nStopped after {self._in_a_row} skipped steps in a row (max_consecutive of FiniteTrainingHook): '
                f'this does not pass by itself. {ADVICE}'
            )

    def _count_scaler_skip(self, scale: float) -> None:
        self._count(SCALER_SKIPS)
        self._scaler_in_a_row += 1
        if self._scaler_in_a_row >= self.max_consecutive:
            raise NonFiniteError(
                f'{self._where()}: the loss scaler has left out {self._scaler_in_a_row} steps in a row '
                f'(max_consecutive of FiniteTrainingHook), at a scale of {scale:g} by now: the gradients are not finite '
                f'at any scale, though the losses are.\n{_shown_images(self._images)}\n{ADVICE}'
            )

    def _count(self, key: str) -> int:
        hub = self._runner.message_hub
        total = hub.get_info(key, 0) + 1
        hub.update_info(key, total)
        return total

    def _where(self) -> str:
        return f'iteration {self._runner.iter + 1} (epoch {self._runner.epoch + 1})'

    def _describe(self, reports: Sequence[_Report]) -> str:
        lines = []
        for rank, report in enumerate(reports):
            who = f'process {rank}: ' if len(reports) > 1 else ''
            if report.losses:
                lines.append(f'  {who}{", ".join(report.losses)}')
            if report.losses or not any(r.losses for r in reports):
                lines.append(f'  {who}{_shown_images(report.images)}')
        if any(report.losses for report in reports):
            lines.insert(0, f'{self._where()}: a loss is not finite')
        else:
            bad = max((report.gradients for report in reports), key=len)
            lines.insert(
                0,
                f'{self._where()}: the losses are finite, but the gradients of {len(bad)} parameters are not: '
                + ', '.join(bad[:SHOWN])
                + (', ...' if len(bad) > SHOWN else '')
                + (' (clipping has spread it)' if self._runner.optim_wrapper.clip_grad_kwargs else ''),
            )
        broken = [name for name, p in self._model.named_parameters() if not p.isfinite().all()]
        if broken:
            lines.append(
                f'  {len(broken)} parameters of the model are themselves not finite, {broken[0]} among them: look at '
                'where they were loaded from'
            )
        return '\n'.join(lines)


def _image_paths(data_batch: Any) -> list[str]:
    """The image paths that a batch of the data loader tells, () where it tells none."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, Mapping) else None
    if not isinstance(samples, Iterable) or isinstance(samples, Tensor):
        return []
    return [str(s.img_path) for s in samples if getattr(s, 'img_path', None) is not None]


def _shown_images(paths: Sequence[str]) -> str:
    return f'images since the last update: {", ".join(paths) or "(the batches do not tell their paths)"}'


def _may_change(buffer: Tensor) -> bool:
    """Whether a forward pass may write it: statistics, and their counters, which have no dimension."""
    return buffer.is_floating_point() or buffer.dim() == 0


def _total(loss: Tensor | Sequence[Tensor]) -> Tensor:
    """A loss as mmengine's `parse_losses` counts it."""
    parts = [loss] if isinstance(loss, Tensor) else loss
    return sum(part.detach().float().mean() for part in parts)


def _named(name: str, value: Tensor, tasks: Sequence[str]) -> str:
    """A loss with its value, and with its task where the name tells one (see `head_losses`)."""
    of_task = [t for t in tasks if name == f'loss_{t}' or name.startswith(f'loss_{t}_')]
    task = f' (task {max(of_task, key=len)!r})' if of_task else ''
    return f'{name} = {value.item()}{task}'


def _all_finite(tensors: Sequence[Tensor]) -> bool:
    """One look at many tensors: the largest magnitude of each is NaN or infinite where any of its values is."""
    tensors = [t for t in tensors if t.numel()]
    if not tensors:
        return True
    return bool(torch.stack(torch._foreach_norm(tensors, float('inf'))).isfinite().all())
