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
from .adapted_swin import SINGLE_TASK, AdaptedSwin

__all__ = ['merged_encoder', 'merged_segmentor']


@torch.no_grad()
def merged_encoder(backbone: AdaptedSwin, task: str | None = None) -> dict[str, Tensor]:
    """The stock Swin that computes what the backbone computes for a task.

    Differences are added to the parameters, low-rank changes multiplied out into W + B A, and adapters without a
    non-linearity multiplied onto the linear map in front of them. The result equals the adapted network up to rounding.

    Args:
        backbone: An `AdaptedSwin`, with or without a method.
        task: One of its tasks; may be left out where there is only one. Defaults to None.

    Returns:
        Weights under mmpretrain's names, with the task's output norms as `norm{i}`: all of a `SwinTransformer` with the
        same `out_indices` and `pad_small_map=True`.

    Raises:
        CannotMergeError: if no stock network computes the same; the message says why.
        ValueError: if the task is unknown, or left out where there are several.
    """
    known = backbone.tasks or (SINGLE_TASK,)
    if task is None and len(known) > 1:
        raise ValueError(f'name one of the tasks {known}: a stock network serves one of them')
    (task,) = resolve_tasks(known if task is None else (task,), known)
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
    if backbone.tasks is not None:
        for i, norm in enumerate(backbone.output_norms[task]):
            weights |= {f'norm{i}.{key}': value.clone() for key, value in norm.state_dict().items()}
    changes = {} if backbone.adapters is None else backbone.adapters.generate((task,))
    # An adapter follows the linear map in front of it, whatever else changes that map.
    for site, change in sorted(changes.items(), key=lambda item: item[0].position in POSITIONS):
        merge_change(backbone, weights, site, change)
    return weights


def merge_change(backbone: AdaptedSwin, weights: dict[str, Tensor], site: Site, change: Change) -> None:
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
        linear = _stock_name(linear_before(backbone, site))
        weights[f'{linear}.weight'].copy_(matrix @ weights[f'{linear}.weight'])
        weights[f'{linear}.bias'].copy_(matrix @ weights[f'{linear}.bias'] + bias)
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
        weights[f'{_stock_name(site)}.weight'] += change.up[0] @ change.down[0]
    else:
        weights[_stock_name(site)] += change[0]


def linear_before(backbone: AdaptedSwin, site: Site) -> Site:
    """The linear map whose output an adapter takes.

    Raises:
        CannotMergeError: if a layer scale stands between the two.
    """
    block = backbone.stages[site.stage].blocks[site.block]
    if site.position == 'ffn' and not isinstance(block.ffn.gamma2, nn.Identity):
        raise CannotMergeError('a layer scale stands between the feed-forward net and its adapter')
    roles = ('proj',) if site.position == 'attn' else ('fc',)
    return [s.site for s in backbone.layout.linears if s.site[:2] == site[:2] and s.role.startswith(roles)][
        -1
    ]


def _stock_name(site: Site) -> str:
    if site.block is not None:
        return f'stages.{site.stage}.blocks.{site.block}.{site.position}'
    return (
        site.position if site.position.startswith('patch_embed') else f'stages.{site.stage}.{site.position}'
    )


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
        ValueError: if the backbone is no `AdaptedSwin` with a method.
    """
    backbone = model.backbone
    if not isinstance(backbone, AdaptedSwin) or backbone.adapters is None:
        raise ValueError(
            f'there is nothing to merge: the backbone is {type(backbone).__name__}, and not an AdaptedSwin with a method'
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
        merged = merged_encoder(backbone, tasks[0])
        if backbone.tasks is not None:  # whose norms stay where they are
            merged = {k: v for k, v in merged.items() if k.split('.')[0] not in backbone.stock_norms}
            merged |= {f'output_norms.{k}': v for k, v in backbone.output_norms.state_dict().items()}
        weights |= {f'backbone.{key}': value for key, value in merged.items()}
    return cfg, weights
