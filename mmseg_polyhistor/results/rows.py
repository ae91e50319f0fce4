"""One row per run (or per config, over its seeds): results, gain, parameters, time and memory."""

from __future__ import annotations

import copy
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from ..benchmark import BenchmarkRow, count_config
from ..engine.param_count import ParameterCounts
from ..evaluation.accumulators import ACCUMULATORS, metrics_of_kind
from ..evaluation.base import Metric
from ..evaluation.gain import multi_task_gain
from ..task_rows import metric_of_row
from ..tasks import KINDS, TaskMetric, TaskSpec, get_task, get_tasks, known_tasks, restored_tasks
from .runs import Evaluation, Run

__all__ = [
    'PAPER',
    'Reading',
    'Reference',
    'Row',
    'digits',
    'gain_over',
    'headline',
    'headline_key',
    'lower_is_better',
    'make_rows',
    'merge_seeds',
    'paper_rows',
    'protocols',
    'recipe',
    'same_but_seed',
    'tasks_of',
]

PAPER = "the Polyhistor paper's, PASCAL-Context, Swin-T"
# what may differ between two runs of one config
OF_THE_START = (
    'randomness', 'work_dir', 'resume', 'launcher', 'log_level', 'log_processor', 'env_cfg', 'experiment_name',
    'visualizer', 'vis_backends', 'default_hooks', 'custom_imports',
)  # fmt: skip
FINE = 4  # digits of a metric whose unit is not known

Tasks = Mapping[str, TaskSpec | TaskMetric]


def table_of_tasks() -> dict[str, TaskSpec | TaskMetric]:
    """The registered tasks by their names."""
    return {name: get_task(name) for name in known_tasks()}


def tasks_of(run: Run) -> dict[str, TaskSpec | TaskMetric]:
    """The tasks that a run's results are of, by their names: those of the table, and those that its config defines.

    The rows of `new_tasks` stand before tasks of the same name, and count whether or not a model can be built by them.
    """
    if run.config is None:
        return table_of_tasks()
    with suppress(Exception):  # which `Reading` tells, as the model cannot be built then
        _import_modules(run.config)
    own: dict[str, TaskMetric] = {}
    for row in _own_rows(run.config.to_dict()):
        with suppress(ValueError):  # likewise
            own.setdefault(row['name'], metric_of_row(row))
    return table_of_tasks() | own


def _own_rows(part: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of all `new_tasks` in a part of a config: those of a model, of data sets, and a variable of this name."""
    if isinstance(part, Mapping):
        rows = part.get('new_tasks')
        if isinstance(rows, (list, tuple)):
            yield from (row for row in rows if isinstance(row, Mapping) and isinstance(row.get('name'), str))
    if isinstance(part, (Mapping, list, tuple)):
        for inner in part.values() if isinstance(part, Mapping) else part:
            yield from _own_rows(inner)


def _import_modules(config: Config) -> None:
    if imports := config.get('custom_imports'):
        import_modules_from_strings(**imports)


def _lost_tasks(values: Mapping[str, float], tasks: Tasks) -> dict[str, TaskMetric]:
    """Tasks that are not known, by what was logged of them: each with the usual metric of an accumulator that reports all that."""
    logged: dict[str, set[str]] = {}
    for key in values:
        task, _, metric = key.partition('.')
        if metric and task not in tasks:
            logged.setdefault(task, set()).add(metric)
    found = {}
    for task, metrics in logged.items():
        for kind in KINDS:
            for cls in ACCUMULATORS[kind]:
                usual, *_ = cls.METRICS
                if usual in metrics and metrics <= set(cls.METRICS):
                    less = cls.METRICS[usual].lower_is_better
                    found.setdefault(
                        task, TaskMetric(name=task, kind=kind, metric=usual, lower_is_better=less)
                    )
    return found


class Reference(dict[str, float]):
    """The row that the gain compares with: task -> value.

    Args:
        values: The row.
        metrics: Task -> the metric that its value is one of, such as 'semseg.mIoU', where that is known.
    """

    def __init__(self, values: Mapping[str, float], metrics: Mapping[str, str]) -> None:
        super().__init__(values)
        self.metrics = dict(metrics)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table, and a point of the figure.

    Args:
        method: What readers call the method.
        name: The run, or the runs that it is the mean of.
        values: Metric, such as 'semseg.mIoU' and 'gain', -> value.
        source: Where the values are from, such as 'val, epoch 60'.
        encoder: Trainable parameters of the encoder; None where they could not be counted.
        total: All trainable parameters, likewise.
        seconds: Median seconds per iteration.
        memory: Largest GPU memory in MB.
        trained: How far the training came.
        runs: How many runs it is the mean of. Defaults to 1.
        spread: Metric -> standard deviation over the runs (of the sample: n - 1). Defaults to {}.
        paper: Whether it is a row of the paper, and none of ours. Defaults to False.
        known: The tasks that the metrics may be of, by their names. Defaults to those of the table.
    """

    method: str
    name: str
    values: Mapping[str, float]
    source: str
    encoder: float | None
    total: float | None
    seconds: float | None = None
    memory: float | None = None
    trained: str = ''
    runs: int = 1
    spread: Mapping[str, float] = field(default_factory=dict)
    paper: bool = False
    known: Tasks = field(default_factory=table_of_tasks, repr=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks whose `TaskSpec.metric` is among the values."""
        return tuple(name for name, task in self.known.items() if headline_key(task) in self.values)


def headline_key(spec: TaskSpec | TaskMetric) -> str:
    """The metric of a task that the gain uses, such as 'semseg.mIoU'."""
    return f'{spec.name}.{spec.metric}'


def lower_is_better(metric: str, tasks: Tasks | None = None) -> bool | None:
    """Direction of a metric such as 'normals.mean': as its task's accumulator tells, or else those that have its name.

    Args:
        metric: The metric.
        tasks: The tasks that it may be of, by their names. Defaults to None: those of the table.

    Returns:
        None where no accumulator reports such a metric.
    """
    if metric == 'gain':
        return False
    tasks = table_of_tasks() if tasks is None else tasks
    task, _, name = metric.partition('.')
    if task in tasks and tasks[task].metric == name:
        return tasks[task].lower_is_better
    told = {found.lower_is_better for found in _told(metric, tasks)}
    return told.pop() if len(told) == 1 else None


def digits(metric: str, tasks: Tasks | None = None) -> int:
    """Decimals of a metric in print; see `lower_is_better`."""
    if metric == 'gain':
        return 2
    return max((m.digits for m in _told(metric, table_of_tasks() if tasks is None else tasks)), default=FINE)


def _told(metric: str, tasks: Tasks) -> list[Metric]:
    """What accumulators tell about a metric: those of its task's kind, or of all kinds where the task is not known."""
    task, _, name = metric.partition('.')
    kinds = [tasks[task].kind] if task in tasks else KINDS
    name = name or metric
    return [found[name] for found in map(metrics_of_kind, kinds) if name in found]


def headline(run: Run, evaluation: Evaluation | None, tasks: Tasks | None = None) -> dict[str, float]:
    """Task -> value of its `TaskSpec.metric`, in the order of the run's config.

    Args:
        run: The run.
        evaluation: One of its evaluations; None gives no value.
        tasks: What `tasks_of` gives for the run. Defaults to None: that.
    """
    tasks = tasks_of(run) if tasks is None else tasks
    values = evaluation.values if evaluation else {}
    of_config = [name for name in (run.config or {}).get('tasks') or () if name in tasks]
    return {
        name: values[headline_key(tasks[name])]
        for name in dict.fromkeys([*of_config, *tasks])
        if headline_key(tasks[name]) in values
    }


def gain_over(
    reference: Mapping[str, float] | None, values: Mapping[str, float], tasks: Tasks | None = None
) -> float | None:
    """The multi-task gain in percent over the tasks of `values`.

    Args:
        reference: What it compares with.
        values: Task -> value of its `TaskSpec.metric`.
        tasks: The tasks by their names, see `tasks_of`. Defaults to None: those of the table.

    Returns:
        None without a reference, or if it lacks one of the tasks, or is known to hold another metric of it.

    Raises:
        ValueError: if a task of `values` is not known.
    """
    if reference is None or not values or not set(values) <= set(reference):
        return None
    specs = get_tasks(values) if tasks is None else [tasks[name] for name in values]
    if _other_metrics(reference, specs):
        return None
    return multi_task_gain(values, reference, specs)


def _other_metrics(
    reference: Mapping[str, float], specs: Iterable[TaskSpec | TaskMetric]
) -> list[tuple[str, str]]:
    """The metrics of a reference that are others than the tasks', each with the task's."""
    metrics = reference.metrics if isinstance(reference, Reference) else {}
    pairs = [(metrics.get(spec.name, headline_key(spec)), headline_key(spec)) for spec in specs]
    return [pair for pair in pairs if pair[0] != pair[1]]


class Reading:
    """A run, its parameters, and the evaluation that counts.

    Args:
        run: The run.
        reference: The row that the gain compares with. Defaults to None: there is no gain.

    Attributes:
        tasks: What `tasks_of` gives.
        counts: The parameters of its model, counted without its weights; None where that failed.
        remarks: What the reader should know.
    """

    def __init__(self, run: Run, reference: Mapping[str, float] | None = None) -> None:
        self.run, self.reference = run, reference
        self.remarks: list[str] = []
        self.tasks = tasks_of(run)
        self.counts = self._count()

    def _count(self) -> ParameterCounts | None:
        config = self.run.config
        if config is None:
            return None
        if 'model' not in config:
            self.remarks.append('its config has no model: no parameters')
            return None
        try:
            _import_modules(config)
            init_default_scope(config.get('default_scope', 'mmseg'))
            own = [row['name'] for row in _own_rows(config.to_dict()['model'])]
            with restored_tasks(without=own):  # tasks that its model registers are no other run's
                return count_config(config)
        except Exception as e:  # the code of a model may raise anything, and the results stand without it
            self.remarks.append(f'its parameters cannot be counted: {type(e).__name__}: {e}')
            return None

    def headline(self, evaluation: Evaluation | None) -> dict[str, float]:
        """See `headline`."""
        return headline(self.run, evaluation, self.tasks)

    def values(self, evaluation: Evaluation) -> dict[str, float]:
        """All metrics, with the gain over the reference: what the run itself logged as 'gain' had its own reference."""
        values = {key: value for key, value in evaluation.values.items() if key != 'gain'}
        gain = gain_over(self.reference, self.headline(evaluation), self.tasks)
        return values if gain is None else {**values, 'gain': gain}

    def choose(self, select: str, best_by: str = 'gain') -> Evaluation | None:
        """The evaluation that counts.

        Args:
            select: 'last' (validation) or 'best', or the last test of a run without validations; 'test' (the last).
            best_by: The metric that 'best' goes by: 'gain' or one such as 'semseg.mIoU'. Without a reference, 'gain' is
                what the run logged. Defaults to 'gain'.

        Returns:
            None if there is none.

        Raises:
            ValueError: if no validation has the metric `best_by`, or its direction is not known; the message says what to
                do. Where it is nan in all of them, the last one counts, and a remark tells.
        """
        run = self.run
        if select == 'test':
            return run.tests[-1] if run.tests else None
        if select == 'last' or not run.validations:
            return (run.validations or run.tests or (None,))[-1]
        scores = {}
        for evaluation in run.validations:
            values = evaluation.values if self.reference is None else self.values(evaluation)
            if best_by in values:
                scores[values[best_by]] = evaluation  # the later one of two equals
        if scores and not (finite := [score for score in scores if not math.isnan(score)]):
            self.remarks.append(f'{best_by} is nan in all validations, the last one counts')
            return run.validations[-1]
        if not scores:
            known = sorted({key for evaluation in run.validations for key in evaluation.values})
            raise ValueError(
                f'{run.folder}: no validation has {best_by!r}, which the best one is chosen by. Give --reference for the '
                f'gain, or --best-by with one of {known}'
            )
        less = lower_is_better(best_by, self.tasks)
        if less is None:
            raise ValueError(
                f'{run.folder}: whether a higher or a lower {best_by!r} is better is not known, as no accumulator of '
                'mmseg_polyhistor reports it: choose the best by another metric'
            )
        return scores[min(finite) if less else max(finite)]


def make_rows(
    runs: Iterable[Run],
    benchmark: Sequence[BenchmarkRow],
    remarks: list[str],
    *,
    reference: Mapping[str, float] | None = None,
    select: str = 'last',
    best_by: str = 'gain',
) -> list[Row]:
    """One row per run, with a progress bar on stderr.

    Args:
        runs: The runs.
        benchmark: Its rows tell the names of methods.
        remarks: Takes what the reader should know, beginning with the run's name.
        reference: The row that the gain compares with. Defaults to None: no gain.
        select: See `Reading.choose`. Defaults to 'last'.
        best_by: See `Reading.choose`. Defaults to 'gain'.

    Raises:
        ValueError: see `Reading.choose`.
    """
    rows = []
    print('counting parameters', file=sys.stderr)
    for run in mmengine.track_iter_progress(list(runs), file=sys.stderr):
        reading = Reading(run, reference)
        chosen = reading.choose(select, best_by)
        remarks += [f'{run.name}: {text}' for text in (*run.remarks, *reading.remarks)]
        remarks += [f'{run.name}: {text}' for text in _about_results(reading, chosen, select)]
        counts = reading.counts
        lost = _lost_tasks(chosen.values, reading.tasks) if chosen else {}
        remarks += [
            f'{run.name}: the task {name!r} is not known: the table shows its {task.metric}, and no gain counts it'
            for name, task in lost.items()
        ]
        rows.append(
            Row(
                method=_method(run, benchmark),
                name=run.name,
                values=reading.values(chosen) if chosen else {},
                source=_source(run, chosen),
                encoder=counts and counts.encoder,
                total=counts and counts.total,
                seconds=run.seconds_per_iteration,
                memory=run.memory,
                trained=str(run.progress or ''),
                known={**reading.tasks, **lost},
            )
        )
    print(file=sys.stderr)  # the bar ends without a line break
    return rows


def _about_results(reading: Reading, chosen: Evaluation | None, select: str) -> list[str]:
    found_tasks, reference = reading.headline(chosen), reading.reference
    if chosen is None:
        return ['no result' + (' of a test' if select == 'test' else '')]
    if not found_tasks:
        return [f'no task is known whose metric is among its results {sorted(chosen.values)}']
    found = [f'{task} is nan' for task, value in found_tasks.items() if math.isnan(value)]
    if reference is None:
        return found
    if lacking := [task for task in found_tasks if task not in reference]:
        found.append(f'no gain: the reference has no {", ".join(lacking)}')
    elif others := _other_metrics(reference, [reading.tasks[task] for task in found_tasks]):
        found += [f'no gain: the reference holds {theirs}, and not {ours}' for theirs, ours in others]
    elif absent := [task for task in reference if task not in found_tasks]:
        found.append(f'its gain is the mean over {", ".join(found_tasks)}, without {", ".join(absent)}')
    return found


def _source(run: Run, chosen: Evaluation | None) -> str:
    if chosen is None:
        return ''
    if chosen.step is None:
        return f'test of {chosen.checkpoint}' if chosen.checkpoint else 'test'
    return f'val, {"epoch" if run.counts_epochs else "iteration"} {chosen.step}'


def _method(run: Run, benchmark: Sequence[BenchmarkRow]) -> str:
    """The metafile's name of the method, by the folder and the name of the config; else the run's name.

    Runs lie under `<method's folder>/<config>`, see `default_work_dir`; what a user adds to these names does not matter
    where the folder is a part of the path and the config keeps its name.
    """
    known = {(row.config.parent.name, row.config.stem): row.method for row in benchmark}
    planned = Path((run.config or {}).get('work_dir') or '').parts
    for part in (*reversed(planned), *reversed(run.folder.parts)):
        if (part, run.config_name) in known:
            return known[part, run.config_name]
    return run.name


# -------------------------------------------------------------------------------------------------------- seeds
def same_but_seed(one: Run, other: Run) -> bool:
    """Whether two runs are of one config, up to the seed and what does not change the training."""
    return one.config is not None and other.config is not None and recipe(one.config) == recipe(other.config)


def recipe(config: Config) -> dict[str, Any]:
    """The entries of a config that decide what is trained, and how, up to the seed."""
    return {key: value for key, value in config.to_dict().items() if key not in OF_THE_START}


def merge_seeds(runs: Sequence[Run], rows: Sequence[Row], remarks: list[str]) -> list[Row]:
    """One row per config: the means over its runs, and their standard deviations.

    Args:
        runs: The runs.
        rows: Their rows, in the same order.
        remarks: Takes what the reader should know.
    """
    groups: list[list[int]] = []
    for i, run in enumerate(runs):
        group = next((group for group in groups if same_but_seed(runs[group[0]], run)), None)
        groups.append([i]) if group is None else group.append(i)
    merged = []
    for group in groups:
        members = [rows[i] for i in group]
        seeds = [runs[i].seed for i in group]
        if len(group) > 1 and len(set(seeds)) < len(group):
            remarks.append(
                f'{", ".join(row.name for row in members)}: runs of one config with the seeds {seeds}'
            )
        merged.append(_mean(members, remarks) if len(group) > 1 else members[0])
    return merged


def _mean(members: Sequence[Row], remarks: list[str]) -> Row:
    keys = list(dict.fromkeys(key for row in members for key in row.values))
    whole = [key for key in keys if all(key in row.values for row in members)]
    for row in members:
        if lacking := [key for key in keys if key not in row.values]:
            remarks.append(
                f'{row.name}: no mean of {", ".join(lacking)} over the seeds, as this run has none'
            )
    columns = {key: [row.values[key] for row in members] for key in whole}

    def of_all(attribute: str, reduce: Callable[[list[float]], float]) -> float | None:
        values = [getattr(row, attribute) for row in members if getattr(row, attribute) is not None]
        return reduce(values) if values else None

    return replace(
        members[0],
        name=', '.join(row.name for row in members),
        values={key: statistics.fmean(column) for key, column in columns.items()},
        spread={key: statistics.stdev(column) for key, column in columns.items()},
        source=_all_of(row.source for row in members),
        trained=_all_of(row.trained for row in members),
        seconds=of_all('seconds', statistics.median),
        memory=of_all('memory', max),
        runs=len(members),
    )


def _all_of(texts: Iterable[str]) -> str:
    return '; '.join(dict.fromkeys(texts))


# -------------------------------------------------------------------------------------------- the paper, protocols
def paper_rows(benchmark: Sequence[BenchmarkRow]) -> list[Row]:
    """The rows that the Polyhistor paper prints, as it prints them; parameters to its two digits of a million."""
    rows = []
    for row in benchmark:
        if row.paper is not None:
            tasks = [name for name in row.paper.results if name in known_tasks()]
            values = {headline_key(get_task(name)): row.paper.results[name] for name in tasks}
            rows.append(
                Row(
                    method=row.method,
                    name='PASCAL-Context, Swin-T',
                    values={**values, 'gain': row.paper.results['gain']},
                    source='printed',
                    encoder=round(row.paper.encoder * 1e6),
                    total=round(row.paper.total * 1e6),
                    paper=True,
                )
            )
    return rows


def protocols(runs: Iterable[Run]) -> dict[str, list[str]]:
    """What the runs were evaluated on -> their names: data set, list of images, size of the comparison."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.config is not None:
            found.setdefault(_protocol(run.config), []).append(run.name)
    return found


def _protocol(config: Config) -> str:
    data = copy.deepcopy((config.get('val_dataloader') or config.get('test_dataloader') or {}).get('dataset'))
    data = data or {}
    test = (config.get('model') or {}).get('test_cfg') or {}
    parts = [data.get('type'), data.get('data_root'), data.get('ann_file'), test.get('resolution')]
    return ', '.join(str(part) for part in parts if part)
