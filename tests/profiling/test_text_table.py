"""Plain tables."""

from __future__ import annotations

import csv
import io

from mmseg_polyhistor.profiling.text_table import csv_table, latex_table, text_table

ROWS = [['name', 'a', 'long'], ['x', '1.25', '2']]


def test_columns_stand_below_each_other():
    assert text_table(ROWS) == 'name     a  long\nx     1.25     2'


def test_markdown():
    assert text_table(ROWS, markdown=True).splitlines() == [
        '| name |    a | long |',
        '| ---- | ---: | ---: |',
        '| x    | 1.25 |    2 |',
    ]


def test_markdown_escapes_what_would_end_a_cell():
    assert text_table([['a|b', 'c'], ['d', 'e']], markdown=True).splitlines() == [
        r'| a\|b |  c |',
        '| ---- | -: |',  # a colon alone would be no rule
        '| d    |  e |',
    ]


def test_csv_keeps_all_digits_and_is_read_back():
    rows = [['name', 'n'], ['a, "b"\nc', 0.1 + 0.2], [None, 7]]
    assert list(csv.reader(io.StringIO(csv_table(rows)))) == [
        ['name', 'n'], ['a, "b"\nc', '0.30000000000000004'], ['', '7']
    ]  # fmt: skip


def test_latex_by_hand():
    table = latex_table([['my_name', 'a ↓'], ['50 % & {#1} $~^\\', '-1.5 ± 0.2'], ['b|<>', 'x-1']])
    assert table.splitlines() == [
        r'\begin{tabular}{lr}',
        r'\hline',
        r'my\_name & a $\downarrow$ \\',
        r'\hline',
        r'50 \% \& \{\#1\} \$\textasciitilde{}\textasciicircum{}\textbackslash{} & $-$1.5 $\pm$ 0.2 \\',
        r'b\textbar{}\textless{}\textgreater{} & x-1 \\',
        r'\hline',
        r'\end{tabular}',
    ]
