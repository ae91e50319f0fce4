"""`AdaptedSwin`: mmpretrain's Swin, frozen, with adapters in its blocks and one stream of features per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmpretrain.models.backbones.swin_transformer import SwinBlock, SwinTransformer
from mmpretrain.models.utils import resize_pos_embed
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...adapters import BackboneLayout, Site
from .adapted_backbone import AdaptedBackbone, AllChanges, Shared
from .leaves import Changes
from .swin_checkpoint import resize_bias_table, swin_state_dict
from .swin_layers import (
    FusedWindows,
    attention_branch,
    ffn_branch,
    patch_embed_forward,
    patch_merging_forward,
    swin_layout,
)
from .swin_windows import WindowCache

__all__ = ['AdaptedSwin']

BIAS_TABLE = 'attn.w_msa.relative_position_bias_table'


@MODELS.register_module()
class AdaptedSwin(AdaptedBackbone, SwinTransformer):
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
        window_size: Window of the attention; `stage_cfgs=[dict(window_size=7), ...]` gives each stage its own.
            Defaults to 7.
        fused: Gather windows by index, attend through `scaled_dot_product_attention`, and keep masks and biases of the
            frozen windows; equal to stock Swin up to rounding. False runs the stock operations, equal to the bit.
            Defaults to True.
        init_cfg: `dict(type='Pretrained', checkpoint=<path or URL>[, prefix='backbone'])` loads published weights;
            every key is accounted for. Without it the encoder starts at random. Defaults to None.
        partial_loading: Take what fits of a checkpoint and tell the rest by a warning, instead of refusing one that
            differs in any key or shape (see `StrictLoading`). Defaults to False.
        **kwargs: Further arguments of mmpretrain's `SwinTransformer`.

    Raises:
        ValueError: for an unfit adapter, window, task list or `init_cfg`; `TypeError` for arguments that this class decides
            itself.

    Shape:
        Images (B, 3, H, W), any size -> {task: 4 maps (B, C_i, ceil(H / s_i), ceil(W / s_i)), s_i = 4, 8, 16, 32};
        the bare tuple of maps for one task, or none named.
    """

    DECIDED = ('out_indices', 'out_after_downsample', 'frozen_stages', 'pad_small_map')

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
        self._check_arguments(kwargs, init_cfg)
        if not isinstance(window_size, int) or window_size < 1:
            raise ValueError(
                f'{type(self).__name__}: window_size must be a positive int, got {window_size!r}; a window for each stage is '
                'stage_cfgs=[dict(window_size=7), ...]'
            )
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
        self._windows = WindowCache()
        self._adapt(
            tasks=tasks,
            adapter=adapter,
            frozen=frozen,
            with_cp=with_cp,
            fused=fused,
            partial_loading=partial_loading,
        )

    @property
    def stock_norms(self) -> frozenset[str]:
        """`norm{i}`, whether or not the module has them."""
        return frozenset(f'norm{i}' for i in self.out_indices)

    def stage_norm_name(self, stage: int) -> str:
        return f'norm{stage}'

    def blocks(self, stage: int) -> Sequence[SwinBlock]:
        return self.stages[stage].blocks

    def stock_name(self, site: Site) -> str:
        if site.block is not None:
            return f'stages.{site.stage}.blocks.{site.block}.{site.position}'
        return (
            site.position
            if site.position.startswith('patch_embed')
            else f'stages.{site.stage}.{site.position}'
        )

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

    def train(self, mode: bool = True) -> AdaptedSwin:
        self._windows.clear()  # for the same reason as what the base class clears
        return super().train(mode)

    def _layout(self) -> BackboneLayout:
        return swin_layout(self)

    def _stock_state(self, checkpoint: Mapping, prefix: str) -> tuple[dict[str, Tensor], list[str]]:
        return swin_state_dict(checkpoint, prefix)

    def _in_shape(self, key: str, value: Tensor, own: Tensor) -> Tensor:
        """Tables of relative positions of another window are resized bicubically."""
        return resize_bias_table(value, own.shape[0]) if key.endswith(BIAS_TABLE) else value

    # -------------------------------------------------------------------------------------------- forward
    def _embed(self, images: Tensor, changes: AllChanges) -> Shared:
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

    def _transition_changes(self, stage: int, changes: AllChanges) -> Changes:
        return changes.get((stage, None), {})

    def _transition(
        self, stage: int, x: Tensor, hw: tuple[int, int], changes: Changes
    ) -> tuple[Tensor, tuple[int, int]]:
        return patch_merging_forward(self.stages[stage].downsample, x, hw, changes)

    def _attention_branch(
        self, block: SwinBlock, x: Tensor, hw: tuple[int, int], changes: Changes, context: FusedWindows | None
    ) -> Tensor:
        return attention_branch(block, x, hw, changes, context)

    def _ffn_branch(self, block: SwinBlock, x: Tensor, hw: tuple[int, int], changes: Changes) -> Tensor:
        return ffn_branch(block, x, changes)

    def _drop_paths(self, block: SwinBlock) -> tuple[nn.Module, nn.Module]:
        return block.attn.drop, block.ffn.dropout_layer

    @torch.compiler.disable
    def _contexts(self, start: Shared, changes: AllChanges) -> dict[tuple[int, int], FusedWindows]:
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
