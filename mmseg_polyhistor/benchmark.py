"""The benchmark: its rows, as the metafiles of the configs record them, and its models without weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn
from torch.overrides import TorchFunctionMode

from .engine.param_count import ParameterCounts, count_parameters

__all__ = ['BenchmarkRow', 'PaperRow', 'build_without_weights', 'count_config', 'read_benchmark']

PAPER_KEY = 'Reported by the Polyhistor paper'


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of the Polyhistor paper's table for Swin-T and PASCAL-Context: the paper's figures, not this package's.

    Args:
        encoder: Printed trainable parameters of the encoder, in millions.
        total: Printed trainable parameters, in millions.
        results: task -> value of the task's metric, and 'gain'.
    """

    encoder: float
    total: float
    results: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """A config of the benchmark, as its metafile describes it.

    Args:
        name: Name of the model, unique.
        method: What readers call the method and its variant.
        config: Path of the config.
        backbone: Such as 'Swin-T'.
        pretraining: The backbone's data, such as 'ImageNet-1k'; 'none' for a random one.
        encoder: Recorded trainable parameters of the encoder, without output norms.
        total: All recorded trainable parameters.
        paper: The paper's row, or None where it has none.
    """

    name: str
    method: str
    config: Path
    backbone: str
    pretraining: str
    encoder: int
    total: int
    paper: PaperRow | None


def read_benchmark(index: Path) -> tuple[BenchmarkRow, ...]:
    """Read the rows of all metafiles that an index imports, in its order.

    Args:
        index: `model-index.yml`; the paths in it and in the metafiles are relative to its folder.

    Raises:
        FileNotFoundError: if the index or a metafile is absent.
        ValueError: if a metafile lacks an entry; the message names the file, the model and the entry.
    """
    root = Path(index).parent
    rows = []
    for imported in mmengine.load(index)['Import']:
        for number, model in enumerate(mmengine.load(root / imported)['Models'], start=1):
            try:
                rows.append(_read_row(model, root))
            except KeyError as e:
                name = model.get('Name', f'number {number}')
                raise ValueError(f'{imported}: the model {name} lacks the entry {e}') from None
    return tuple(rows)


def _read_row(model: Mapping, root: Path) -> BenchmarkRow:
    metadata, printed = model['Metadata'], model.get(PAPER_KEY)
    return BenchmarkRow(
        name=model['Name'],
        method=metadata['Method'],
        config=root / model['Config'],
        backbone=metadata['Backbone'],
        pretraining=metadata['Pretraining'],
        encoder=metadata['Trainable Encoder Parameters'],
        total=metadata['Trainable Parameters'],
        paper=printed
        and PaperRow(
            encoder=printed['Encoder Parameters (M)'],
            total=printed['Parameters (M)'],
            results=printed['Results'],
        ),
    )


def count_config(config: Path | Config) -> ParameterCounts:
    """Count the parameters of a config's model, without memory for them and without loading weights.

    Raises:
        TypeError: if the model has no backbone.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    return count_parameters(build_without_weights(cfg.model))


def build_without_weights(model: Mapping) -> nn.Module:
    """Build a model on the meta device: shapes and no values, so that size and initialisation cost nothing.

    A model whose constructor reads values of tensors cannot be built there, and is built in the ordinary way.
    """
    model = copy.deepcopy(model)
    try:
        with torch.device('meta'), _RealLinspace():
            return MODELS.build(model)
    except RuntimeError:  # what meta tensors raise on `.item()` and the like; a real fault shows again below
        return MODELS.build(model)


class _RealLinspace(TorchFunctionMode):
    """`torch.linspace` has values even under `torch.device('meta')`.

    Swin, MiT, ConvNeXt and others read the rates of their DropPaths from one by `.item()`.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault('device', 'cpu')
        return func(*args, **kwargs)
