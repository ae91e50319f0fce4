"""Plain tables for the standard output."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ['text_table']


def text_table(rows: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Rows of cells, the first row being the head; the first column stands to the left, all others to the right.

    Args:
        rows: Cells, as many in each row.
        markdown: Write a Markdown table instead of aligned text. Defaults to False.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    if not markdown:
        return '\n'.join('  '.join(line).rstrip() for line in lines)
    lines.insert(1, ['-' * (w - 1) + (':' if i else '-') for i, w in enumerate(widths)])
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
