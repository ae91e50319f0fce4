"""`AdaptedPVTv2`: timm's PVTv2, frozen, with adapters and a stream of features per task. Needs timm, see `optional`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from timm.models.pvt_v2 import Block, PyramidVisionTransformerV2, checkpoint_filter_fn
from torch import Tensor, nn

from .adapted_pyramid import AdaptedPyramid, to_tokens
from .encoder_checkpoint import encoder_state_dict
from .leaves import Changes, changed_conv, changed_linear, changed_norm, to_map

__all__ = ['AdaptedPVTv2']

ARCH_KEYS = ('embed_dims', 'depths', 'num_heads')
OPTIONAL_ARCH_KEYS = ('sr_ratios', 'mlp_ratios', 'linear')


class AdaptedPVTv2(AdaptedPyramid, PyramidVisionTransformerV2, BaseModule):
    """A frozen Pyramid Vision Transformer v2 whose blocks carry adapters, with features of its own for each task.

    The encoder is timm's `PyramidVisionTransformerV2` without its classifier: its state-dict keys are the stock ones and,
    without adapters, its maps equal the stock ones to the bit. New parameters live under `adapters.*` and, where tasks are
    named, under `output_norms.<task>.<stage>.*`; for these, and for the groups of tuned parameters, see `AdaptedPyramid`.

    Linear maps for low-rank changes: 'qkv' are the two projections `attn.q` and `attn.kv`; 'proj', 'fc1' and 'fc2'.

    Args:
        arch: 'b0' to 'b5', 'b2_li' (linear attention: keys and values of 7 x 7 pooled pixels), or a dict with
            `embed_dims`, `depths`, `num_heads` and, where they differ from timm's defaults, `sr_ratios`, `mlp_ratios`,
            `linear`. Defaults to 'b0'.
        tasks: Names of the tasks. None for a stock backbone with a tuple as output and the stock norms. Defaults to None.
        adapter: Config of an adapter method (see `mmseg_polyhistor.adapters`), or None. Defaults to None.
        frozen: Whether the stock parameters are frozen; False is full fine-tuning. Defaults to True.
        drop_path_rate: Largest rate of stochastic depth while training, for frozen blocks as well. Defaults to 0.1.
        with_cp: Recompute each block in the backward pass instead of storing its activations. Defaults to False.
        init_cfg: `dict(type='Pretrained', checkpoint=<path or URL>[, prefix=...])` loads published weights, timm's or the
            authors'; every key is accounted for. Without it the encoder starts at random. Defaults to None.
        partial_loading: Take what fits of a checkpoint and tell the rest by a warning, instead of refusing one that
            differs in any key or shape (see `StrictLoading`). Defaults to False.
        **kwargs: Further arguments of timm's `PyramidVisionTransformerV2`.

    Raises:
        ValueError: for an unfit `arch`, adapter, task list or `init_cfg`; `TypeError` for arguments that this class
            decides itself.

    Shape:
        As of `AdaptedMiT`.

    Reference:
        Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", Computational Visual Media 2022.
    """

    DECIDED = ('num_classes', 'global_pool', 'drop_rate', *ARCH_KEYS, *OPTIONAL_ARCH_KEYS)
    DECIDED_BY = 'sizes by `arch`, maps of all stages and no classifier, freezing by `frozen`'
    PROJECTION = 'proj'
    #: The published sizes, as in timm.
    ARCHS: Mapping[str, Mapping[str, Any]] = {
        name: dict(embed_dims=widths, depths=depths, num_heads=(1, 2, 5, 8), **more)
        for name, widths, depths, more in (
            ('b0', (32, 64, 160, 256), (2, 2, 2, 2), {}),
            ('b1', (64, 128, 320, 512), (2, 2, 2, 2), {}),
            ('b2', (64, 128, 320, 512), (3, 4, 6, 3), {}),
            ('b2_li', (64, 128, 320, 512), (3, 4, 6, 3), dict(linear=True)),
            ('b3', (64, 128, 320, 512), (3, 4, 18, 3), {}),
            ('b4', (64, 128, 320, 512), (3, 8, 27, 3), {}),
            ('b5', (64, 128, 320, 512), (3, 6, 40, 3), dict(mlp_ratios=(4, 4, 4, 4))),
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
        init_cfg: dict | None = None,
        partial_loading: bool = False,
        **kwargs,
    ) -> None:
        self._check_arguments(kwargs, init_cfg)
        sizes = self._sizes(arch)
        super().__init__(**sizes, num_classes=0, drop_path_rate=drop_path_rate, **kwargs)
        self.init_cfg = init_cfg  # timm's constructor hands none to mmengine's
        self.sizes = sizes
        self._adapt(
            tasks=tasks,
            adapter=adapter,
            frozen=frozen,
            with_cp=with_cp,
            fused=True,  # timm's own attention is
            partial_loading=partial_loading,
        )

    @classmethod
    def _sizes(cls, arch: str | Mapping) -> dict[str, Any]:
        sizes = cls._arch_sizes(arch, ARCH_KEYS, OPTIONAL_ARCH_KEYS)
        stages = len(sizes['depths'])
        usual = dict(sr_ratios=(8, 4, 2, 1)[:stages], mlp_ratios=(8, 8, 4, 4)[:stages])
        sizes = cls._same_stages(usual | sizes, stages)
        for i, (width, heads) in enumerate(zip(sizes['embed_dims'], sizes['num_heads'], strict=True)):
            if width % heads:
                raise ValueError(
                    f'{cls.__name__}: arch: the {width} channels of stage {i} (embed_dims) are no multiple of its {heads} heads '
                    '(num_heads)'
                )
        return sizes

    @classmethod
    def _check_size(cls, key: str, value: Any, kinds: tuple[type, ...] = (int,)) -> None:
        if key == 'linear':
            if not isinstance(value, bool):
                raise ValueError(f'{cls.__name__}: arch: linear must be True or False, got {value!r}')
        else:
            super()._check_size(key, value, (int, float) if key == 'mlp_ratios' else kinds)

    # --------------------------------------------------------------------------------------------- layout
    def patch_embed_name(self, stage: int) -> str:
        return f'stages.{stage}.downsample' if stage else 'patch_embed'

    def block_name(self, stage: int, block: int) -> str:
        return f'stages.{stage}.blocks.{block}'

    def stage_norm_name(self, stage: int) -> str:
        return f'stages.{stage}.norm'

    def blocks(self, stage: int) -> Sequence[Block]:
        return self.stages[stage].blocks

    def architecture(self) -> dict[str, Any]:
        """Widths, depths, heads and reductions, as JSON data."""
        listed = {k: list(v) if isinstance(v, Sequence) else v for k, v in self.sizes.items()}
        in_channels = self.patch_embed.proj.in_channels
        return dict(type='PVTv2', linear=False, in_channels=in_channels) | listed

    def _widths(self) -> tuple[int, ...]:
        return tuple(self.sizes['embed_dims'])

    def _block_linears(self, block: Block) -> dict[str, tuple[str, int, int]]:
        roles = {'attn.q': 'qkv', 'attn.kv': 'qkv', 'attn.proj': 'proj', 'mlp.fc1': 'fc1', 'mlp.fc2': 'fc2'}
        found = {name: block.get_submodule(name) for name in roles}
        return {name: (roles[name], m.in_features, m.out_features) for name, m in found.items()}

    def _stock_state(self, checkpoint: Mapping, prefix: str) -> tuple[dict[str, Tensor], list[str]]:
        weights, foreign = encoder_state_dict(checkpoint, prefix)
        return checkpoint_filter_fn(weights, self), foreign  # from the authors' names

    # -------------------------------------------------------------------------------------------- forward
    def _drop_paths(self, block: Block) -> tuple[nn.Module, nn.Module]:
        return block.drop_path1, block.drop_path2

    def _transition(
        self, stage: int, x: Tensor, hw: tuple[int, int], changes: Changes
    ) -> tuple[Tensor, tuple[int, int]]:
        x = changed_norm(self._stage_norm(stage), 'norm', x, changes)
        return self._patches(stage + 1, to_map(x, hw).contiguous(), changes)

    def _attention_branch(
        self, block: Block, x: Tensor, hw: tuple[int, int], changes: Changes, context: None
    ) -> Tensor:
        x = changed_norm(block.norm1, 'norm1', x, changes)
        attn = block.attn
        source = x
        if attn.pool is not None:
            pooled = attn.pool(to_map(x, hw).flatten(0, 1)).unflatten(0, x.shape[:2])
            source = to_tokens(changed_conv(attn.sr, 'attn.sr', pooled, changes))
            source = attn.act(changed_norm(attn.norm, 'attn.norm', source, changes))
        elif attn.sr is not None:
            source = self._reduced(attn.sr, attn.norm, x, hw, changes)
        q = changed_linear(attn.q, 'attn.q', x, changes)
        k, v = changed_linear(attn.kv, 'attn.kv', source, changes).chunk(2, dim=-1)
        dropout = attn.attn_drop.p if attn.training else 0.0
        x = self._fused_attention(q, k, v, attn.num_heads, dropout)
        return attn.proj_drop(changed_linear(attn.proj, 'attn.proj', x, changes))

    def _ffn_branch(self, block: Block, x: Tensor, hw: tuple[int, int], changes: Changes) -> Tensor:
        mlp = block.mlp
        x = changed_linear(mlp.fc1, 'mlp.fc1', changed_norm(block.norm2, 'norm2', x, changes), changes)
        x = mlp.act(self._depthwise(mlp.dwconv, 'mlp.dwconv', mlp.relu(x), hw, changes))
        return mlp.drop(changed_linear(mlp.fc2, 'mlp.fc2', mlp.drop(x), changes))
