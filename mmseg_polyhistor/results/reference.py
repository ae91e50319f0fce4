"""The row that the gain compares with: a name, a file, or runs of single-task models."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import mmengine

from ..evaluation.gain import REFERENCE_ROWS, reference_row
from .rows import Reading, Reference, Tasks, headline_key, same_but_seed
from .runs import read_runs

__all__ = ['read_reference']

FILES = ('.json', '.yml', '.yaml')


def read_reference(
    sources: Sequence[str], remarks: list[str], *, select: str = 'last', tasks: Tasks | None = None
) -> Reference:
    """Task -> value of the task's `TaskSpec.metric`.

    Args:
        sources: A name of `REFERENCE_ROWS`; or a JSON or YAML file that maps tasks to values; or folders with runs, which
            together have every task: one of `configs/single_task`, or several with some tasks each. Of several seeds of one
            config the mean counts.
        remarks: Takes what the reader should know.
        select: Which results of runs count: 'last' validation or 'test'. Defaults to 'last'.
        tasks: Tasks that a file may name beside those of the table. Defaults to None: no others.

    Raises:
        FileNotFoundError: if a source is no name, file or folder, or a folder without runs.
        ValueError: if a file holds no such row, runs have no results, or runs of two configs have the same task; the
            message names them.
    """
    if len(sources) == 1 and sources[0] in REFERENCE_ROWS:
        return Reference(reference_row(sources[0]), {})
    if len(sources) == 1 and Path(sources[0]).suffix in FILES and Path(sources[0]).is_file():
        return _from_file(Path(sources[0]), tasks)
    for source in sources:
        if not Path(source).is_dir():
            raise FileNotFoundError(
                f'--reference {source}: neither a folder with runs, nor alone one of the rows {list(REFERENCE_ROWS)} or '
                f'an existing file ({", ".join(FILES)}) that maps tasks to values'
            )
    return _from_runs(sources, remarks, select)


def _from_file(path: Path, tasks: Tasks | None) -> Reference:
    try:
        row = mmengine.load(path)
        if not isinstance(row, dict):
            raise ValueError(f'it must map tasks to values, got {row!r}')
        return Reference(reference_row(row, tasks), {})
    except Exception as e:  # the parsers of JSON and YAML raise their own kinds
        raise ValueError(f'--reference {path}: {e}') from e


def _from_runs(sources: Sequence[str], remarks: list[str], select: str) -> Reference:
    found: dict[str, list[tuple[Reading, float]]] = {}
    for run in read_runs(sources):
        reading = Reading(run)
        chosen = reading.choose(select)
        values = reading.headline(chosen)
        if not values:
            raise ValueError(f'--reference {run.folder}: the run has no result of any task')
        for task, value in values.items():
            found.setdefault(task, []).append((reading, value))
        remarks += [f'reference {run.name}: {remark}' for remark in (*run.remarks, *reading.remarks)]
        backbone = (((run.config or {}).get('model') or {}).get('backbone') or {}).get('type')
        if len(values) > 1 and backbone != 'TaskEncoders':
            remarks.append(
                f'reference {run.name}: {len(values)} tasks share its {backbone}, so that it is no single-task run'
            )
    row, specs = {}, {}
    for task, readings in found.items():
        first = readings[0][0].run
        specs[task] = readings[0][0].tasks[task]
        for other in (reading.run for reading, _ in readings[1:]):
            if not same_but_seed(first, other):
                raise ValueError(
                    f'--reference: {first.folder} and {other.folder} are runs of different configs, and both have the task '
                    f'{task!r}; give one of them'
                )
        row[task] = statistics.fmean(value for _, value in readings)
        if len(readings) > 1:
            remarks.append(f'reference: {task} is the mean of {len(readings)} runs')
    try:
        metrics = {task: headline_key(spec) for task, spec in specs.items()}
        return Reference(reference_row(row, specs), metrics)
    except ValueError as e:  # a nan, a value of 0
        raise ValueError(f'--reference {" ".join(sources)}: {e}') from e
