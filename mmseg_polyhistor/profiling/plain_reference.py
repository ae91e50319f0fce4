"""The natural way to write the same models: stock Swin blocks, a whole pass per task, a hyper-network call per block.

This is what `tools/benchmark.py` measures the package against, and holds its results against before that. It shares
the weights of a model of this package, not its code: stock blocks of mmpretrain with their stock attention, adapters
behind them one block and task at a time, decoders that upsample all maps and concatenate them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmpretrain.models.backbones.swin_transformer import SwinBlock, SwinTransformer
from mmpretrain.models.utils import resize_pos_embed
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..adapters import ACTIVATIONS, HyperAdapter
from ..models.decode_heads import AllMLPHead

__all__ = ['ConcatAllMLPHead', 'PlainHyperNetworks', 'PlainHyperSwin', 'StockEncoder']

Maps = tuple[Tensor, ...]


# -------------------------------------------------------------------------------------------------- decoder
class ConcatAllMLPHead(AllMLPHead):
    """`AllMLPHead` as SegFormer's authors wrote it: project every map, upsample all to the finest, concatenate, fuse.

    Xie et al., "SegFormer", NeurIPS 2021, section 3.2. Arguments, parameters and results are those of `AllMLPHead`.
    """

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The logits of one task, see `AllMLPHead`."""
        maps = self._transform_inputs(inputs)
        size = maps[0].shape[2:]
        outs = []
        for x, projection in zip(maps, self.projections, strict=True):
            y = projection(x.flatten(2).transpose(1, 2))  # (B, L, E)
            y = y.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
            outs.append(resize(y, size, mode='bilinear', align_corners=self.align_corners))
        return self.cls_seg(self.fusion(torch.cat(outs, dim=1)))


# -------------------------------------------------------------------------------------------------- encoder
class StockEncoder(SwinTransformer):
    """mmpretrain's Swin with output norms per task: one pass, whose maps all tasks read.

    Args:
        tasks: Names of the tasks.
        frozen: Whether the stock parameters are frozen. Defaults to False.
        **kwargs: Arguments of `SwinTransformer`.
    """

    def __init__(self, *, tasks: Sequence[str], frozen: bool = False, **kwargs: Any) -> None:
        arch = kwargs.get('arch', 'tiny')
        depths = (arch if isinstance(arch, dict) else self.arch_zoo[arch.lower()])['depths']
        super().__init__(out_indices=tuple(range(len(depths))), pad_small_map=True, **kwargs)
        for i in self.out_indices:
            delattr(self, f'norm{i}')
        self.requires_grad_(not frozen)
        self.tasks = tuple(tasks)
        self.output_norms = nn.ModuleDict(
            {task: nn.ModuleList(nn.LayerNorm(width) for width in self.num_features) for task in tasks}
        )

    def output_norm_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the output norms, which count as decoder (paper's counts)."""
        yield from self.output_norms.parameters()

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The patch embedding: features (B, L, C), and their height and width."""
        x, hw = self.patch_embed(images)
        if self.use_abs_pos_embed:
            at = self.patch_resolution, hw, self.interpolate_mode, self.num_extra_tokens
            x = x + resize_pos_embed(self.absolute_pos_embed, *at)
        return self.drop_after_pos(x), hw

    def normed_map(self, task: str, stage: int, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """A stage's features as the map that a task's decoder reads."""
        x = self.output_norms[task][stage](x)
        return x.view(-1, *hw, x.shape[-1]).permute(0, 3, 1, 2).contiguous()

    def stages_forward(self, x: Tensor, hw: tuple[int, int]) -> list[tuple[Tensor, tuple[int, int]]]:
        """The features of all stages, without norms."""
        outs = []
        for stage in self.stages:
            x, _ = stage(x, hw, do_downsample=False)
            outs.append((x, hw))
            if stage.downsample is not None:
                x, hw = stage.downsample(x, hw)
        return outs

    def forward(self, images: Tensor) -> dict[str, Maps]:
        """One pass for all tasks."""
        outs = self.stages_forward(*self.embed(images))
        return {
            task: tuple(self.normed_map(task, i, *out) for i, out in enumerate(outs)) for task in self.tasks
        }


# ------------------------------------------------------------------------------------------- hyper-networks
class PlainAdapter(NamedTuple):
    """The weights of one adapter, for one task."""

    down_weight: Tensor  # (n, d)
    down_bias: Tensor  # (n,)
    up_weight: Tensor  # (d, n)
    up_bias: Tensor  # (d,)
    post_gain: Tensor | None = None  # (d,)
    post_shift: Tensor | None = None
    pre_gain: Tensor | None = None
    pre_shift: Tensor | None = None


class PlainHyperNetworks(nn.Module):
    """The hyper-networks of a `HyperAdapter`, one `nn.Module` each, called for one block, position and task at a time.

    Polyhistor paper, sections 4.1 to 4.3.

    Args:
        method: The method whose options and weights are copied.
    """

    def __init__(self, method: HyperAdapter) -> None:
        super().__init__()
        self.positions = method.positions
        self.shared = method.shared
        self.scales = method.scales
        self.tasks = method.tasks
        self.task_embeddings = nn.ParameterDict({t: _copy(p) for t, p in method.task_embeddings.items()})
        self.layer_embeddings = self.position_embeddings = None
        if method.layer_embeddings is not None:
            self.layer_embeddings = nn.ParameterList(_copy(p) for p in method.layer_embeddings)
        if method.position_embeddings is not None:
            self.position_embeddings = _copy(method.position_embeddings)
        # One code network for all blocks, or one per block; one set of heads for all, per stage, or per block and position.
        self.code_nets = nn.ModuleList(
            nn.ModuleList(_code_net(net, group) for group in range(len(net.norm_weight)))
            for net in method.code_nets
        )
        self.heads = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict({name: _linear(m, group) for name, m in heads.maps.items()})
                for group in range(next(iter(heads.maps.values())).weight.shape[0])
            )
            for heads in method.heads
        )
        self.shapes = [heads.shapes for heads in method.heads]
        self.rank = [heads.rank for heads in method.heads]
        self.norms = method.heads[0].norms
        self.kernels = None
        if method.kernels is not None:
            self.order = method.kernels[0].order
            self.kernels_per_task = method.kernels[0].per_task
            self.kernels = nn.ModuleList(
                nn.ModuleDict(
                    {
                        owner: nn.ParameterDict({k: _copy(p) for k, p in kinds.items()})
                        for owner, kinds in stage.sets.items()
                    }
                )
                for stage in method.kernels
            )

    def forward(self, stage: int, block: int, position: str, task: str) -> PlainAdapter:
        """The weights of one adapter."""
        p = self.positions.index(position)
        templates = [self._template(stage, block, p, task, i) for i in range(self.scales[stage])]
        if self.kernels is None or self.scales[stage] == 1:
            return templates[0]
        kernels = self.kernels[stage][task if self.kernels_per_task else 'all']

        def lift(name: str) -> Tensor | None:
            parts = [getattr(template, name) for template in templates]
            if parts[0] is None:
                return None
            kind = 'weight' if name.endswith('_weight') else 'bias' if name.endswith('_bias') else 'norm'
            kernel = kernels[kind][block, p]  # (I, s, s) or (I, s, 1)
            lifted = 0
            for k, part in zip(kernel, parts, strict=True):
                part = part if part.dim() == 2 else part[:, None]
                lifted = lifted + (
                    torch.kron(k, part) if self.order == 'kernel_first' else torch.kron(part, k)
                )
            return lifted if kind == 'weight' else lifted[:, 0]

        return PlainAdapter(*(lift(name) for name in PlainAdapter._fields))

    def _template(self, stage: int, block: int, p: int, task: str, i: int) -> PlainAdapter:
        parts = [self.task_embeddings[task]]
        if self.layer_embeddings is not None:
            parts.append(self.layer_embeddings[stage][block, i])
        if self.position_embeddings is not None:
            parts.append(self.position_embeddings[p])
        net = self.code_nets[0][0] if self.shared else self.code_nets[stage][block]
        code = net(torch.cat(parts))
        of_stage = min(stage, len(self.heads) - 1)
        heads = self.heads[of_stage][0 if self.shared else block * len(self.positions) + p]

        def matrix(name: str) -> Tensor:
            rows, cols = self.shapes[of_stage][name]
            rank = self.rank[of_stage]
            if rank is None:
                return heads[name](code).view(rows, cols)
            return heads[f'{name}_p'](code).view(rows, rank) @ heads[f'{name}_q'](code).view(rank, cols)

        norms = {
            f'{norm}_{part}': heads[f'{norm}_{part}'](code)
            for norm in self.norms
            for part in ('gain', 'shift')
        }
        return PlainAdapter(
            matrix('down'), heads['down_bias'](code), matrix('up'), heads['up_bias'](code), **norms
        )


class PlainHyperSwin(StockEncoder):
    """A frozen stock Swin with adapters of a `HyperAdapter`, run once per task from the image on.

    Args:
        method: The method whose options and weights are copied.
        **kwargs: See `StockEncoder`.
    """

    def __init__(self, *, method: HyperAdapter, **kwargs: Any) -> None:
        super().__init__(frozen=True, **kwargs)
        self.hyper_networks = PlainHyperNetworks(method)
        self.insertion = method.insertion
        self.scale = method.scale
        self.activation = ACTIVATIONS[method.activation_name]
        # The adapter of the attention stands in front of the stochastic depth, which stock attention ends with.
        self.attention_drop_paths = nn.ModuleList()
        for stage in self.stages:
            for block in stage.blocks:
                self.attention_drop_paths.append(block.attn.drop)
                block.attn.drop = nn.Identity()

    def forward(self, images: Tensor) -> dict[str, Maps]:
        """A pass per task."""
        return {task: self.encode(images, task) for task in self.tasks}

    def encode(self, images: Tensor, task: str) -> Maps:
        """The maps of one task."""
        x, hw = self.embed(images)
        maps, number = [], 0
        for i, stage in enumerate(self.stages):
            for j, block in enumerate(stage.blocks):
                x = self._block(block, x, hw, self.attention_drop_paths[number], (i, j), task)
                number += 1
            maps.append(self.normed_map(task, i, x, hw))
            if stage.downsample is not None:
                x, hw = stage.downsample(x, hw)
        return tuple(maps)

    def _block(
        self,
        block: SwinBlock,
        x: Tensor,
        hw: tuple[int, int],
        attention_drop_path: nn.Module,
        at: tuple[int, int],
        task: str,
    ) -> Tensor:
        h = block.attn(block.norm1(x), hw)
        x = self._join(x, h, attention_drop_path, at, 'attn', task)
        h = block.ffn.gamma2(block.ffn.layers(block.norm2(x)))
        return self._join(x, h, block.ffn.dropout_layer, at, 'ffn', task)

    def _join(
        self, x: Tensor, h: Tensor, drop_path: nn.Module, at: tuple[int, int], position: str, task: str
    ) -> Tensor:
        """The residual connection, with the adapter on the branch (serial) or on the shortcut (parallel)."""
        if position in self.hyper_networks.positions:
            weights = self.hyper_networks(*at, position, task)
            if self.insertion == 'parallel':
                x = self._adapter(x, weights)
            else:
                h = self._adapter(h, weights)
        return x + drop_path(h)

    def _adapter(self, x: Tensor, w: PlainAdapter) -> Tensor:
        width = x.shape[-1:]
        h = x if w.pre_gain is None else F.layer_norm(x, width, w.pre_gain, w.pre_shift)
        h = F.linear(self.activation(F.linear(h, w.down_weight, w.down_bias)), w.up_weight, w.up_bias)
        if w.post_gain is not None:
            h = F.layer_norm(h, width, w.post_gain, w.post_shift)
        return self.scale * (x + h)


def _copy(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone())


def _linear(grouped: nn.Module, group: int) -> nn.Linear:
    """One group of a `GroupedLinear` as a linear map of its own."""
    _, out_features, in_features = grouped.weight.shape
    linear = nn.Linear(in_features, out_features)
    linear.weight, linear.bias = _copy(grouped.weight[group]), _copy(grouped.bias[group])
    return linear


def _code_net(net: nn.Module, group: int) -> nn.Sequential:
    """One group of a `CodeNet` as a network of its own."""
    norm = nn.LayerNorm(net.norm_weight.shape[1])
    norm.weight, norm.bias = _copy(net.norm_weight[group]), _copy(net.norm_bias[group])
    return nn.Sequential(_linear(net.fc1, group), nn.ReLU(), _linear(net.fc2, group), norm)
