"""The cases of a speed measurement: a method in one execution mode, and what it is measured against."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmpretrain.models.backbones.swin_transformer import SwinTransformer
from mmseg.registry import MODELS

from ..adapters import AdapterMethod, HyperAdapter

__all__ = ['PARTS', 'REFERENCES', 'Case', 'Setting', 'find_config', 'load_method', 'plan_cases']

#: What a method can be measured against.
REFERENCES = {
    'plain': 'T passes through stock Swin blocks, a hyper-network call per block and task, decoders that concatenate',
    'full': 'one pass, everything trained, with the decoders of this package (configs/multi_task)',
    'full-plain': 'one pass of a stock Swin, everything trained, decoders that concatenate',
    'floor': 'T passes of a bare frozen stock Swin, with the gradient of their input, and the decoders of this package',
    'own-floor': 'the same with the encoder of this package, in the execution mode of the method',
}
#: Parts of a method's step.
PARTS = {
    'decoders': 'the decoders and losses of all tasks alone, with the gradient of their input',
    'generation': 'the generation of the weights for all tasks alone',
}
ARCHS = {'tiny': 'swin-t', 'small': 'swin-s', 'base': 'swin-b', 'large': 'swin-l'}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all cases of a measurement have in common.

    Args:
        size: (height, width) of the images.
        batch: Images of a training step.
        inference_batch: Images of an inference.
        device: 'cpu' or 'cuda'.
        precision: 'fp32', or under autocast 'bf16' or 'fp16'.
        threads: Threads of torch.
        compile: Compile the backbones of the methods.
        channels_last: Bring weights and images into the channels-last layout, in all cases.
    """

    size: tuple[int, int]
    batch: int
    inference_batch: int
    device: str = 'cpu'
    precision: str = 'fp32'
    threads: int = 1
    compile: bool = False
    channels_last: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something to build and to measure, as plain data.

    Args:
        name: What tables call it; unique.
        role: 'method', a key of `REFERENCES` or a key of `PARTS`.
        model: Config of a segmentor; what is built of it depends on the role.
        optim_wrapper: Config of the optimiser's wrapper.
        imports: Modules that the config imports.
        against: For a method, reference or part -> name of that case, or None where there is no such thing.
    """

    name: str
    role: str
    model: dict[str, Any] = field(repr=False)
    optim_wrapper: dict[str, Any] = field(repr=False)
    imports: tuple[str, ...] = ()
    against: Mapping[str, str | None] = field(default_factory=dict)


def find_config(name: str, root: Path) -> Path:
    """The config that a path or a short name stands for.

    Args:
        name: A path; or a folder under configs/, whose config for Swin-T is meant; or folder/variant, such as
            'mtlora/r16'.
        root: The repository.

    Raises:
        FileNotFoundError: if there is none; the message lists short names.
    """
    if name.endswith('.py') and Path(name).is_file():
        return Path(name)
    folder, _, variant = name.partition('/')
    path = root / 'configs' / folder / f'{variant and variant + "_"}swin-t_pascal.py'
    if not path.is_file():
        known = [_short_name(path) for path in sorted(root.glob('configs/*/*swin-t_pascal.py'))]
        raise FileNotFoundError(f'{name}: neither a config nor one of {", ".join(known)}')
    return path


def _short_name(path: Path) -> str:
    variant = path.name.removesuffix('swin-t_pascal.py').removesuffix('_')
    return f'{path.parent.name}/{variant}' if variant else path.parent.name


def load_method(name: str, root: Path, arch: str | None = None) -> Config:
    """Read a method's config, without the weights that it names, for a Swin of the given size.

    Args:
        name: See `find_config`.
        root: The repository.
        arch: 'tiny', 'small', 'base' or 'large'; None leaves the config's own.

    Raises:
        FileNotFoundError: if there is no such config.
        ValueError: if its model is no `MultiTaskSegmentor` on an `AdaptedSwin`.
    """
    path = find_config(name, root)
    cfg = Config.fromfile(path)
    model = cfg.get('model') or {}
    encoder = _encoder(model) if 'backbone' in model else {}
    if model.get('type') != 'MultiTaskSegmentor' or encoder.get('type') != 'AdaptedSwin':
        raise ValueError(f'{path}: a method to measure is a MultiTaskSegmentor with the backbone AdaptedSwin')
    encoder.pop('init_cfg', None)
    model.pop('init_cfg', None)
    if arch is not None:
        encoder.arch = arch
        width, stages = (SwinTransformer.arch_zoo[arch][key] for key in ('embed_dims', 'depths'))
        widths = [width * 2**i for i in range(len(stages))]
        heads = [model.decode_heads] if 'type' in model.decode_heads else model.decode_heads.values()
        for head in heads:
            head.in_channels = [widths[i] for i in head.get('in_index', range(len(widths)))]
    return cfg


def plan_cases(
    names: Sequence[str],
    root: Path,
    *,
    archs: Sequence[str | None] = (None,),
    executions: Sequence[str | None] = (None,),
    against: Sequence[str] = ('plain', 'full', 'floor'),
    parts: Sequence[str] = tuple(PARTS),
    with_cp: bool = False,
) -> list[Case]:
    """The cases of all methods, each with its references and parts behind it, none of them twice.

    Args:
        names: Methods, see `find_config`.
        root: The repository.
        archs: Sizes of Swin; None is the config's own. Defaults to (None,).
        executions: Values of the segmentor's `execution`; None leaves the config's own. Defaults to (None,).
        against: Keys of `REFERENCES`. Defaults to ('plain', 'full', 'floor').
        parts: Keys of `PARTS`. Defaults to all.
        with_cp: Let the methods recompute their blocks in the backward pass. Defaults to False.

    Raises:
        FileNotFoundError: if there is no such config.
        ValueError: if a model is none that can be measured.
    """
    cases: dict[str, Case] = {}
    for arch in archs:
        for name in names:
            cfg = load_method(name, root, arch)
            path = Path(name)
            label = f'{path.parent.name}/{path.stem}' if path.suffix == '.py' else name
            for execution in executions:
                model = cfg.model.to_dict()
                if execution is not None:
                    model['execution'] = execution
                if with_cp:
                    _encoder(model)['with_cp'] = True
                method = Case(
                    name=_name(label, model),
                    role='method',
                    model=model,
                    optim_wrapper=_optim_wrapper(cfg),
                    imports=tuple(cfg.get('custom_imports', {}).get('imports', ())),
                )
                _add(cases, method)
                for role in (*against, *parts):
                    other = _other_case(method, label, role)
                    method.against[role] = other and _add(cases, other)
    return list(cases.values())


def _add(cases: dict[str, Case], case: Case) -> str:
    """Add a case that is not there yet; returns the name of the one that serves."""
    for known in cases.values():
        if (known.role, known.model, known.imports) == (case.role, case.model, case.imports):
            return known.name
    name, number = case.name, 1
    while name in cases:  # two methods whose models differ in more than adapter and execution
        number += 1
        name = f'{case.name} #{number}'
    cases[name] = replace(case, name=name)
    return name


def _name(label: str, model: Mapping[str, Any]) -> str:
    """A label, the size of the encoder, and the execution if it is set."""
    arch = _encoder(model).get('arch', 'tiny')
    size = ARCHS.get(arch, arch) if isinstance(arch, str) else f'swin-{arch["embed_dims"]}'
    return ' '.join([label, size, *([model['execution']] if 'execution' in model else [])])


def _optim_wrapper(cfg: Config) -> dict[str, Any]:
    given = cfg.get('optim_wrapper')
    if given is not None:
        return given.to_dict()
    optimizer = dict(type='Adam', lr=1e-4)
    return dict(type='OptimWrapper', constructor='TrainableOptimWrapperConstructor', optimizer=optimizer)


def _encoder(model: Any) -> Any:
    """The config of the encoder, or of each task's encoder."""
    backbone = model['backbone']
    return backbone['encoder'] if backbone.get('type') == 'TaskEncoders' else backbone


def _other_case(method: Case, label: str, role: str) -> Case | None:
    """A reference or part of a method, or None where it has none."""
    model = copy.deepcopy(method.model)
    encoder = dict(_encoder(model), tasks=model['tasks'])
    if role in ('plain', 'generation'):
        adapter = encoder.get('adapter')
        known = HyperAdapter if role == 'plain' else AdapterMethod
        if not _is_adapter(adapter, known) or (role == 'plain' and adapter.get('tuned')):
            return None
        label = f'{role} {label}'
    else:
        label = role
        encoder.pop('adapter', None)
        encoder['frozen'] = role not in ('full', 'full-plain')
    if role not in ('own-floor', 'generation'):
        model.pop('execution', None)
        encoder.pop('with_cp', None)
    model['backbone'] = encoder
    return Case(
        name=_name(label, model),
        role=role,
        model=model,
        optim_wrapper=method.optim_wrapper,
        imports=method.imports,
    )


def _is_adapter(adapter: Mapping[str, Any] | None, base: type[AdapterMethod]) -> bool:
    """Whether a config names an adapter method of a kind."""
    if adapter is None:
        return False
    method = adapter['type']
    method = MODELS.get(method) if isinstance(method, str) else method
    return issubclass(method, base)
