"""What the tools of this package ask for, and read, alike."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..benchmark import read_benchmark
from ..evaluation.gain import REFERENCE_ROWS
from .reference import FILES, read_reference
from .rows import (
    PAPER,
    Reference,
    Row,
    Tasks,
    digits,
    headline_key,
    make_rows,
    merge_seeds,
    paper_rows,
    protocols,
    tasks_of,
)
from .runs import Run, read_runs

__all__ = ['Collected', 'add_arguments', 'collect']

PRESET = 'paper_pascal_context_swin_t'


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was read.

    Args:
        runs: The runs.
        rows: Their rows, and the paper's if asked for.
        reference: The row that the gain compares with; None without one.
        notes: What belongs below a table of the rows.
        remarks: What else the reader should know: parts that are missing, broken or unequal.
    """

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    reference: Mapping[str, float] | None
    notes: tuple[str, ...]
    remarks: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `collect` reads."""
    parser.add_argument(
        'work_dirs', nargs='+', metavar='WORK_DIR', help='work dirs of runs, or folders that hold some below'
    )
    parser.add_argument(
        '--reference',
        nargs='+',
        metavar='REFERENCE',
        help='what the gain compares with: work dirs of single-task runs (one run of configs/single_task, or several with '
        f'some tasks each), or one file ({", ".join(FILES)}) that maps tasks to values, or a name of {list(REFERENCE_ROWS)}; '
        'without it there is no gain',
    )
    parser.add_argument(
        '--select',
        choices=('last', 'best', 'test'),
        default='last',
        help='which result counts: the last validation, the best one, or the last test (default: last; a run without '
        'validations shows its last test). Of reference runs always the last',
    )
    parser.add_argument(
        '--best-by',
        metavar='METRIC',
        help="what the best validation is chosen by: 'gain', or a metric such as semseg.mIoU (default: gain)",
    )
    parser.add_argument(
        '--spread',
        action='store_true',
        help='runs of one config that differ in their seed become one row, with mean and standard deviation',
    )
    parser.add_argument(
        '--paper', action='store_true', help='add the rows that the Polyhistor paper prints, marked as such'
    )


def collect(args: argparse.Namespace, index: Path) -> Collected:
    """Read what the arguments name.

    Args:
        args: Of a parser with `add_arguments`.
        index: `model-index.yml`, whose metafiles hold the methods' names and the paper's rows.

    Raises:
        FileNotFoundError: if a work dir or a reference does not exist, or holds no run.
        ValueError: if a reference is wrong, or the best validation cannot be chosen.
    """
    if args.best_by and args.select != 'best':
        raise ValueError(f'--best-by {args.best_by} goes with --select best, not with --select {args.select}')
    remarks: list[str] = []
    benchmark = read_benchmark(index)
    runs = read_runs(args.work_dirs)
    reference = None
    if args.reference:
        select = 'test' if args.select == 'test' else 'last'
        tasks = {name: task for run in reversed(runs) for name, task in tasks_of(run).items()}
        reference = read_reference(args.reference, remarks, select=select, tasks=tasks)
    rows = make_rows(
        runs, benchmark, remarks, reference=reference, select=args.select, best_by=args.best_by or 'gain'
    )
    if args.spread:
        rows = merge_seeds(runs, rows, remarks)
    notes = []
    if reference is None:
        remarks.append('no gain, as there is nothing to compare with: give --reference')
    else:
        row = _in_print(reference, tasks)
        notes.append(f'gain: percent over {row} ({" ".join(args.reference)})')
    if len(found := protocols(runs)) > 1:
        lines = [f'{what} ({", ".join(names)})' for what, names in found.items()]
        notes.append('The configs name different sets or sizes for the evaluation: ' + '; '.join(lines))
    if args.paper:
        rows += paper_rows(benchmark)
        notes.append(_about_paper(args.reference, reference is not None))
    return Collected(runs=runs, rows=tuple(rows), reference=reference, notes=tuple(notes), remarks=remarks)


def _in_print(reference: Reference, tasks: Tasks) -> str:
    """Tasks and values, to the digits of the metric that each value is one of."""
    metrics = {name: headline_key(task) for name, task in tasks.items()} | reference.metrics
    return ', '.join(f'{task} {value:.{digits(metrics[task], tasks)}f}' for task, value in reference.items())


def _about_paper(reference: Sequence[str] | None, gain: bool) -> str:
    text = f'(paper): {PAPER}; figures as it prints them, not results of these runs'
    if gain and list(reference) != [PRESET]:
        text += "; its gains are over its own single-task row, not over the runs' reference"
    return text
