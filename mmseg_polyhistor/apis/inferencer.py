"""`MultiTaskInferencer`: a trained model, applied to a user's own images."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS, TRANSFORMS
from mmseg.structures import SegDataSample

from ..datasets.photographs import deep_grey, read_head
from ..datasets.transforms import LoadMultiTaskAnnotations
from ..tasks import TaskSpec
from .sources import InputError, Source, expand_inputs

__all__ = ['MultiTaskInferencer', 'TaskPredictions']


@dataclass(frozen=True)
class TaskPredictions:
    """The predictions for one image.

    Attributes:
        name: The image's name, see `Source`.
        path: Its file, or None for an array.
        image: uint8 (H, W, 3), BGR, as the model saw it before any resize: turned upright by its EXIF orientation.
        arrays: Per task, at the image's size: class indices uint8 (H, W) of a 'semantic' task, probabilities float32
            (H, W) of a 'binary' one, unit vectors float32 (H, W, 3), quantities float32 (H, W).
        sample: The same as a `SegDataSample`, in torch's layout, as the model gave it.
    """

    name: str
    path: str | None
    image: np.ndarray
    arrays: dict[str, np.ndarray]
    sample: SegDataSample


class MultiTaskInferencer:
    """A `MultiTaskSegmentor` with its checkpoint and test pipeline, for arrays, files, folders, patterns and videos.

    >>> inferencer = MultiTaskInferencer('config.py', 'epoch_60.pth')
    >>> inferencer('street.jpg')['human_parts']  # uint8 (H, W)
    >>> for prediction in inferencer.iterate('photographs/', batch_size=4): ...

    The images pass the config's test pipeline, without its loading of labels. Full checkpoints and those of
    `AdapterCheckpointHook` are loaded alike; one that does not fit is refused.

    Args:
        config: The config, or its file. A config that is stored in a checkpoint is not used: reading it would run it.
        checkpoint: File or URL of the checkpoint.
        device: 'cpu', 'cuda:0', ... Defaults to None: a GPU if there is one.
        tasks: Which of the model's tasks to return. The others are not computed where each task has a pass of its own
            through the backbone. Defaults to None: all.
        cfg_options: Changes of the config, as `--cfg-options`. Defaults to None.

    Raises:
        FileNotFoundError: if config or checkpoint does not exist.
        RuntimeError: if the checkpoint does not fit the config, or is refused (see `engine.safe_load`).
        ValueError: if the model is no multi-task segmentor, has not all `tasks`, or the config has no test pipeline.
    """

    def __init__(
        self,
        config: str | os.PathLike | Config,
        checkpoint: str | os.PathLike,
        *,
        device: str | torch.device | None = None,
        tasks: Sequence[str] | None = None,
        cfg_options: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(config, Config):
            cfg = copy.deepcopy(config)
        else:
            cfg = Config.fromfile(os.fspath(config))
        cfg.merge_from_dict(dict(cfg_options or {}))
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        self.cfg = cfg
        self.model = MODELS.build(cfg.model)
        if not hasattr(self.model, 'specs'):
            raise ValueError(
                f'MultiTaskInferencer needs a MultiTaskSegmentor, the config has {cfg.model.type}; for other models of '
                'mmseg there is mmseg.apis.MMSegInferencer'
            )
        load_checkpoint(self.model, os.fspath(checkpoint), map_location='cpu')
        self.specs: tuple[TaskSpec, ...] = self.model.select_tasks(tasks)
        self.device = torch.device(device or get_device())
        self.model.to(self.device).eval()
        self.pipeline = self._test_pipeline(cfg)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are returned."""
        return tuple(spec.name for spec in self.specs)

    def __call__(
        self, inputs: Any, *, batch_size: int = 1
    ) -> dict[str, np.ndarray] | list[dict[str, np.ndarray]]:
        """The arrays per task of one image, or a list of these for several; see `TaskPredictions.arrays`.

        Args:
            inputs: See `expand_inputs`. One image file, or one array, gives one dict.
            batch_size: Images per pass of the model; those of unequal size are padded. Defaults to 1.

        Raises:
            InputError: if an input cannot be read; it is named.
        """
        results = [prediction.arrays for prediction in self.iterate(inputs, batch_size=batch_size)]
        single = isinstance(inputs, np.ndarray) or (
            isinstance(inputs, (str, os.PathLike)) and os.path.isfile(os.path.expanduser(os.fspath(inputs)))
        )
        return results[0] if single and len(results) == 1 else results

    def iterate(
        self,
        inputs: Any,
        *,
        batch_size: int = 1,
        on_error: Callable[[InputError], None] | None = None,
    ) -> Iterator[TaskPredictions]:
        """Predictions one after another, with no more than a batch of images in memory.

        Args:
            inputs: See `expand_inputs`.
            batch_size: See `__call__`.
            on_error: Called with the error of an image that cannot be read, which is then passed over. Defaults to None:
                the error is raised.

        Yields:
            The predictions for each image, in order.

        Raises:
            InputError: if an input cannot be read; it is named.
            ValueError: if `batch_size` is below 1.
        """
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, got {batch_size}')
        sources = expand_inputs(inputs)
        while batch := list(islice(sources, batch_size)):
            loaded = []
            for source in batch:
                try:
                    loaded.append((source, self._load(source)))
                except InputError as e:
                    if on_error is None:
                        raise
                    on_error(e)
            if loaded:
                yield from self._predict(loaded)

    @torch.no_grad()
    def _predict(self, loaded: Sequence[tuple[Source, dict[str, Any]]]) -> list[TaskPredictions]:
        samples = self.model.test_step(
            pseudo_collate([self.pipeline(dict(results)) for _, results in loaded])
        )
        return [
            TaskPredictions(source.name, source.path, results['img'], self._arrays(sample), sample)
            for (source, results), sample in zip(loaded, samples, strict=True)
        ]

    def _load(self, source: Source) -> dict[str, Any]:
        """What a loading transform leaves in the pipeline's results."""
        if source.problem is not None:
            raise InputError(f'{source.path}: {source.problem}')
        if source.image is None:
            head = read_head(source.path) if self.loader.imdecode_backend == 'pillow' else None
            if head is not None and (problem := deep_grey(source.path, head)):
                raise InputError(f'{problem}. Convert it')
            try:
                results = self.loader(dict(img_path=source.path))
            except Exception as e:
                raise InputError(f'{source.path}: cannot be read as an image: {e}') from e
            if results is None:
                raise InputError(f'{source.path}: cannot be read as an image')
            return results
        shape = source.image.shape[:2]
        path = source.path or f'{source.name}.png'
        return dict(img=source.image, img_path=path, img_shape=shape, ori_shape=shape)

    def _arrays(self, sample: SegDataSample) -> dict[str, np.ndarray]:
        arrays = {}
        for spec in self.specs:
            data = sample.get(spec.pred_field).data.cpu().numpy()
            arrays[spec.name] = _LAYOUTS[spec.kind](data)
        return arrays

    def _test_pipeline(self, cfg: Config) -> Compose:
        """The config's test pipeline without the loaders; `self.loader` becomes that of images."""
        loader = cfg.get('test_dataloader') or {}
        steps = cfg.get('test_pipeline') or loader.get('dataset', {}).get('pipeline')
        if not steps:
            raise ValueError('the config has neither test_pipeline nor test_dataloader.dataset.pipeline')
        built = [TRANSFORMS.build(step) for step in steps]
        first, rest = built[0], built[1:]
        if type(first).__name__ != 'LoadImageFromFile':
            raise ValueError(
                f'the test pipeline must begin with LoadImageFromFile, not {type(first).__name__}'
            )
        self.loader = first
        return Compose([step for step in rest if not isinstance(step, LoadMultiTaskAnnotations)])


_LAYOUTS = {
    'semantic': lambda data: data[0].astype(np.uint8),
    'binary': lambda data: data[0],
    'unit_vector': lambda data: np.ascontiguousarray(data.transpose(1, 2, 0)),
    'scalar': lambda data: data[0],
}
