"""Run the jobs of a study, as many as are left, and read what they have reached."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.utils import ProgressBar

from .command_line import Collected
from .reference import read_reference
from .rows import Row, digits, gain_over, headline, make_rows, merge_seeds, recipe, tasks_of
from .runs import Run, find_runs, read_run
from .study import Job, Study

__all__ = ['ABSENT', 'FINISHED', 'UNFINISHED', 'collect_study', 'run_jobs', 'search_table', 'state']

ABSENT, UNFINISHED, FINISHED = 'absent', 'unfinished', 'finished'
CONSOLE = 'console.log'  # what a training prints, beside its config


# --------------------------------------------------------------------------------------------------------- running
def state(study: Study, job: Job, work_dir: Path) -> str:
    """'absent', 'unfinished' or 'finished' (with a validation at its end).

    Raises:
        ValueError: if the job's folder holds a run of another config, which a table of the study must not show; the
            message names the first difference.
    """
    run = _read(work_dir / job.name)
    if run is None:
        return ABSENT
    if run.config is not None:
        wanted = Config.fromstring(study.config(job).pretty_text, '.py')
        difference = _difference(recipe(wanted), recipe(run.config))
        if difference:
            raise ValueError(
                f'{run.folder} holds a run of another config than the study asks for: {difference}; move it away, or '
                'name another work dir'
            )
    done = run.progress is not None and run.progress.finished and run.validations
    return FINISHED if done else UNFINISHED


def _read(folder: Path) -> Run | None:
    try:
        find_runs([folder])
    except FileNotFoundError:
        return None
    return read_run(folder)


def _difference(wanted: Any, found: Any, where: str = '') -> str:
    """The first place where two recipes differ; empty where they do not."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys([*wanted, *found]):
            place = f'{where}.{key}' if where else str(key)
            if key not in wanted or key not in found:
                return f'{place} is only in {"the study" if key in wanted else "the run"}'
            if difference := _difference(wanted[key], found[key], place):
                return difference
        return ''
    return '' if wanted == found else f'{where} is {wanted!r} in the study and {found!r} in the run'


def run_jobs(
    study: Study,
    jobs: Sequence[Job],
    work_dir: Path,
    *,
    train: Path,
    parallel: int = 1,
    threads: int | None = None,
) -> list[str]:
    """Train what is not finished, and go on where a training stopped; a progress bar on stderr.

    A training that fails leaves the others running.

    Args:
        study: The study.
        jobs: The jobs, in their order.
        work_dir: The study's work dir.
        train: `tools/train.py`.
        parallel: How many run at a time. Defaults to 1.
        threads: CPU threads of each (`OMP_NUM_THREADS`); None leaves that as it is. Defaults to None.

    Returns:
        A line for each job that failed, with the place of its output.

    Raises:
        ValueError: see `state`; nothing is started then.
    """
    left = [job for job in jobs if state(study, job, work_dir) != FINISHED]
    print(f'{len(jobs) - len(left)} of {len(jobs)} runs are finished', file=sys.stderr)
    if not left:
        return []
    bar = ProgressBar(len(left), file=sys.stderr)

    def run(job: Job) -> str:
        problem = _run(study, job, work_dir, train, threads)
        bar.update()
        return problem

    with ThreadPoolExecutor(parallel) as pool:
        problems = list(pool.map(run, left))
    print(file=sys.stderr)  # the bar ends without a line break
    return [problem for problem in problems if problem]


def _run(study: Study, job: Job, work_dir: Path, train: Path, threads: int | None) -> str:
    folder = work_dir / job.name
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / study.rows[job.row].config.name
    study.config(job).dump(config)
    environment = dict(os.environ) if threads is None else {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    with open(folder / CONSOLE, 'a', encoding='utf-8') as console:
        done = subprocess.run(
            [sys.executable, train, config, '--work-dir', folder, '--resume'],
            stdout=console,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    if done.returncode == 0 and state(study, job, work_dir) == FINISHED:
        return ''
    return f'{job.name} ended with status {done.returncode}; its output: {folder / CONSOLE}'


# --------------------------------------------------------------------------------------------------------- reading
def collect_study(study: Study, work_dir: Path) -> Collected:
    """All finished runs: a row for each row of the study with each encoder, as the mean over its seeds.

    Raises:
        ValueError: see `state`.
        FileNotFoundError: if no run is finished.
    """
    remarks: list[str] = []
    runs: list[Run] = []
    rows: list[Row] = []
    finished = [job for job in study.jobs() if _is_finished(study, job, work_dir, remarks)]
    if not finished:
        raise FileNotFoundError(f'{work_dir}: no run of {study.path} is finished')
    reference = None
    of_reference = [job for job in finished if (job.encoder, job.row) == study.reference]
    if of_reference:
        reference = read_reference([str(work_dir / job.name) for job in of_reference], remarks)
    else:
        remarks.append(f'no gain: no run of {"/".join(study.reference)} is finished')
    for encoder, row in dict.fromkeys((job.encoder, job.row) for job in finished):
        names = [job.name for job in finished if (job.encoder, job.row) == (encoder, row)]
        found = [read_run(work_dir / name, name) for name in names]
        made = make_rows(found, (), remarks, reference=reference)
        (mean,) = merge_seeds(found, made, remarks)
        rows.append(replace(mean, method=study.rows[row].label, name=encoder))
        runs += found
    notes = [] if reference is None else [_about(study, reference)]
    return Collected(
        runs=tuple(runs), rows=tuple(rows), reference=reference, notes=tuple(notes), remarks=remarks
    )


def _is_finished(study: Study, job: Job, work_dir: Path, remarks: list[str]) -> bool:
    found = state(study, job, work_dir)
    if found != FINISHED:
        remarks.append(f'{job.name} is {found}, and left out')
    return found == FINISHED


def _about(study: Study, reference: Mapping[str, float]) -> str:
    encoder, row = study.reference
    values = ', '.join(f'{task} {value:.2f}' for task, value in reference.items())
    return f'gain: percent over {study.rows[row].label}, {encoder} ({values})'


def search_table(study: Study, work_dir: Path) -> str:
    """Lines of the search: row, learning rate, the tasks' metrics, and the gain over the row's first rate.

    Raises:
        ValueError: see `state`, and `Study.search_jobs`.
    """
    lines = []
    jobs = study.search_jobs()
    for row in dict.fromkeys(job.row for job in jobs):
        reference = None
        for job in (job for job in jobs if job.row == row):
            if state(study, job, work_dir) != FINISHED:
                lines.append(f'{row:<24}{job.rate:<10g}not finished')
                continue
            run = read_run(work_dir / job.name)
            values = headline(run, run.validations[-1])
            reference = reference or values
            tasks = tasks_of(run)
            metrics = '  '.join(
                f'{task} {value:.{digits(f"{task}.{tasks[task].metric}", tasks)}f}'
                for task, value in values.items()
            )
            gain = gain_over(reference, values, tasks)
            lines.append(f'{row:<24}{job.rate:<10g}{metrics}  gain {gain:+.2f}')
    return '\n'.join(lines)
