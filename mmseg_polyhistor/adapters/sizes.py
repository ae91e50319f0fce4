"""Bottleneck widths and ranks, with checks that print the numbers."""

from __future__ import annotations

from .checks import check_positive

__all__ = ['bottleneck_width', 'resolve_rank']


def bottleneck_width(width: int, ratio: int) -> int:
    """The bottleneck n = width / ratio of an adapter (paper, section 3).

    Raises:
        ValueError: if the ratio is no positive integer, exceeds the width, or does not divide it.
    """
    check_positive(ratio=ratio)
    if ratio > width:
        raise ValueError(f'ratio {ratio} gives a bottleneck of width 0 on {width} channels')
    if width % ratio:
        raise ValueError(
            f'ratio {ratio} does not divide {width} channels: {width} / {ratio} = {width / ratio:.2f}'
        )
    return width // ratio


def resolve_rank(rank: int, rows: int, cols: int) -> int:
    """The rank of a factorised rows x cols matrix.

    Args:
        rank: A positive rank, or -k for max(min(rows, cols) // k, 1).
        rows: Rows of the matrix.
        cols: Columns of the matrix.

    Raises:
        ValueError: if the rank is 0 or larger than both sides allow.
    """
    if not isinstance(rank, int) or isinstance(rank, bool) or rank == 0:
        raise ValueError(f'rank must be a positive int, or -k for min(rows, cols) // k; got {rank!r}')
    smallest = min(rows, cols)
    if rank < 0:
        return max(smallest // -rank, 1)
    if rank > smallest:
        raise ValueError(f'rank {rank} is larger than the smaller side of a {rows} x {cols} matrix')
    return rank
