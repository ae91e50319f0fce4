"""Plain tables for the standard output, and the same cells as CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence

__all__ = ['csv_table', 'latex_table', 'text_table']

LATEX = {
    '\\': r'\textbackslash{}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    **{sign: '\\' + sign for sign in '&%$#_{}'},
    '±': r'$\pm$',
    '↓': r'$\downarrow$',
    '↑': r'$\uparrow$',
}


def text_table(rows: Sequence[Sequence[str]], *, markdown: bool = False, left: Collection[int] = (0,)) -> str:
    """Rows of cells, the first row being the head.

    Args:
        rows: Cells, as many in each row.
        markdown: Write a Markdown table instead of aligned text. Defaults to False.
        left: Columns that stand to the left; all others stand to the right. Defaults to the first.
    """
    if markdown:
        rows = [[cell.replace('|', r'\|') for cell in row] for row in rows]
    least = 2 if markdown else 0  # the rule of a column needs a hyphen beside its colon
    widths = [max(least, *map(len, column)) for column in zip(*rows, strict=True)]
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


def csv_table(rows: Sequence[Sequence[object]]) -> str:
    """Rows of values as CSV (RFC 4180), the first row being the head; None is an empty cell, numbers keep all digits."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue().rstrip('\n')


def latex_table(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Rows of cells as a LaTeX `tabular` that needs no package, the first row being the head.

    Args:
        rows: Cells, as many in each row, in plain text: what LaTeX would read as a command is escaped.
        left: See `text_table`.
    """
    head, *body = [[_latex(cell) for cell in row] for row in rows]
    columns = ''.join('l' if i in left else 'r' for i in range(len(head)))
    lines = [rf'\begin{{tabular}}{{{columns}}}', r'\hline', _latex_row(head), r'\hline']
    return '\n'.join([*lines, *map(_latex_row, body), r'\hline', r'\end{tabular}'])


def _latex_row(cells: Sequence[str]) -> str:
    return ' & '.join(cells) + r' \\'


def _latex(cell: str) -> str:
    text = ''.join(LATEX.get(sign, sign) for sign in cell)
    return re.sub(r'^-(?=\d)', '$-$', text)  # a minus, not a hyphen
