"""Plain tables for the standard output."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ['text_table']


def text_table(rows: Sequence[Sequence[str]], *, markdown: bool = False, left: Collection[int] = (0,)) -> str:
    """Rows of cells, the first row being the head.

    Args:
        rows: Cells, as many in each row.
        markdown: Write a Markdown table instead of aligned text. Defaults to False.
        left: Columns that stand to the left; all others stand to the right. Defaults to the first.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    if not markdown:
        return '\n'.join('  '.join(line).rstrip() for line in lines)
    lines.insert(1, ['-' * (w - 1) + ('-' if i in left else ':') for i, w in enumerate(widths)])
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
