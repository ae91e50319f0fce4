"""The table of results: methods x tasks x gain x parameters x time x memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..profiling.text_table import csv_table, latex_table, text_table
from .rows import Row, Tasks, digits, headline_key, lower_is_better

__all__ = ['FORMATS', 'metric_name', 'metrics_of', 'results_table']

FORMATS = ('text', 'markdown', 'csv', 'latex')
EMPTY = '-'


@dataclass(frozen=True)
class Column:
    """A column: its head and its cell in print, its head and its value in CSV. One without a head is in CSV alone."""

    head: str
    key: str
    cell: Callable[[Row], str]
    value: Callable[[Row], object]
    left: bool = False


def metrics_of(rows: Sequence[Row], more: Sequence[str] = ()) -> list[str]:
    """The metrics that a table of rows shows: that of every task which a row has, and further ones."""
    return list(
        dict.fromkeys([*(headline_key(row.known[task]) for row in rows for task in row.tasks), *more])
    )


def metric_name(metric: str, tasks: Tasks | None = None) -> str:
    """A metric in print: 'normals mean ↓'; the arrow tells that lower is better. See `lower_is_better`."""
    return metric.replace('.', ' ', 1) + (' ↓' if lower_is_better(metric, tasks) else '')


def results_table(
    rows: Sequence[Row],
    form: str = 'text',
    *,
    gain: bool,
    spread: bool = False,
    metrics: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """Rows as a table.

    Args:
        rows: The rows.
        form: One of `FORMATS`. CSV has all digits, and plain heads; the others are rounded for reading, each metric to its `digits`.
        gain: Whether there is a column of gains.
        spread: Whether rows are means over runs: their standard deviations and numbers are shown. Defaults to False.
        metrics: Further metrics than those of the tasks, such as 'normals.rmse'. Defaults to none.
        notes: Lines for the reader of a text, Markdown or LaTeX (as comments) table. Defaults to none.

    Raises:
        ValueError: if `form` is unknown.
    """
    if form not in FORMATS:
        raise ValueError(f'unknown format {form!r}; known are {FORMATS}')
    columns = _columns(rows, gain, spread, metrics)
    if form == 'csv':
        return csv_table([[c.key for c in columns], *([c.value(row) for c in columns] for row in rows)])
    columns = [column for column in columns if column.head]
    cells = [[c.head for c in columns], *([c.cell(row) for c in columns] for row in rows)]
    left = [i for i, column in enumerate(columns) if column.left]
    if form == 'latex':
        return '\n'.join([*(f'% {note}' for note in notes), latex_table(cells, left=left)])
    table = text_table(cells, markdown=form == 'markdown', left=left)
    return '\n\n'.join([table, *notes] if form == 'markdown' else [table, '\n'.join(notes)]).rstrip()


def _columns(rows: Sequence[Row], gain: bool, spread: bool, metrics: Sequence[str]) -> list[Column]:
    columns = [
        Column('method', 'method', _marked_method, lambda row: row.method, left=True),
        Column('run', 'run', lambda row: row.name, lambda row: row.name, left=True),
    ]
    tasks = {name: task for row in reversed(rows) for name, task in row.known.items()}
    for metric in metrics_of(rows, metrics):
        columns += _metric(metric, metric_name(metric, tasks), '', spread)
    if gain:
        columns += _metric('gain', 'gain %', '+', spread)
    columns += [
        _parameters('encoder', 'encoder', 'encoder_parameters'),
        _parameters('total', 'all', 'parameters'),
        _number('seconds', 's / iteration', 'seconds_per_iteration', '.3f'),
    ]
    if any(row.memory is not None for row in rows):
        columns.append(_number('memory', 'GPU MB', 'gpu_memory_mb', ',.0f'))
    columns += [
        Column('trained', 'trained', lambda row: row.trained or EMPTY, lambda row: row.trained, left=True),
        Column('result', 'result', lambda row: row.source or EMPTY, lambda row: row.source, left=True),
    ]
    if spread:
        columns.append(Column('n', 'runs', lambda row: str(row.runs), lambda row: row.runs))
    columns.append(
        Column('', 'origin', lambda row: '', lambda row: 'the paper, PASCAL-Context' if row.paper else 'run')
    )
    return columns


def _marked_method(row: Row) -> str:
    return f'{row.method} (paper)' if row.paper else row.method


def _metric(metric: str, head: str, sign: str, spread: bool) -> list[Column]:
    def cell(row: Row) -> str:
        if metric not in row.values:
            return EMPTY
        places = digits(metric, row.known)
        text = f'{row.values[metric]:{sign}.{places}f}'
        return f'{text} ± {row.spread[metric]:.{places}f}' if metric in row.spread else text

    columns = [Column(head, metric, cell, lambda row: row.values.get(metric))]
    if spread:
        columns.append(Column('', f'{metric}_std', lambda row: '', lambda row: row.spread.get(metric)))
    return columns


def _parameters(attribute: str, head: str, key: str) -> Column:
    def cell(row: Row) -> str:
        number = getattr(row, attribute)
        if number is None:
            return EMPTY
        return f'{number / 1e6:.2f} M' if row.paper else f'{number:,}'

    return Column(head, key, cell, lambda row: getattr(row, attribute))


def _number(attribute: str, head: str, key: str, digits: str) -> Column:
    def cell(row: Row) -> str:
        number = getattr(row, attribute)
        return EMPTY if number is None else format(number, digits)

    return Column(head, key, cell, lambda row: getattr(row, attribute))
