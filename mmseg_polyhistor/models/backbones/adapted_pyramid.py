"""`AdaptedPyramid`: what the pyramids with overlapping patches, MiT and PVTv2, share beyond `AdaptedBackbone`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adapters import BackboneLayout, LinearSite, ParameterSite, Site
from .adapted_backbone import AdaptedBackbone, AllChanges, Shared
from .leaves import Changes, changed_conv, changed_norm, to_map

__all__ = ['AdaptedPyramid', 'to_tokens']


class AdaptedPyramid(AdaptedBackbone):
    """Base of families whose stages begin with an overlapping patch embedding, and end in a norm that the next one reads.

    Their published checkpoints hold these norms, and they are frozen like the rest. Where tasks are named, each has a
    LayerNorm of its own behind every stage for its decoder; these start at the values of the stage's norm and are trained,
    while the next stage goes on to read the frozen one. The frozen norm behind the last stage, which nobody reads then,
    is dropped.

    At its sites, 'patch_embed.*' stands in front of the stage's blocks and 'norm.*' behind them. Groups of tuned
    parameters: 'weight' and 'bias' (of linear maps and convolutions), 'norm', 'norm_weight' and 'norm_bias' (the norms
    that later layers read), 'patch_embed' (the first one) and 'patch_merging' (the patch embeddings of later stages).
    """

    PRETRAINED_NORMS = True
    REFUSED = dict(
        prompts='the keys and values of its attention are pixels of a map that a strided convolution has reduced, and a '
        'prompt has no place in a map'
    )
    #: The published sizes, by their names in configs.
    ARCHS: Mapping[str, Mapping[str, Any]] = {}
    #: The stock name of the convolution in a patch embedding.
    PROJECTION = 'projection'
    #: The entries of `arch` that hold for all stages; the others are lists with one value for each.
    OF_ALL_STAGES: tuple[str, ...] = ()

    # ------------------------------------------------------------------------------ what a family must tell
    @abstractmethod
    def patch_embed_name(self, stage: int) -> str:
        """The stock name of the patch embedding in front of a stage's blocks."""

    @abstractmethod
    def block_name(self, stage: int, block: int) -> str:
        """The stock name of a block."""

    @abstractmethod
    def _widths(self) -> tuple[int, ...]:
        """Channels of each stage."""

    @abstractmethod
    def _block_linears(self, block: nn.Module) -> dict[str, tuple[str, int, int]]:
        """The linear maps of a block by their names in it: role, inputs and outputs."""

    # -------------------------------------------------------------------------------------------- sizes
    @classmethod
    def _arch_sizes(
        cls, arch: str | Mapping, required: Sequence[str], optional: Sequence[str]
    ) -> dict[str, Any]:
        """The arguments of the stock network that `arch`, a key of `ARCHS` or a dict, stands for.

        Raises:
            ValueError: if it is neither a published size nor a dict with the sizes, or a size is none.
        """
        known = cls.ARCHS.get(arch.lower()) if isinstance(arch, str) else arch
        if not isinstance(known, Mapping):
            raise ValueError(
                f'{cls.__name__}: arch must be one of {list(cls.ARCHS)} or a dict with {list(required)}, got {arch!r}'
            )
        absent = [key for key in required if key not in known]
        unknown = sorted(set(known) - {*required, *optional})
        if absent or unknown:
            raise ValueError(
                f'{cls.__name__}: arch lacks {absent} and has the unknown keys {unknown}; it takes {list(required)} and, '
                f'if they are not the published ones, {list(optional)}'
            )
        for key, value in known.items():
            cls._check_size(key, value)
        return dict(known)

    @classmethod
    def _check_size(cls, key: str, value: Any, kinds: tuple[type, ...] = (int,)) -> None:
        """Refuse an entry of `arch` that is no positive number of these kinds, or no list of some.

        Raises:
            ValueError: names the entry.
        """
        single = key in cls.OF_ALL_STAGES
        is_list = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
        numbers = value if is_list else [value]
        are_sizes = all(type(n) in kinds and n > 0 for n in numbers)  # True is none
        if is_list == single or not are_sizes:
            number = f'a positive {" or ".join(kind.__name__ for kind in kinds)}'
            wanted = number if single else f'a list with {number} for each stage'
            raise ValueError(f'{cls.__name__}: arch: {key} must be {wanted}, got {value!r}')

    @classmethod
    def _same_stages(cls, sizes: dict[str, Any], stages: int) -> dict[str, Any]:
        """The sizes, if every list among them has an entry per stage.

        Raises:
            ValueError: if one has not.
        """
        lengths = {k: len(v) for k, v in sizes.items() if isinstance(v, Sequence)}
        if set(lengths.values()) != {stages}:
            raise ValueError(
                f'{cls.__name__}: arch must name the same stages in all its lists, got lengths {lengths}'
            )
        return sizes

    # --------------------------------------------------------------------------------------------- layout
    @property
    def stock_norms(self) -> frozenset[str]:
        """The norm behind the last stage."""
        return frozenset({self.stage_norm_name(len(self._widths()) - 1)})

    def stock_name(self, site: Site) -> str:
        if site.block is not None:
            return f'{self.block_name(site.stage, site.block)}.{site.position}'
        part, _, rest = site.position.partition('.')
        name = self.patch_embed_name if part == 'patch_embed' else self.stage_norm_name
        return f'{name(site.stage)}.{rest}'

    def _layout(self) -> BackboneLayout:
        linears: list[LinearSite] = []
        parameters: list[ParameterSite] = []
        for name, at in self._owners():
            owner = self.get_submodule(name)
            if at.block is not None:
                for linear, (role, inputs, outputs) in self._block_linears(owner).items():
                    linears.append(LinearSite(at._replace(position=linear), role, inputs, outputs))
            for path, module in owner.named_modules():
                for key, parameter in module.named_parameters(recurse=False):
                    if groups := _groups(module, key, at):
                        position = '.'.join(filter(None, (at.position, path, key)))
                        site = at._replace(position=position)
                        parameters.append(ParameterSite(site, tuple(parameter.shape), groups))
        widths = self._widths()
        depths = tuple(len(self.blocks(stage)) for stage in range(len(widths)))
        return BackboneLayout(widths, depths, linears=tuple(linears), parameters=tuple(parameters))

    def _owners(self) -> Iterator[tuple[str, Site]]:
        """The modules that changes are sorted by: stock names, and sites with what positions in them begin with."""
        last = len(self._widths()) - 1
        for stage in range(last + 1):
            yield self.patch_embed_name(stage), Site(stage, None, 'patch_embed')
            for block in range(len(self.blocks(stage))):
                yield self.block_name(stage, block), Site(stage, block, '')
            if self.tasks is None or stage < last:
                yield self.stage_norm_name(stage), Site(stage, None, 'norm')

    # -------------------------------------------------------------------------------------------- forward
    def _embed(self, images: Tensor, changes: AllChanges) -> Shared:
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):  # where a size is a symbol
            self._check_image_size(*images.shape[-2:])
        x, hw = self._patches(0, images[None], changes.get((0, None), {}))
        return Shared(x, hw, maps=(), stage=0, block=0)

    def _check_image_size(self, height: int, width: int) -> None:
        """Refuse images whose map, in some stage, is smaller than the cells that its reduction makes one key of.

        Raises:
            ValueError: names the size, and the least one.
        """
        least = 1  # pixels per side in front of a stage, from the last stage on
        for stage in reversed(range(len(self._widths()))):
            reduction = getattr(self.blocks(stage)[0].attn, 'sr', None)
            least = max(least, 1 if reduction is None else reduction.kernel_size[0])
            conv = getattr(self.get_submodule(self.patch_embed_name(stage)), self.PROJECTION)
            least = (least - 1) * conv.stride[0] + conv.kernel_size[0] - 2 * conv.padding[0]
        if min(height, width) < least:
            raise ValueError(
                f'{type(self).__name__}: images of {height} x {width} pixels are too small for the reductions of its attention, '
                f'which need at least {least} x {least}; let the data preprocessor pad them: '
                f'test_cfg=dict(size_divisor={-(-least // 32) * 32}), and for training size or size_divisor'
            )

    def _patches(self, stage: int, maps: Tensor, changes: Changes) -> tuple[Tensor, tuple[int, int]]:
        """The patch embedding of maps (S, B, C, H, W): features (S, B, L, C') and their height and width."""
        module = self.get_submodule(self.patch_embed_name(stage))
        conv = getattr(module, self.PROJECTION)
        maps = changed_conv(conv, f'patch_embed.{self.PROJECTION}', maps, changes)
        x = changed_norm(module.norm, 'patch_embed.norm', to_tokens(maps), changes)
        return x, tuple(maps.shape[-2:])

    def _transition_changes(self, stage: int, changes: AllChanges) -> Changes:
        behind, in_front = changes.get((stage, None), {}), changes.get((stage + 1, None), {})
        return {k: c for k, c in behind.items() if k.startswith('norm.')} | {
            k: c for k, c in in_front.items() if k.startswith('patch_embed.')
        }

    def _transition(
        self, stage: int, x: Tensor, hw: tuple[int, int], changes: Changes
    ) -> tuple[Tensor, tuple[int, int]]:
        x = changed_norm(self._stage_norm(stage), 'norm', x, changes)
        return self._patches(stage + 1, to_map(x, hw), changes)

    def _outputs(
        self, names: tuple[str, ...], stage: int, per_task: Tensor, changes: AllChanges
    ) -> Iterator[Tensor]:
        if self.tasks is not None:
            return super()._outputs(names, stage, per_task, changes)
        # The decoder of a stock network reads what the next stage reads.
        norm = self._stage_norm(stage)
        return iter(changed_norm(norm, 'norm', per_task, self._transition_changes(stage, changes)))

    def _reduced(
        self, sr: nn.Conv2d, norm: nn.Module, x: Tensor, hw: tuple[int, int], changes: Changes
    ) -> Tensor:
        """What keys and values are made of: features (S, B, L, C), reduced by `attn.sr` and `attn.norm`."""
        maps = changed_conv(sr, 'attn.sr', to_map(x, hw), changes)
        return changed_norm(norm, 'attn.norm', to_tokens(maps), changes)

    def _depthwise(
        self, conv: nn.Conv2d, name: str, x: Tensor, hw: tuple[int, int], changes: Changes
    ) -> Tensor:
        """A convolution that keeps the size, on features (S, B, L, C)."""
        return to_tokens(changed_conv(conv, name, to_map(x, hw), changes))

    @staticmethod
    def _fused_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, dropout: float) -> Tensor:
        """Attention of features (S, B, L, C) to keys and values (S', B, L', C), where S and S' are the same or 1."""
        streams = max(q.shape[0], k.shape[0])
        q, k, v = (
            t.unflatten(-1, (heads, -1)).transpose(2, 3).expand(streams, *[-1] * 4).flatten(0, 1)
            for t in (q, k, v)
        )  # (S B, heads, L, C / heads)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return out.transpose(1, 2).flatten(2).unflatten(0, (streams, -1))


def to_tokens(maps: Tensor) -> Tensor:
    """Maps (S, B, C, H, W) -> features (S, B, H W, C)."""
    return maps.flatten(3).transpose(2, 3)


def _groups(module: nn.Module, key: str, at: Site) -> tuple[str, ...]:
    """The groups of a parameter of a module."""
    if isinstance(module, nn.LayerNorm):
        return ('norm', f'norm_{key}')
    if not isinstance(module, (nn.Linear, nn.Conv2d, nn.MultiheadAttention)):
        return ()
    part = () if at.block is not None else ('patch_merging',) if at.stage else ('patch_embed',)
    return ('bias' if key.endswith('bias') else 'weight', *part)
