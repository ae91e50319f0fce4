"""`AdaptedBackbone`: what frozen backbones with adapters share, whichever family the stock network is of."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.utils.checkpoint as cp
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...adapters import METHODS, POSITIONS, AdapterMethod, BackboneLayout, Change, LowRankWeights, Site
from ...adapters.base import resolve_tasks
from ...adapters.checks import check_flags, check_keys, check_keywords, constructor_keywords
from ...engine.frozen_backbone import FrozenBackbone
from ...engine.key_accounting import DERIVED, StrictLoading
from .encoder_checkpoint import KeyReport, encoder_state_dict, load_weights_file
from .generated_cache import GeneratedCache
from .leaves import Changes, to_map, with_drop_path

__all__ = ['SINGLE_TASK', 'AdaptedBackbone', 'AllChanges', 'Shared']

for _method in METHODS:
    MODELS.register_module(module=_method)

SINGLE_TASK = 'default'  # the adapters' name for the only task of a model that names none

#: The changes of the whole network, by (stage, block); outside the blocks of a stage by (stage, None).
AllChanges = Mapping[tuple[int, int | None], Changes]


class Shared(NamedTuple):
    """How far a pass has come while all tasks still share it: to a sub-layer of a block, or to a stage's end."""

    x: Tensor  # (1, B, L, C)
    hw: tuple[int, int]
    maps: tuple[tuple[Tensor, tuple[int, int]], ...]  # features of the stages that are done, with their sizes
    stage: int
    block: int | None  # None: behind the stage's blocks
    sublayer: str = 'attn'  # of the block, 'attn' or 'ffn'
    h: Tensor | None = None  # (1, B, L, C), what the sub-layer gives, if it has run already


class AdaptedBackbone(StrictLoading, FrozenBackbone):
    """Base of frozen backbones whose blocks carry adapters, with features of its own for each task.

    A family derives from it and from its stock network, `class AdaptedX(AdaptedBackbone, X)`: the stock constructor
    builds the network, under its stock state-dict keys, and `_adapt` freezes it and adds what is trained. New parameters
    live under `adapters.*` and, where tasks are named, under `output_norms.<task>.<stage>.*`. The family tells its layout
    and runs its own layers; everything about tasks, streams, changes and checkpoints is here.

    A block is x + DropPath(attention(norm1(x))), then x + DropPath(ffn(norm2(x))), whose parts have stock names that
    begin with `norm1` and `attn`, and others.
    """

    #: Arguments of the stock network that the class decides itself.
    DECIDED: tuple[str, ...] = ('out_indices',)
    #: How it decides them.
    DECIDED_BY = 'four output maps, any image size, freezing by `frozen`'
    #: Whether published checkpoints hold the norms in front of the decoders.
    PRETRAINED_NORMS = False
    #: Why no method can change a position ('prompts') of this family.
    REFUSED: Mapping[str, str] = {}

    layout: BackboneLayout
    tasks: tuple[str, ...] | None
    adapters: AdapterMethod | None

    # ------------------------------------------------------------------------------ what a family must tell
    @property
    @abstractmethod
    def stock_norms(self) -> frozenset[str]:
        """The stock names of the norms that only decoders read, whether or not the module has them."""

    @abstractmethod
    def stage_norm_name(self, stage: int) -> str:
        """The stock name of the norm behind a stage."""

    @abstractmethod
    def blocks(self, stage: int) -> Sequence[nn.Module]:
        """The blocks of a stage."""

    @abstractmethod
    def stock_name(self, site: Site) -> str:
        """The stock name of the linear map or parameter at a site."""

    def weight_name(self, linear: Site, part: str = 'weight') -> str:
        """The stock name of a linear map's weight, or bias."""
        return f'{self.stock_name(linear)}.{part}'

    @abstractmethod
    def _layout(self) -> BackboneLayout:
        """Widths, depths, linear maps and tunable parameters of the stock network."""

    @abstractmethod
    def _embed(self, images: Tensor, changes: AllChanges) -> Shared:
        """The way of images (B, 3, H, W) to the first block."""

    @abstractmethod
    def _transition_changes(self, stage: int, changes: AllChanges) -> Changes:
        """What is changed between a stage's last block and the next stage's first one."""

    @abstractmethod
    def _transition(
        self, stage: int, x: Tensor, hw: tuple[int, int], changes: Changes
    ) -> tuple[Tensor, tuple[int, int]]:
        """The way from a stage's last block to the next stage's first one."""

    @abstractmethod
    def _attention_branch(
        self, block: nn.Module, x: Tensor, hw: tuple[int, int], changes: Changes, context: Any
    ) -> Tensor:
        """attention(norm1(x)) of features (S, B, L, C); `context` is the block's of `_contexts`."""

    @abstractmethod
    def _ffn_branch(self, block: nn.Module, x: Tensor, hw: tuple[int, int], changes: Changes) -> Tensor:
        """ffn(norm2(x)) of features (S, B, L, C)."""

    @abstractmethod
    def _drop_paths(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The stochastic depth of both residual branches."""

    def _contexts(self, start: Shared, changes: AllChanges) -> Mapping[tuple[int, int], Any]:
        """What blocks need beside features and changes, by (stage, block), from `start` on."""
        return {}

    def _stock_state(self, checkpoint: Mapping, prefix: str) -> tuple[dict[str, Tensor], list[str]]:
        """The weights of a loaded file under the stock names, and the keys that belong to no encoder."""
        return encoder_state_dict(checkpoint, prefix)

    def _in_shape(self, key: str, value: Tensor, own: Tensor) -> Tensor:
        """A weight of a file in the shape of the own one, where that means the same."""
        return value

    # ---------------------------------------------------------------------------------------- construction
    @classmethod
    def _check_arguments(cls, kwargs: Mapping[str, Any], init_cfg: Any) -> None:
        """Refuse, before anything is built, what the stock network's constructor would not.

        Raises:
            TypeError: for arguments that the class decides itself, or that nobody knows.
            ValueError: for an unfit `init_cfg`.
        """
        decided = [k for k in cls.DECIDED if k in kwargs]
        if decided:
            raise TypeError(
                f'{cls.__name__} decides {decided} itself ({cls.DECIDED_BY}); where the config inherits them from another '
                'backbone, put _delete_=True beside the type'
            )
        check_keywords(cls, kwargs, refused=cls.DECIDED)
        cls._checkpoint_cfg(init_cfg)  # a mistake in it shows here, not when training starts

    def _adapt(
        self,
        *,
        tasks: Sequence[str] | None,
        adapter: Mapping | None,
        frozen: bool,
        with_cp: bool,
        fused: bool,
        partial_loading: bool,
    ) -> None:
        """Freeze the stock network, which is there, and add what is trained; see a family for the arguments."""
        check_flags(frozen=frozen, with_cp=with_cp, fused=fused, partial_loading=partial_loading)
        self.tasks = None if tasks is None else check_keys(f'{type(self).__name__}: tasks', tasks)
        self.frozen = frozen
        self.with_cp = with_cp
        self.fused = fused
        self.partial_loading = partial_loading
        self._generated = GeneratedCache()
        self._known_sites: set[tuple[Site, type]] = set()
        self.layout = self._layout()

        for name, parameter in self.named_parameters():
            if self.PRETRAINED_NORMS or not self._of_stock_norm(name):
                parameter.requires_grad_(not frozen)
        if self.tasks is not None:
            self.output_norms = nn.ModuleDict(
                {
                    task: nn.ModuleList(
                        copy.deepcopy(self._stage_norm(i)).requires_grad_(True)
                        for i in range(len(self.layout.depths))
                    )
                    for task in self.tasks
                }
            )
            for name in self.stock_norms:
                parent, _, own = name.rpartition('.')
                delattr(self.get_submodule(parent), own)

        self.adapters = None
        if adapter is not None:
            _check_adapter(adapter)
            self.adapters = MODELS.build(
                dict(layout=self.layout, tasks=self.tasks or (SINGLE_TASK,), **adapter)
            )
            self._check_positions()

    def _check_positions(self) -> None:
        """Refuse a method that changes what no method can in this family.

        Raises:
            ValueError: says why.
        """
        for site in getattr(self.adapters, 'sites', ()):
            if site.position in self.REFUSED:
                raise ValueError(
                    f'{type(self).__name__} cannot have {type(self.adapters).__name__}: {self.REFUSED[site.position]}'
                )

    # ------------------------------------------------------------------------------------------ ownership
    def _of_stock_norm(self, name: str) -> bool:
        return name.rpartition('.')[0] in self.stock_norms

    def output_norm_parameters(self) -> Iterator[nn.Parameter]:
        """Trained norms in front of the decoders, which count as decoder (paper's counts)."""
        if self.tasks is not None:
            yield from self.output_norms.parameters()
        elif not self.PRETRAINED_NORMS:
            for i in range(len(self.layout.depths)):
                yield from self._stage_norm(i).parameters()

    # ---------------------------------------------------------------------------------------- checkpoints
    def init_weights(self) -> None:
        """Load the published weights that `init_cfg` names, or initialise the encoder at random.

        The adapters keep, in either case, the initial values that their method documents.

        Raises:
            RuntimeError: if a weight of the encoder is missing in the checkpoint or a key fits nowhere.
            ValueError: if no key has the prefix of `init_cfg`.
        """
        if self.is_init:
            BaseModule.init_weights(self)  # warns that this is the second call, and changes nothing
            return
        source = self.pretrained_source()
        if source is None:
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
        else:
            weights, foreign = self._read_file(*source)
            report = self.load_encoder(weights, source[0])
            report.foreign = foreign
            print_log(f'{type(self).__name__}: {source[0]}: {report}', logger='current')
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

    def load_encoder(self, weights: Mapping[str, Tensor], source: str = 'the checkpoint') -> KeyReport:
        """Load weights of a stock network, with every key accounted for.

        Args:
            weights: Under the stock names.
            source: What errors call their file. Defaults to 'the checkpoint'.

        Raises:
            RuntimeError: if a weight of the encoder is missing, a key fits nowhere, or a shape differs.
        """
        usable, report = self._fit(weights, source)
        own = self.state_dict()
        with torch.no_grad():
            for key, value in usable.items():
                own[key].copy_(value)
            if self.PRETRAINED_NORMS and self.tasks is not None:
                self._start_output_norms(weights)
        self._frozen_set = True
        return report

    def _start_output_norms(self, weights: Mapping[str, Tensor]) -> None:
        """Copy a file's norms behind the stages to the output norms of every task."""
        for norms in self.output_norms.values():
            for stage, norm in enumerate(norms):
                for part, parameter in norm.named_parameters():
                    parameter.copy_(weights[f'{self.stage_norm_name(stage)}.{part}'])

    def _started_norms(self) -> dict[str, Tensor]:
        """The output norms' parameters that start at a file's `stock_norms`, which the module has not, by the stock names."""
        if not self.PRETRAINED_NORMS or self.tasks is None:
            return {}
        named = {self.stage_norm_name(i): norm for i, norm in enumerate(self.output_norms[self.tasks[0]])}
        return {f'{name}.{k}': v for name in self.stock_norms for k, v in named[name].named_parameters()}

    def _fit(self, weights: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], KeyReport]:
        """The weights of a stock network in the shapes of this one, and what became of each; see `load_encoder`."""
        own = self.state_dict()
        wanted = {k for k in own if not k.startswith(('adapters.', 'output_norms.'))}
        started = self._started_norms()
        report = KeyReport()
        usable = {}
        for key, value in weights.items():
            if key.endswith(DERIVED):
                report.loaded.append(key)  # follows from the config: the own value stays
            elif key in wanted:
                usable[key] = self._in_shape(key, value, own[key])
            elif key in started:
                report.loaded.append(key)
            elif self._of_stock_norm(key) and not self.PRETRAINED_NORMS:
                report.final_norm.append(key)
            else:
                report.unexpected.append(key)
        required = {k for k in wanted if not k.endswith(DERIVED)}
        required |= set(started)
        if not self.PRETRAINED_NORMS:  # they may be new
            required = {k for k in required if not self._of_stock_norm(k)}
        report.missing = sorted(required - set(weights))
        given = usable | {k: weights[k] for k in started if k in weights}
        shapes = [
            f'{k} {tuple(v.shape)}, here {tuple(here.shape)}'
            for k, v in given.items()
            if v.shape != (here := started.get(k, own.get(k))).shape
        ]
        if report.missing or report.unexpected or shapes:
            raise RuntimeError(
                f'{source} does not fit this encoder: {report}; missing {report.missing[:5]}, '
                f'unexpected {report.unexpected[:5]}, {len(shapes)} of other shapes {shapes[:5]}'
                + self._hint(report, required, bool(shapes))
            )
        report.loaded += usable
        return usable, report

    def _hint(self, report: KeyReport, required: Collection[str], other_shapes: bool) -> str:
        """What may help where a file does not fit, as the end of a message; empty where nothing is likely."""
        if other_shapes:
            return f'; is `arch` the size of the file? Here it is {self.architecture()}'
        if not report.unexpected or set(report.missing) != set(required):
            return ''
        for key in report.unexpected:
            parts = key.split('.')
            for i in range(1, len(parts)):
                if '.'.join(parts[i:]) in required:
                    return f"; the encoder's keys have a prefix there: init_cfg takes prefix={'.'.join(parts[:i])!r}"
        return '; the file holds another network, or one whose keys have a prefix, which init_cfg takes as prefix=...'

    def frozen_weights(self) -> dict[str, Tensor]:
        """The stock parameters by key, without those that are trained; empty with `frozen=False`."""
        if not self.frozen:
            return {}
        return {k: p for k, p in self.named_parameters() if self._is_stock(k)}

    def _is_stock(self, name: str) -> bool:
        """Whether a parameter is the stock network's, and not one in front of the decoders that is new."""
        if name.startswith(('adapters.', 'output_norms.')):
            return False
        return self.PRETRAINED_NORMS or not self._of_stock_norm(name)

    def derived_keys(self) -> set[str]:
        """Keys of buffers that follow from the config."""
        return {k for k, _ in self.named_buffers() if k.endswith(DERIVED)}

    def pretrained_source(self) -> tuple[str, str] | None:
        """Path or URL, and prefix of the encoder's keys, that `init_cfg` names; None without."""
        cfg = self._checkpoint_cfg(self.init_cfg)
        return None if cfg is None else (cfg['checkpoint'], cfg.get('prefix') or '')

    def read_encoder(self, source: str, prefix: str) -> dict[str, Tensor]:
        """The weights of a published file as this encoder holds them; raises as `init_weights` does."""
        weights, _ = self._read_file(source, prefix)
        return self._fit(weights, source)[0]

    def _read_file(self, source: str, prefix: str) -> tuple[dict[str, Tensor], list[str]]:
        """The weights of a file under the stock names, and the keys that belong to no encoder.

        Raises:
            ValueError: if no key has the prefix; names the file. See `load_weights_file` for other errors.
        """
        checkpoint = load_weights_file(source)
        try:
            return self._stock_state(checkpoint, prefix)
        except ValueError as e:
            raise ValueError(f'{source}: {e}') from e

    # -------------------------------------------------------------------------------------------- forward
    def train(self, mode: bool = True) -> AdaptedBackbone:
        super().train(mode)  # which returns None in stock Swin
        # Values may have been written through `.data`, which no cache notices; mmengine's EMA does so before validation.
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
            ValueError: if a task is unknown, named twice, or none is named; of a pyramid, if the images are too small.
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
        if not next(self.parameters()).is_meta:  # there, only shapes count
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
        return not any(p.requires_grad for k, p in self.named_parameters() if self._is_stock(k))

    def _encode(
        self, start: Shared, names: tuple[str, ...], changes: AllChanges
    ) -> dict[str, tuple[Tensor, ...]]:
        """The maps of all tasks named, from where `start` stands."""
        x, hw = start.x, start.hw
        contexts = self._contexts(start, changes)
        outputs: dict[str, list[Tensor]] = {name: [] for name in names}

        def collect(stage: int, per_task: Tensor, hw: tuple[int, int]) -> None:
            for name, features in zip(names, self._outputs(names, stage, per_task, changes), strict=True):
                outputs[name].append(to_map(features, hw))

        for i, (features, size) in enumerate(start.maps):
            collect(i, features.expand(len(names), *features.shape[1:]), size)
        stages = len(self.layout.depths)
        for i in range(start.stage, stages):
            blocks = self.blocks(i)
            done = 0
            if i == start.stage:
                done = len(blocks) if start.block is None else start.block
            for j in range(done, len(blocks)):
                at_start = start if (i, j) == (start.stage, start.block) else None
                x = self._run_block(blocks[j], x, hw, changes.get((i, j), {}), contexts.get((i, j)), at_start)
            if i >= len(start.maps):
                x, per_task = self._split(x, len(names))
                collect(i, per_task, hw)
            if i + 1 < stages:
                x, hw = self._transition(i, x, hw, self._transition_changes(i, changes))
        return {name: tuple(out) for name, out in outputs.items()}

    def _shared_part(self, images: Tensor, changes: AllChanges) -> Shared:
        """The pass up to the first change of the method behind the patch embedding; `changes` are those of any task."""
        shared = self._embed(images, {})
        contexts = self._contexts(shared, changes)
        x, hw, maps = shared.x, shared.hw, []
        stages = len(self.layout.depths)
        for i in range(stages):
            for j, block in enumerate(self.blocks(i)):
                if at_block := changes.get((i, j)):
                    x, sublayer, h = self._block_prefix(block, x, hw, at_block, contexts.get((i, j)))
                    return Shared(x, hw, tuple(maps), i, j, sublayer, h)
                x = self._block(block, x, hw, {}, contexts.get((i, j)))
            maps.append((x, hw))
            if self._transition_changes(i, changes):
                return Shared(x, hw, tuple(maps), i, None)
            if i + 1 < stages:
                x, hw = self._transition(i, x, hw, {})
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
        # The meta device has no autocast, not even one to switch off; an exported graph has no place for a context.
        lowered = device.type != 'meta' and torch.is_autocast_enabled(device.type)
        with torch.autocast(device.type, enabled=False) if lowered else nullcontext():
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
            if site.position in self.REFUSED:
                fits, allowed = False, self.REFUSED[site.position]
            elif site.position in POSITIONS or site.position == 'prompts':
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

    def _outputs(
        self, names: tuple[str, ...], stage: int, per_task: Tensor, changes: AllChanges
    ) -> Iterator[Tensor]:
        """The features (B, L, C) that decoders see of each task named, from those behind a stage (T, B, L, C)."""
        for name, features in zip(names, per_task, strict=True):
            norm = self._stage_norm(stage) if self.tasks is None else self.output_norms[name][stage]
            yield norm(features)

    def _stage_norm(self, stage: int) -> nn.Module:
        return self.get_submodule(self.stage_norm_name(stage))

    # ---------------------------------------------------------------------------------------------- block
    def _run_block(
        self,
        block: nn.Module,
        x: Tensor,
        hw: tuple[int, int],
        changes: Changes,
        context: Any,
        start: Shared | None,
    ) -> Tensor:
        args = (block, x, hw, changes, context, start)
        if self.with_cp and torch.is_grad_enabled() and (x.requires_grad or changes):
            return cp.checkpoint(self._block, *args, use_reentrant=False)
        return self._block(*args)

    def _block(
        self,
        block: nn.Module,
        x: Tensor,
        hw: tuple[int, int],
        changes: Changes,
        context: Any,
        start: Shared | None = None,
    ) -> Tensor:
        """One block on features (S, B, L, C); attention and feed-forward net, each with its adapter (if any) and DropPath.

        Args:
            block: A stock block.
            x: Features.
            hw: Height and width of the feature map.
            changes: What the method changes in the block.
            context: The block's of `_contexts`.
            start: Where to begin, if not at the beginning. Defaults to None.
        """
        sublayer, h = ('attn', None) if start is None else (start.sublayer, start.h)
        behind_attention, behind_ffn = self._drop_paths(block)
        if sublayer == 'attn':
            h = self._attention_branch(block, x, hw, changes, context) if h is None else h
            x = self._join(x, h, behind_attention, changes.get('attn'))
            h = None
        h = self._ffn_branch(block, x, hw, changes) if h is None else h
        return self._join(x, h, behind_ffn, changes.get('ffn'))

    def _block_prefix(
        self, block: nn.Module, x: Tensor, hw: tuple[int, int], changes: Changes, context: Any
    ) -> tuple[Tensor, str, Tensor | None]:
        """The part of a block in front of the first thing that the method changes in it.

        Returns:
            Features, the sub-layer that comes next, and its result where only the adapter behind it is left.
        """
        serial = self.adapters.insertion == 'serial'
        in_attn = {key for key in changes if key.startswith(('norm1', 'attn', 'prompts'))}
        if in_attn - {'attn'} or ('attn' in in_attn and not serial):
            return x, 'attn', None
        h = self._attention_branch(block, x, hw, {}, context)
        if in_attn:
            return x, 'attn', h
        x = self._join(x, h, self._drop_paths(block)[0], None)
        if changes.keys() - {'ffn'} or not serial:
            return x, 'ffn', None
        return x, 'ffn', self._ffn_branch(block, x, hw, {})

    def _join(self, x: Tensor, h: Tensor, drop_path: nn.Module, weights: Change | None) -> Tensor:
        """The residual connection x + DropPath(h), with the adapter on h (serial) or on x (parallel)."""
        if weights is not None:
            if self.adapters.insertion == 'parallel':
                x = self.adapters.adapt(x, weights)
            else:
                h = self.adapters.adapt(h, weights)
        return with_drop_path(x, h, drop_path, self.fused)


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
