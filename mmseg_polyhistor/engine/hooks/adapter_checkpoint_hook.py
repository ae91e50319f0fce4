"""`AdapterCheckpointHook`: checkpoints of what is trained, with a record of the frozen backbone in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import save_checkpoint
from mmseg.registry import HOOKS
from torch import nn

from ..frozen_backbone import FrozenBackbone, FrozenRecord, weights_hash
from .safe_checkpoint_hook import SafeCheckpointHook

__all__ = ['AdapterCheckpointHook', 'frozen_backbones', 'without_frozen']


@HOOKS.register_module()
class AdapterCheckpointHook(SafeCheckpointHook):
    """`SafeCheckpointHook` for checkpoints of about the size of the trainable parameters, with the same arguments.

    The frozen weights of a backbone are left out, of averaged weights (`EMAHook`) too. In their place stands a record:
    the backbone's architecture, the file that it was loaded from, and a SHA-256 of its weights. Whatever loads the
    checkpoint into the model (`tools/test.py`, `init_model`, `load_from`, `resume`, `EMAHook`) has the backbone restored
    from the file that `init_cfg` names, or else from the recorded one, or is refused. The record also stands in
    `meta['frozen_backbones']`, to be read by people. `tools/model_converters/adapter_checkpoint.py` turns it into a full
    one, and back.

    At the start of a training, on rank 0, the file of `init_cfg` is read once more to make sure that it gives the
    weights that the model has. Where it does not, as with a backbone that starts at random or that `load_from` has
    overwritten, the frozen weights are written to `frozen_backbone_<start of their hash>.pth` beside the checkpoints,
    once, and that file is recorded: keep it with them.

    States of the optimiser (Adam: twice the trainable parameters) are in the checkpoints as in mmengine's hook:
    `save_optimizer=False` leaves them out, and with them the possibility to resume.

    Args:
        *args: See `SafeCheckpointHook`.
        **kwargs: See `SafeCheckpointHook`.
    """

    _records: dict[str, FrozenRecord] | None = None

    def before_train(self, runner: Runner) -> None:
        """Make sure that what will be left out can be restored."""
        super().before_train(runner)
        if is_main_process():
            self._records = self._make_records(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Leave out the frozen weights, and turn the rest into plain data.

        Raises:
            NotPlainError: if something has no plain form.
        """
        if self._records is None:
            self._records = self._make_records(runner)
        model = _unwrapped(runner.model)
        for name, prefix in (('state_dict', ''), ('ema_state_dict', 'module.')):
            if name in checkpoint:
                checkpoint[name] = without_frozen(model, checkpoint[name], self._records, prefix)
        checkpoint['meta']['frozen_backbones'] = {k: asdict(r) for k, r in self._records.items()}
        super().before_save_checkpoint(runner, checkpoint)

    def _make_records(self, runner: Runner) -> dict[str, FrozenRecord]:
        records = {}
        for name, backbone in frozen_backbones(_unwrapped(runner.model)):
            source = backbone.frozen_source() or (self._save_frozen(runner, backbone), '')
            records[name] = backbone.frozen_record(*source)
            runner.logger.info(
                f'{type(self).__name__}: checkpoints hold a record of the frozen weights of {name or "the model"}, '
                f'{records[name].source}, sha256 {records[name].sha256}'
            )
        if not records:
            runner.logger.info(f'{type(self).__name__}: no backbone is frozen; checkpoints hold all weights')
        return records

    def _save_frozen(self, runner: Runner, backbone: FrozenBackbone) -> str:
        """Write the frozen weights beside the checkpoints, unless they are there; returns the path."""
        weights = backbone.frozen_weights()
        file = f'frozen_backbone_{weights_hash(weights)[:16]}.pth'
        path = self.file_backend.join_path(self.out_dir, file)
        if not self.file_backend.exists(path):
            weights = {k: v.detach().cpu() for k, v in weights.items()}
            save_checkpoint(dict(state_dict=weights), path, backend_args=self.backend_args)
            runner.logger.warning(
                f"{type(self).__name__}: no file that the backbone's init_cfg names holds its frozen weights; they were "
                f'written to {path}, which checkpoints need'
            )
        return path


def frozen_backbones(model: nn.Module) -> Iterator[tuple[str, FrozenBackbone]]:
    """Names and modules of a model's backbones that have frozen weights.

    Raises:
        ValueError: if such a weight is being trained all the same, so that it would be lost.
    """
    for name, module in model.named_modules():
        if isinstance(module, FrozenBackbone) and (weights := module.frozen_weights()):
            if trained := [k for k, p in weights.items() if p.requires_grad]:
                raise ValueError(
                    f'{len(trained)} weights of the frozen backbone {name!r} are trained ({", ".join(trained[:3])}, ...), '
                    'and a checkpoint without the backbone would lose them: take SafeCheckpointHook'
                )
            yield name, module


def without_frozen(
    model: nn.Module, state_dict: dict, records: dict[str, FrozenRecord], prefix: str = ''
) -> dict:
    """A state dict without the frozen weights of backbones, with their records.

    Args:
        model: The model that the weights belong to.
        state_dict: Weights under the model's keys. Not changed.
        records: Name of the backbone -> its record.
        prefix: What the keys of the state dict have in front of the model's. Defaults to ''.
    """
    short = state_dict.copy()  # an OrderedDict's attributes go along
    for name, record in records.items():
        backbone = model.get_submodule(name)
        start = prefix + (f'{name}.' if name else '')
        for key in backbone.frozen_weights().keys() | backbone.derived_keys():
            del short[start + key]
        short[start + backbone.RECORD_KEY] = record.to_tensor()
    return short


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
