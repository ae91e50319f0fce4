"""Random rows of the table of tasks: a row is refused with the name of a field, or everything that reads it works."""

from __future__ import annotations

import dataclasses
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from cases import fuzz, random_label
from hypothesis import given
from hypothesis import strategies as st
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_polyhistor import tasks
from mmseg_polyhistor.datasets.labels import check_label, ignore_map, valid_pixels, without_empty
from mmseg_polyhistor.datasets.transforms.geometry import flip_label, resize_label, warp_label, zoom_label
from mmseg_polyhistor.evaluation import build_accumulator
from mmseg_polyhistor.models.postprocess import POSTPROCESS
from mmseg_polyhistor.models.segmentors.head_losses import head_losses
from mmseg_polyhistor.models.segmentors.heads import build_head, head_configs
from mmseg_polyhistor.tasks import KINDS, TaskSpec, get_task, get_tasks, known_tasks, register_task

FIELDS = tuple(field.name for field in dataclasses.fields(TaskSpec))


pytestmark = pytest.mark.usefixtures('task_table')


LOSS = {
    'semantic': 'CrossEntropyLoss',
    'binary': 'ClassBalancedBCELoss',
    'unit_vector': 'UnitVectorL1Loss',
    'scalar': 'ScalarL1Loss',
}
METRIC = {
    'semantic': ['mIoU', 'aAcc'],
    'binary': ['mIoU', 'maxF', 'odsF'],
    'unit_vector': ['mean'],
    'scalar': ['rmse'],
}
ERRORS = ('mean', 'rmse')


@st.composite
def sound_rows(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a row whose fields fit together."""
    kind = draw(st.sampled_from(KINDS))
    channels = draw(st.integers(2, 9)) if kind == 'semantic' else {'unit_vector': 3}.get(kind, 1)
    named = kind == 'semantic' or (kind == 'binary' and draw(st.booleans()))
    number = (channels if kind == 'semantic' else 2) if named else 0
    colour = st.tuples(*[st.integers(0, 255)] * 3)
    low, high = {'semantic': (channels, 255), 'binary': (2, 255), 'scalar': (-9, 0)}.get(kind, (-300, 300))
    return dict(
        name='fuzzed',
        kind=kind,
        channels=channels,
        gt_key='gt_fuzzed',
        gt_field='gt_fuzzed',
        pred_field='pred_fuzzed',
        loss=dict(type=LOSS[kind], loss_weight=draw(st.floats(0, 50))),
        metric=draw(st.sampled_from(METRIC[kind])),
        ignore_value=draw(st.integers(low, high)),
        ignore_if_empty=kind in ('semantic', 'binary') and draw(st.booleans()),
        flip=draw(st.sampled_from(['keep', 'negate_x'])) if kind == 'unit_vector' else 'keep',
        rotate=draw(st.sampled_from(['keep', 'turn_xy'])) if kind == 'unit_vector' else 'keep',
        zoom=draw(st.sampled_from(['keep', 'divide'])) if kind == 'scalar' else 'keep',
        lower_is_better=METRIC[kind][0] in ERRORS,
        classes=tuple(draw(st.lists(st.text(max_size=5), min_size=number, max_size=number))),
        palette=tuple(draw(st.lists(colour, min_size=number, max_size=number))),
    )


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=6),
    st.binary(max_size=3),
    st.sampled_from(
        [*KINDS, 'keep', 'negate_x', 'turn_xy', 'divide', 'semseg', 'gt_seg_map', 'img', 'class']
    ),
    st.lists(st.one_of(st.integers(-1, 256), st.none(), st.text(max_size=2)), max_size=4),
    st.lists(st.lists(st.integers(-1, 256), max_size=4), max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(['type', 'loss_weight', 3]), st.text(max_size=3), max_size=2),
    st.sampled_from([np.int64(3), np.zeros(3), np.zeros((2, 3)), object(), int, float('nan'), 10**400]),
)


def check_row(spec: TaskSpec) -> None:
    """What every reader of the table does with a row."""
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert dataclasses.replace(spec) == spec
    assert register_task(spec) is spec
    assert get_tasks([spec.name]) == (spec,)

    rng = np.random.default_rng(0)
    label = random_label(spec, (5, 7), rng, 0.7)
    check_label(label, spec, (5, 7), 'a label')
    assert not valid_pixels(ignore_map(spec, (5, 7)), spec).any()
    valid = valid_pixels(label, spec)
    assert 0 < valid.sum() < 35
    flipped = flip_label(flip_label(label.copy(), 'horizontal', spec), 'horizontal', spec)
    np.testing.assert_array_equal(flipped, label)
    matrix = np.array([[0.8, -0.6, 1], [0.6, 0.8, 0]])
    for moved in (
        resize_label(label, (9, 4), spec),
        warp_label(label, matrix, spec),
        zoom_label(label.copy(), 1.5, spec),
    ):
        check_label(moved, spec, moved.shape[:2], 'a moved label')
    np.testing.assert_array_equal(without_empty(label, spec), label)

    head = build_head(
        head_configs(dict(type='AllMLPHead', in_channels=[3], channels=4), (spec,))[spec.name], spec
    )
    sample = SegDataSample(metainfo=dict(img_path='an image'))
    planes = torch.from_numpy(label.transpose(2, 0, 1) if label.ndim == 3 else label[None])
    sample.set_data({spec.gt_field: PixelData(data=planes)})
    maps = [torch.randn(2, 3, 5, 7)]
    (loss,) = head_losses(head, spec, maps, [sample, sample]).values()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)

    accumulator = build_accumulator(spec)
    prediction = POSTPROCESS[spec.kind](head(maps)[0])
    count = accumulator.count(prediction.detach(), planes)
    assert accumulator.valid_pixels(count) == valid.sum()
    metrics = accumulator.reduce([count])
    assert np.isfinite(metrics[spec.metric])
    assert metrics.keys() == accumulator.reduce([]).keys()


@fuzz(120)
@given(row=sound_rows())
def test_sound_rows_serve_everything_that_reads_them(row: dict[str, Any]) -> None:
    tasks._TASKS.pop('fuzzed', None)
    check_row(TaskSpec(**row))


@fuzz(900)
@given(row=sound_rows(), changes=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, min_size=1, max_size=3))
def test_other_rows_are_refused_with_the_name_of_a_field(
    row: dict[str, Any], changes: dict[str, Any]
) -> None:
    tasks._TASKS.clear()
    try:
        spec = TaskSpec(**{**row, **changes})
    except ValueError as e:
        message = str(e)
        assert message.startswith('TaskSpec ')
        names = {'name', 'class names', 'palette colours', 'vectors', 'channel(s)', *FIELDS}
        assert any(re.search(re.escape(name), message) for name in names), message
        return
    # What no row can know of itself: whether the registry has such a loss, and an accumulator such a metric, and its direction.
    if 'loss' in changes:
        spec = dataclasses.replace(spec, loss=dict(type=LOSS[spec.kind]))
    if 'metric' in changes or 'kind' in changes:
        spec = dataclasses.replace(spec, metric=METRIC[spec.kind][0])
    spec = dataclasses.replace(spec, lower_is_better=spec.metric in ERRORS)
    if 'kind' in changes:
        spec = dataclasses.replace(spec, loss=dict(type=LOSS[spec.kind]))
    if spec.channels <= 32:  # larger ones are as good, and slow
        check_row(spec)


@fuzz(100)
@given(
    row=sound_rows(), missing=st.sampled_from(FIELDS[:8]), extra=st.sampled_from([None, 'weight', 'colour'])
)
def test_missing_and_unknown_fields(row: dict[str, Any], missing: str, extra: str | None) -> None:
    row.pop(missing)
    with pytest.raises(TypeError, match=missing if extra is None else f'{extra}|{missing}'):
        TaskSpec(**row, **({} if extra is None else {extra: 1}))


@fuzz(100)
@given(row=sound_rows(), metric=st.text(max_size=8))
def test_an_unknown_metric_is_named_with_the_known_ones(row: dict[str, Any], metric: str) -> None:
    spec = TaskSpec(**{**row, 'metric': metric + '?'})
    with pytest.raises(ValueError, match=re.escape(f"task 'fuzzed': metric {spec.metric!r} is not among")):
        build_accumulator(spec)


NAMES = st.one_of(st.sampled_from([*known_tasks()[:6], 'flow', 'semseg ', 'SEMSEG', '']), ANYTHING)


@fuzz(400)
@given(names=st.one_of(st.lists(NAMES, max_size=7), ANYTHING))
def test_lists_of_tasks(names: Any) -> None:
    try:
        specs = get_tasks(names)
    except ValueError as e:
        message = str(e)
        if isinstance(names, str):
            assert f'got the string {names!r}' in message
        elif len(names) == 0:
            assert 'no task is named' in message
        elif any(not isinstance(n, str) or n not in known_tasks() for n in names):
            assert 'unknown task' in message
        else:
            assert 'named more than once' in message
            assert len(set(names)) < len(names)
    except TypeError as e:
        assert f'tasks must be a sequence of names, got {names!r}' in str(e)
        assert not hasattr(names, '__len__') or names is int
    else:
        assert [spec.name for spec in specs] == list(names)
        assert len(set(names)) == len(specs)
        assert all(get_task(name) is spec for name, spec in zip(names, specs, strict=True))
