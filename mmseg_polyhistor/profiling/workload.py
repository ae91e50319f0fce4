"""A case, built: something whose training steps and inferences can be run."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.utils import import_modules_from_strings
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..engine.param_count import ParameterCounts, count_parameters
from ..models.segmentors.head_losses import head_losses
from .batches import random_batch
from .cases import Case, Setting
from .floor import FloorEncoder, FloorSegmentor, InputShift
from .plain_reference import ConcatAllMLPHead, PlainHyperSwin, StockEncoder

__all__ = ['DTYPES', 'Workload', 'build_model', 'build_workload']

DTYPES = {'fp32': None, 'bf16': 'bfloat16', 'fp16': 'float16'}
OWN_ARGUMENTS = ('type', 'tasks', 'adapter', 'frozen', 'fused', 'with_cp', 'init_cfg')


# ---------------------------------------------------------------------------------------------------- models
def build_model(case: Case) -> nn.Module:
    """The segmentor of a case, with random weights, on the CPU."""
    import_modules_from_strings(list(case.imports))
    cfg = copy.deepcopy(case.model)
    backbone = cfg['backbone']
    stock = {key: value for key, value in backbone.items() if key not in OWN_ARGUMENTS}
    common = dict(tasks=cfg['tasks'], **stock)
    if case.role == 'plain':
        return plain_model(cfg, MODELS.build(copy.deepcopy(cfg)))
    if case.role == 'full-plain':
        cfg['backbone'] = dict(type=StockEncoder, **common)
        cfg['decode_heads'] = _concat_heads(cfg['decode_heads'])
    elif case.role == 'floor':
        cfg.update(type=FloorSegmentor, backbone=dict(type=FloorEncoder, **common))
    elif case.role == 'own-floor':
        backbone['adapter'] = dict(type=InputShift)
    return MODELS.build(cfg)


def plain_model(cfg: Mapping[str, Any], model: nn.Module) -> nn.Module:
    """The plain counterpart of a model with a `HyperAdapter`, with the same weights.

    Args:
        cfg: The model's config.
        model: The model.
    """
    stock = {key: value for key, value in cfg['backbone'].items() if key not in OWN_ARGUMENTS}
    method = model.backbone.adapters
    backbone = dict(type=PlainHyperSwin, tasks=model.tasks, method=method, **stock)
    heads = _concat_heads(cfg['decode_heads'])
    plain = MODELS.build({**cfg, 'backbone': backbone, 'decode_heads': heads})
    own = model.backbone.state_dict()
    encoder = {key: value for key, value in own.items() if not key.startswith('adapters.')}
    missing, unexpected = plain.backbone.load_state_dict(encoder, strict=False)
    if unexpected or any(not key.startswith('hyper_networks.') for key in missing):
        raise RuntimeError(f'the plain encoder differs: missing {missing}, unexpected {unexpected}')
    plain.decode_heads.load_state_dict(model.decode_heads.state_dict())
    return plain


def _concat_heads(heads: Mapping[str, Any]) -> dict[str, Any]:
    """Configs of heads, every `AllMLPHead` replaced by the one that concatenates."""
    if 'type' in heads:
        return {**heads, 'type': ConcatAllMLPHead} if heads['type'] == 'AllMLPHead' else dict(heads)
    return {task: _concat_heads(head) for task, head in heads.items()}


# ------------------------------------------------------------------------------------------------- workloads
class Workload:
    """A model with its optimiser and its data: a training step and an inference that can be repeated.

    Args:
        case: What to build.
        setting: Sizes, device and precision.
    """

    def __init__(self, case: Case, setting: Setting) -> None:
        self.setting = setting
        self.model = build_model(case)
        self.tasks = self.model.tasks
        self.counts: ParameterCounts = count_parameters(self.model)
        layout = torch.channels_last if setting.channels_last else torch.preserve_format
        self.model.to(device=setting.device, memory_format=layout)
        if setting.compile and case.role == 'method':
            self.model.backbone.compile()
        self.data = random_batch(self.tasks, setting.size, setting.batch)
        if setting.channels_last:
            self.model.data_preprocessor.register_forward_hook(_channels_last)
        one = random_batch(self.tasks, setting.size, setting.inference_batch)
        with torch.no_grad():
            self.images = self.model.data_preprocessor(one, False)['inputs']
        self.optim_wrapper = build_optim_wrapper(self.trained, _in_precision(case, setting))

    @property
    def trained(self) -> nn.Module:
        """What the optimiser trains."""
        return self.model

    def train_step(self) -> None:
        """Preprocessing, forward, backward, and the optimiser's step."""
        self.model.train_step(self.data, self.optim_wrapper)

    def infer(self) -> None:
        """The logits of all tasks, at the size that the heads give."""
        with torch.no_grad(), self.autocast():
            self.model(self.images, mode='tensor')

    def autocast(self) -> AbstractContextManager:
        """The precision of the setting."""
        name = DTYPES[self.setting.precision]
        return nullcontext() if name is None else torch.autocast(self.setting.device, getattr(torch, name))


class DecodersWorkload(Workload):
    """The decoders alone, on the maps of a frozen encoder: their losses and gradients, with that of the maps."""

    def __init__(self, case: Case, setting: Setting) -> None:
        super().__init__(case, setting)
        with torch.no_grad(), self.autocast():
            self.data = self.model.data_preprocessor(self.data, True)
            self.maps = self.model.extract_feat(self.data['inputs'])
            self.inference_maps = self.model.extract_feat(self.images)

    @property
    def trained(self) -> nn.Module:
        return self.model.decode_heads

    def train_step(self) -> None:
        for spec in self.model.specs:
            maps = [x.detach().requires_grad_() for x in self.maps[spec.name]]
            with self.autocast():
                head = self.model.decode_heads[spec.name]
                losses = head_losses(head, spec, maps, self.data['data_samples'])
                total, _ = self.model.parse_losses(losses)
            self.optim_wrapper.backward(total)
        self.optim_wrapper.step()
        self.optim_wrapper.zero_grad()

    def infer(self) -> None:
        with torch.no_grad(), self.autocast():
            for task, head in self.model.decode_heads.items():
                head(self.inference_maps[task])


class GenerationWorkload(Workload):
    """The generation of a method's weights alone, and the gradient of all that it emits.

    In the sequential mode each task's weights are generated by themselves.
    """

    def __init__(self, case: Case, setting: Setting) -> None:
        super().__init__(case, setting)
        one_by_one = case.model.get('execution') == 'sequential'
        self.calls = [(task,) for task in self.tasks] if one_by_one else [tuple(self.tasks)]

    def train_step(self) -> None:
        for tasks in self.calls:
            emitted = list(_tensors(self.model.backbone.adapters.generate(tasks)))
            torch.autograd.backward(emitted, [torch.ones_like(t) for t in emitted])
        self.optim_wrapper.zero_grad()

    def infer(self) -> None:
        with torch.no_grad():
            for tasks in self.calls:
                self.model.backbone.adapters.generate(tasks)


def build_workload(case: Case, setting: Setting) -> Workload:
    """Build a case."""
    kinds = {'decoders': DecodersWorkload, 'generation': GenerationWorkload}
    return kinds.get(case.role, Workload)(case, setting)


def _in_precision(case: Case, setting: Setting) -> dict[str, Any]:
    cfg = copy.deepcopy(case.optim_wrapper)
    dtype = DTYPES[setting.precision]
    return cfg if dtype is None else {**cfg, 'type': 'AmpOptimWrapper', 'dtype': dtype}


def _channels_last(module: nn.Module, args: Any, data: dict[str, Any]) -> dict[str, Any]:
    return {**data, 'inputs': data['inputs'].contiguous(memory_format=torch.channels_last)}


def _tensors(changes: Mapping[Any, Tensor | Iterable[Any]]) -> Iterable[Tensor]:
    """The tensors with a gradient among what a method emits."""
    for change in changes.values():
        for t in [change] if isinstance(change, Tensor) else change:
            if isinstance(t, Tensor) and t.requires_grad:
                yield t
