"""Does a file compute what the trained model computes?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.postprocess import probability, quantity, unit_vector
from ..models.segmentors import MultiTaskSegmentor
from ..tasks import TaskSpec
from .network import ExportNetwork
from .writers import ExportError

__all__ = ['Difference', 'compare', 'largest_differences', 'reference_logits', 'run_file']


class Difference(NamedTuple):
    """How far an output is from the model's: `largest`, to be seen relative to `scale`; both in the logits' unit.

    That of a class is how much lower its logit is than the largest one: 0 where it is the most likely class, and next to 0
    where two are equally likely but for rounding. That of a unit vector is the distance, times the length of the logits,
    as short ones hardly have a direction. That of a probability is its error, relative to 1.
    """

    largest: float
    scale: float

    def within(self, tolerance: float) -> bool:
        """Whether it is at most `tolerance`, relative to the scale; never where a number is not finite."""
        return self.largest <= tolerance * self.scale < math.inf

    @property
    def relative(self) -> float:
        """The largest difference relative to the scale; infinite where a number is not finite, or the scale is 0."""
        if self.largest == 0 and self.scale == 0:
            return 0.0
        ratio = self.largest / self.scale if self.scale and self.scale < math.inf else math.inf
        return ratio if ratio < math.inf else math.inf  # and not NaN, which is no order


@torch.no_grad()
def reference_logits(
    segmentor: MultiTaskSegmentor, images: Tensor, *, preprocessing: bool = True, channel_order: str = 'rgb'
) -> dict[str, Tensor]:
    """Logits of the model itself, on the way that `tools/test.py` goes, at the images' size.

    Args:
        segmentor: The trained model, as loaded.
        images: As the exported network gets them, see `ExportNetwork`.
        preprocessing: See `ExportNetwork`. Defaults to True.
        channel_order: See `ExportNetwork`. Defaults to 'rgb'.
    """
    segmentor = segmentor.eval()
    inputs, metas = images, [{} for _ in images]
    if preprocessing:
        loaded = images.flip(1) if channel_order == 'rgb' else images  # as pipelines load them: BGR
        batch = segmentor.data_preprocessor(dict(inputs=list(loaded)), False)
        inputs, metas = batch['inputs'], [sample.metainfo for sample in batch['data_samples']]
    logits = segmentor.encode_decode(inputs, metas)[..., : images.shape[2], : images.shape[3]]
    parts = logits.split([spec.channels for spec in segmentor.specs], dim=1)
    return dict(zip(segmentor.tasks, parts, strict=True))


def run_file(path: Path, form: str, batches: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """The outputs of a written file for each of several batches, on the CPU: with onnxruntime, or loaded by torch.

    Raises:
        ExportError: if the file cannot be loaded, or does not take a batch.
    """
    if form == 'onnx':
        import onnxruntime
    step = 'cannot be loaded'
    try:
        if form == 'onnx':
            session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
            names = [output.name for output in session.get_outputs()]
        else:
            network = torch.export.load(path).module()
        found = []
        for images in batches:
            step = f'does not run on images of {tuple(images.shape)}'
            if form == 'onnx':
                run = session.run(names, {'images': images.numpy()})
                found.append(dict(zip(names, map(torch.from_numpy, run), strict=True)))
            else:
                found.append(network(images))
    except Exception as error:  # those of onnxruntime have no base of their own
        raise ExportError(f'{path.name} {step}: {type(error).__name__}: {error}') from error
    return found


def compare(spec: TaskSpec, output: Tensor, logits: Tensor, outputs: str = 'predictions') -> Difference:
    """The difference between an output for a task and the model's.

    Args:
        spec: The task.
        output: What a file gave.
        logits: The model's logits, (B, channels, H, W).
        outputs: What the file gives, 'predictions' or 'logits'. Defaults to 'predictions'.
    """
    channels = 1 if outputs == 'predictions' and spec.kind == 'semantic' else spec.channels
    expected = (len(logits), channels, *logits.shape[2:])
    if tuple(output.shape) != expected:
        raise ValueError(f'{spec.name} has the shape {tuple(output.shape)} instead of {expected}')
    scale = logits.abs().max().item()
    if outputs == 'logits':
        errors = (output - logits).abs()
    elif spec.kind == 'semantic':
        errors = logits.amax(1, keepdim=True) - logits.gather(1, output)
    elif spec.kind == 'unit_vector':
        distance = torch.linalg.vector_norm(output - unit_vector(logits), dim=1)
        errors = distance * torch.linalg.vector_norm(logits, dim=1)
    elif spec.kind == 'binary':
        errors, scale = (output - probability(logits)).abs(), 1.0
    else:
        errors = (output - quantity(logits)).abs()
    return Difference(errors.max().item(), scale)


def largest_differences(
    path: Path,
    form: str,
    network: ExportNetwork,
    segmentor: MultiTaskSegmentor,
    sizes: Sequence[tuple[int, int, int]],
) -> Mapping[str, Difference]:
    """Run a file on random images and compare with the model that it was made from.

    Args:
        path: The file.
        form: Its format.
        network: What was written, for its settings.
        segmentor: The trained model.
        sizes: (B, H, W) of the images.

    Returns:
        Per task, the difference of the size at which it is largest relative to its scale.

    Raises:
        ExportError: if the file cannot be run, see `run_file`.
        ValueError: if an output has another shape than the model's.
    """
    generator = torch.Generator().manual_seed(0)
    settings = dict(preprocessing=network.preprocessing, channel_order=network.channel_order)
    batches = []
    for batch, height, width in sizes:
        shape = (batch, 3, height, width)
        if network.preprocessing:
            batches.append(torch.randint(0, 256, shape, generator=generator).float())
        else:
            batches.append(torch.randn(shape, generator=generator))
    worst: dict[str, Difference] = {}
    for images, got in zip(batches, run_file(path, form, batches), strict=True):
        wanted = reference_logits(segmentor, images, **settings)
        for spec in network.specs:
            found = compare(spec, got[spec.name], wanted[spec.name], network.outputs)
            known = worst.get(spec.name)
            if known is None or found.relative > known.relative:
                worst[spec.name] = found
    return worst
