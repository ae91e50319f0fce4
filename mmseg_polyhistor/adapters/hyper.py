"""Hyper-networks that generate adapter weights: HyperFormer, Polyhistor and Polyhistor-Lite as three presets.

The three differ in three switches, which `HyperAdapter` takes one by one (Polyhistor paper, sections 4.1 to 4.3):

================  ===================  ====================  ==================
preset            `rank`: heads emit   `shared`: one hyper-  `scaling_kernels`:
                  a product P Q        net for the backbone  templates are lifted
================  ===================  ====================  ==================
HyperFormer       no                   no                    no
Polyhistor        yes                  no                    no
Polyhistor-Lite   yes                  yes                   yes
================  ===================  ====================  ==================
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import InsertedAdapter, resolve_tasks
from .checks import check_flags, check_positive
from .functional import AdapterWeights, Change
from .grouped import CodeNet, GroupedLinear
from .kernels import KRON_ORDERS, ScalingKernels
from .matrices import INIT_STD, matched_std
from .sites import Site
from .sizes import bottleneck_width, resolve_rank

__all__ = ['HyperAdapter', 'HyperFormer', 'Polyhistor', 'PolyhistorLite']


class HyperAdapter(InsertedAdapter):
    """Adapters whose weights are generated from learned embeddings by hyper-networks.

    Per stage, with L blocks, P positions and T tasks, everything is generated in one batched product per head.
    A hyper-network maps an embedding to a code I in R^k (`CodeNet`); linear heads map the code to W_up (d x n),
    W_down (n x d), their biases, and gain and shift of the LayerNorms. Weights of the heads start at N(0, 0.01^2),
    their biases at 0 (and at `post_norm_gain` for the gain), embeddings and scaling kernels at N(0, 1).

    Args:
        ratio: Reduction ratio rho of the width that the heads emit (the first stage's with scaling kernels, else
            each stage's own).
        rank: None if heads emit whole matrices; else the rank r of the emitted factors P (rows x r) and
            Q (r x columns), -k for max(min(rows, columns) // k, 1). Defaults to None.
        shared: One hyper-network for the whole backbone, which tells blocks apart by layer embeddings (and positions
            by position embeddings where there are two); else one per block, with heads per position.
            Defaults to False.
        scaling_kernels: Emit templates of the first stage's width and lift them to a block's width by Kronecker
            products with the block's scaling kernels (section 4.2). Defaults to False.
        kron_order: 'kernel_first' for K (x) T or 'template_first' for T (x) K. Defaults to 'kernel_first'.
        kernels_per_task: A set of scaling kernels for each task instead of one for all. Defaults to False.
        post_norm_gain: Initial bias of the head that emits the LayerNorm's gain. With 0 a fresh adapter is close to
            the identity, as the generated gains are close to 0. Defaults to 0.0.
        matched_init: Start the heads of the factors so that the products P Q are spread as the matrices of heads that emit
            whole ones; else each factor is, and the products are several times smaller. Defaults to False.
        embed_dims: Width of each embedding. Defaults to 512.
        hidden_dims: Hidden width h of a hyper-network. Defaults to 128.
        code_dims: Width k of a code. Defaults to 64.
        **kwargs: See `InsertedAdapter`; `per_task` stays True, as weights are generated from task embeddings.

    Raises:
        ValueError: if a ratio does not divide the width, a rank is unfit, stage widths are no multiples of the first
            (scaling kernels), or an option is set that the switches leave without effect.
    """

    def __init__(
        self,
        *,
        ratio: int,
        rank: int | None = None,
        shared: bool = False,
        scaling_kernels: bool = False,
        kron_order: str = 'kernel_first',
        kernels_per_task: bool = False,
        post_norm_gain: float = 0.0,
        matched_init: bool = False,
        embed_dims: int = 512,
        hidden_dims: int = 128,
        code_dims: int = 64,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not self.per_task:
            raise ValueError(
                f'{type(self).__name__} generates the weights of each task from its embedding: per_task=False would leave '
                "nothing to tell tasks apart; for one adapter for all tasks take dict(type='BottleneckAdapter', per_task=False)"
            )
        if kron_order not in KRON_ORDERS:
            raise ValueError(f'kron_order must be one of {KRON_ORDERS}, got {kron_order!r}')
        if kernels_per_task and not scaling_kernels:
            raise ValueError('kernels_per_task=True needs scaling_kernels=True')
        if kron_order != KRON_ORDERS[0] and not scaling_kernels:
            raise ValueError(f'kron_order={kron_order!r} needs scaling_kernels=True')
        if matched_init and rank is None:
            raise ValueError('matched_init=True needs a rank: heads that emit whole matrices have no factors')
        check_flags(
            shared=shared,
            scaling_kernels=scaling_kernels,
            kernels_per_task=kernels_per_task,
            matched_init=matched_init,
        )
        check_positive(embed_dims=embed_dims, hidden_dims=hidden_dims, code_dims=code_dims)
        self.shared = shared
        self.scaling_kernels = scaling_kernels
        self.post_norm_gain = post_norm_gain
        self.matched_init = matched_init
        widths, depths = self.layout.widths, self.layout.depths
        stages = range(len(widths))
        positions = len(self.positions)
        self.scales = self.layout.scales() if scaling_kernels else (1,) * len(widths)

        # Embeddings. Each block owns one embedding per template where the hyper-network must tell them apart.
        self.task_embeddings = nn.ParameterDict(
            {t: nn.Parameter(torch.empty(embed_dims)) for t in self.tasks}
        )
        in_features = embed_dims
        self.layer_embeddings = self.position_embeddings = None
        if shared or scaling_kernels:
            in_features += embed_dims
            self.layer_embeddings = nn.ParameterList(
                nn.Parameter(torch.empty(depths[i], self.scales[i], embed_dims)) for i in stages
            )
        if shared and positions > 1:
            in_features += embed_dims
            self.position_embeddings = nn.Parameter(torch.empty(positions, embed_dims))

        # Hyper-networks: one for all stages, or one group per block; heads: one set per emitted shape.
        self.code_nets = nn.ModuleList(
            CodeNet(1 if shared else depths[i], in_features, hidden_dims, code_dims)
            for i in (stages[:1] if shared else stages)
        )
        self.heads = nn.ModuleList(
            _Heads(
                groups=1 if shared else depths[i] * positions,
                code_dims=code_dims,
                width=widths[0] if scaling_kernels else widths[i],
                ratio=ratio,
                rank=rank,
                norms=[n for n, on in (('post', self.post_norm), ('pre', self.pre_norm)) if on],
            )
            for i in (stages[:1] if shared and scaling_kernels else stages)
        )
        self.kernels = None
        if scaling_kernels:
            self.kernels = nn.ModuleList(
                ScalingKernels(
                    blocks=depths[i],
                    positions=positions,
                    scale=self.scales[i],
                    tasks=self.tasks if kernels_per_task else None,
                    norms=self.post_norm or self.pre_norm,
                    order=kron_order,
                )
                for i in stages
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for embedding in self.task_embeddings.values():
            nn.init.normal_(embedding)
        for embedding in self.layer_embeddings or ():
            nn.init.normal_(embedding)
        if self.position_embeddings is not None:
            nn.init.normal_(self.position_embeddings)
        for net in self.code_nets:
            net.reset_parameters()
        for heads in self.heads:
            heads.reset_parameters(self.post_norm_gain, self.matched_init)
        for kernels in self.kernels or ():
            kernels.reset_parameters()

    def generate(self, tasks: Sequence[str]) -> dict[Site, Change]:
        tasks = resolve_tasks(tasks, self.tasks)
        changes = super().generate(tasks)
        for stage, depth in enumerate(self.layout.depths):
            # code: (L, P, I, T, k); a template index I of size 1 where there is one template per block
            code = self._code(stage, tasks)
            templates = self.heads[min(stage, len(self.heads) - 1)](code, grouped=not self.shared)
            if self.kernels is not None:
                lifted = self.kernels[stage](templates, tasks)
            else:
                lifted = AdapterWeights(*(None if t is None else t.squeeze(2) for t in templates))
            # lifted: (L, P, T, ...)
            for block in range(depth):
                for p, position in enumerate(self.positions):
                    changes[Site(stage, block, position)] = AdapterWeights(
                        *(None if t is None else t[block, p] for t in lifted)
                    )
        return changes

    def _code(self, stage: int, tasks: Sequence[str]) -> Tensor:
        """Codes (L, P, I, T, k) of one stage: the concatenated embeddings, sent through the hyper-network."""
        task = torch.stack([self.task_embeddings[t] for t in tasks])  # (T, e)
        blocks, templates = self.layout.depths[stage], self.scales[stage]
        # Without position embeddings all positions share a code, which is then expanded.
        rows = 1 if self.position_embeddings is None else len(self.positions)
        shape = (blocks, rows, templates, len(tasks), -1)
        parts = [task.expand(shape)]
        if self.layer_embeddings is not None:
            parts.append(self.layer_embeddings[stage][:, None, :, None].expand(shape))
        if self.position_embeddings is not None:
            parts.append(self.position_embeddings[None, :, None, None].expand(shape))
        x = torch.cat(parts, dim=-1)  # (L, P, I, T, in)
        groups = 1 if self.shared else blocks
        code = self.code_nets[0 if self.shared else stage](x.reshape(groups, -1, x.shape[-1]))
        code = code.reshape(*shape[:-1], -1)
        return code.expand(-1, len(self.positions), -1, -1, -1)


class _Heads(nn.Module):
    """Linear heads that map codes to templates of adapter weights.

    Shape:
        code (L, P, I, T, k) -> `AdapterWeights` with leading axes (L, P, I, T).
    """

    def __init__(
        self, *, groups: int, code_dims: int, width: int, ratio: int, rank: int | None, norms: Sequence[str]
    ) -> None:
        super().__init__()
        n = bottleneck_width(width, ratio)
        self.shapes: dict[str, tuple[int, int]] = {'down': (n, width), 'up': (width, n)}
        self.rank = None if rank is None else resolve_rank(rank, n, width)
        self.norms = tuple(norms)
        sizes: dict[str, int] = {}
        for name, (rows, cols) in self.shapes.items():
            if self.rank is None:
                sizes[name] = rows * cols
            else:
                sizes[f'{name}_p'] = rows * self.rank
                sizes[f'{name}_q'] = self.rank * cols
            sizes[f'{name}_bias'] = rows
        for norm in self.norms:
            sizes[f'{norm}_gain'] = sizes[f'{norm}_shift'] = width
        self.maps = nn.ModuleDict({k: GroupedLinear(groups, code_dims, size) for k, size in sizes.items()})

    def reset_parameters(self, post_norm_gain: float, matched_init: bool) -> None:
        for name, head in self.maps.items():
            factor = matched_init and name.endswith(('_p', '_q'))
            head.reset_parameters(
                std=matched_std(self.rank, head.weight.shape[-1]) if factor else INIT_STD,
                bias={'post_gain': post_norm_gain, 'pre_gain': 1.0}.get(name, 0.0),
            )

    def forward(self, code: Tensor, *, grouped: bool) -> AdapterWeights:
        lead = code.shape[:-1]
        flat = code.reshape(lead[0] * lead[1] if grouped else 1, -1, code.shape[-1])

        def emit(name: str, *shape: int) -> Tensor:
            return self.maps[name](flat).reshape(*lead, *shape)

        def matrix(name: str) -> Tensor:
            rows, cols = self.shapes[name]
            if self.rank is None:
                return emit(name, rows, cols)
            return emit(f'{name}_p', rows, self.rank) @ emit(f'{name}_q', self.rank, cols)

        norms = {f'{n}_{part}': emit(f'{n}_{part}', -1) for n in self.norms for part in ('gain', 'shift')}
        return AdapterWeights(
            matrix('down'), emit('down_bias', -1), matrix('up'), emit('up_bias', -1), **norms
        )


class HyperFormer(HyperAdapter):
    """HyperFormer as the paper re-uses it: one hyper-network per block, whole matrices, both positions, rho 8.

    Mahabadi et al., "Parameter-efficient Multi-task Fine-tuning for Transformers via Shared Hypernetworks", ACL 2021;
    row "HyperFormer" of the Polyhistor paper. For the arguments see `HyperAdapter`.
    """

    def __init__(self, *, ratio: int = 8, positions: Sequence[str] = ('attn', 'ffn'), **kwargs) -> None:
        super().__init__(ratio=ratio, positions=positions, **kwargs)


class Polyhistor(HyperAdapter):
    """Polyhistor: Decomposed HyperNetworks, one per block (paper, section 4.1); rho 16, rank -4, FFN position.

    For the arguments see `HyperAdapter`.
    """

    def __init__(self, *, ratio: int = 16, rank: int | None = -4, **kwargs) -> None:
        super().__init__(ratio=ratio, rank=rank, **kwargs)


class PolyhistorLite(HyperAdapter):
    """Polyhistor-Lite: one decomposed hyper-network for the backbone and Layer-wise Scaling Kernels.

    Paper, sections 4.2 and 4.3; rho 2 on the first stage's width, rank -4, FFN position. For the arguments see
    `HyperAdapter`.
    """

    def __init__(
        self,
        *,
        ratio: int = 2,
        rank: int | None = -4,
        shared: bool = True,
        scaling_kernels: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(ratio=ratio, rank=rank, shared=shared, scaling_kernels=scaling_kernels, **kwargs)
