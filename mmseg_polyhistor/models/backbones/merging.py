"""Write what a linear method has learnt into the weights of stock networks, for inference without the method."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn

from ...adapters import POSITIONS, CannotMergeError, Change, LowRankWeights, Prompts, Site
from ...adapters.base import resolve_tasks
from .adapted_backbone import SINGLE_TASK, AdaptedBackbone

__all__ = ['merged_encoder', 'merged_segmentor']


@torch.no_grad()
def merged_encoder(backbone: AdaptedBackbone, task: str | None = None) -> dict[str, Tensor]:
    """The stock network that computes what the backbone computes for a task.

    Differences are added to the parameters, low-rank changes multiplied out into W + B A, and adapters without a
    non-linearity multiplied onto the linear map in front of them. The result equals the adapted network up to rounding.

    Args:
        backbone: An `AdaptedSwin`, or one of another family, with or without a method.
        task: One of its tasks; may be left out where there is only one. Defaults to None.

    Returns:
        Weights under the stock names, with the task's output norms as those of the stages (`norm{i}` of Swin): all of the
        stock network (of a `SwinTransformer` with the same `out_indices` and `pad_small_map=True`).

    Raises:
        CannotMergeError: if no stock network computes the same; the message says why.
        ValueError: if the task is unknown, or left out where there are several.
    """
    known = backbone.tasks or (SINGLE_TASK,)
    if task is None and len(known) > 1:
        raise ValueError(f'name one of the tasks {known}: a stock network serves one of them')
    (task,) = resolve_tasks(known if task is None else (task,), known)
    if backbone.tasks is not None and backbone.PRETRAINED_NORMS:
        raise CannotMergeError(
            f'{type(backbone).__name__} with tasks by name cannot be merged into a stock network: there, the norm behind a '
            'stage serves the decoder and the next stage, and here each task has a norm of its own for its decoder'
        )
    weights = _merged_weights(backbone, task)
    if backbone.tasks is not None:
        for i, norm in enumerate(backbone.output_norms[task]):
            name = backbone.stage_norm_name(i)
            weights |= {f'{name}.{key}': value.clone() for key, value in norm.state_dict().items()}
    return weights


@torch.no_grad()
def _merged_weights(backbone: AdaptedBackbone, task: str) -> dict[str, Tensor]:
    """The stock weights with a task's changes, without its output norms; raises as `merged_encoder` does."""
    if backbone.adapters is not None and backbone.adapters.trunk:
        raise CannotMergeError(
            f'{type(backbone.adapters).__name__} cannot be merged: the tasks part in the last block of each stage from a '
            'stream that goes on without their changes, and a stock network has one stream'
        )
    weights = {
        key: value.clone()
        for key, value in backbone.state_dict().items()
        if not key.startswith(('adapters.', 'output_norms.'))
    }
    changes = {} if backbone.adapters is None else backbone.adapters.generate((task,))
    # An adapter follows the linear map in front of it, whatever else changes that map.
    for site, change in sorted(changes.items(), key=lambda item: item[0].position in POSITIONS):
        merge_change(backbone, weights, site, change)
    return weights


def merge_change(backbone: AdaptedBackbone, weights: dict[str, Tensor], site: Site, change: Change) -> None:
    """Write one change, of one task, into stock weights, in place.

    Args:
        backbone: The network that the change is for.
        weights: Its weights by their stock names.
        site: Where the change is.
        change: With a leading axis of 1.

    Raises:
        CannotMergeError: if no weight can stand for it; the message says why.
    """
    name = type(backbone.adapters).__name__
    if site.position in POSITIONS:
        if backbone.adapters.insertion == 'parallel':
            raise CannotMergeError(
                f"{name} with insertion='parallel' changes the shortcut, where a stock network has no weight"
            )
        matrix, bias = backbone.adapters.adapter_as_linear(change)
        linear = linear_before(backbone, site)
        own, own_bias = (weights.get(backbone.weight_name(linear, part)) for part in ('weight', 'bias'))
        if own_bias is None:
            raise CannotMergeError(
                f'{name} cannot be merged: the linear map in front of its adapter, {backbone.stock_name(linear)}, has no bias '
                '(qkv_bias=False)'
            )
        own.copy_((matrix @ own.flatten(1)).view_as(own))  # flat: that of a convolution of 1 x 1 pixels
        own_bias.copy_(matrix @ own_bias + bias)
    elif isinstance(change, Prompts):
        raise CannotMergeError(
            f'{name} cannot be merged: its prompts are further tokens of the attention, which no weight can stand for'
        )
    elif isinstance(change, LowRankWeights):
        if change.pre_gain is not None:
            raise CannotMergeError(
                f'{name} with a LayerNorm of its own cannot be merged: the norm is not linear. Train with pre_norm=False '
                'for a change that merges'
            )
        own = weights[backbone.weight_name(site)]
        own += (change.up[0] @ change.down[0]).view_as(own)
    else:
        weights[backbone.stock_name(site)] += change[0]


def linear_before(backbone: AdaptedBackbone, site: Site) -> Site:
    """The linear map whose output an adapter takes.

    Raises:
        CannotMergeError: if a layer scale stands between the two.
    """
    ffn = getattr(backbone.blocks(site.stage)[site.block], 'ffn', None)
    if site.position == 'ffn' and not isinstance(getattr(ffn, 'gamma2', nn.Identity()), nn.Identity):
        raise CannotMergeError('a layer scale stands between the feed-forward net and its adapter')
    roles = ('proj',) if site.position == 'attn' else ('fc',)
    return [s.site for s in backbone.layout.linears if s.site[:2] == site[:2] and s.role.startswith(roles)][
        -1
    ]


def merged_segmentor(cfg: Mapping[str, Any], model: nn.Module) -> tuple[ConfigDict, dict[str, Tensor]]:
    """A trained segmentor without its method: config and weights.

    Where all changes are shared, the config is the given one without the method; where tasks had their own, the backbone
    becomes `TaskEncoders`, one merged encoder per task.

    Args:
        cfg: Config of the segmentor.
        model: The segmentor, built from it.

    Returns:
        The new config (without the backbone's `init_cfg`, as the weights are complete) and the state dict of the
        segmentor that it builds.

    Raises:
        CannotMergeError: if the method cannot be merged; the message says why.
        ValueError: if the backbone is none with a method.
    """
    backbone = model.backbone
    if not isinstance(backbone, AdaptedBackbone) or backbone.adapters is None:
        raise ValueError(
            f'there is nothing to merge: the backbone is {type(backbone).__name__}, and not an AdaptedSwin (or one of '
            'another family) with a method'
        )
    cfg = ConfigDict(copy.deepcopy(dict(cfg)))
    encoder = cfg.backbone
    for key in ('adapter', 'init_cfg'):
        encoder.pop(key, None)
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith('backbone.')}
    tasks = backbone.tasks or (SINGLE_TASK,)
    if len(tasks) > 1 and backbone.adapters.per_task:
        encoder.pop('tasks')
        cfg.backbone = ConfigDict(type='TaskEncoders', tasks=tasks, encoder=encoder)
        for task in tasks:
            merged = merged_encoder(backbone, task)
            weights |= {f'backbone.encoders.{task}.{key}': value for key, value in merged.items()}
    else:
        merged = _merged_weights(backbone, tasks[0])
        if backbone.tasks is not None:  # whose norms stay where they are
            merged |= {f'output_norms.{k}': v for k, v in backbone.output_norms.state_dict().items()}
        weights |= {f'backbone.{key}': value for key, value in merged.items()}
    return cfg, weights
