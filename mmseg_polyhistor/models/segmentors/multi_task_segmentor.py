"""One backbone, one decode head per task: training, whole and sliding-window inference for all tasks at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import ModuleDict
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_polyhistor.adapters.base import resolve_tasks
from mmseg_polyhistor.adapters.checks import check_flags
from mmseg_polyhistor.engine.key_accounting import StrictLoading
from mmseg_polyhistor.models.postprocess import POSTPROCESS, undo_flip
from mmseg_polyhistor.task_rows import add_tasks
from mmseg_polyhistor.tasks import TaskSpec, get_tasks

from .execution import EXECUTIONS, should_stack
from .head_losses import head_losses
from .heads import build_head, check_widths, head_configs
from .task_by_task import losses_task_by_task

Maps = tuple[Tensor, ...]


@MODELS.register_module()
class MultiTaskSegmentor(StrictLoading, EncoderDecoder):
    """mmseg's `EncoderDecoder` with one decode head per task.

    The backbone answers either `{task: maps}`, the features of each task, or one tuple of maps that all heads read,
    so that any backbone of mmseg or mmpretrain can serve. Inference carries the logits of all tasks as the channels
    of one tensor, so that a sliding window passes the backbone once.

    Every head takes part in every training step, so that distributed training needs no search for unused parameters,
    as long as the heads read all maps. A head that selects some (`in_index`) leaves what belongs to the others alone
    without a gradient: set `find_unused_parameters=True` in the config then.

    Args:
        backbone: Config of the backbone. If the module has an attribute `tasks` that is not empty, it must name the
            same tasks.
        decode_heads: A head config per task, or one config (with the key 'type') as the template of all. What the
            table of tasks knows (`num_classes`, `out_channels`, `ignore_index`, `loss_decode`) may be left out.
        tasks: Names of the tasks, rows of `mmseg_polyhistor.tasks`.
        new_tasks: Rows that are added to the table of tasks before names are looked up, each a dict with `name`, `kind` and
            what else is special (see `mmseg_polyhistor.task_rows.complete_row`). Defaults to ().
        execution: How the tasks of a backbone that has a pass for each of them are run, to equal results. 'stacked': all
            side by side, in few large operations. 'sequential': one after another, in training each with its own
            backward pass, so that memory is needed for one task at a time. 'auto': by the rule of `should_stack`, from
            the sizes of model and images and the memory of the device. Where all tasks share one
            pass of the backbone there is no choice to make. Defaults to 'auto'.
        partial_loading: Take what fits of a checkpoint and tell the rest by a warning, instead of refusing one that
            differs in any key or shape (see `StrictLoading`). Holds for the backbone too. Defaults to False.
        neck: Config of a neck, shared by the tasks. Defaults to None.
        train_cfg: Handed to heads with a loss of their own. Defaults to None.
        test_cfg: `mode`, 'whole' or 'slide'; `crop_size` and `stride`, (height, width), for 'slide'; `resolution` of
            the predictions, 'original' (the image file's) or 'input' (the network's, without padding).
            Defaults to `dict(mode='whole', resolution='original')`.
        data_preprocessor: Config of the data preprocessor. Defaults to None.
        pretrained: None, which mmseg's `init_model` and tools write into every config; weights are named by the
            backbone's `init_cfg`. Defaults to None.
        init_cfg: Config of the initialisation. Defaults to None.

    Raises:
        ValueError: if the tasks of the arguments differ, a task is unknown or named twice, a row of `new_tasks` is wrong or
            differs from a known task of its name, a head contradicts its task, `test_cfg` is not as above, or `pretrained`
            is not None.
    """

    def __init__(
        self,
        *,
        backbone: dict[str, Any],
        decode_heads: Mapping[str, Any],
        tasks: Sequence[str],
        new_tasks: Sequence[Mapping[str, Any]] = (),
        execution: str = 'auto',
        partial_loading: bool = False,
        neck: dict[str, Any] | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        pretrained: None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        if pretrained is not None:
            raise ValueError(
                f'pretrained={pretrained!r} is no option here; name the weights in the backbone: '
                f"init_cfg=dict(type='Pretrained', checkpoint={pretrained!r})"
            )
        if execution not in EXECUTIONS:
            raise ValueError(f'execution must be one of {EXECUTIONS}, got {execution!r}')
        self.execution = execution
        add_tasks(new_tasks, f'{type(self).__name__}: new_tasks')
        super().__init__(
            backbone=backbone,
            decode_head=head_configs(decode_heads, get_tasks(tasks, f'{type(self).__name__}: tasks')),
            neck=neck,
            train_cfg=train_cfg,
            test_cfg=_check_test_cfg(test_cfg),
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        check_flags(partial_loading=partial_loading)
        if partial_loading:
            for module in self.modules():
                if isinstance(module, StrictLoading):
                    module.partial_loading = True
        of_backbone = getattr(self.backbone, 'tasks', None)
        if of_backbone and set(of_backbone) != set(self.tasks):
            raise ValueError(
                f'model.backbone.tasks={list(of_backbone)}, but model.tasks={list(self.tasks)}: both must name the same tasks'
            )

        if not self.with_neck:
            check_widths(self.decode_heads, self.backbone)

    def _init_decode_head(self, decode_head: dict[str, dict[str, Any]]) -> None:
        self.tasks = tuple(decode_head)
        self.specs: tuple[TaskSpec, ...] = get_tasks(self.tasks)
        # mmengine's ModuleDict: under torch's own, `init_weights` would not reach the heads.
        self.decode_heads = ModuleDict({s.name: build_head(decode_head[s.name], s) for s in self.specs})
        self.out_channels = sum(spec.channels for spec in self.specs)

    @property
    def with_decode_head(self) -> bool:
        """Always: there is one per task."""
        return True

    def select_tasks(self, tasks: Sequence[str] | None) -> tuple[TaskSpec, ...]:
        """Keep only some tasks from now on, for inference: the decoders of the others go, and so do their passes of the
        backbone.

        Args:
            tasks: Some of the model's tasks, in any order; None keeps all.

        Returns:
            The rows of the tasks that are left, in the model's order.

        Raises:
            ValueError: if the model lacks a task, one is named twice, or none is named.
        """
        if tasks is not None:
            names = resolve_tasks(tasks, self.tasks)
            self.specs = tuple(spec for spec in self.specs if spec.name in names)
            self.tasks = tuple(spec.name for spec in self.specs)
            self.decode_heads = ModuleDict({name: self.decode_heads[name] for name in self.tasks})
            self.out_channels = sum(spec.channels for spec in self.specs)
        return self.specs

    def extract_feat(self, inputs: Tensor) -> dict[str, Maps]:
        """The feature maps of every task.

        Args:
            inputs: Normalised images (B, 3, H, W).

        Returns:
            Task name -> maps (B, C_i, H_i, W_i); the same maps for all where the backbone knows no tasks.
        """
        of_backbone = getattr(self.backbone, 'tasks', None)
        fewer = of_backbone and set(of_backbone) != set(self.tasks)
        maps = self.backbone(inputs, self.tasks) if fewer else self.backbone(inputs)
        if not isinstance(maps, Mapping):
            return dict.fromkeys(self.tasks, self.neck(maps) if self.with_neck else maps)
        return {task: self.neck(maps[task]) if self.with_neck else maps[task] for task in self.tasks}

    def runs_sequentially(self, inputs: Tensor) -> bool:
        """Whether the tasks run one after another for these inputs, see `execution`."""
        if self.execution == 'stacked' or not getattr(self.backbone, 'parts_streams', False):
            return False
        if not self.backbone.tasks:  # one set of maps for all heads
            return False
        return self.execution == 'sequential' or not should_stack(self, inputs)

    def feature_maps(self, inputs: Tensor) -> Iterator[tuple[str, Maps]]:
        """Every task with its feature maps, which are made when they are asked for where tasks run sequentially.

        Args:
            inputs: Normalised images (B, 3, H, W).

        Yields:
            A task and its maps, as `extract_feat` gives them.
        """
        if not self.runs_sequentially(inputs):
            yield from self.extract_feat(inputs).items()
            return
        # `map`, as a loop's variable would keep a task's maps while those of the next are made.
        maps = self.backbone.task_by_task(inputs, self.tasks)
        yield from map(lambda item: (item[0], self.neck(item[1])), maps) if self.with_neck else maps  # noqa: C417

    def _forward(
        self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> dict[str, Tensor]:
        """Logits per task, at the size that the task's head gives: (B, channels, h, w)."""
        return {task: self.decode_heads[task](maps) for task, maps in self.feature_maps(inputs)}

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """The losses of all tasks; see `head_losses` for their names.

        Args:
            inputs: Normalised images (B, 3, H, W).
            data_samples: Their samples, with a label of every task.

        Raises:
            ValueError: if a label is missing (the image is named), or two tasks' losses have one name.
        """
        trained = [p for p in self.parameters() if p.requires_grad]
        if trained and torch.is_grad_enabled() and self.runs_sequentially(inputs):
            return losses_task_by_task(lambda: self._losses(inputs, data_samples), trained)
        losses: dict[str, Tensor] = {}
        for own in self._losses(inputs, data_samples):
            losses.update(own)
        return losses

    def _losses(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> Iterator[dict[str, Tensor]]:
        """The losses of one task after another."""
        known: set[str] = set()
        for task, maps in self.feature_maps(inputs):
            spec = self.specs[self.tasks.index(task)]
            own = head_losses(self.decode_heads[task], spec, maps, data_samples, self.train_cfg)
            del maps
            if clash := sorted(known & own.keys()):
                raise ValueError(f'two tasks have losses named {clash}; set another loss_name in loss_decode')
            known |= own.keys()
            yield own

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Logits of all tasks at the size of `inputs`: (B, sum of the tasks' channels, H, W), in task order."""
        size = inputs.shape[2:]  # of the images or of a window: the heads resize their logits to it
        metas = [dict(meta, img_shape=size, pad_shape=size) for meta in batch_img_metas]
        logits = {
            task: self.decode_heads[task].predict(maps, metas, self.test_cfg)
            for task, maps in self.feature_maps(inputs)
        }
        return torch.cat([logits[task] for task in self.tasks], dim=1)

    def inference(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Logits as `encode_decode`'s, by the mode of `test_cfg`.

        Unlike mmseg's there is no warning about images of different original sizes: each is resized to its own.
        """
        run = self.slide_inference if self.test_cfg.mode == 'slide' else self.whole_inference
        return run(inputs, batch_img_metas)

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Predictions per image: padding cut off, flip undone, resized, and made by the kind of the task.

        Args:
            seg_logits: Logits of all tasks, (B, sum of the tasks' channels, H, W).
            data_samples: The samples to write to. Defaults to None: new ones, at the size of the logits.

        Returns:
            The samples with a `PixelData` per task in `spec.pred_field`.
        """
        keep_size = data_samples is None
        if keep_size:
            data_samples = [SegDataSample() for _ in seg_logits]
        for logits, sample in zip(seg_logits, data_samples, strict=True):
            meta = sample.metainfo
            left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
            height, width = logits.shape[-2:]
            logits = logits[:, top : height - bottom, left : width - right].float()
            size = logits.shape[-2:] if keep_size else meta[_SIZE_KEYS[self.test_cfg.resolution]][:2]
            parts = logits.split([spec.channels for spec in self.specs])
            for spec, part in zip(self.specs, parts, strict=True):
                if meta.get('flip'):
                    part = undo_flip(part, direction=meta['flip_direction'], rule=spec.flip)
                align_corners = self.decode_heads[spec.name].align_corners
                part = resize(
                    part[None], size=size, mode='bilinear', align_corners=align_corners, warning=False
                )
                sample.set_data({spec.pred_field: PixelData(data=POSTPROCESS[spec.kind](part[0]))})
        return list(data_samples)


_SIZE_KEYS = {'original': 'ori_shape', 'input': 'img_shape'}
_TEST_KEYS = ('mode', 'crop_size', 'stride', 'resolution')


def _check_test_cfg(test_cfg: Mapping[str, Any] | None) -> ConfigDict:
    cfg = ConfigDict(dict(mode='whole', resolution='original') | dict(test_cfg or {}))

    def demand(condition: bool, key: str, allowed: str) -> None:
        if not condition:
            raise ValueError(f'test_cfg.{key} is {cfg.get(key)!r}; allowed: {allowed}')

    if unknown := sorted(set(cfg) - set(_TEST_KEYS)):
        raise ValueError(f'test_cfg has unknown keys {unknown}; allowed: {_TEST_KEYS}')
    demand(cfg.mode in ('whole', 'slide'), 'mode', "'whole' or 'slide'")
    demand(cfg.resolution in _SIZE_KEYS, 'resolution', ' or '.join(map(repr, _SIZE_KEYS)))
    if cfg.mode == 'slide':
        for key in ('crop_size', 'stride'):
            pair = cfg.get(key)
            fits = (
                isinstance(pair, Sequence)
                and len(pair) == 2
                and all(isinstance(n, int) and n > 0 for n in pair)
            )
            demand(fits, key, "a pair (height, width) of positive integers, needed by mode='slide'")
        smaller = all(s <= c for s, c in zip(cfg.stride, cfg.crop_size, strict=True))
        demand(smaller, 'stride', f'at most crop_size, {tuple(cfg.crop_size)}; windows would leave gaps')
    return cfg
