"""Multiply-adds of a model's forward pass, by task and by part."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..benchmark import build_without_weights

__all__ = ['MultiplyAdds', 'count_config_multiply_adds', 'count_multiply_adds']


@dataclass(frozen=True, kw_only=True)
class MultiplyAdds:
    """Multiply-adds of one forward pass. FLOPs, which count a multiplication and an addition each, are twice as many.

    What all tasks share is done once however many tasks are asked for, so that a single task t costs
    `encoder_shared + encoder_tasks[t] + generation_shared + generation_tasks[t] + decoders[t]`.

    Args:
        encoder_shared: The part of the encoder (backbone and neck) that runs once for all tasks.
        encoder_tasks: What the encoder does for each task alone. Empty where the model knows no tasks.
        generation_shared: The part of the generation of weights by the adapter method that is done once for all
            tasks. Generation is done once a step, whatever the batch.
        generation_tasks: What the generation does for each task alone. Empty where the model knows no tasks.
        decoders: What the head of each task does; of a model with a single head under the name 'decode_head'.
    """

    encoder_shared: int
    encoder_tasks: Mapping[str, int]
    generation_shared: int
    generation_tasks: Mapping[str, int]
    decoders: Mapping[str, int]

    @property
    def encoder(self) -> int:
        """The encoder for all tasks, without the generation of weights."""
        return self.encoder_shared + sum(self.encoder_tasks.values())

    @property
    def generation(self) -> int:
        """The generation of weights for all tasks."""
        return self.generation_shared + sum(self.generation_tasks.values())

    @property
    def total(self) -> int:
        """The whole forward pass, for all tasks."""
        return self.encoder + self.generation + sum(self.decoders.values())

    def of_task(self, name: str) -> int:
        """The whole forward pass for one task alone; `name` is a key of `decoders`."""
        encoder = self.encoder_shared + self.encoder_tasks.get(name, 0)
        generation = self.generation_shared + self.generation_tasks.get(name, 0)
        return encoder + generation + self.decoders[name]


def count_config_multiply_adds(model: Mapping[str, Any], shape: tuple[int, int]) -> MultiplyAdds:
    """Count what a model's config describes.

    The model is built and run without values (on torch's meta device), so that its size costs neither memory nor time.
    A model whose code reads values of tensors is built and run in the ordinary way.

    Args:
        model: Config of the model; weights that it names are not loaded.
        shape: (height, width) of the image that the network gets.

    Raises:
        TypeError: see `count_multiply_adds`.
    """
    built = build_without_weights(model)
    try:
        return count_multiply_adds(built, shape)
    except (RuntimeError, NotImplementedError):
        if not _device(built).type == 'meta':
            raise
    return count_multiply_adds(MODELS.build(copy.deepcopy(model)), shape)


def count_multiply_adds(model: nn.Module, shape: tuple[int, int]) -> MultiplyAdds:
    """Count one forward pass on one image, up to the logits as the heads give them (in evaluation mode).

    Counted are matrix products, convolutions and attention, as by `torch.utils.flop_counter`; not element-wise
    operations, norms, softmax and resizing. Weights that a head multiplies with each other first are counted too.

    Args:
        model: A segmentor of mmseg, with any number of heads; on any device, the meta device included. It is put into
            evaluation mode.
        shape: (height, width) of the image that the network gets.

    Raises:
        TypeError: if the model is none of mmseg's segmentors with a backbone.
    """
    if not (hasattr(model, 'extract_feat') and hasattr(model, 'backbone')):
        raise TypeError(f'{type(model).__name__} has no backbone and extract_feat: no segmentor of mmseg')
    model.eval()
    backbone, heads = model.backbone, getattr(model, 'decode_heads', None)
    method = getattr(backbone, 'adapters', None)
    images = torch.zeros(1, 3, *shape, device=_device(model))
    maps, encoder = _without_generation(backbone, lambda: model.extract_feat(images))
    if heads is None:
        _, everything = _without_generation(backbone, lambda: model(images))
        decoders = {'decode_head': everything - encoder}
    else:
        decoders = {task: _counted(lambda t=task: heads[t](maps[t]))[1] for task in heads}

    tasks = tuple(getattr(backbone, 'tasks', None) or ())
    if not tasks:  # one pass, and one set of generated weights
        generation = _counted(lambda: method.generate(method.tasks))[1] if method else 0
        return MultiplyAdds(
            encoder_shared=encoder,
            encoder_tasks={},
            generation_shared=generation,
            generation_tasks={},
            decoders=decoders,
        )
    shared, per_task = _by_task(
        lambda names: _without_generation(backbone, lambda: backbone(images, names))[1], tasks
    )
    neck = getattr(model, 'neck', None)
    if neck is not None:
        features = backbone(images)
        per_task = {t: n + _counted(lambda t=t: neck(features[t]))[1] for t, n in per_task.items()}
    generation = _by_task(lambda names: _counted(lambda: method.generate(names))[1] if method else 0, tasks)
    return MultiplyAdds(
        encoder_shared=shared,
        encoder_tasks=per_task,
        generation_shared=generation[0],
        generation_tasks=generation[1],
        decoders=decoders,
    )


def _by_task(count: Callable[[tuple[str, ...]], int], names: tuple[str, ...]) -> tuple[int, dict[str, int]]:
    """What is done once and what is done for each task, given the counts for any set of tasks.

    All tasks together cost S + sum A_t, one alone S + A_t; the sum of the latter exceeds the former by (T - 1) S.
    """
    together = count(names)
    alone = {name: count((name,)) for name in names}
    if len(names) == 1:
        return 0, alone
    shared = (sum(alone.values()) - together) // (len(names) - 1)
    return shared, {name: number - shared for name, number in alone.items()}


def _without_generation(backbone: nn.Module, call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call returns, and its multiply-adds without the generation of weights (which may be kept from before)."""
    method = getattr(backbone, 'adapters', None)
    if method is None:
        return _counted(call)
    generate, spent = method.generate, 0

    def count_apart(names: Sequence[str]) -> Any:
        nonlocal spent
        changes, number = _counted(lambda: generate(names))
        spent += number
        return changes

    method.generate = count_apart
    try:
        result, number = _counted(call)
    finally:
        del method.generate
    return result, number - spent


def _counted(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call returns, and its multiply-adds."""
    with _no_fused_blocks(), FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        result = call()
    return result, counter.get_total_flops() // 2


def _attention_flops(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of attention from the shapes (B, heads, N, d) of queries, keys and values."""
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])


def _vector_flops(matrix: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of a matrix (M, N) times a vector."""
    return 2 * matrix[0] * matrix[1]


# What torch's counter does not know: fused attention on the CPU, and products with a vector.
_FORMULAS = {
    getattr(torch.ops.aten, name): formula
    for name, formula in (
        ('_scaled_dot_product_flash_attention_for_cpu', _attention_flops),
        ('mv', _vector_flops),
    )
    if hasattr(torch.ops.aten, name)
}


@contextmanager
def _no_fused_blocks() -> Iterator[None]:
    """Without the fused operation that `nn.MultiheadAttention` runs at inference, which the counter does not know."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
