"""Plain tables."""

from __future__ import annotations

from mmseg_polyhistor.profiling.text_table import text_table

ROWS = [['name', 'a', 'long'], ['x', '1.25', '2']]


def test_columns_stand_below_each_other():
    assert text_table(ROWS) == 'name     a  long\nx     1.25     2'


def test_markdown():
    assert text_table(ROWS, markdown=True).splitlines() == [
        '| name |    a | long |',
        '| ---- | ---: | ---: |',
        '| x    | 1.25 |    2 |',
    ]
