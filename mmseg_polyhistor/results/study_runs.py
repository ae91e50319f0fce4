"""Run the jobs of a study, as many as are left, and read what they have reached."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from mmengine.config import Config
from mmengine.utils import ProgressBar

from .command_line import Collected
from .reference import read_reference
from .rows import Row, digits, gain_over, headline, make_rows, merge_seeds, recipe, tasks_of
from .runs import Run, find_runs, read_run
from .study import Job, Study

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = [
    'ABSENT',
    'FINISHED',
    'UNFINISHED',
    'StudyPart',
    'collect_study',
    'run_jobs',
    'search_table',
    'state',
]

ABSENT, UNFINISHED, FINISHED = 'absent', 'unfinished', 'finished'
CONSOLE = 'console.log'  # what a training prints, beside its config


# --------------------------------------------------------------------------------------------------------- running
def state(study: Study, job: Job, work_dir: Path) -> str:
    """'absent', 'unfinished' or 'finished' (with a validation behind its last iteration).

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
    validated = run.validations and run.train and run.validations[-1].iteration >= run.train[-1]['iter']
    return FINISHED if validated and run.progress.finished else UNFINISHED


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

    A training that fails leaves the others running; an exception, such as KeyboardInterrupt, ends all of them. Nothing is
    trained in a folder in which another process trains.

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
    trainings = _Trainings()

    def run(job: Job) -> str:
        problem = _run(study, job, work_dir, train, threads, trainings)
        bar.update()
        return problem

    pool = ThreadPoolExecutor(parallel)
    try:
        problems = list(pool.map(run, left))
    except BaseException:  # an interruption too ends the trainings; what they have saved stays
        trainings.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    print(file=sys.stderr)  # the bar ends without a line break
    return [problem for problem in problems if problem]


class _Trainings:
    """The processes that train, which end together."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, command: Sequence[str | Path], **options: Any) -> int:
        """Run a command to its end; returns its status."""
        with self._lock:
            if self._stopped:
                return -signal.SIGTERM
            process = subprocess.Popen(command, **options)
            self._running.add(process)
        status = process.wait()
        self._running.discard(process)
        return status

    def stop(self) -> None:
        """End those that run; none starts any more."""
        with self._lock:
            self._stopped = True
            for process in list(self._running):
                process.terminate()


def _run(
    study: Study, job: Job, work_dir: Path, train: Path, threads: int | None, trainings: _Trainings
) -> str:
    folder = work_dir / job.name
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ) if threads is None else {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    with open(folder / CONSOLE, 'a', encoding='utf-8') as console:
        if not _locked(console):
            return f'{job.name} is left out: another process trains in {folder}'
        config = folder / study.rows[job.row].config.name
        study.config(job).dump(config)
        status = trainings.run(
            [sys.executable, train, config, '--work-dir', folder, '--resume'],
            stdout=console,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    if status == 0 and state(study, job, work_dir) == FINISHED:
        return ''
    return f'{job.name} ended with status {status}; its output: {folder / CONSOLE}'


def _locked(file: IO[str]) -> bool:
    """Lock a file for this process and those that inherit it, while one of them lives; false if others hold it.

    Where there is no `fcntl`, on Windows, nothing is locked.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --------------------------------------------------------------------------------------------------------- reading
@dataclass(frozen=True, kw_only=True)
class StudyPart(Collected):
    """What was read of the runs with one encoder.

    Args:
        each: The finished jobs and their rows, whose means over the seeds are `rows`.
    """

    each: Mapping[Job, Row]


def collect_study(study: Study, work_dir: Path) -> dict[str, StudyPart]:
    """All finished runs, encoder by encoder: a row for each row of the study, as the mean over its seeds.

    The gain of a row is over the reference row with the same encoder, the mean over its seeds.

    Returns:
        Encoder -> what was read of it; encoders without a finished run are left out.

    Raises:
        ValueError: see `state`.
        FileNotFoundError: if no run is finished.
    """
    found = {}
    absent: list[str] = []
    for encoder in study.encoders:
        jobs = [job for job in study.jobs() if job.encoder == encoder]
        finished = [job for job in jobs if _is_finished(study, job, work_dir, absent)]
        if finished:
            found[encoder] = _collect_encoder(study, encoder, finished, work_dir)
    if not found:
        raise FileNotFoundError(f'{work_dir}: no run of {study.path} is finished')
    next(iter(found.values())).remarks[:0] = absent
    return found


def _collect_encoder(study: Study, encoder: str, jobs: Sequence[Job], work_dir: Path) -> StudyPart:
    remarks: list[str] = []
    runs: list[Run] = []
    rows: list[Row] = []
    each: dict[Job, Row] = {}
    reference, notes = None, []
    if of_reference := [job for job in jobs if job.row == study.reference]:
        reference = read_reference([str(work_dir / job.name) for job in of_reference], remarks)
        values = ', '.join(f'{task} {value:.2f}' for task, value in reference.items())
        notes.append(f'gain with {encoder}: percent over {study.rows[study.reference].label} ({values})')
    else:
        remarks.append(f'no gain with {encoder}: no run of {encoder}/{study.reference} is finished')
    for row in dict.fromkeys(job.row for job in jobs):
        own = [job for job in jobs if job.row == row]
        found = [read_run(work_dir / job.name, job.name) for job in own]
        label = study.rows[row].label
        made = [replace(made, method=label) for made in make_rows(found, (), remarks, reference=reference)]
        (mean,) = merge_seeds(found, made, remarks)
        rows.append(replace(mean, name=encoder))
        runs += found
        each.update(zip(own, made, strict=True))
    return StudyPart(
        runs=tuple(runs),
        rows=tuple(rows),
        reference=reference,
        notes=tuple(notes),
        remarks=remarks,
        each=each,
    )


def _is_finished(study: Study, job: Job, work_dir: Path, remarks: list[str]) -> bool:
    found = state(study, job, work_dir)
    if found != FINISHED:
        remarks.append(f'{job.name} is {found}, and left out')
    return found == FINISHED


def search_table(study: Study, jobs: Sequence[Job], work_dir: Path) -> str:
    """Lines of the search: row, learning rate, the tasks' metrics, and the gain over the row's first finished rate.

    Args:
        study: The study.
        jobs: Of `Study.search_jobs`.
        work_dir: The study's work dir.

    Raises:
        ValueError: see `state`.
    """
    lines = []
    first: dict[str, Mapping[str, float]] = {}
    for job in jobs:
        start = f'{job.row:<24}{job.rate:<10g}'
        if state(study, job, work_dir) != FINISHED:
            lines.append(f'{start}not finished')
            continue
        run = read_run(work_dir / job.name)
        values = headline(run, run.validations[-1])
        reference = first.setdefault(job.row, values)
        tasks = tasks_of(run)
        metrics = '  '.join(
            f'{task} {value:.{digits(f"{task}.{tasks[task].metric}", tasks)}f}'
            for task, value in values.items()
        )
        gain = (
            f'gain {gain_over(reference, values, tasks):+.2f}'
            if all(reference.values())
            else 'no gain over 0'
        )
        lines.append(f'{start}{metrics}  {gain}')
    return '\n'.join(lines)
