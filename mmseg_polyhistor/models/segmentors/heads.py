"""Completes the configs of the tasks' decode heads from the table of tasks, and builds the heads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import nn

from mmseg_polyhistor.models.backbones.task_encoders import TaskEncoders
from mmseg_polyhistor.tasks import TaskSpec

from .head_losses import has_own_loss


def head_configs(decode_heads: Mapping[str, Any], specs: Sequence[TaskSpec]) -> dict[str, dict[str, Any]]:
    """One complete head config per task, in the order of the tasks.

    Args:
        decode_heads: A config per task name, or one config (with the key 'type'), the template of every task's head.
        specs: The tasks.

    Returns:
        Task name -> config, in which what the table knows (`num_classes`, `out_channels`, `ignore_index` and
        `loss_decode`) is filled in where it was absent. The argument is left as it was.

    Raises:
        ValueError: if a task has no head, a head no task, or a head contradicts its task.
    """
    names = [spec.name for spec in specs]
    if not isinstance(decode_heads, Mapping):
        raise ValueError(
            "decode_heads must be a dict: a config per task, or one config (with the key 'type') as the template of all; "
            f'got {decode_heads!r}'
        )
    if 'type' in decode_heads:
        decode_heads = dict.fromkeys(names, decode_heads)
    if missing := [name for name in names if name not in decode_heads]:
        raise ValueError(
            f'decode_heads has no head for the tasks {missing}; it names {list(decode_heads)}. '
            "Add them, or give one config with the key 'type' as the template of all heads"
        )
    if extra := [name for name in decode_heads if name not in names]:
        raise ValueError(f'decode_heads has heads for {extra}, which tasks={names} does not name')
    return {spec.name: _complete(decode_heads[spec.name], spec) for spec in specs}


def _complete(cfg: Mapping[str, Any], spec: TaskSpec) -> dict[str, Any]:
    _check_type(f'decode_heads.{spec.name}', cfg, 'Head')
    cfg = copy.deepcopy(dict(cfg))
    # mmseg describes a binary head with one output by num_classes=2 as well as by 1.
    allowed = dict(
        num_classes=(1, 2) if spec.kind == 'binary' else (spec.channels,),
        out_channels=(spec.channels,),
        ignore_index=(spec.ignore_value,),
    )
    for key, values in allowed.items():
        if cfg.get(key) is None:
            cfg[key] = values[0]
        elif cfg[key] not in values:
            raise ValueError(
                f'decode_heads.{spec.name}: {key}={cfg[key]!r} contradicts the task ({spec.kind}, {spec.channels} channels, '
                f'ignore value {spec.ignore_value}); allowed: {" or ".join(map(str, values))}, or leave it out'
            )
    if cfg.get('loss_decode') is None:
        cfg['loss_decode'] = copy.deepcopy(spec.loss)
    losses = cfg['loss_decode']
    for loss in losses if isinstance(losses, (list, tuple)) else [losses]:
        _check_type(f'decode_heads.{spec.name}.loss_decode', loss, 'Loss')
    if spec.channels == 1 and cfg.get('threshold') is None:
        cfg['threshold'] = 0.5  # unused here, where predictions are probabilities, but mmseg warns without it
    return cfg


def build_head(cfg: dict[str, Any], spec: TaskSpec) -> BaseDecodeHead:
    """A task's head, with the check that it can serve the task.

    Args:
        cfg: A complete config (see `head_configs`).
        spec: The task.

    Raises:
        ValueError: if the head cannot be built of the config, is none of mmseg's plain decode heads, has another number
            of channels than the task, or computes a loss of its own (or samples pixels), which exists for semantic tasks only.
    """
    try:
        head = MODELS.build(cfg)
    except (AssertionError, KeyError, TypeError) as e:
        reason = e.args[0] if e.args else type(e).__name__
        raise ValueError(f'decode_heads.{spec.name} cannot be built: {reason}; given: {cfg}') from e
    name = f'decode_heads.{spec.name} ({type(head).__name__})'
    if not isinstance(head, BaseDecodeHead) or isinstance(head, BaseCascadeDecodeHead):
        raise ValueError(
            f'{name}: a task needs a head that turns feature maps into logits, a subclass of '
            "mmseg's BaseDecodeHead and not of BaseCascadeDecodeHead"
        )
    if head.out_channels != spec.channels:
        raise ValueError(
            f'{name}: out_channels is {head.out_channels}, allowed for the task: {spec.channels}'
        )
    if spec.kind != 'semantic' and has_own_loss(head):
        raise ValueError(
            f'{name}: the head brings a sampler or a loss of its own, made for classes; '
            f'the task is {spec.kind}. Take a head without, such as AllMLPHead, SegformerHead or UPerHead'
        )
    return head


def check_widths(heads: Mapping[str, BaseDecodeHead], backbone: nn.Module) -> None:
    """Compare the channels that the heads read with those of the backbone's maps.

    Args:
        heads: The head of each task.
        backbone: The backbone. One that does not tell its widths (`layout`, as `AdaptedSwin` has) is not looked at.

    Raises:
        ValueError: if a head reads a map that there is not, or one of another width.
    """
    one = next(iter(backbone.encoders.values())) if isinstance(backbone, TaskEncoders) else backbone
    if (layout := getattr(one, 'layout', None)) is None:
        return
    maps = list(layout.widths)
    for task, head in heads.items():
        several = head.input_transform is not None
        index = list(head.in_index) if several else [head.in_index]
        given = list(head.in_channels) if head.input_transform == 'multiple_select' else [head.in_channels]
        where = f'decode_heads.{task} ({type(head).__name__})'
        if outside := [i for i in index if not -len(maps) <= i < len(maps)]:
            raise ValueError(
                f'{where}: in_index={head.in_index} names the maps {outside}; the backbone has {len(maps)}, 0 to {len(maps) - 1}'
            )
        wanted = [maps[i] for i in index]
        if given != ([sum(wanted)] if head.input_transform == 'resize_concat' else wanted):
            raise ValueError(
                f"{where}: in_channels={head.in_channels} at in_index={head.in_index}, but the backbone's maps have "
                f'{maps} channels: in_channels must be {wanted if several else wanted[0]}'
            )


def _check_type(where: str, cfg: Any, kind: str) -> None:
    """Refuse what is no config of a registered class; `kind` is what the names of such classes end with."""
    if not isinstance(cfg, Mapping) or 'type' not in cfg:
        raise ValueError(f'{where} must be a config, dict(type=<name>, ...), got {cfg!r}')
    if isinstance(cfg['type'], str) and MODELS.get(cfg['type']) is None:
        known = sorted(name for name in MODELS.module_dict if name.endswith(kind))
        raise ValueError(f'{where}.type={cfg["type"]!r} is not registered; registered are {known}')
