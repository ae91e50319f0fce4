"""The matrices of adapters: plain, as a product of two factors, or as a sum of Kronecker products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .checks import check_positive
from .kernels import kron_sum

__all__ = ['FactorisedMatrix', 'PHMMatrix', 'PlainMatrix']

INIT_STD = 0.01


def matched_std(rank: int, code_dims: int = 1) -> float:
    """Standard deviation of two factors whose product's entries are spread as those of a matrix that starts at N(0, 0.01^2).

    An entry of a product is a sum of `rank` products of two entries. Where linear maps of a code make the entries, the
    deviation is that of the maps' weights; the code has `code_dims` entries of mean square 1, as behind a LayerNorm.

    Args:
        rank: Columns of the left factor, rows of the right one.
        code_dims: Width of the code. Defaults to 1, which is for factors that are parameters.
    """
    return (INIT_STD / (code_dims * rank) ** 0.5) ** 0.5


class PlainMatrix(nn.Module):
    """A rows x cols weight; N(0, 0.01^2) at the start."""

    def __init__(self, rows: int, cols: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, cols))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=INIT_STD)

    def forward(self) -> Tensor:
        return self.weight


class FactorisedMatrix(nn.Module):
    """W = L R of a given rank; both start at N(0, 0.01^2), or (`matched_init`) so that W has this spread."""

    def __init__(self, rows: int, cols: int, rank: int, matched_init: bool = False) -> None:
        super().__init__()
        self.init_std = matched_std(rank) if matched_init else INIT_STD
        self.left = nn.Parameter(torch.empty(rows, rank))
        self.right = nn.Parameter(torch.empty(rank, cols))

    def reset_parameters(self) -> None:
        for p in self.parameters():
            nn.init.normal_(p, std=self.init_std)

    def forward(self) -> Tensor:
        return self.left @ self.right


class PHMMatrix(nn.Module):
    """W = sum_{i<m} A_i (x) B_i, a parameterised hypercomplex multiplication.

    Zhang et al., "Beyond Fully-Connected Layers with Quaternions: Parameterization of Hypercomplex Multiplications
    with 1/n Parameters", ICLR 2021; with B_i = s_i t_i^T as in Mahabadi et al., "Compacter", NeurIPS 2021. The rules
    A_i start at N(0, 0.01^2), what B_i is made of at Glorot's uniform distribution, as in Compacter.

    Args:
        rows: Rows of W.
        cols: Columns of W.
        divisions: m, the number of products; divides rows and cols.
        rank_one: Whether B_i is s_i t_i^T.
        own_rule: Whether the matrix owns its rules A_i, or is given them.

    Raises:
        ValueError: if m is no positive integer, or does not divide rows and cols.
    """

    def __init__(self, rows: int, cols: int, *, divisions: int, rank_one: bool, own_rule: bool) -> None:
        super().__init__()
        check_divisions(divisions, rows, cols)
        m, p, q = divisions, rows // divisions, cols // divisions
        if own_rule:
            self.rule = nn.Parameter(torch.empty(m, m, m))
        self.rank_one = rank_one
        if rank_one:
            self.left = nn.Parameter(torch.empty(m, p, 1))
            self.right = nn.Parameter(torch.empty(m, 1, q))
        else:
            self.blocks = nn.Parameter(torch.empty(m, p, q))

    def reset_parameters(self) -> None:
        for name, p in self.named_parameters():
            if name == 'rule':
                nn.init.normal_(p, std=INIT_STD)
            else:
                for matrix in p.data:
                    nn.init.xavier_uniform_(matrix)

    def forward(self, rule: Tensor | None = None) -> Tensor:
        """W (rows, cols), with the given rules (m, m, m) where the matrix owns none."""
        blocks = self.left @ self.right if self.rank_one else self.blocks  # (m, p, q)
        rule = self.rule if rule is None else rule
        return kron_sum(rule[None], blocks[None, :, None])[0, 0]


def check_divisions(divisions: int, *sizes: int) -> None:
    """Refuse a number of Kronecker products that does not fit.

    Raises:
        ValueError: if it is no positive integer, or does not divide a size; the message prints the numbers.
    """
    check_positive(divisions=divisions)
    for size in sizes:
        if size % divisions:
            raise ValueError(
                f'divisions {divisions} does not divide {size} channels: {size} / {divisions} = {size / divisions:.2f}'
            )
