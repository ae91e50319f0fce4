"""`TaskCheckHook`: model, data sets and evaluators of a run speak of the same tasks, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmseg.registry import HOOKS

from ...evaluation import MultiTaskMetric

__all__ = ['TaskCheckHook']


@HOOKS.register_module()
class TaskCheckHook(Hook):
    """Compares the tasks of the model with those of the data sets and evaluators, when a run starts.

    - Training: the data set has labels of the model's tasks, all of them and no others.
    - Validation and test: the data set has labels of no other tasks than the model's, and what is evaluated is predicted
      and has labels. All tasks of the model are evaluated, unless `MultiTaskMetric(tasks=...)` names some of them.
    - What hooks watch (`save_best`, `EarlyStoppingHook.monitor`) is among the metrics of the validation.

    Models, data sets and metrics that do not tell their tasks are not compared: those of mmseg.

    Raises:
        ValueError: (at the start of the run) names both keys of the config, and what they hold.
    """

    # Before hooks whose start costs time, such as the copy of the model of mmengine's EMAHook.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Compare everything that this run has built."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        tasks = getattr(model, 'tasks', None)
        if tasks and isinstance(runner._train_loop, BaseLoop):  # the property would build the loop
            _check_training(tasks, _tasks_of(runner.train_dataloader.dataset))
        for split, loop in (('val', runner._val_loop), ('test', runner._test_loop)):
            if not isinstance(loop, BaseLoop):
                continue
            metrics = [m for m in loop.evaluator.metrics if isinstance(m, MultiTaskMetric)]
            if tasks:
                _check_evaluation(split, tasks, _tasks_of(loop.dataloader.dataset), metrics)
            if split == 'val' and metrics and len(metrics) == len(loop.evaluator.metrics):
                _check_watched(runner.hooks, [name for metric in metrics for name in metric.metric_names])


def _tasks_of(dataset: Any) -> tuple[str, ...] | None:
    return getattr(dataset, 'metainfo', {}).get('tasks')


def _demand_subset(part: Sequence[str], whole: Sequence[str], message: str) -> None:
    extra = [task for task in part if task not in whole]
    if extra:
        raise ValueError(message.format(extra=extra, part=list(part), whole=list(whole)))


def _check_training(tasks: Sequence[str], labelled: Sequence[str] | None) -> None:
    if labelled is None:
        return
    _demand_subset(
        tasks,
        labelled,
        'model.tasks={part}, but train_dataloader.dataset.tasks={whole}: nothing would train {extra}. Add their labels to '
        'the data set, or leave them out of model.tasks and model.backbone.tasks',
    )
    _demand_subset(
        labelled,
        tasks,
        'train_dataloader.dataset.tasks={part}, but model.tasks={whole}: the labels of {extra} would be loaded for '
        'nothing. Leave them out of the data set, or add them to model.tasks and model.backbone.tasks',
    )


def _check_evaluation(
    split: str, tasks: Sequence[str], labelled: Sequence[str] | None, metrics: Sequence[MultiTaskMetric]
) -> None:
    dataset = f'{split}_dataloader.dataset.tasks'
    if labelled is not None:
        _demand_subset(
            labelled,
            tasks,
            dataset
            + '={part}, but model.tasks={whole}: the model does not predict {extra}. Leave them out of the data '
            'set, or add them to model.tasks and model.backbone.tasks',
        )
    for metric in metrics:
        evaluated = [spec.name for spec in metric.specs]
        if metric.tasks_of_dataset:
            _demand_subset(
                tasks,
                evaluated,
                f'model.tasks={{part}}, but {dataset}={{whole}}: {{extra}} would not be evaluated. Add their labels to '
                f'the data set, or name those to be evaluated, {split}_evaluator.tasks={evaluated}',
            )
            continue
        _demand_subset(
            evaluated,
            tasks,
            f'{split}_evaluator.tasks={{part}}, but model.tasks={{whole}}: the model does not predict {{extra}}',
        )
        if labelled is not None and not metric.format_only:
            _demand_subset(
                evaluated,
                labelled,
                f'{split}_evaluator.tasks={{part}}, but {dataset}={{whole}}: there are no labels of {{extra}}',
            )


def _check_watched(hooks: Sequence[Hook], names: Sequence[str]) -> None:
    watched = []
    for hook in hooks:
        if isinstance(hook, CheckpointHook):
            watched += [('default_hooks.checkpoint.save_best', key) for key in hook.save_best or ()]
        if isinstance(hook, EarlyStoppingHook):
            watched.append(('monitor of EarlyStoppingHook', hook.monitor))
    for where, key in watched:
        if key != 'auto' and key not in names:
            need = "; 'gain' needs val_evaluator.reference=..." if key == 'gain' else ''
            raise ValueError(f'{where}={key!r} is no metric of val_evaluator, which has {list(names)}{need}')
