"""The multi-task gain: how much better than a row of single-task models, averaged over the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..tasks import TaskMetric, TaskSpec, get_tasks

__all__ = ['REFERENCE_ROWS', 'multi_task_gain', 'reference_row']

REFERENCE_ROWS: dict[str, dict[str, float]] = {
    # Liu et al., Polyhistor (NeurIPS 2022): single-task full fine-tuning, Swin-T, PASCAL-Context; the paper's figures.
    'paper_pascal_context_swin_t': dict(semseg=67.21, human_parts=61.93, saliency=62.35, normals=17.97),
}
"""Reference rows by name: per task the value of its `TaskSpec.metric`."""


def reference_row(
    reference: str | Mapping[str, float], tasks: Mapping[str, TaskSpec | TaskMetric] | None = None
) -> dict[str, float]:
    """The reference row that a config means.

    Args:
        reference: A name of `REFERENCE_ROWS`, or the row itself: task -> value of the task's `TaskSpec.metric`.
        tasks: Tasks by their names, beside those of the table. Defaults to None: there are no others.

    Raises:
        ValueError: for an unknown name (the message lists the known ones), an empty row, an unknown task, or a value
            that is not a positive number.
    """
    if isinstance(reference, str):
        if reference not in REFERENCE_ROWS:
            raise ValueError(
                f'unknown reference row {reference!r}; known are {list(REFERENCE_ROWS)}, or give a dict task -> value'
            )
        return dict(REFERENCE_ROWS[reference])
    row = dict(reference)
    known = dict(tasks or {})
    others = [name for name in row if name not in known]
    if others or not row:
        known.update((spec.name, spec) for spec in get_tasks(others))
    for spec in (known[name] for name in row):
        value = row[spec.name]
        if not isinstance(value, (int, float)) or not value > 0:
            raise ValueError(
                f'the reference of task {spec.name!r} must be a positive {spec.metric} (the gain divides by it), '
                f'got {value!r}'
            )
    return row


def multi_task_gain(
    values: Mapping[str, float], reference: Mapping[str, float], specs: Sequence[TaskSpec | TaskMetric]
) -> float:
    """Mean relative improvement over the reference, in percent.

    100 / T * sum_t (-1)^(l_t) (M_t - S_t) / S_t with l_t = 1 where lower is better (Maninis et al., CVPR 2019,
    delta_m).

    Args:
        values: M, per task the value of its `TaskSpec.metric`.
        reference: S, likewise.
        specs: The T tasks.
    """
    terms = [
        (-1 if spec.lower_is_better else 1)
        * (values[spec.name] - reference[spec.name])
        / reference[spec.name]
        for spec in specs
    ]
    return 100 * sum(terms) / len(terms)
