"""What the accumulators tell about their metrics: names, directions, digits; and who counts a task."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmseg_polyhistor.evaluation import ACCUMULATORS, build_accumulator, metrics_of_kind
from mmseg_polyhistor.evaluation.accumulators import lower_is_better
from mmseg_polyhistor.tasks import KINDS, TaskSpec, get_task

SPECS = dict(semantic='semseg', binary='saliency', unit_vector='normals', scalar='depth')
EVERY = [(kind, cls) for kind in KINDS for cls in ACCUMULATORS[kind]]


def truth_and_poor_guess(kind: str) -> tuple[Tensor, Tensor]:
    """A label, and a prediction that is worse in every respect than the label itself."""
    if kind == 'semantic':
        gt = torch.arange(3).repeat_interleave(12).reshape(1, 6, 6)
        guess = gt.clone()
        guess[0, :, :2] = (gt[0, :, :2] + 1) % 3
    elif kind == 'binary':  # a line, of which one half is found; as much is found where there is none
        gt, guess = torch.zeros(2, 1, 40, 40)
        gt[0, 5:35, 8] = 1
        guess[0, 5:20, 8] = guess[0, 20:35, 28] = 1
    elif kind == 'unit_vector':
        gt = torch.tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1).repeat(1, 4, 4)
        guess = torch.tensor([0.0, 0.6, 0.8]).reshape(3, 1, 1).repeat(1, 4, 4)  # 36.9 degrees away
    else:
        gt = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
        guess = 3 * gt
    return gt, guess


@pytest.mark.parametrize(('kind', 'cls'), EVERY, ids=lambda value: getattr(value, '__name__', value))
def test_the_truth_itself_is_the_better_prediction(kind: str, cls: type) -> None:
    """The direction that an accumulator tells is that of its numbers."""
    accumulator = cls(get_task(SPECS[kind]))
    gt, guess = truth_and_poor_guess(kind)
    label = gt.byte() if kind in ('semantic', 'binary') else gt
    perfect = gt.float() if kind == 'binary' else gt
    best, poor = (accumulator.reduce([accumulator.count(pred, label)]) for pred in (perfect, guess))
    assert list(cls.METRICS) == list(best) == list(accumulator.reduce([]))
    for name, metric in cls.METRICS.items():
        assert best[name] < poor[name] if metric.lower_is_better else best[name] > poor[name], name


def test_digits_of_what_has_a_unit_of_its_own() -> None:
    """Four for metres and shares, two for percent and degrees."""
    fine = {
        (kind, name) for kind in KINDS for name, metric in metrics_of_kind(kind).items() if metric.digits == 4
    }
    assert fine == {('scalar', 'rmse'), ('scalar', 'abs_rel')}
    assert {m.digits for kind in KINDS for m in metrics_of_kind(kind).values()} == {2, 4}


@pytest.mark.parametrize(
    ('task', 'metric', 'less'),
    [('depth', 'delta1', True), ('depth', 'abs_rel', False), ('normals', 'under_30', True), ('edge', 'odsF', True)],
)  # fmt: skip
def test_a_task_that_contradicts_its_metric_is_refused(task: str, metric: str, less: bool) -> None:
    spec: TaskSpec = replace(get_task(task), metric=metric, lower_is_better=less)
    wanted = f"task '{task}': lower_is_better must be {not less}, as of '{metric}' {'higher' if less else 'lower'} values"
    with pytest.raises(ValueError, match=wanted):
        build_accumulator(spec)
    assert build_accumulator(replace(spec, lower_is_better=not less)).spec.metric == metric


def test_a_metric_that_nobody_reports_has_no_direction() -> None:
    assert lower_is_better('scalar', 'rmse') and not lower_is_better('scalar', 'delta1')
    with pytest.raises(ValueError, match=r"metric 'mIoU' is not among those of kind 'scalar': \['rmse', "):
        lower_is_better('scalar', 'mIoU')
