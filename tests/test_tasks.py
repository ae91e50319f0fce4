"""The table of tasks: its rows against mmseg's VOC, what a row may hold, and what belongs to one row only."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from mmseg.datasets import PascalVOCDataset
from mmseg.utils import get_palette

from mmseg_polyhistor.tasks import TaskSpec, get_task, get_tasks, known_tasks, register_task, restored_tasks

pytestmark = pytest.mark.usefixtures('task_table')


def make(name: str = 'garments', **changes: Any) -> TaskSpec:
    """A task with two classes."""
    fields = dict(
        name=name,
        kind='semantic',
        channels=2,
        gt_key=f'gt_{name}',
        gt_field=f'gt_{name}',
        pred_field=f'pred_{name}',
        loss=dict(type='CrossEntropyLoss'),
        metric='mIoU',
        classes=('skin', 'cloth'),
        palette=((0, 0, 0), (200, 0, 0)),
    )
    return TaskSpec(**{**fields, **changes})


def binary(**changes: Any) -> TaskSpec:
    return make(**{**dict(kind='binary', channels=1, classes=(), palette=()), **changes})


def vectors(**changes: Any) -> TaskSpec:
    return make(**{**dict(kind='unit_vector', channels=3, classes=(), palette=()), **changes})


def quantity(**changes: Any) -> TaskSpec:
    return make(**{**dict(kind='scalar', channels=1, classes=(), palette=(), ignore_value=0), **changes})


# ------------------------------------------------------------------------------------------------------- the rows
def test_semseg_has_mmsegs_voc_classes_and_colours() -> None:
    spec = get_task('semseg')
    assert spec.classes == tuple(PascalVOCDataset.METAINFO['classes'])
    assert [list(colour) for colour in spec.palette] == get_palette('voc')
    assert [list(colour) for colour in spec.palette] == PascalVOCDataset.METAINFO['palette']
    assert [list(colour) for colour in get_task('human_parts').palette] == get_palette('voc')[:7]


def test_the_benchmarks_tasks_losses_and_directions() -> None:
    assert known_tasks()[:4] == ('semseg', 'human_parts', 'saliency', 'normals')
    rows = [get_task(name) for name in known_tasks()[:4]]
    assert [spec.channels for spec in rows] == [21, 7, 1, 3]
    assert [spec.loss['loss_weight'] for spec in rows] == [1, 2, 5, 10]
    assert [spec.metric for spec in rows] == ['mIoU', 'mIoU', 'mIoU', 'mean']
    assert [spec.lower_is_better for spec in rows] == [False, False, False, True]
    assert [spec.ignore_value for spec in rows] == [255] * 4
    assert [spec.ignore_if_empty for spec in rows] == [False, True, False, False]
    assert [(spec.flip, spec.rotate) for spec in rows] == [('keep', 'keep')] * 3 + [('negate_x', 'turn_xy')]


def test_edge_and_depth_come_behind_the_benchmarks_tasks() -> None:
    assert known_tasks()[4:6] == ('edge', 'depth')
    edge, depth = get_tasks(('edge', 'depth'))
    assert (edge.kind, edge.metric, edge.lower_is_better, edge.ignore_value) == ('binary', 'odsF', False, 255)
    assert edge.loss == dict(type='ClassBalancedBCELoss', pos_weight=0.95, loss_weight=50)
    assert (depth.kind, depth.metric, depth.lower_is_better, depth.ignore_value) == (
        'scalar',
        'rmse',
        True,
        0,
    )
    assert (depth.flip, depth.rotate, depth.zoom, edge.zoom) == ('keep', 'keep', 'divide', 'keep')
    assert depth.gt_key == depth.gt_field == 'gt_depth_map'


def test_a_row_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        get_task('semseg').channels = 20


# -------------------------------------------------------------------------------------------- what a row may hold
@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: make('two words'), 'the name must be a valid identifier'),
        (
            lambda: make(kind='tensor'),
            r"kind must be one of \('semantic', 'binary', 'unit_vector', 'scalar'\), got 'tensor'",
        ),
        (lambda: make(channels=0), 'channels must be a positive int, got 0'),
        (lambda: make(channels=2.0), r'channels must be a positive int, got 2\.0'),
        (lambda: make(channels=256), '256 channels: at most 255 classes fit into uint8 labels'),
        (lambda: binary(channels=2), "kind 'binary' has 1 channel"),
        (lambda: vectors(channels=2), "kind 'unit_vector' has 3 channel"),
        (lambda: quantity(channels=2), "kind 'scalar' has 1 channel"),
        (lambda: quantity(zoom='multiply'), r"zoom must be one of \('keep', 'divide'\), got 'multiply'"),
        (lambda: make(zoom='divide'), "zoom='divide' acts on quantities; kind 'semantic' needs 'keep'"),
        (lambda: quantity(flip='negate_x'), "flip='negate_x' acts on vectors; kind 'scalar' needs 'keep'"),
        (lambda: quantity(ignore_if_empty=True), "kind 'scalar' has none of"),
        (lambda: quantity(ignore_value=255), 'ignore_value must be 0 or negative .* got 255'),
        (lambda: vectors(flip='mirror'), r"flip must be one of \('keep', 'negate_x'\), got 'mirror'"),
        (lambda: vectors(rotate='turn'), r"rotate must be one of \('keep', 'turn_xy'\), got 'turn'"),
        (lambda: make(flip='negate_x'), "flip='negate_x' acts on vectors; kind 'semantic' needs 'keep'"),
        (lambda: binary(rotate='turn_xy'), "rotate='turn_xy' acts on vectors; kind 'binary' needs 'keep'"),
        (lambda: vectors(ignore_if_empty=True), "kind 'unit_vector' has none of"),
        (lambda: make(pred_field='gt_garments'), "gt_field and pred_field are both 'gt_garments'"),
        (lambda: make(loss=dict(loss_weight=1.0)), "the key 'type'"),
        (lambda: make(classes=('skin',)), '1 class names for 2 channels'),
        (lambda: make(palette=((0, 0, 0),)), '1 palette colours for 2 channels'),
        (
            lambda: make(palette=((0, 0, 0), (1, 2))),
            r'palette must hold \(red, green, blue\), ints in 0\.\.255',
        ),
        (
            lambda: make(palette=((0, 0, 0), (256, 0, 0))),
            r'palette must hold \(red, green, blue\), ints in 0\.\.255',
        ),
        (lambda: make(ignore_value=1), r'ignore_value must lie in 2\.\.255 \(labels are uint8\), got 1'),
        (lambda: make(ignore_value=256), r'ignore_value must lie in 2\.\.255'),
        (lambda: binary(ignore_value=1), r'ignore_value must lie in 2\.\.255'),
        (lambda: binary(classes=('shadow',)), '1 class names; a binary task has two'),
        (lambda: make(channels=True), 'channels must be a positive int, got True'),
        (lambda: make(gt_key='img'), "gt_key 'img' is a key of the image"),
        (lambda: make(gt_key=3), 'gt_key must be a valid identifier, got 3'),
        (lambda: make(gt_field=''), "gt_field must be a valid identifier, got ''"),
        (lambda: make(pred_field=None), 'pred_field must be a valid identifier, got None'),
        (lambda: make(ignore_value=255.0), r'ignore_value must be an int, got 255\.0'),
        (lambda: make(ignore_value=None), 'ignore_value must be an int, got None'),
        (lambda: vectors(ignore_value=2**24 + 1), r'ignore_value must lie within \+-16777216, which float32'),
        (lambda: quantity(ignore_value=-(10**400)), 'ignore_value must lie within'),
        (lambda: make(ignore_if_empty='no'), "ignore_if_empty must be True or False, got 'no'"),
        (lambda: make(lower_is_better=None), 'lower_is_better must be True or False, got None'),
        (lambda: make(kind=['semantic']), r"kind must be one of .* got \['semantic'\]"),
        (lambda: make(kind=np.zeros(3)), r'kind must be one of .* got array\(\[0\., 0\., 0\.\]\)'),
        (lambda: vectors(flip=np.zeros(3)), r'flip must be one of .* got array'),
        (lambda: quantity(zoom=np.zeros(3)), r'zoom must be one of .* got array'),
        (lambda: make(loss=None), "loss must be a config dict with the key 'type', got None"),
        (lambda: make(loss='type'), "loss must be a config dict with the key 'type', got 'type'"),
        (lambda: make(metric=None), 'metric must be the name of a metric, got None'),
        (lambda: make(classes='ab'), "classes must be a sequence of names, got 'ab'"),
        (lambda: make(classes=(1, 2)), r'classes must be a sequence of names, got \(1, 2\)'),
        (lambda: make(palette=None), r'palette must be a sequence of \(red, green, blue\), got None'),
        (lambda: make(palette=(1, 2)), r'palette must hold \(red, green, blue\), ints .* got \(1, 2\)'),
        (lambda: make(palette=((0, 0, 0), (0.5, 0, 0))), r'palette must hold \(red, green, blue\), ints'),
        (lambda: make(palette=((0, 0, 0), 'rgb')), r'palette must hold \(red, green, blue\), ints'),
    ],
)
def test_contradictions_are_refused_with_the_name_of_the_task(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^TaskSpec '(garments|two words)': .*{message}"):
        build()


def test_what_is_allowed_at_the_limits() -> None:
    assert make(ignore_value=2).ignore_value == 2
    assert binary(ignore_value=2, classes=('light', 'shadow')).classes == ('light', 'shadow')
    assert (quantity().zoom, quantity(ignore_value=-1).ignore_value) == ('keep', -1)
    assert vectors().flip == 'keep', 'directions in the world do not move with the image'
    names = tuple(map(str, range(255)))
    assert make(channels=255, classes=names, palette=((1, 2, 3),) * 255).channels == 255


# ------------------------------------------------------------------------------------------------------- the table
def test_a_registered_task_is_known_and_comes_last() -> None:
    before, spec = known_tasks(), make()
    assert register_task(spec) is spec
    assert known_tasks() == (*before, 'garments')
    assert get_task('garments') is spec
    assert get_tasks(['garments', 'normals']) == (spec, get_task('normals'))


def test_the_same_row_twice_is_no_conflict_and_another_needs_force() -> None:
    register_task(make())
    register_task(make())  # a module that is imported under a second name
    other = make(ignore_value=7)
    with pytest.raises(ValueError, match=r"a task named 'garments' exists already; .* pass force=True"):
        register_task(other)
    assert get_task('garments') == make()
    place = known_tasks().index('garments')
    assert register_task(other, force=True) is get_task('garments') is other
    assert known_tasks().index('garments') == place


@pytest.mark.parametrize(
    ('changes', 'attribute'),
    [
        (dict(gt_key='gt_seg_map'), 'gt_key'),
        (dict(gt_field='gt_sem_seg'), 'gt_field'),
        (dict(pred_field='pred_sem_seg'), 'pred_field'),
        (dict(gt_field='pred_sem_seg'), 'gt_field'),
        (dict(pred_field='gt_sem_seg'), 'pred_field'),
    ],
)
@pytest.mark.parametrize('force', [False, True])
def test_a_field_belongs_to_one_task(changes: dict, attribute: str, force: bool) -> None:
    with pytest.raises(
        ValueError, match=f"'garments': {attribute} '{changes[attribute]}' belongs to task 'semseg' already"
    ):
        register_task(make(**changes), force=force)
    assert 'garments' not in known_tasks()


def test_a_replaced_row_may_keep_its_fields() -> None:
    spec = replace(get_task('semseg'), loss=dict(type='DiceLoss'))
    register_task(spec, force=True)
    assert get_task('semseg').loss == dict(type='DiceLoss')


def test_an_unknown_task_is_named_with_the_known_ones_and_the_remedy() -> None:
    for ask in (lambda: get_task('flow'), lambda: get_tasks(['semseg', 'flow'])):
        with pytest.raises(ValueError) as caught:
            ask()
        assert str(caught.value).removeprefix('tasks: ') == (
            "unknown task 'flow'; known tasks are ['semseg', 'human_parts', 'saliency', 'normals', 'edge', 'depth', 'nyud_semseg']. "
            'Add one as a row of new_tasks of model and data sets, or with mmseg_polyhistor.tasks.register_task'
        )


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ('semseg', r"got the string 'semseg'; write \('semseg',\)"),
        ((), r"no task is named; known tasks are \['semseg'"),
        (('semseg', 'normals', 'semseg'), r"named more than once: \['semseg'\]"),
        ((['semseg'],), r"unknown task \['semseg'\]"),
        ((None, 'semseg', None), 'unknown task None'),
        (b'semseg', 'unknown task 115'),
    ],
)
def test_unfit_lists_of_names(names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_tasks(names)


@pytest.mark.parametrize('names', [None, 4, True])
def test_what_is_no_list_of_names(names: Any) -> None:
    with pytest.raises(TypeError, match=f'tasks must be a sequence of names, got {names}'):
        get_tasks(names)


def test_a_dict_is_no_row() -> None:
    with pytest.raises(TypeError, match=r"register_task takes a TaskSpec, got \{'name': 'garments'\}"):
        register_task(dict(name='garments'))


def test_the_table_is_restored() -> None:
    """Whatever was registered or replaced, with or without an error; names that are left out are free."""
    before = {name: get_task(name) for name in known_tasks()}
    with pytest.raises(KeyError), restored_tasks(without=('semseg', 'no such task')):
        assert 'semseg' not in known_tasks() and 'normals' in known_tasks()
        register_task(make())
        register_task(make('semseg'))
        raise KeyError
    assert known_tasks() == tuple(before) and all(get_task(name) is before[name] for name in before)
