"""The losses of one task's head on a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_polyhistor.tasks import TaskSpec


def has_own_loss(head: BaseDecodeHead) -> bool:
    """Whether a head computes more than `loss_decode` of its logits: an auxiliary loss, or a sampler of pixels."""
    cls = type(head)
    overridden = cls.loss is not BaseDecodeHead.loss or cls.loss_by_feat is not BaseDecodeHead.loss_by_feat
    return overridden or head.sampler is not None


def head_losses(
    head: BaseDecodeHead,
    spec: TaskSpec,
    maps: Sequence[Tensor],
    data_samples: Sequence[SegDataSample],
    train_cfg: dict[str, Any] | None = None,
) -> dict[str, Tensor]:
    """The named losses of one task.

    A head without a loss of its own is asked for logits, which are resized to the label's size (bilinear, the head's
    `align_corners`) and handed to `loss_decode`. That is mmseg's rule, for any kind of task, and without the accuracy
    that mmseg logs, which costs a search through all logits and means something for classes only. A head with a loss
    of its own (auxiliary terms, a sampler) is asked for it.

    Args:
        head: The task's head.
        spec: The task.
        maps: The backbone's maps for the task, (B, C_i, H_i, W_i).
        data_samples: The samples of the batch, with the task's label.
        train_cfg: Handed to a head with a loss of its own. Defaults to None.

    Returns:
        `loss_<task>`, or `loss_<task>_<name>` per name where the head has losses of several names; values whose name
        is without 'loss' (mmengine leaves them out of the sum) as `<task>.<name>`.

    Raises:
        ValueError: if a sample has no label of the task.
    """
    target = _stack(data_samples, spec)
    if has_own_loss(head):
        return _name(head.loss(maps, _as_semantic_samples(data_samples, target), train_cfg), spec.name)
    target = _TARGETS[spec.kind](target)
    logits = resize(head(maps), size=target.shape[-2:], mode='bilinear', align_corners=head.align_corners)
    losses: dict[str, Tensor] = {}
    for module in head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]:
        value = module(logits, target, ignore_index=spec.ignore_value)
        known = losses.get(module.loss_name)
        losses[module.loss_name] = value if known is None else known + value
    return _name(losses, spec.name)


def _classes(target: Tensor) -> Tensor:
    """(B, 1, H, W) uint8 -> (B, H, W) int64."""
    return target.squeeze(1).long()


def _numbers(target: Tensor) -> Tensor:
    """(B, C, H, W) float32, as it is."""
    return target


_TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    'semantic': _classes,
    'binary': _classes,
    'unit_vector': _numbers,
    'scalar': _numbers,
}


def _stack(data_samples: Sequence[SegDataSample], spec: TaskSpec) -> Tensor:
    """The labels of a task: (C, H, W) per sample -> (B, C, H, W)."""
    for sample in data_samples:
        if spec.gt_field not in sample:
            raise ValueError(
                f'{sample.get("img_path", "an image")} has no label of task {spec.name!r} (field '
                f'{spec.gt_field!r}); training needs one for every task, with ignored pixels where nothing is known'
            )
    return torch.stack([sample.get(spec.gt_field).data for sample in data_samples])


def _as_semantic_samples(data_samples: Sequence[SegDataSample], target: Tensor) -> list[SegDataSample]:
    """Samples that carry a task's label where mmseg's heads look for it, in `gt_sem_seg`."""
    views = [SegDataSample(metainfo=sample.metainfo) for sample in data_samples]
    for view, label in zip(views, target.long(), strict=True):
        view.gt_sem_seg = PixelData(data=label)
    return views


def _name(losses: dict[str, Tensor], task: str) -> dict[str, Tensor]:
    single = sum('loss' in name for name in losses) == 1

    def rename(name: str) -> str:
        if 'loss' not in name:
            return f'{task}.{name}'
        return f'loss_{task}' if single else f'loss_{task}_{name.removeprefix("loss_")}'

    return {rename(name): value for name, value in losses.items()}
