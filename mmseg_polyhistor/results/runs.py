"""Work dirs as mmengine writes them: a folder per start of the run, named after its time, with scalars and results."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config

__all__ = ['Evaluation', 'Progress', 'Run', 'find_runs', 'read_run', 'read_runs']

STAMP = re.compile(r'\d{8}_\d{6}')  # mmengine's time stamps
CHECKPOINT = re.compile(r'(epoch|iter)_(\d+)\.pth')
NO_METRICS = ('step', 'time', 'data_time', 'epoch', 'iter', 'memory')


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a whole set.

    Args:
        values: Metric, such as 'semseg.mIoU', -> value.
        step: The epoch or iteration after which a validation ran, as it was logged; None for a test.
        iteration: The iteration of a validation, to the last one logged before it; None for a test.
        checkpoint: Name of the checkpoint file that a test took, where its config names one.
        stamp: When a test began, as mmengine names its folder; None for a validation.
    """

    values: Mapping[str, float]
    step: int | None = None
    iteration: int | None = None
    checkpoint: str | None = None
    stamp: str | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training came.

    Args:
        done: Epochs or iterations; of an epoch that was not finished, the share that the log shows.
        planned: What the config asks for; None where that is unknown.
        unit: 'epochs' or 'iterations'.
    """

    done: float
    planned: int | None
    unit: str

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do; true where the plan is unknown."""
        return self.planned is None or self.done >= self.planned

    def __str__(self) -> str:
        done = f'{math.floor(self.done * 10) / 10:g}'  # 59.97 of 60 epochs are not 60
        return f'{done}/{self.planned} {self.unit}' if self.planned else f'{done} {self.unit}'


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training (or a test alone), all its starts together.

    Args:
        folder: The work dir.
        name: What to call it: the folder below the one that was searched.
        config_name: Name of the config file, without suffix; None where no config was found.
        config: The config of its last start; None where there is none.
        train: What was logged while training, in the order of the iterations: `iter`, `time`, losses, ..
        validations: The validations, in order.
        tests: The results of tools/test.py, in the order of their time.
        counts_epochs: Whether the steps of the validations are epochs; else they are iterations.
        progress: How far the training came; None where there was none.
        remarks: What the reader should know: lines that are broken, parts that are missing.
    """

    folder: Path
    name: str
    config_name: str | None
    config: Config | None
    train: tuple[Mapping[str, float], ...]
    validations: tuple[Evaluation, ...]
    tests: tuple[Evaluation, ...]
    counts_epochs: bool
    progress: Progress | None
    remarks: tuple[str, ...]

    @property
    def seed(self) -> int | None:
        """The seed that the config names."""
        return ((self.config or {}).get('randomness') or {}).get('seed')

    @property
    def seconds_per_iteration(self) -> float | None:
        """Median over what was logged."""
        times = [row['time'] for row in self.train if 'time' in row]
        return statistics.median(times) if times else None

    @property
    def memory(self) -> float | None:
        """Largest GPU memory that was logged, in MB (2**20 bytes); None for a run on a CPU."""
        return max((row['memory'] for row in self.train if 'memory' in row), default=None)

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the logged losses, the sum 'loss' last."""
        names = dict.fromkeys(key for row in self.train for key in row if 'loss' in key and key != 'loss')
        return (*names, *(['loss'] if any('loss' in row for row in self.train) else []))


# ------------------------------------------------------------------------------------------------------ finding
def find_runs(folders: Iterable[str | Path]) -> dict[Path, str]:
    """The work dirs at and below some folders, and what to call them.

    A work dir is a folder that holds a folder named after a time, such as 20260131_235959.

    Returns:
        Work dir -> its path below the folder given; the last two parts of its path where it is that folder.

    Raises:
        FileNotFoundError: if a folder does not exist, or holds no run; the message names it.
    """
    found: dict[Path, str] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f'{folder}: no such folder; give work dirs, or folders that hold some')
        inside = list(_walk(folder))
        if not inside:
            hint = f'; give {folder.parent}' if STAMP.fullmatch(folder.resolve().name) else ''
            raise FileNotFoundError(
                f'{folder}: no run in it or below; a run is a folder that holds one named after a time, such as '
                f'20260131_235959, as tools/train.py makes it{hint}'
            )
        for path in inside:
            below = path.relative_to(folder).as_posix()
            name = '/'.join(path.resolve().parts[-2:]) if below == '.' else below
            found.setdefault(path.resolve(), name)
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for path, below, _ in os.walk(folder):
        stamps = [name for name in below if STAMP.fullmatch(name)]
        below[:] = sorted(set(below) - set(stamps))
        if stamps:
            yield Path(path)


def read_runs(folders: Iterable[str | Path]) -> tuple[Run, ...]:
    """Read all runs at and below some folders, with a progress bar on stderr.

    What a test left in a folder of its own goes to the run whose checkpoint it took, or inside which it lies with the same
    model; of several that fit (by a relative path of the checkpoint), to the one whose path shares most with the test's.
    Else, or if several share as much, it is a run of its own.

    Raises:
        FileNotFoundError: see `find_runs`.
    """
    found = find_runs(folders)
    print(f'reading {len(found)} runs', file=sys.stderr)
    runs = [
        read_run(path, name)
        for path, name in mmengine.track_iter_progress(list(found.items()), file=sys.stderr)
    ]
    print(file=sys.stderr)  # the bar ends without a line break
    return _give_tests_to_their_runs(runs)


def _give_tests_to_their_runs(runs: Sequence[Run]) -> tuple[Run, ...]:
    kept: dict[Path, Run] = {run.folder: run for run in runs}
    trained = [run for run in runs if run.progress is not None]
    for test in runs:
        if test.progress is not None or not test.tests:
            continue
        owners = _nearest([run for run in trained if _tested_by(run, test)], test.folder)
        if len(owners) > 1:
            names = ', '.join(run.name for run in owners)
            remark = f'its checkpoint {test.config.load_from!r} may be one of {names}: it is a row of its own'
            kept[test.folder] = replace(test, remarks=(*test.remarks, remark))
        elif owners:
            del kept[test.folder]
            run = kept[owners[0].folder]
            kept[run.folder] = replace(
                run,
                tests=tuple(sorted((*run.tests, *test.tests), key=lambda found: found.stamp)),
                remarks=(*run.remarks, *test.remarks),
            )
    return tuple(kept.values())


def _nearest(runs: Sequence[Run], folder: Path) -> list[Run]:
    """The runs whose paths share the longest beginning with a folder's."""
    shared = [len(Path(os.path.commonpath([run.folder, folder])).parts) for run in runs]
    return [run for run, length in zip(runs, shared, strict=True) if length == max(shared)]


def _tested_by(run: Run, test: Run) -> bool:
    """Whether a test took a checkpoint of a run, or lies in its folder with the same model."""
    if test.config is None or run.config is None:
        return False
    if parts := Path(test.config.get('load_from') or '').parent.parts:
        return run.folder.parts[-len(parts) :] == parts  # a relative path began where the tool was started
    return run.folder in test.folder.parents and test.config.get('model') == run.config.get('model')


# ------------------------------------------------------------------------------------------------------ reading
def read_run(folder: str | Path, name: str | None = None) -> Run:
    """Read a work dir.

    Where a run was started again, what it logged replaces what an earlier start had logged of the same and later
    iterations: those never led to the weights at the end.

    Args:
        folder: The work dir.
        name: What to call the run. Defaults to the last two parts of its path.

    Raises:
        FileNotFoundError: if the folder holds no folder named after a time.
    """
    folder = Path(folder).resolve()
    stamps = sorted(path for path in folder.iterdir() if path.is_dir() and STAMP.fullmatch(path.name))
    if not stamps:
        raise FileNotFoundError(f'{folder} is no work dir: it holds no folder such as 20260131_235959')
    remarks: list[str] = []
    config, config_name = _read_config(folder, stamps, remarks)
    by_epoch = _logs_epochs(config)
    train: list[dict[str, float]] = []
    validations: list[Evaluation] = []
    tests: list[Evaluation] = []
    for stamp in stamps:
        scalars = stamp / 'vis_data' / 'scalars.json'
        if scalars.is_file():
            rows = _read_lines(scalars, remarks)
            _append(train, validations, rows, by_epoch, stamp.name, remarks)
        result = stamp / f'{stamp.name}.json'
        if result.is_file():
            try:
                values = _metrics(_plain_keys(json.loads(result.read_text('utf-8', errors='replace'))))
            except (ValueError, AttributeError):  # no JSON, or no object of JSON
                remarks.append(f'{result.relative_to(folder)} is broken, and left out')
            else:
                checkpoint = _tested_checkpoint(stamp)
                tests.append(Evaluation(values=values, checkpoint=checkpoint, stamp=stamp.name))
    progress = _progress(folder, train, validations, config, by_epoch)
    if progress is None and not tests:
        remarks.append(
            'nothing is logged: it stopped before the first log line, or LocalVisBackend is not among its vis_backends'
        )
    if progress is not None:
        if not progress.finished:
            remarks.append(f'unfinished: {progress}')
        if not validations:
            remarks.append('no validation is logged' + (', the last test counts' if tests else ''))
    return Run(
        folder=folder,
        name=name or '/'.join(folder.parts[-2:]),
        config_name=config_name,
        config=config,
        train=tuple(train),
        validations=tuple(validations),
        tests=tuple(tests),
        counts_epochs=by_epoch,
        progress=progress,
        remarks=tuple(remarks),
    )


def _read_config(
    folder: Path, stamps: Sequence[Path], remarks: list[str]
) -> tuple[Config | None, str | None]:
    """The config of the last start that trained (of the last start, if none did), and the config file's name."""
    configs = [stamp / 'vis_data' / 'config.py' for stamp in stamps]
    trained = [path for path in configs if path.with_name('scalars.json').is_file() and path.is_file()]
    # mmengine names the copy after the config file, or after the time where there was no file
    dumped = sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime)
    named = [path.stem for path in dumped if not STAMP.fullmatch(path.stem)]
    candidates = [*dumped, *filter(Path.is_file, configs), *trained]
    if not candidates:
        remarks.append('there is no config in it: parameters cannot be counted')
        return None, None
    try:
        # what it imports is only needed where a model is built
        config = Config.fromfile(candidates[-1], import_custom_modules=False)
    except Exception as e:  # a config is Python: anything can be raised
        remarks.append(
            f'{candidates[-1].relative_to(folder)} cannot be read ({type(e).__name__}: {e}): no parameters'
        )
        return None, named[-1] if named else None
    return config, named[-1] if named else None


def _tested_checkpoint(stamp: Path) -> str | None:
    path = stamp / 'vis_data' / 'config.py'
    try:
        tested = Config.fromfile(path, import_custom_modules=False).get('load_from')
    except Exception:  # a config is Python: anything can be raised; `_read_config` tells of it
        return None
    return Path(tested).name if tested else None


def _logs_epochs(config: Config | None) -> bool:
    """Whether the steps of validations are epochs: the setting of `LoggerHook`."""
    hook = ((config or {}).get('default_hooks') or {}).get('logger') or {}
    return hook.get('log_metric_by_epoch', True)


def _read_lines(path: Path, remarks: list[str]) -> list[dict[str, Any]]:
    """The lines of a file of JSON objects; of broken ones, which a kill or a full disk leaves, a remark tells."""
    rows = []
    where = '/'.join(path.parts[-3:])
    lines = path.read_text('utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not all(
                isinstance(row.get(key, 0), (int, float)) for key in ('iter', 'step', 'epoch')
            ):
                raise ValueError
        except ValueError:
            last = ', the last,' if number == len(lines) else ''
            remarks.append(f'{where}: line {number}{last} is broken, and left out')
        else:
            rows.append(_plain_keys(row))
    return rows


def _plain_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    """Keys without 'train/', 'val/' and 'test/', which `LogProcessor(log_with_hierarchy=True)` writes before them."""
    return {re.sub(r'^(train|val|test)/', '', key): value for key, value in row.items()}


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a row, without the prefix of their evaluator."""
    return {
        key.rpartition('/')[2]: float(value)
        for key, value in row.items()
        if key not in NO_METRICS and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _append(
    train: list[dict[str, float]],
    validations: list[Evaluation],
    rows: Sequence[Mapping[str, Any]],
    by_epoch: bool,
    stamp: str,
    remarks: list[str],
) -> None:
    """Add what one start logged, after taking away what it replaces."""
    first = min((row['iter'] for row in rows if 'iter' in row), default=math.inf)
    replaced = sum(row['iter'] >= first for row in train)
    old_validations = len(validations)
    train[:] = [row for row in train if row['iter'] < first]
    now = train[-1]['iter'] if train else 0
    # a start that logged no training tells only by its steps what it replaces
    steps = {row.get('step') for row in rows} if first == math.inf else set()
    validations[:] = [v for v in validations if v.iteration < first and v.step not in steps]
    gone = old_validations - len(validations)
    if replaced or gone:
        remarks.append(
            f'the start of {stamp} replaces {replaced} logged steps and {gone} validations of earlier ones'
        )
    for row in rows:
        if 'iter' in row:  # mmengine writes it for training alone
            now = row['iter']
            train.append(dict(row))
        else:
            step = row.get('step', 0)
            iteration = now if by_epoch else step
            validations.append(Evaluation(values=_metrics(row), step=step, iteration=iteration))


def _progress(
    folder: Path,
    train: Sequence[Mapping[str, float]],
    validations: Sequence[Evaluation],
    config: Config | None,
    by_epoch: bool,
) -> Progress | None:
    """How far a training came, by its log, its validations and its last checkpoint; None if it never began."""
    if not train and not validations:
        return None
    plan = (config or {}).get('train_cfg') or {}
    epochs = 'max_epochs' in plan or ('max_iters' not in plan and all('epoch' in row for row in train))
    done = [_epochs(train) if epochs else float(train[-1]['iter']) if train else 0.0]
    if validations and by_epoch == epochs:
        done.append(validations[-1].step)
    pointer = folder / 'last_checkpoint'
    saved = CHECKPOINT.search(pointer.read_text('utf-8', errors='replace')) if pointer.is_file() else None
    if saved and (saved[1] == 'epoch') == epochs:
        done.append(int(saved[2]))
    return Progress(
        done=max(done),
        planned=plan.get('max_epochs' if epochs else 'max_iters'),
        unit='epochs' if epochs else 'iterations',
    )


def _epochs(train: Sequence[Mapping[str, float]]) -> float:
    """The epochs that a log shows; whole ones where the length of an epoch cannot be told from it."""
    first: dict[float, float] = {}  # epoch -> its first logged iteration, the same one of every epoch
    for row in train:
        if 'epoch' in row:
            first.setdefault(row['epoch'], row['iter'])
    if not first:
        return 0.0
    (start, low), (end, high) = min(first.items()), max(first.items())
    if start == end:
        return float(end - 1)
    return train[-1]['iter'] * (end - start) / (high - low)
