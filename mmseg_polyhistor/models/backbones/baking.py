"""Freeze a model for inference: generate adapter weights for good, drop what generated them, merge what is linear."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters import POSITIONS, AdapterMethod, CannotMergeError, Change, Site
from ...adapters.base import resolve_tasks
from .adapted_backbone import SINGLE_TASK, AdaptedBackbone
from .merging import linear_before, merge_change

__all__ = ['BakedMethod', 'bake']


class BakedMethod(AdapterMethod):
    """A method whose changes are constants: what another method generated, held as buffers.

    Args:
        method: The method that generated; its `adapt` is used on, and must depend on its arguments alone.
        changes: What it generated.
        tasks: The tasks that it generated them for.
    """

    def __init__(self, method: AdapterMethod, changes: Mapping[Site, Change], tasks: Sequence[str]) -> None:
        super().__init__(layout=method.layout, tasks=tasks, per_task=method.per_task)
        self.trunk = method.trunk
        # The method without what it learnt; of a baked one, that of the method which generated.
        self.shell = copy.copy(method.shell if isinstance(method, BakedMethod) else method)
        self.shell._parameters, self.shell._modules, self.shell._buffers = {}, {}, {}
        self.makers: dict[Site, tuple[type | None, dict[str, Any]]] = {}
        for site, change in changes.items():
            fields = {'value': change} if isinstance(change, Tensor) else change._asdict()
            self.makers[site] = None if isinstance(change, Tensor) else type(change), {}
            for name, value in fields.items():
                if isinstance(value, Tensor):
                    self.register_buffer(f'{site.key}_{name}', value.detach().clone())
                    value = f'{site.key}_{name}'
                self.makers[site][1][name] = value

    @property
    def insertion(self) -> str:
        return self.shell.insertion

    def reset_parameters(self) -> None:
        """There is nothing to draw."""

    def generate(self, tasks: Sequence[str]) -> dict[Site, Change]:
        tasks = resolve_tasks(tasks, self.tasks)
        rows = None if tasks == self.tasks else [self.tasks.index(task) for task in tasks]
        return {site: self._change(site, rows) for site in self.makers}

    def _change(self, site: Site, rows: list[int] | None) -> Change:
        kind, fields = self.makers[site]
        values = {
            name: self._rows(getattr(self, value), rows) if isinstance(value, str) else value
            for name, value in fields.items()
        }
        return values['value'] if kind is None else kind(**values)

    def _rows(self, value: Tensor, rows: list[int] | None) -> Tensor:
        """The rows of some tasks; a single row is that of all, and one more than the tasks is the trunk's, in front."""
        if rows is None or value.shape[0] == 1:
            return value
        if value.shape[0] == 1 + len(self.tasks):
            rows = [0, *(row + 1 for row in rows)]
        return value[rows]

    def adapt(self, x: Tensor, weights: Any) -> Tensor:
        return self.shell.adapt(x, weights)


@torch.no_grad()
def bake(model: nn.Module) -> nn.Module:
    """A copy of a model for inference alone, with equal outputs.

    Hyper-networks and other parameters of the method are dropped, and what they generated is kept as constants. Linear
    changes that all tasks share (or those of the only task) become part of the encoder's weights, and cost nothing.

    Args:
        model: A segmentor whose backbone is an `AdaptedSwin` or one of another family, or the backbone.

    Returns:
        The copy, in evaluation mode, without trainable parameters.

    Raises:
        TypeError: if there is no such backbone in the model.
    """
    baked = copy.deepcopy(model).eval()
    backbone = baked if isinstance(baked, AdaptedBackbone) else getattr(baked, 'backbone', None)
    if not isinstance(backbone, AdaptedBackbone):
        raise TypeError(f'{type(model).__name__} has no AdaptedSwin as backbone, nor one of another family')
    if backbone.adapters is not None:
        backbone.adapters = _baked_method(backbone)
    for parameter in baked.parameters():
        parameter.requires_grad_(False)
    return baked


def _baked_method(backbone: AdaptedBackbone) -> BakedMethod | None:
    """Merge what can be merged into the backbone's weights; the rest as constants, None if there is no rest."""
    method = backbone.adapters
    tasks = backbone.tasks or (SINGLE_TASK,)
    weights = dict(backbone.state_dict(keep_vars=True))
    kept: dict[Site, Change] = {}
    # An adapter merges into the linear map in front of it, which must be known by then.
    for site, change in sorted(
        method.generate(tasks).items(), key=lambda item: item[0].position in POSITIONS
    ):
        rows = (change if isinstance(change, Tensor) else change[0]).shape[0]
        try:
            if rows > 1:
                raise CannotMergeError('the tasks differ')
            if site.position in POSITIONS and _changed(kept, linear_before(backbone, site)):
                raise CannotMergeError('the linear map in front of the adapter depends on the task')
            merge_change(backbone, weights, site, change)
        except CannotMergeError:
            kept[site] = change
    return BakedMethod(method, kept, tasks).eval() if kept else None


def _changed(kept: Mapping[Site, Change], linear: Site) -> bool:
    return any(site[:2] == linear[:2] and site.position.startswith(linear.position) for site in kept)
