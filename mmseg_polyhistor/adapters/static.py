"""Adapters whose weights are parameters, one copy per task: the plain and the low-rank adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import AdapterMethod, resolve_tasks
from .functional import AdapterWeights
from .sites import Site
from .sizes import bottleneck_width, resolve_rank

__all__ = ['BottleneckAdapter', 'LowRankAdapter']

INIT_STD = 0.01


class _Matrix(nn.Module):
    """A rows x cols weight, plain or as a product of two factors."""

    def __init__(self, rows: int, cols: int, rank: int | None) -> None:
        super().__init__()
        if rank is None:
            self.weight = nn.Parameter(torch.empty(rows, cols))
        else:
            self.left = nn.Parameter(torch.empty(rows, rank))
            self.right = nn.Parameter(torch.empty(rank, cols))

    def forward(self) -> Tensor:
        return self.weight if 'weight' in self._parameters else self.left @ self.right


class _SiteParameters(nn.Module):
    """The parameters of one task at one site."""

    def __init__(self, width: int, ratio: int, rank: int | None, pre_norm: bool, post_norm: bool) -> None:
        super().__init__()
        n = bottleneck_width(width, ratio)
        rank = None if rank is None else resolve_rank(rank, n, width)
        self.down = _Matrix(n, width, rank)
        self.down_bias = nn.Parameter(torch.empty(n))
        self.up = _Matrix(width, n, rank)
        self.up_bias = nn.Parameter(torch.empty(width))
        for name, present in (('post', post_norm), ('pre', pre_norm)):
            for part in ('gain', 'shift'):
                self.register_parameter(
                    f'{name}_{part}', nn.Parameter(torch.empty(width)) if present else None
                )

    def reset_parameters(self, post_norm_gain: float) -> None:
        for matrix in (self.down, self.up):
            for p in matrix.parameters():
                nn.init.normal_(p, std=INIT_STD)
        for name, value in (('pre_gain', 1.0), ('post_gain', post_norm_gain)):
            if getattr(self, name) is not None:
                nn.init.constant_(getattr(self, name), value)
        for name in ('down_bias', 'up_bias', 'pre_shift', 'post_shift'):
            if getattr(self, name) is not None:
                nn.init.zeros_(getattr(self, name))

    def forward(self) -> AdapterWeights:
        return AdapterWeights(
            self.down(),
            self.down_bias,
            self.up(),
            self.up_bias,
            self.post_gain,
            self.post_shift,
            self.pre_gain,
            self.pre_shift,
        )


class BottleneckAdapter(AdapterMethod):
    """One adapter per task and site (Houlsby et al. 2019; the paper's row "adapter").

    Matrices start at N(0, 0.01^2), biases at 0. With `post_norm_gain=0` a fresh adapter is the identity.

    Args:
        ratio: Reduction ratio rho; the bottleneck is width / rho. Defaults to 2.
        rank: None for plain matrices; else the rank of both, written as products L R (see `resolve_rank`).
            Defaults to None.
        post_norm_gain: Initial gain of the LayerNorm behind the second map. Defaults to 1.0.
        **kwargs: See `AdapterMethod`.

    Raises:
        ValueError: if the ratio does not divide a stage's width, if the rank is 0 or exceeds the bottleneck, or for
            what `AdapterMethod` refuses.

    Shape:
        2 d n + n + d (+ 2 d for each LayerNorm) parameters per task and site, n = d / rho.
    """

    def __init__(
        self, *, ratio: int = 2, rank: int | None = None, post_norm_gain: float = 1.0, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.post_norm_gain = post_norm_gain
        self._sites = tuple(self.layout.sites(self.positions))
        self.per_task = nn.ModuleDict(
            {
                task: nn.ModuleDict(
                    {
                        _key(site): _SiteParameters(
                            self.layout.widths[site.stage], ratio, rank, self.pre_norm, self.post_norm
                        )
                        for site in self._sites
                    }
                )
                for task in self.tasks
            }
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for module in self.per_task.values():
            for site in module.values():
                site.reset_parameters(self.post_norm_gain)

    def generate(self, tasks: Sequence[str]) -> dict[Site, AdapterWeights]:
        tasks = resolve_tasks(tasks, self.tasks)
        return {
            site: AdapterWeights(
                *(
                    None if parts[0] is None else torch.stack(parts)
                    for parts in zip(*(self.per_task[t][_key(site)]() for t in tasks), strict=True)
                )
            )
            for site in self._sites
        }


class LowRankAdapter(BottleneckAdapter):
    """The adapter with both matrices factorised, W = L R (the paper's row "low-rank adapter").

    Args:
        ratio: Reduction ratio rho. Defaults to 16.
        rank: Rank of both products; -k stands for max(n // k, 1). Defaults to -4.
        **kwargs: See `BottleneckAdapter`.

    """

    def __init__(self, *, ratio: int = 16, rank: int = -4, **kwargs) -> None:
        super().__init__(ratio=ratio, rank=rank, **kwargs)


def _key(site: Site) -> str:
    return f'stage{site.stage}_block{site.block}_{site.position}'
