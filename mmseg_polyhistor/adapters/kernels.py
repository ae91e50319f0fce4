"""Layer-wise Scaling Kernels: lift templates of the first stage's width to a block's width (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .functional import AdapterWeights

__all__ = ['KRON_ORDERS', 'ScalingKernels', 'kron_sum']

KRON_ORDERS = ('kernel_first', 'template_first')


def kron_sum(kernels: Tensor, templates: Tensor, order: str = 'kernel_first') -> Tensor:
    """sum_i K_i (x) T_i over the second axis, batched over the first.

    Args:
        kernels: (G, I, a, b), or (G, I, a, b, T) with kernels of each task.
        templates: (G, I, T, m, n).
        order: 'kernel_first' for K (x) T, 'template_first' for T (x) K. Defaults to 'kernel_first'.

    Returns:
        (G, T, a m, b n) for either order.
    """
    out = 'gtambn' if order == 'kernel_first' else 'gtmanb'
    kernel = 'giab' if kernels.dim() == 4 else 'giabt'
    product = torch.einsum(f'{kernel},gitmn->{out}', kernels, templates)
    return product.flatten(4, 5).flatten(2, 3)


class ScalingKernels(nn.Module):
    """The scaling kernels of one stage's blocks; each block owns a set per position, shared by up and down.

    K in R^{s x s x s} lifts the weights, k^b in R^{s x s x 1} the biases, k^ln in R^{s x s x 1} the LayerNorm's gain
    and shift; N(0, 1) at the start. Nothing is owned where s = 1: the template is the weight.

    Args:
        blocks: L, the stage's blocks.
        positions: P, positions per block.
        scale: s, the stage's width over the first stage's.
        tasks: Names of the tasks if each has kernels of its own, None if all share one set. Defaults to None.
        norms: Whether there are LayerNorm gains and shifts to lift. Defaults to True.
        order: Order of the Kronecker factors, see `kron_sum`. Defaults to 'kernel_first'.
    """

    def __init__(
        self,
        *,
        blocks: int,
        positions: int,
        scale: int,
        tasks: Sequence[str] | None = None,
        norms: bool = True,
        order: str = 'kernel_first',
    ) -> None:
        super().__init__()
        self.scale = scale
        self.order = order
        names = ['all'] if tasks is None else list(tasks)
        self.per_task = tasks is not None
        # kind of weight -> columns of its kernel
        self.columns = {'weight': scale, 'bias': 1, **({'norm': 1} if norms else {})} if scale > 1 else {}
        self.sets = nn.ModuleDict(
            {
                name: nn.ParameterDict(
                    {
                        kind: nn.Parameter(torch.empty(blocks, positions, scale, scale, columns))
                        for kind, columns in self.columns.items()
                    }
                )
                for name in (names if scale > 1 else ())
            }
        )

    def reset_parameters(self) -> None:
        for p in self.parameters():
            nn.init.normal_(p)

    def forward(self, templates: AdapterWeights, tasks: Sequence[str]) -> AdapterWeights:
        """Lift templates with leading axes (L, P, I, T) to weights with leading axes (L, P, T)."""
        if self.scale == 1:
            return AdapterWeights(*(None if t is None else t.squeeze(2) for t in templates))
        kernels = {kind: self._kernel(kind, tasks) for kind in self.columns}

        def lift(t: Tensor | None, kind: str) -> Tensor | None:
            if t is None:
                return None
            vector = t.dim() == 5
            t = t.unsqueeze(-1) if vector else t  # (L, P, I, T, m, n)
            blocks, positions = t.shape[:2]
            out = kron_sum(kernels[kind], t.flatten(0, 1), self.order)  # (L*P, T, s m, s n or 1)
            out = out.unflatten(0, (blocks, positions))
            return out.squeeze(-1) if vector else out

        return AdapterWeights(
            *(lift(t, _KIND_OF[field]) for field, t in zip(templates._fields, templates, strict=True))
        )

    def _kernel(self, kind: str, tasks: Sequence[str]) -> Tensor:
        """(L*P, I, s, columns), with a last axis of tasks if each task has its own."""
        if not self.per_task:
            return self.sets['all'][kind].flatten(0, 1)
        return torch.stack([self.sets[t][kind].flatten(0, 1) for t in tasks], dim=-1)


_KIND_OF = {
    'down_weight': 'weight',
    'up_weight': 'weight',
    'down_bias': 'bias',
    'up_bias': 'bias',
    'post_gain': 'norm',
    'post_shift': 'norm',
    'pre_gain': 'norm',
    'pre_shift': 'norm',
}
