"""Traces a network and writes it, as ONNX or as torch's `ExportedProgram`."""

from __future__ import annotations

import importlib.util
import json
import logging
import textwrap
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes

from ..version import __version__
from .network import ExportNetwork
from .traceable import AnySize

__all__ = [
    'FIX_THE_SIZE',
    'FORMATS',
    'METADATA_KEY',
    'ExportError',
    'description',
    'require_packages',
    'trace',
    'write_file',
]

METADATA_KEY = 'mmseg_polyhistor'
PACKAGES = ('onnx', 'onnxruntime', 'onnxscript')
LARGEST_FILE = 1_900_000_000  # bytes of weights; a protobuf message, as an ONNX file is one, ends at 2 GiB

LOWEST_OPSET = 18  # which torch writes; it converts to lower ones, and what comes out need not be valid
FIX_THE_SIZE = 'A file for images of one size may still pass: --no-dynamic --shape H W'

# Sizes of the example that is traced, of which only symbols reach the graph: several windows per axis in every stage, so
# that no size is 1 by chance, and none equal to another. Nothing is computed.
EXAMPLE = (2, 3, 288, 352)
# Sizes that have nothing in common with these but that none is 1 in any stage; here the traced graph is run.
OTHER_EXAMPLE = (3, 3, 235, 171)
AXES = {0: 'batch', 2: 'height', 3: 'width'}


class ExportError(RuntimeError):
    """A network cannot be exported, or a file does not compute what the network does; the message says why."""


def require_packages(form: str, *, check: bool = True) -> None:
    """Refuse to begin what would fail in the end for lack of a package.

    Args:
        form: A key of `FORMATS`.
        check: Whether the file is to be run. Defaults to True.

    Raises:
        ExportError: names what to install.
    """
    needed = [] if form != 'onnx' else [p for p in PACKAGES if check or p != 'onnxruntime']
    if missing := [p for p in needed if importlib.util.find_spec(p) is None]:
        raise ExportError(
            f"the format {form!r} needs {', '.join(missing)}: pip install 'mmseg_polyhistor[export]' (from a checkout: pip "
            "install -e '.[export]')"
        )
    if not hasattr(torch.export.Dim, 'DYNAMIC') or not hasattr(symbolic_shapes, 'backed_size_oblivious'):
        raise ExportError(
            f'torch {torch.__version__} cannot trace networks for images of any size; tested with torch 2.13'
        )


def description(network: ExportNetwork) -> dict[str, Any]:
    """What a user of the file must know, as JSON data; it is stored in the file."""
    return dict(
        version=__version__,
        outputs=network.outputs,
        preprocessing=network.preprocessing,
        channel_order=network.channel_order if network.preprocessing else None,
        tasks={
            spec.name: dict(kind=spec.kind, channels=spec.channels, classes=list(spec.classes))
            for spec in network.specs
        },
    )


@torch.no_grad()
def trace(network: nn.Module, shape: Sequence[int] | None = None) -> ExportedProgram:
    """The graph of a network.

    Args:
        network: An `ExportNetwork`.
        shape: (B, H, W) of the only images that it will take. Defaults to None: images of any number and size.

    Raises:
        ExportError: if a part of the network decides something by the values of the images, or, where any size is wanted,
            otherwise for images of another number and size than the example's.
    """
    if shape is None:
        example, dynamic = EXAMPLE, {'images': dict.fromkeys(AXES, torch.export.Dim.DYNAMIC)}
    else:
        example, dynamic = (shape[0], 3, *shape[1:]), None
    try:
        # Sizes of 1 are sizes like others: without this, an image as small as one window would be another program.
        with symbolic_shapes.patch(backed_size_oblivious=True), AnySize() if dynamic else nullcontext():
            program = torch.export.export(
                network, (torch.zeros(example),), dynamic_shapes=dynamic, strict=False
            )
    except Exception as error:
        advice = FIX_THE_SIZE if shape is None else 'see the error above'
        raise ExportError(
            f'torch.export cannot trace this network: {type(error).__name__}: {error}\n{advice}'
        ) from error
    if dynamic:
        checked = program.module()  # checks what the trace took for granted, which no file does
        try:
            checked(torch.zeros(OTHER_EXAMPLE))
        except Exception as error:
            raise ExportError(
                f'this network decides something by the number or the size of its images: traced for images of {EXAMPLE}, it '
                f'does not hold for {OTHER_EXAMPLE} ({textwrap.shorten(str(error), 300)}). {FIX_THE_SIZE}'
            ) from error
    return program


def _write_onnx(
    program: ExportedProgram, path: Path, names: Sequence[str], about: str, dynamic: bool, opset: int | None
) -> None:
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript import optimizer

    logging.getLogger('onnxscript').setLevel(logging.ERROR)  # it tells what it does not optimise
    try:
        # Torch's own optimisation also looks for patterns, in time that grows with the square of the graph's length.
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            output_names=list(names),
            opset_version=opset,
            optimize=False,
            verbose=False,
        )
        optimizer.fold_constants(onnx.model)
        common.CommonSubexpressionEliminationPass()(onnx.model)
        common.RemoveUnusedNodesPass()(onnx.model)
    except Exception as error:
        raise ExportError(
            f'torch cannot write this network as ONNX: {type(error).__name__}: {error}'
        ) from error
    if opset is not None and onnx.model.opset_imports[''] != opset:
        raise ExportError(
            f'opset {opset} cannot express this network; it was written in opset {onnx.model.opset_imports[""]}. Leave '
            '--opset out, or give that number'
        )
    if dynamic:
        for value in (*onnx.model.graph.inputs, *onnx.model.graph.outputs):
            sizes = [AXES.get(axis, size) for axis, size in enumerate(value.shape)]
            value.shape = onnx_ir.Shape(sizes)
    onnx.model.metadata_props[METADATA_KEY] = about
    weights = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    onnx.save(str(path), external_data=weights > LARGEST_FILE)


def _write_program(
    program: ExportedProgram, path: Path, names: Sequence[str], about: str, dynamic: bool, opset: int | None
) -> None:
    program.example_inputs = None  # images of zeros, which would lie in the file
    torch.export.save(program, path, extra_files={f'{METADATA_KEY}.json': about})


FORMATS: dict[str, Callable[..., None]] = {'onnx': _write_onnx, 'torch_export': _write_program}
"""Name of a format -> the function that writes it."""


def write_file(
    network: ExportNetwork,
    path: Path,
    *,
    form: str = 'onnx',
    shape: Sequence[int] | None = None,
    opset: int | None = None,
    tell: Callable[[str], object] = lambda step: None,
) -> None:
    """Write a network. The graph's input is `images`, its outputs have the names of the tasks.

    `description` is stored in the file, under the key `mmseg_polyhistor` of an ONNX file's metadata, or in the file
    `mmseg_polyhistor.json` within a `.pt2`. Weights of more than 1.9 GB go into a second file `<path>.data` (ONNX).

    Args:
        network: What to write.
        path: The file. Onnx and torch want '.onnx' and '.pt2'.
        form: A key of `FORMATS`. Defaults to 'onnx'.
        shape: See `trace`. Defaults to None.
        opset: Version of ONNX's operators, 18 or higher. Defaults to None, torch's choice.
        tell: Is called with what is done next, as each step may take a minute. Defaults to a function that does nothing.

    Raises:
        ExportError: if a package is missing, or the network cannot be written.
    """
    require_packages(form, check=False)
    if opset is not None and form != 'onnx':
        raise ExportError('opset is an option of the format onnx')
    if opset is not None and opset < LOWEST_OPSET:
        raise ExportError(f'opset must be {LOWEST_OPSET} or higher, got {opset}')
    tell('tracing the network')
    program = trace(network, shape)
    tell(f'writing {path.name}')
    names = [spec.name for spec in network.specs]
    FORMATS[form](program, path, names, json.dumps(description(network)), shape is None, opset)
