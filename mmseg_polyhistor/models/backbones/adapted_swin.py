"""`AdaptedSwin`: mmpretrain's Swin, frozen, with adapters in its blocks and one stream of features per task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
import torch.utils.checkpoint as cp
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmpretrain.models.backbones.swin_transformer import SwinBlock, SwinTransformer
from mmpretrain.models.utils import resize_pos_embed
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...adapters import METHODS, AdapterMethod, Change
from ...adapters.base import resolve_tasks
from .swin_checkpoint import KeyReport, load_weights_file, resize_bias_table, swin_state_dict
from .swin_layers import Changes, block_forward, patch_embed_forward, patch_merging_forward, swin_layout

__all__ = ['AdaptedSwin']

for _method in METHODS:
    MODELS.register_module(module=_method)

SINGLE_TASK = 'default'  # the adapters' name for the only task of a model that names none


@MODELS.register_module()
class AdaptedSwin(SwinTransformer):
    """A frozen Swin whose blocks carry adapters, with features of its own for each task.

    The encoder is mmpretrain's `SwinTransformer`: its state-dict keys are the stock ones and, without adapters, its
    outputs equal the stock ones to the bit (`pad_small_map=True`). New parameters live under `adapters.*` and, where
    tasks are named, under `output_norms.<task>.<stage>.*`. Freezing goes by ownership, in the constructor: what the
    stock constructor built is frozen, what this class adds is trained.

    Each stage's output passes a LayerNorm of the task before it goes to the decoders; the published checkpoints hold
    at most the last of these norms, so they are new and trained (Polyhistor, section 3; see also docs of the spec).

    Everything up to the first change of a task is computed once for all tasks; behind it the T task streams lie side
    by side. A method whose changes are shared by all tasks, or no method at all, keeps a single stream: one pass.

    Args:
        arch: 'tiny', 'small', 'base', 'large' or a dict with `embed_dims`, `depths` and `num_heads`.
            Defaults to 'tiny'.
        tasks: Names of the tasks. None for a stock backbone with a tuple as output and the stock `norm{i}`.
            Defaults to None.
        adapter: Config of an adapter method (see `mmseg_polyhistor.adapters`), or None. Defaults to None.
        frozen: Whether the stock parameters are frozen; False is full fine-tuning. Defaults to True.
        drop_path_rate: Largest rate of stochastic depth while training, for frozen blocks as well. Defaults to 0.1.
        with_cp: Recompute each block in the backward pass instead of storing its activations. Defaults to False.
        window_size: Window of the attention. Defaults to 7.
        init_cfg: `dict(type='Pretrained', checkpoint=<path or URL>[, prefix='backbone'])` loads published weights;
            every key is accounted for. Without it the encoder starts at random. Defaults to None.
        **kwargs: Further arguments of mmpretrain's `SwinTransformer`.

    Raises:
        ValueError: for an unfit adapter, task list or `init_cfg`; `TypeError` for arguments that this class decides
            itself.

    Shape:
        Images (B, 3, H, W), any size -> {task: 4 maps (B, C_i, ceil(H / s_i), ceil(W / s_i)), s_i = 4, 8, 16, 32};
        the bare tuple of maps for one task, or none named.
    """

    _DECIDED = ('out_indices', 'out_after_downsample', 'frozen_stages', 'pad_small_map')

    def __init__(
        self,
        arch: str | dict = 'tiny',
        *,
        tasks: Sequence[str] | None = None,
        adapter: Mapping | None = None,
        frozen: bool = True,
        drop_path_rate: float = 0.1,
        with_cp: bool = False,
        window_size: int = 7,
        init_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        decided = [k for k in self._DECIDED if k in kwargs]
        if decided:
            raise TypeError(
                f'AdaptedSwin decides {decided} itself (four output maps, any image size, freezing by `frozen`)'
            )
        self._checkpoint_cfg(init_cfg)  # a mistake in it shows here, not when training starts
        known = arch if isinstance(arch, Mapping) else self.arch_zoo.get(arch.lower(), {})
        stages = len(known.get('depths', ()))
        super().__init__(
            arch=dict(arch) if isinstance(arch, Mapping) else arch,
            out_indices=tuple(range(stages)),
            pad_small_map=True,
            drop_path_rate=drop_path_rate,
            window_size=window_size,
            init_cfg=init_cfg,
            **kwargs,
        )
        if isinstance(tasks, str) or (tasks is not None and (not tasks or len(set(tasks)) != len(tasks))):
            raise ValueError(f'tasks must be None or a sequence of different names, got {tasks!r}')
        self.tasks = None if tasks is None else tuple(tasks)
        self.frozen = frozen
        self.with_cp = with_cp
        self.layout = swin_layout(self)

        for name, parameter in self.named_parameters():
            if name.split('.')[0] not in self.stock_norms:
                parameter.requires_grad_(not frozen)
        if self.tasks is not None:
            self.output_norms = nn.ModuleDict(
                {task: nn.ModuleList(nn.LayerNorm(w) for w in self.num_features) for task in self.tasks}
            )
            for name in self.stock_norms:
                delattr(self, name)

        self.adapters: AdapterMethod | None = None
        if adapter is not None:
            _check_adapter(adapter)
            self.adapters = MODELS.build(
                dict(layout=self.layout, tasks=self.tasks or (SINGLE_TASK,), **adapter)
            )

    # ------------------------------------------------------------------------------------------ ownership
    @property
    def stock_norms(self) -> frozenset[str]:
        """The stock names of the norms behind the stages, whether or not the module has them."""
        return frozenset(f'norm{i}' for i in self.out_indices)

    def output_norm_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the output norms, which count as decoder (paper's counts)."""
        if self.tasks is not None:
            yield from self.output_norms.parameters()
        else:
            for i in self.out_indices:
                yield from getattr(self, f'norm{i}').parameters()

    # ---------------------------------------------------------------------------------------- checkpoints
    def init_weights(self) -> None:
        """Load the published weights that `init_cfg` names, or initialise the encoder at random.

        The adapters keep, in either case, the initial values that their method documents.

        Raises:
            RuntimeError: if a weight of the encoder is missing in the checkpoint or a key fits nowhere.
        """
        if self.is_init:
            BaseModule.init_weights(self)  # warns that this is the second call, and changes nothing
            return
        pretrained = self._checkpoint_cfg(self.init_cfg)
        if pretrained is None:
            super().init_weights()
            if self.adapters is not None:
                self.adapters.reset_parameters()
            return
        source = pretrained['checkpoint']
        weights, foreign = swin_state_dict(load_weights_file(source), pretrained.get('prefix') or '')
        report = self.load_encoder(weights)
        report.foreign = foreign
        print_log(f'{type(self).__name__}: {source}: {report}', logger='current')
        self._is_init = True

    @staticmethod
    def _checkpoint_cfg(init_cfg: Mapping | Sequence[Mapping] | None) -> Mapping | None:
        """The config of type 'Pretrained', or None where there is none.

        Raises:
            ValueError: if it names no checkpoint, or stands beside other configs, whose values it would overwrite.
        """
        cfgs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
        for cfg in cfgs:
            if isinstance(cfg, Mapping) and cfg.get('type') in ('Pretrained', PretrainedInit):
                if not isinstance(cfg.get('checkpoint'), str):
                    raise ValueError(f'init_cfg needs checkpoint=<path or URL>, got {dict(cfg)}')
                if len(cfgs) > 1:
                    raise ValueError(
                        f"init_cfg of type 'Pretrained' sets every weight and must stand alone, got {list(cfgs)}"
                    )
                return cfg
        return None

    def load_encoder(self, weights: Mapping[str, Tensor]) -> KeyReport:
        """Load weights of a stock Swin, with every key accounted for.

        Args:
            weights: Under mmpretrain's names, see `swin_state_dict`. Tables of relative positions of another window
                are resized bicubically.

        Raises:
            RuntimeError: if a weight of the encoder is missing, a key fits nowhere, or a shape differs.
        """
        own = self.state_dict()
        wanted = {k for k in own if not k.startswith(('adapters.', 'output_norms.'))}
        report = KeyReport()
        usable = {}
        for key, value in weights.items():
            if key.endswith('relative_position_index'):
                report.loaded.append(key)  # follows from the window: the own index stays
            elif key in wanted:
                usable[key] = value
                if key.endswith('relative_position_bias_table'):
                    usable[key] = resize_bias_table(value, own[key].shape[0])
            elif key.split('.')[0] in self.stock_norms:
                report.final_norm.append(key)
            else:
                report.unexpected.append(key)
        # Indices follow from the window, and the stock output norms may be new: neither has to be in the file.
        report.missing = sorted(
            k
            for k in wanted - set(usable)
            if not k.endswith('relative_position_index') and k.split('.')[0] not in self.stock_norms
        )
        if report.missing or report.unexpected:
            raise RuntimeError(
                f'the checkpoint does not fit this encoder: {report}; missing {report.missing[:5]}, '
                f'unexpected {report.unexpected[:5]}'
            )
        self.load_state_dict(usable, strict=False)
        report.loaded += usable
        return report

    # -------------------------------------------------------------------------------------------- forward
    def train(self, mode: bool = True) -> AdaptedSwin:
        super().train(mode)
        return self

    def forward(
        self, images: Tensor, tasks: Sequence[str] | None = None, *, adapted: bool = True
    ) -> dict[str, tuple[Tensor, ...]] | tuple[Tensor, ...]:
        """Encode images for all tasks, or for those named.

        Args:
            images: (B, 3, H, W).
            tasks: Some of the model's tasks. Defaults to None, all.
            adapted: False leaves out what the method changes: the frozen network's features, in one pass for all
                tasks. Defaults to True.

        Returns:
            {task: four maps}; the four maps alone where the model was built for one task or for none by name.

        Raises:
            ValueError: if a task is unknown, named twice, or none is named.
        """
        names = self._stream_names(tasks)
        changes = self._changes(names, images.device) if adapted else {}
        nothing: Changes = {}
        x, hw = patch_embed_forward(self.patch_embed, images, changes.get((0, None), nothing))
        if self.use_abs_pos_embed:
            x = x + resize_pos_embed(
                self.absolute_pos_embed,
                self.patch_resolution,
                hw,
                self.interpolate_mode,
                self.num_extra_tokens,
            )
        x = self.drop_after_pos(x)  # (S, B, H*W, C), S = 1 until the task streams part

        outputs: dict[str, list[Tensor]] = {name: [] for name in names}
        for i, stage in enumerate(self.stages):
            for j, block in enumerate(stage.blocks):
                x = self._run_block(block, x, hw, changes.get((i, j), nothing))
            x, per_task = self._split(x, len(names))
            for name, features in zip(names, per_task, strict=True):
                outputs[name].append(self._to_map(self._output_norm(name, i)(features), hw))
            if stage.downsample is not None:
                x, hw = patch_merging_forward(stage.downsample, x, hw, changes.get((i, None), nothing))
        maps = {name: tuple(out) for name, out in outputs.items()}
        if self.tasks is None or len(self.tasks) == 1:
            return maps[names[0]]
        return maps

    def _split(self, x: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
        """At a stage's end: the streams (S, B, L, C) that go on, and one for each task (T, B, L, C).

        Streams that no change of a task has parted serve all tasks: one pass of the encoder.
        """
        if self.adapters is not None and self.adapters.trunk and x.shape[0] == 1 + tasks:
            return x[:1], x[1:]
        return x, x.expand(tasks, *x.shape[1:])

    def _stream_names(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        known = self.tasks or (SINGLE_TASK,)
        return known if tasks is None else resolve_tasks(tasks, known)

    def _changes(self, tasks: tuple[str, ...], device: torch.device) -> dict[tuple[int, int | None], Changes]:
        """What the method changes, by (stage, block), in the parameters' own precision also under autocast.

        Parameters of a hyper-network collect gradients from all blocks and tasks, and scaling kernels multiply
        rounding errors; generation is a small part of the work.
        """
        changes: dict[tuple[int, int | None], dict[str, Change]] = {}
        if self.adapters is None:
            return changes
        # The meta device has no autocast, not even one to switch off.
        with nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False):
            generated = self.adapters.generate(tasks)
        for site, change in generated.items():
            changes.setdefault((site.stage, site.block), {})[site.position] = change
        return changes

    def _output_norm(self, task: str, stage: int) -> nn.Module:
        return getattr(self, f'norm{stage}') if self.tasks is None else self.output_norms[task][stage]

    @staticmethod
    def _to_map(x: Tensor, hw: tuple[int, int]) -> Tensor:
        return x.view(-1, *hw, x.shape[-1]).permute(0, 3, 1, 2).contiguous()

    def _run_block(self, block: SwinBlock, x: Tensor, hw: tuple[int, int], changes: Changes) -> Tensor:
        if self.with_cp and torch.is_grad_enabled() and (x.requires_grad or changes):
            return cp.checkpoint(block_forward, block, x, hw, changes, self.adapters, use_reentrant=False)
        return block_forward(block, x, hw, changes, self.adapters)


def _check_adapter(cfg: Mapping) -> None:
    """Refuse a config that names no adapter method.

    Raises:
        ValueError: with the names of the methods of this package.
    """
    method = cfg.get('type') if isinstance(cfg, Mapping) else None
    if isinstance(method, str):
        method = MODELS.get(method)
    if not (isinstance(method, type) and issubclass(method, AdapterMethod)):
        known = ', '.join(m.__name__ for m in METHODS)
        raise ValueError(
            f'adapter must be dict(type=<an adapter method>, ...), got {cfg!r}; methods of this package: {known}'
        )
