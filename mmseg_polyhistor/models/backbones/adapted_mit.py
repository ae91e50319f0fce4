"""`AdaptedMiT`: mmseg's Mix Transformer (SegFormer's encoder), frozen, with adapters and a stream of features per task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.backbones.mit import MixVisionTransformer, TransformerEncoderLayer
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...adapters import Site
from ...adapters import functional as streams
from .adapted_pyramid import AdaptedPyramid
from .leaves import Changes, changed_conv, changed_linear, changed_norm, to_map, tuned
from .mit_checkpoint import mit_state_dict

__all__ = ['AdaptedMiT']

IN_PROJ = 'attn.attn.in_proj'
ARCH_KEYS = ('embed_dims', 'num_layers', 'num_heads')
OPTIONAL_ARCH_KEYS = ('patch_sizes', 'strides', 'sr_ratios', 'mlp_ratio')


@MODELS.register_module()
class AdaptedMiT(AdaptedPyramid, MixVisionTransformer):
    """A frozen Mix Transformer whose blocks carry adapters, with features of its own for each task.

    The encoder is mmseg's `MixVisionTransformer`: its state-dict keys are the stock ones and, without adapters and
    `fused=False`, its outputs equal the stock ones to the bit. New parameters live under `adapters.*` and, where tasks are
    named, under `output_norms.<task>.<stage>.*`; for these, and for the groups of tuned parameters, see `AdaptedPyramid`.

    Linear maps for low-rank changes: 'qkv' is the packed projection of the attention, whose queries see all tokens and
    whose keys and values the reduced ones; 'proj'; and 'fc1' and 'fc2', the convolutions of 1 x 1 pixels in the
    feed-forward net. There are no tables of relative positions (so `BitFit` takes `tuned=('bias', 'norm_bias')`), and no
    prompts.

    Args:
        arch: 'b0' to 'b5', or a dict with `embed_dims`, `num_layers`, `num_heads` and, where they differ from the published
            ones, `patch_sizes`, `strides`, `sr_ratios`, `mlp_ratio`. Defaults to 'b0'.
        tasks: Names of the tasks. None for a stock backbone with a tuple as output and the stock norms. Defaults to None.
        adapter: Config of an adapter method (see `mmseg_polyhistor.adapters`), or None. Defaults to None.
        frozen: Whether the stock parameters are frozen; False is full fine-tuning. Defaults to True.
        drop_path_rate: Largest rate of stochastic depth while training, for frozen blocks as well. Defaults to 0.1.
        with_cp: Recompute each block in the backward pass instead of storing its activations. Defaults to False.
        fused: Attend through `scaled_dot_product_attention`, and run convolutions of 1 x 1 pixels as linear maps; equal to
            the stock network up to rounding. False runs the stock operations, equal to the bit. Defaults to True.
        init_cfg: `dict(type='Pretrained', checkpoint=<path or URL>[, prefix='backbone'])` loads published weights, mmseg's
            or the authors'; every key is accounted for. Without it the encoder starts at random. Defaults to None.
        partial_loading: Take what fits of a checkpoint and tell the rest by a warning, instead of refusing one that
            differs in any key or shape (see `StrictLoading`). Defaults to False.
        **kwargs: Further arguments of mmseg's `MixVisionTransformer`.

    Raises:
        ValueError: for an unfit `arch`, adapter, task list or `init_cfg`; `TypeError` for arguments that this class
            decides itself.

    Shape:
        Images (B, 3, H, W), any size from 29 x 29 on -> {task: 4 maps (B, C_i, ceil(H / s_i), ceil(W / s_i)), s_i = 4, 8,
        16, 32}; the bare tuple of maps for one task, or none named.

    Reference:
        Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", NeurIPS 2021.
    """

    DECIDED = ('out_indices', 'num_stages', 'pretrained', *ARCH_KEYS, *OPTIONAL_ARCH_KEYS)
    DECIDED_BY = 'sizes by `arch`, maps of all stages, freezing by `frozen`'
    OF_ALL_STAGES = ('embed_dims', 'mlp_ratio')
    #: The published sizes: channels of the first stage per head, and blocks per stage.
    ARCHS: Mapping[str, Mapping[str, Any]] = {
        name: dict(embed_dims=width, num_layers=depths, num_heads=[1, 2, 5, 8])
        for name, width, depths in (
            ('b0', 32, [2, 2, 2, 2]),
            ('b1', 64, [2, 2, 2, 2]),
            ('b2', 64, [3, 4, 6, 3]),
            ('b3', 64, [3, 4, 18, 3]),
            ('b4', 64, [3, 8, 27, 3]),
            ('b5', 64, [3, 6, 40, 3]),
        )
    }

    def __init__(
        self,
        arch: str | dict = 'b0',
        *,
        tasks: Sequence[str] | None = None,
        adapter: Mapping | None = None,
        frozen: bool = True,
        drop_path_rate: float = 0.1,
        with_cp: bool = False,
        fused: bool = True,
        init_cfg: dict | None = None,
        partial_loading: bool = False,
        **kwargs,
    ) -> None:
        self._check_arguments(kwargs, init_cfg)
        sizes = self._sizes(arch)
        stages = len(sizes['num_layers'])
        super().__init__(
            **sizes,
            num_stages=stages,
            out_indices=tuple(range(stages)),
            drop_path_rate=drop_path_rate,
            init_cfg=init_cfg,
            **kwargs,
        )
        self._adapt(
            tasks=tasks,
            adapter=adapter,
            frozen=frozen,
            with_cp=with_cp,
            fused=fused,
            partial_loading=partial_loading,
        )

    @classmethod
    def _sizes(cls, arch: str | Mapping) -> dict[str, Any]:
        sizes = cls._arch_sizes(arch, ARCH_KEYS, OPTIONAL_ARCH_KEYS)
        stages = len(sizes['num_layers'])
        usual = dict(
            patch_sizes=[7, *[3] * (stages - 1)],
            strides=[4, *[2] * (stages - 1)],
            sr_ratios=[8, 4, 2, 1][:stages],
        )
        return cls._same_stages(usual | sizes, stages)

    # --------------------------------------------------------------------------------------------- layout
    def patch_embed_name(self, stage: int) -> str:
        return f'layers.{stage}.0'

    def block_name(self, stage: int, block: int) -> str:
        return f'layers.{stage}.1.{block}'

    def stage_norm_name(self, stage: int) -> str:
        return f'layers.{stage}.2'

    def blocks(self, stage: int) -> Sequence[TransformerEncoderLayer]:
        return self.layers[stage][1]

    def weight_name(self, linear: Site, part: str = 'weight') -> str:
        name = self.stock_name(linear)
        return f'{name}_{part}' if linear.position == IN_PROJ else f'{name}.{part}'

    def architecture(self) -> dict[str, Any]:
        """Widths, depths, heads, patches and reductions, as JSON data."""
        return dict(
            type='MiT',
            embed_dims=self.embed_dims,
            num_layers=list(self.num_layers),
            num_heads=list(self.num_heads),
            patch_sizes=list(self.patch_sizes),
            strides=list(self.strides),
            sr_ratios=list(self.sr_ratios),
            mlp_ratio=self.blocks(0)[0].ffn.feedforward_channels // self.blocks(0)[0].ffn.embed_dims,
            in_channels=self.layers[0][0].projection.in_channels,
        )

    def _widths(self) -> tuple[int, ...]:
        return tuple(self.embed_dims * heads for heads in self.num_heads)

    def _block_linears(self, block: TransformerEncoderLayer) -> dict[str, tuple[str, int, int]]:
        width, hidden = block.ffn.embed_dims, block.ffn.feedforward_channels
        return {
            IN_PROJ: ('qkv', width, 3 * width),
            'attn.attn.out_proj': ('proj', width, width),
            'ffn.layers.0': ('fc1', width, hidden),
            'ffn.layers.4': ('fc2', hidden, width),
        }

    def _stock_state(self, checkpoint: Mapping, prefix: str) -> tuple[dict[str, Tensor], list[str]]:
        return mit_state_dict(checkpoint, prefix)

    # -------------------------------------------------------------------------------------------- forward
    def _drop_paths(self, block: TransformerEncoderLayer) -> tuple[nn.Module, nn.Module]:
        return block.attn.dropout_layer, block.ffn.dropout_layer

    def _attention_branch(
        self, block: TransformerEncoderLayer, x: Tensor, hw: tuple[int, int], changes: Changes, context: None
    ) -> Tensor:
        x = changed_norm(block.norm1, 'norm1', x, changes)
        attn = block.attn
        source = self._reduced(attn.sr, attn.norm, x, hw, changes) if attn.sr_ratio > 1 else x
        mha: nn.MultiheadAttention = attn.attn
        dropout = mha.dropout if mha.training else 0.0
        if self.fused:
            q, k, v = _in_projection(mha, x, source, changes)
            x = self._fused_attention(q, k, v, mha.num_heads, dropout)
        else:  # as torch does it: tokens in front of images
            q, k, v = _in_projection(mha, x.transpose(1, 2), source.transpose(1, 2), changes)
            x = _torch_attention(q, k, v, mha.num_heads, dropout)
        x = changed_linear(mha.out_proj, 'attn.attn.out_proj', x, changes)
        return attn.proj_drop(x if self.fused else x.transpose(1, 2))

    def _ffn_branch(
        self, block: TransformerEncoderLayer, x: Tensor, hw: tuple[int, int], changes: Changes
    ) -> Tensor:
        x = changed_norm(block.norm2, 'norm2', x, changes)
        fc1, depthwise, activate, drop, fc2, drop_out = block.ffn.layers
        if self.fused:
            x = changed_linear(fc1, 'ffn.layers.0', x, changes)
            x = drop(activate(self._depthwise(depthwise, 'ffn.layers.1', x, hw, changes)))
            return drop_out(changed_linear(fc2, 'ffn.layers.4', x, changes))
        x = changed_conv(fc1, 'ffn.layers.0', to_map(x, hw), changes)
        x = drop(activate(changed_conv(depthwise, 'ffn.layers.1', x, changes)))
        return drop_out(changed_conv(fc2, 'ffn.layers.4', x, changes)).flatten(3).transpose(2, 3)


def _in_projection(
    mha: nn.MultiheadAttention, x: Tensor, source: Tensor, changes: Changes
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of `x`, keys and values of `source`, each (S, ..., C), through the packed projection."""
    parts = (mha.embed_dim, 2 * mha.embed_dim)
    weight = tuned(mha.in_proj_weight, changes.get(f'{IN_PROJ}_weight')).split(parts, dim=-2)
    bias = tuned(mha.in_proj_bias, changes.get(f'{IN_PROJ}_bias'))
    bias = (None, None) if bias is None else bias.split(parts, dim=-1)
    out = [streams.linear(t, w, b) for t, w, b in zip((x, source), weight, bias, strict=True)]
    if (change := changes.get(IN_PROJ)) is not None:
        up = change.up.split(parts, dim=1)
        changed = zip((x, source), up, strict=True)
        out = [y + streams.low_rank(t, change._replace(up=u)) for y, (t, u) in zip(out, changed, strict=True)]
    return out[0], *out[1].chunk(2, dim=-1)


def _torch_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, dropout: float) -> Tensor:
    """The operations of `nn.MultiheadAttention` on (S, L, B, C), keys and values (S', L', B, C); S and S' the same or 1."""
    streams_, batch = max(q.shape[0], k.shape[0]), q.shape[2]
    q, k, v = (
        t.expand(streams_, -1, -1, -1).unflatten(-1, (heads, -1)).flatten(2, 3).transpose(1, 2).flatten(0, 1)
        for t in (q, k, v)
    )  # (S B heads, L, C / heads)
    weights = torch.bmm(q * math.sqrt(1.0 / q.shape[-1]), k.mT).softmax(dim=-1)
    out = torch.bmm(F.dropout(weights, dropout), v)
    return out.unflatten(0, (streams_, batch, heads)).permute(0, 3, 1, 2, 4).flatten(3).contiguous()
