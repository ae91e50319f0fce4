"""Adapters whose weights are parameters: the plain adapter, the low-rank one, PHM layer, Compacter, AdaptFormer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .base import InsertedAdapter
from .checks import check_flags, check_positive, check_scale, with_fixed
from .functional import AdapterWeights, Change, stack_owners
from .matrices import INIT_STD, FactorisedMatrix, PHMMatrix, PlainMatrix
from .sites import Site
from .sizes import bottleneck_width, resolve_rank

__all__ = ['AdaptFormer', 'BottleneckAdapter', 'Compacter', 'LowRankAdapter', 'PHMAdapter', 'StaticAdapter']


class _SiteParameters(nn.Module):
    """The parameters of one owner at one site: two matrices, their biases, gain and shift of the norms."""

    def __init__(
        self, down: nn.Module, up: nn.Module, *, width: int, bottleneck: int, norms: Sequence[str]
    ) -> None:
        super().__init__()
        self.down = down
        self.down_bias = nn.Parameter(torch.empty(bottleneck))
        self.up = up
        self.up_bias = nn.Parameter(torch.empty(width))
        for name in ('post', 'pre'):
            for part in ('gain', 'shift'):
                parameter = nn.Parameter(torch.empty(width)) if name in norms else None
                self.register_parameter(f'{name}_{part}', parameter)

    def reset_parameters(self, post_norm_gain: float) -> None:
        for matrix in (self.down, self.up):
            matrix.reset_parameters()
        for name, value in (('pre_gain', 1.0), ('post_gain', post_norm_gain)):
            if getattr(self, name) is not None:
                nn.init.constant_(getattr(self, name), value)
        for name in ('down_bias', 'up_bias', 'pre_shift', 'post_shift'):
            if getattr(self, name) is not None:
                nn.init.zeros_(getattr(self, name))

    def forward(self, **rule: Tensor) -> AdapterWeights:
        return AdapterWeights(
            self.down(**rule),
            self.down_bias,
            self.up(**rule),
            self.up_bias,
            self.post_gain,
            self.post_shift,
            self.pre_gain,
            self.pre_shift,
        )


class StaticAdapter(InsertedAdapter):
    """Base of the adapters whose weights are parameters, one set per site and owner.

    Biases start at 0, gains in front at 1, gains behind at `post_norm_gain`, and matrices as their class says.

    Args:
        bottleneck: Width of a block -> width of the adapter's hidden layer.
        matrix: (rows, columns) -> a module that gives the matrix and has `reset_parameters`.
        post_norm_gain: Initial gain of the LayerNorm behind the second map. Defaults to 1.0.
        **kwargs: See `InsertedAdapter`.

    A subclass calls `reset_parameters` when it is complete.
    """

    def __init__(
        self,
        *,
        bottleneck: Callable[[int], int],
        matrix: Callable[[int, int], nn.Module],
        post_norm_gain: float = 1.0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.post_norm_gain = post_norm_gain
        norms = [name for name, on in (('post', self.post_norm), ('pre', self.pre_norm)) if on]

        def parameters(site: Site) -> _SiteParameters:
            d = self.layout.widths[site.stage]
            n = bottleneck(d)
            return _SiteParameters(matrix(n, d), matrix(d, n), width=d, bottleneck=n, norms=norms)

        self.sets = nn.ModuleDict(
            {
                owner: nn.ModuleDict({site.key: parameters(site) for site in self.sites})
                for owner in self.owners
            }
        )

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for one in self.sets.values():
            for site in one.values():
                site.reset_parameters(self.post_norm_gain)

    def generate(self, tasks: Sequence[str]) -> dict[Site, Change]:
        changes = super().generate(tasks)
        owners = self.owners_of(tasks)
        for site in self.sites:
            changes[site] = stack_owners(self._weights(owner, site) for owner in owners)
        return changes

    def _weights(self, owner: str, site: Site) -> AdapterWeights:
        """One owner's weights at one site, without a leading axis."""
        return self.sets[owner][site.key]()


class BottleneckAdapter(StaticAdapter):
    """One adapter per site and task (Houlsby et al. 2019; the paper's row "adapter").

    Matrices start at N(0, 0.01^2), biases at 0. With `post_norm_gain=0` a fresh adapter is the identity. The paper's
    row "shared adapter" is `per_task=False` with `tuned=('norm',)`.

    Args:
        ratio: Reduction ratio rho; the bottleneck is width / rho. Defaults to 2.
        **kwargs: `post_norm_gain`, the initial gain of the LayerNorm behind the second map, 1.0 by default, and those
            of `InsertedAdapter`.

    Raises:
        ValueError: if the ratio does not divide a stage's width, or for what `InsertedAdapter` refuses.

    Shape:
        2 d n + n + d (+ 2 d for each LayerNorm) parameters per site and task, n = d / rho.
    """

    def __init__(self, *, ratio: int = 2, **kwargs) -> None:
        super().__init__(
            bottleneck=lambda width: bottleneck_width(width, ratio), matrix=PlainMatrix, **kwargs
        )
        self.reset_parameters()


class LowRankAdapter(StaticAdapter):
    """The adapter with both matrices factorised, W = L R (the paper's row "low-rank adapter").

    Args:
        ratio: Reduction ratio rho. Defaults to 16.
        rank: Rank of both products; -k stands for max(n // k, 1). Defaults to -4.
        matched_init: Start the factors so that their products are spread as the plain adapter's matrices; else each factor is,
            and the products are 100 / sqrt(rank) times smaller. Defaults to False.
        **kwargs: See `BottleneckAdapter`.

    Raises:
        ValueError: if the rank is 0 or exceeds the bottleneck, or for what `BottleneckAdapter` refuses.
    """

    def __init__(self, *, ratio: int = 16, rank: int = -4, matched_init: bool = False, **kwargs) -> None:
        check_flags(matched_init=matched_init)
        super().__init__(
            bottleneck=lambda width: bottleneck_width(width, ratio),
            matrix=lambda rows, cols: FactorisedMatrix(
                rows, cols, resolve_rank(rank, rows, cols), matched_init
            ),
            **kwargs,
        )
        self.reset_parameters()


class PHMAdapter(StaticAdapter):
    """The adapter with PHM matrices W = sum_i A_i (x) B_i, each with rules of its own (the paper's row "PHM layer").

    Args:
        ratio: Reduction ratio rho. Defaults to 16.
        divisions: m, the number of Kronecker products per matrix. Defaults to 2.
        **kwargs: See `BottleneckAdapter`.

    Raises:
        ValueError: if `divisions` does not divide a stage's width and bottleneck, or for what `BottleneckAdapter`
            refuses.

    Reference:
        Zhang et al., "Beyond Fully-Connected Layers with Quaternions", ICLR 2021; see `PHMMatrix`.
    """

    def __init__(self, *, ratio: int = 16, divisions: int = 2, **kwargs) -> None:
        super().__init__(
            bottleneck=lambda width: bottleneck_width(width, ratio),
            matrix=partial(PHMMatrix, divisions=divisions, rank_one=False, own_rule=True),
            **kwargs,
        )
        self.reset_parameters()


class Compacter(StaticAdapter):
    """Compacter: PHM matrices with rank-one B_i = s_i t_i^T and rules that all matrices of a task share.

    Both positions are the paper's row "Compacter", `positions=('ffn',)` is its row "Compacter++".

    Args:
        ratio: Reduction ratio rho. Defaults to 2.
        divisions: m, the number of Kronecker products per matrix. Defaults to 2.
        positions: 'attn', 'ffn' or both. Defaults to ('attn', 'ffn').
        **kwargs: See `BottleneckAdapter`.

    Raises:
        ValueError: if `divisions` does not divide a stage's width and bottleneck, or for what `BottleneckAdapter`
            refuses.

    Reference:
        Mahabadi et al., "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers", NeurIPS 2021.
    """

    def __init__(
        self, *, ratio: int = 2, divisions: int = 2, positions: Sequence[str] = ('attn', 'ffn'), **kwargs
    ) -> None:
        super().__init__(
            bottleneck=lambda width: bottleneck_width(width, ratio),
            matrix=partial(PHMMatrix, divisions=divisions, rank_one=True, own_rule=False),
            positions=positions,
            **kwargs,
        )
        m = divisions
        self.rules = nn.ParameterDict({owner: nn.Parameter(torch.empty(m, m, m)) for owner in self.owners})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for rule in self.rules.values():
            nn.init.normal_(rule, std=INIT_STD)

    def _weights(self, owner: str, site: Site) -> AdapterWeights:
        return self.sets[owner][site.key](rule=self.rules[owner])


class AdaptFormer(StaticAdapter):
    """AdaptFormer: a small net beside the feed-forward net, x + FFN(LN(x)) + s W_up relu(W_down x + b_down).

    The branch reads the block's features in front of the feed-forward net and joins behind it, as in the authors'
    released code; the paper's equation has a LayerNorm in front of W_down, which `pre_norm=True` adds. W_down starts at
    Kaiming's uniform distribution (as of a linear layer), W_up and the biases at 0, so a fresh network equals the
    frozen one. On a ViT-B the branches have 1,189,632 parameters with a bottleneck of 64; with the 76,900 of a linear
    head for 100 classes that is 1,266,532, of which the paper prints 1.26 M.

    Args:
        bottleneck: Width of the hidden layer in all stages. Defaults to 64.
        scale: s, factor on the branch (also on its last bias, and not on the shortcut). Defaults to 0.1.
        activation: Defaults to 'relu'.
        **kwargs: See `InsertedAdapter`; `insertion` is 'parallel' and `post_norm` False.

    Raises:
        ValueError: if `bottleneck` is no positive integer, or for another `insertion` or `post_norm`.

    Reference:
        Chen et al., "AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition", NeurIPS 2022.
    """

    def __init__(
        self, *, bottleneck: int = 64, scale: float = 0.1, activation: str = 'relu', **kwargs
    ) -> None:
        check_positive(bottleneck=bottleneck)
        if 'post_norm_gain' in kwargs:
            raise ValueError(
                'AdaptFormer has no LayerNorm behind its second map, so post_norm_gain means nothing'
            )
        kwargs = with_fixed(type(self).__name__, kwargs, insertion='parallel', post_norm=False)
        super().__init__(
            bottleneck=lambda width: bottleneck, matrix=PlainMatrix, activation=activation, **kwargs
        )
        self.branch_scale = check_scale(scale)  # `scale` of the base would be on the shortcut as well
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for one in self.sets.values():
            for site in one.values():
                nn.init.kaiming_uniform_(site.down.weight, a=5**0.5)
                nn.init.zeros_(site.up.weight)

    def _weights(self, owner: str, site: Site) -> AdapterWeights:
        weights = super()._weights(owner, site)
        return weights._replace(
            up_weight=self.branch_scale * weights.up_weight, up_bias=self.branch_scale * weights.up_bias
        )
