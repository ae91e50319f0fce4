"""`AdaptedSwin`: mmpretrain's Swin, frozen, with adapters in its blocks and one stream of features per task."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.utils.checkpoint as cp
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmpretrain.models.backbones.swin_transformer import SwinBlock, SwinTransformer
from mmpretrain.models.utils import resize_pos_embed
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...adapters import METHODS, POSITIONS, AdapterMethod, Change, LowRankWeights, Site
from ...adapters.base import resolve_tasks
from ...adapters.checks import check_flags, check_keys, check_keywords, constructor_keywords
from ...engine.frozen_backbone import FrozenBackbone
from ...engine.key_accounting import StrictLoading
from .generated_cache import GeneratedCache
from .swin_checkpoint import KeyReport, load_weights_file, resize_bias_table, swin_state_dict
from .swin_layers import (
    Changes,
    FusedWindows,
    Shared,
    block_forward,
    block_prefix,
    patch_embed_forward,
    patch_merging_forward,
    swin_layout,
)
from .swin_windows import WindowCache

__all__ = ['AdaptedSwin']

for _method in METHODS:
    MODELS.register_module(module=_method)

BIAS_TABLE = 'attn.w_msa.relative_position_bias_table'
SINGLE_TASK = 'default'  # the adapters' name for the only task of a model that names none


@MODELS.register_module()
class AdaptedSwin(StrictLoading, FrozenBackbone, SwinTransformer):
    """A frozen Swin whose blocks carry adapters, with features of its own for each task.

    The encoder is mmpretrain's `SwinTransformer`: its state-dict keys are the stock ones and, without adapters, its
    outputs equal the stock ones to the bit (`pad_small_map=True`). New parameters live under `adapters.*` and, where
    tasks are named, under `output_norms.<task>.<stage>.*`. Freezing goes by ownership, in the constructor: what the
    stock constructor built is frozen, what this class adds is trained.

    Each stage's output passes a LayerNorm of the task before it goes to the decoders; the published checkpoints hold
    at most the last of these norms, so they are new and trained.

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
        fused: Gather windows by index, attend through `scaled_dot_product_attention`, and keep masks and biases of the
            frozen windows; equal to stock Swin up to rounding. False runs the stock operations, equal to the bit.
            Defaults to True.
        init_cfg: `dict(type='Pretrained', checkpoint=<path or URL>[, prefix='backbone'])` loads published weights;
            every key is accounted for. Without it the encoder starts at random. Defaults to None.
        partial_loading: Take what fits of a checkpoint and tell the rest by a warning, instead of refusing one that
            differs in any key or shape (see `StrictLoading`). Defaults to False.
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
        fused: bool = True,
        init_cfg: dict | None = None,
        partial_loading: bool = False,
        **kwargs,
    ) -> None:
        decided = [k for k in self._DECIDED if k in kwargs]
        if decided:
            raise TypeError(
                f'AdaptedSwin decides {decided} itself (four output maps, any image size, freezing by `frozen`)'
            )
        check_keywords(type(self), kwargs)
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
        check_flags(frozen=frozen, with_cp=with_cp, fused=fused, partial_loading=partial_loading)
        self.tasks = None if tasks is None else check_keys(f'{type(self).__name__}: tasks', tasks)
        self.frozen = frozen
        self.with_cp = with_cp
        self.fused = fused
        self.partial_loading = partial_loading
        self._windows = WindowCache()
        self._generated = GeneratedCache()
        self._known_sites: set[tuple[Site, type]] = set()
        self.layout = swin_layout(self)

        for name, parameter in self.named_parameters():
            if name.split('.')[0] not in self.stock_norms:
                parameter.requires_grad_(not frozen)
        if self.tasks is not None:
            self.output_norms = nn.ModuleDict(
                {
                    task: nn.ModuleList(copy.deepcopy(getattr(self, f'norm{i}')) for i in self.out_indices)
                    for task in self.tasks
                }
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
            if self.frozen:
                print_log(
                    f'{type(self).__name__}: no init_cfg names a checkpoint: the frozen encoder is a random one',
                    logger='current',
                    level=logging.WARNING,
                )
            self._frozen_set = True
            return
        source, prefix = self.pretrained_source()
        weights, foreign = swin_state_dict(load_weights_file(source), prefix)
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
        if not all(cfg is None or isinstance(cfg, Mapping) for cfg in cfgs):
            raise ValueError(
                f"init_cfg must be dict(type='Pretrained', checkpoint=<path or URL>), got {init_cfg!r}"
            )
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
        usable, report = self._fit(weights)
        own = self.state_dict()
        with torch.no_grad():
            for key, value in usable.items():
                own[key].copy_(value)
        self._frozen_set = True
        return report

    def _fit(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], KeyReport]:
        """The weights of a stock Swin in the shapes of this one, and what became of each; see `load_encoder`."""
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
        shapes = [
            f'{k} {tuple(v.shape)}, here {tuple(own[k].shape)}'
            for k, v in usable.items()
            if v.shape != own[k].shape
        ]
        if report.missing or report.unexpected or shapes:
            raise RuntimeError(
                f'the checkpoint does not fit this encoder: {report}; missing {report.missing[:5]}, '
                f'unexpected {report.unexpected[:5]}, {len(shapes)} of other shapes {shapes[:5]}'
            )
        report.loaded += usable
        return usable, report

    def frozen_weights(self) -> dict[str, Tensor]:
        """The stock parameters by key, without output norms; empty where they are trained (`frozen=False`)."""
        if not self.frozen:
            return {}
        own = ('adapters', 'output_norms', *self.stock_norms)
        return {k: p for k, p in self.named_parameters() if k.split('.')[0] not in own}

    def derived_keys(self) -> set[str]:
        """Keys of the indices of relative positions, which follow from the window."""
        return {k for k, _ in self.named_buffers() if k.endswith('relative_position_index')}

    def architecture(self) -> dict[str, Any]:
        """Widths, depths, heads and windows, as JSON data."""
        blocks = [stage.blocks[0].attn for stage in self.stages]
        return dict(
            type='Swin',
            embed_dims=self.embed_dims,
            depths=list(self.depths),
            num_heads=[attn.w_msa.num_heads for attn in blocks],
            window_size=[attn.window_size for attn in blocks],
            patch_size=list(self.patch_embed.projection.kernel_size),
            in_channels=self.patch_embed.projection.in_channels,
        )

    def pretrained_source(self) -> tuple[str, str] | None:
        """Path or URL, and prefix of the encoder's keys, that `init_cfg` names; None without."""
        cfg = self._checkpoint_cfg(self.init_cfg)
        return None if cfg is None else (cfg['checkpoint'], cfg.get('prefix') or '')

    def read_encoder(self, source: str, prefix: str) -> dict[str, Tensor]:
        """The weights of a published file as this encoder holds them; raises as `load_encoder` does."""
        weights, _ = swin_state_dict(load_weights_file(source), prefix)
        return self._fit(weights)[0]

    # -------------------------------------------------------------------------------------------- forward
    def train(self, mode: bool = True) -> AdaptedSwin:
        super().train(mode)  # which returns None in stock Swin
        # Values may have been written through `.data`, which no cache notices; mmengine's EMA does so before validation.
        self._windows.clear()
        self._generated.clear()
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
        self._demand_weights()
        names = self._stream_names(tasks)
        changes = self._changes(names, images.device) if adapted else {}
        maps = self._encode(self._embed(images, changes), names, changes)
        if self.tasks is None or len(self.tasks) == 1:
            return maps[names[0]]
        return maps

    def task_by_task(
        self, images: Tensor, tasks: Sequence[str] | None = None
    ) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
        """Encode images for one task after another; `forward` has the features of all tasks at the same time.

        What the tasks share in front of the first change is computed once, and kept for all of them.

        Args:
            images: (B, 3, H, W).
            tasks: Some of the model's tasks. Defaults to None, all.

        Yields:
            A task and its four maps, those of `forward`.

        Raises:
            ValueError: if a task is unknown, named twice, none is named, or all tasks share one pass anyway.
        """
        if not self.parts_streams:
            raise ValueError(
                'the tasks of this model share one pass of the encoder; there is nothing to do task by task'
            )
        self._demand_weights()
        shared = None
        for name in self._stream_names(tasks):
            changes = self._changes((name,), images.device)
            if any(key.startswith('patch_embed') for key in changes.get((0, None), {})):
                start = self._embed(images, changes)  # nothing is shared
            else:
                start = shared = self._shared_part(images, changes) if shared is None else shared
            yield name, self._encode(start, (name,), changes)[name]

    def _demand_weights(self) -> None:
        """Refuse to run with random weights where the config names others.

        Raises:
            RuntimeError: names the checkpoint that was not loaded.
        """
        if self._frozen_set or self.pretrained_source() is None:
            return
        if not self.patch_embed.projection.weight.is_meta:  # there, only shapes count
            raise RuntimeError(
                f'{type(self).__name__} has random weights: its init_cfg names {self.pretrained_source()[0]}, but '
                'neither init_weights() was called nor a checkpoint loaded'
            )

    @property
    def parts_streams(self) -> bool:
        """Whether each task has a pass of its own through (most of) a frozen encoder."""
        method = self.adapters
        if method is None or not method.per_task or method.trunk:
            return False
        stock = (p for part in (self.patch_embed, self.stages) for p in part.parameters())
        return not any(p.requires_grad for p in stock)

    def _embed(self, images: Tensor, changes: Mapping[tuple[int, int | None], Changes]) -> Shared:
        """The patch embedding, in front of the first block."""
        x, hw = patch_embed_forward(self.patch_embed, images, changes.get((0, None), {}))
        if self.use_abs_pos_embed:
            x = x + resize_pos_embed(
                self.absolute_pos_embed,
                self.patch_resolution,
                hw,
                self.interpolate_mode,
                self.num_extra_tokens,
            )
        # (S, B, H*W, C), S = 1 until the task streams part
        return Shared(self.drop_after_pos(x), hw, maps=(), stage=0, block=0)

    def _encode(
        self, start: Shared, names: tuple[str, ...], changes: Mapping[tuple[int, int | None], Changes]
    ) -> dict[str, tuple[Tensor, ...]]:
        """The maps of all tasks named, from where `start` stands."""
        x, hw = start.x, start.hw
        fused = self._fused_windows(start, changes)
        outputs: dict[str, list[Tensor]] = {name: [] for name in names}

        def collect(stage: int, per_task: Tensor, hw: tuple[int, int]) -> None:
            for name, features in zip(names, per_task, strict=True):
                outputs[name].append(self._to_map(self._output_norm(name, stage)(features), hw))

        for i, (features, size) in enumerate(start.maps):
            collect(i, features.expand(len(names), *features.shape[1:]), size)
        for i in range(start.stage, len(self.stages)):
            stage = self.stages[i]
            done = 0
            if i == start.stage:
                done = len(stage.blocks) if start.block is None else start.block
            for j in range(done, len(stage.blocks)):
                at_start = start if (i, j) == (start.stage, start.block) else None
                x = self._run_block(
                    stage.blocks[j], x, hw, changes.get((i, j), {}), fused.get((i, j)), at_start
                )
            if i >= len(start.maps):
                x, per_task = self._split(x, len(names))
                collect(i, per_task, hw)
            if stage.downsample is not None:
                x, hw = patch_merging_forward(stage.downsample, x, hw, changes.get((i, None), {}))
        return {name: tuple(out) for name, out in outputs.items()}

    def _shared_part(self, images: Tensor, changes: Mapping[tuple[int, int | None], Changes]) -> Shared:
        """The pass up to the first change of the method behind the patch embedding; `changes` are those of any task."""
        shared = self._embed(images, {})
        fused = self._fused_windows(shared, changes)
        x, hw, maps = shared.x, shared.hw, []
        for i, stage in enumerate(self.stages):
            for j, block in enumerate(stage.blocks):
                if at_block := changes.get((i, j)):
                    x, sublayer, h = block_prefix(block, x, hw, at_block, self.adapters, fused.get((i, j)))
                    return Shared(x, hw, tuple(maps), i, j, sublayer, h)
                x = block_forward(block, x, hw, {}, self.adapters, fused.get((i, j)))
            maps.append((x, hw))
            if changes.get((i, None)):
                return Shared(x, hw, tuple(maps), i, None)
            if stage.downsample is not None:
                x, hw = patch_merging_forward(stage.downsample, x, hw, {})
        raise RuntimeError(f'{type(self.adapters).__name__} changes nothing in this backbone')

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

        In evaluation without gradients it is kept until a parameter changes.

        Parameters of a hyper-network collect gradients from all blocks and tasks, and scaling kernels multiply
        rounding errors; generation is a small part of the work.
        """
        if self.adapters is None:
            return {}
        compiling = torch.compiler.is_compiling()
        keep = not (self.training or torch.is_grad_enabled() or compiling)
        if keep and (known := self._generated.get(self.adapters, tasks)) is not None:
            return known
        changes: dict[tuple[int, int | None], dict[str, Change]] = {}
        # The meta device has no autocast, not even one to switch off.
        with nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False):
            generated = self.adapters.generate(tasks)
        self._check_sites(generated)
        for site, change in generated.items():
            changes.setdefault((site.stage, site.block), {})[site.position] = change
        if keep:
            self._generated.put(self.adapters, tasks, changes)
        return changes

    def _check_sites(self, changes: Mapping[Site, Change]) -> None:
        """Refuse a change of a place that the network does not have: it would do nothing, silently.

        Raises:
            ValueError: names the site, and what the network has there.
        """
        kinds = {(site, type(change)) for site, change in changes.items()}
        for site, kind in kinds - self._known_sites:
            if site.position in POSITIONS or site.position == 'prompts':
                depths = self.layout.depths
                fits = 0 <= site.stage < len(depths) and site.block in range(depths[site.stage])
                allowed = f'blocks per stage: {depths}'
            else:
                low_rank = kind is LowRankWeights
                listed = self.layout.linears if low_rank else self.layout.parameters
                fits = site in {entry.site for entry in listed}
                here = [entry.site.position for entry in listed if entry.site[:2] == site[:2]]
                allowed = f'{"linear maps" if low_rank else "parameters"} there: {here or "none"}'
            if not fits:
                raise ValueError(
                    f'{type(self.adapters).__name__} changes {site}, which this network does not have; {allowed}'
                )
        self._known_sites |= kinds

    def _output_norm(self, task: str, stage: int) -> nn.Module:
        return getattr(self, f'norm{stage}') if self.tasks is None else self.output_norms[task][stage]

    @staticmethod
    def _to_map(x: Tensor, hw: tuple[int, int]) -> Tensor:
        """(B, H W, C) -> (B, C, H, W), in channels-last memory: no copy, and decoders run faster on it."""
        return x.unflatten(1, hw).permute(0, 3, 1, 2)

    def _run_block(
        self,
        block: SwinBlock,
        x: Tensor,
        hw: tuple[int, int],
        changes: Changes,
        fused: FusedWindows | None,
        start: Shared | None,
    ) -> Tensor:
        args = (block, x, hw, changes, self.adapters, fused, start)
        if self.with_cp and torch.is_grad_enabled() and (x.requires_grad or changes):
            return cp.checkpoint(block_forward, *args, use_reentrant=False)
        return block_forward(*args)

    @torch.compiler.disable
    def _fused_windows(
        self, start: Shared, changes: Mapping[tuple[int, int | None], Changes]
    ) -> dict[tuple[int, int], FusedWindows]:
        """Windows and biases of all blocks from `start` on."""
        if not self.fused:
            return {}
        fused = {}
        hw = start.hw
        for i in range(start.stage, len(self.stages)):
            for j, block in enumerate(self.stages[i].blocks):
                attn = block.attn
                windows = self._windows.geometry(hw, attn.window_size, attn.shift_size, start.x.device)
                changed = changes.get((i, j), {}).keys() & {'prompts', BIAS_TABLE}
                bias = None if changed else self._windows.folded_bias((i, j), attn.w_msa, windows, hw)
                fused[i, j] = FusedWindows(windows, bias)
            hw = (-(-hw[0] // 2), -(-hw[1] // 2))  # patch merging pads odd sizes
        return fused


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
    allowed = constructor_keywords(method) - {'layout', 'tasks'}  # the backbone gives these two
    if unknown := sorted(set(cfg) - allowed - {'type'}):
        raise ValueError(f'adapter: {method.__name__} takes no {unknown}; it takes {sorted(allowed)}')
