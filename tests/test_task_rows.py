"""Short rows for tasks of one's own: what is filled in, what is refused, and who takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.apis import init_model
from mmseg.registry import DATASETS, MODELS

from mmseg_polyhistor import tasks
from mmseg_polyhistor.evaluation import multi_task_gain
from mmseg_polyhistor.task_rows import add_tasks, complete_row, read_classes
from mmseg_polyhistor.tasks import TaskSpec, get_task, known_tasks

GARMENTS = dict(name='garments', kind='semantic', classes=['background', 'shirt', 'shoe'])
SILHOUETTE = dict(name='silhouette', kind='binary')


pytestmark = pytest.mark.usefixtures('task_table')


# -------------------------------------------------------------------------------------------------- what is filled in
def test_a_semantic_row() -> None:
    assert complete_row(GARMENTS) == TaskSpec(
        name='garments',
        kind='semantic',
        channels=3,
        gt_key='gt_garments',
        gt_field='gt_garments',
        pred_field='pred_garments',
        loss=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0),
        metric='mIoU',
        classes=('background', 'shirt', 'shoe'),
        palette=((0, 0, 0), (128, 0, 0), (0, 128, 0)),  # VOC's
    )


@pytest.mark.parametrize(
    ('kind', 'like'), [('binary', 'saliency'), ('unit_vector', 'normals'), ('scalar', 'depth')]
)
def test_rows_of_the_other_kinds_are_like_the_tables(kind: str, like: str) -> None:
    """All that does not follow from the name; a zoom divides depths, which are special among quantities."""
    known = get_task(like)
    own = {key: getattr(known, key) for key in ('classes', 'palette')} if kind == 'binary' else {}
    spec = complete_row(dict(name='x', kind=kind, zoom=known.zoom, **own))
    assert (spec.gt_key, spec.gt_field, spec.pred_field) == ('gt_x', 'gt_x', 'pred_x')
    names = dict(name=like, gt_key=known.gt_key, gt_field=known.gt_field, pred_field=known.pred_field)
    assert replace(spec, **names) == known


def test_a_binary_row_names_its_two_sides() -> None:
    spec = complete_row(SILHOUETTE)
    assert (spec.classes, spec.palette) == (('no_silhouette', 'silhouette'), ((0, 0, 0), (255, 255, 255)))


def test_what_a_row_says_stands() -> None:
    spec = complete_row(
        dict(
            GARMENTS,
            gt_key='gt_clothes',
            metric='mAcc',
            ignore_if_empty=True,
            palette=[[1, 2, 3], [4, 5, 6], [7, 8, 9]],
            loss=dict(type='FocalLoss'),
        )
    )
    assert (spec.gt_key, spec.gt_field, spec.metric) == ('gt_clothes', 'gt_garments', 'mAcc')
    assert (spec.palette[2], spec.loss, spec.ignore_if_empty) == ((7, 8, 9), dict(type='FocalLoss'), True)
    weighted = complete_row(dict(SILHOUETTE, loss_weight=2.5)).loss
    assert weighted == dict(type='ClassBalancedBCELoss', loss_weight=2.5)
    assert complete_row(SILHOUETTE).loss['loss_weight'] == 5.0  # the defaults were not written to


@pytest.mark.parametrize(
    ('kind', 'metric', 'less'),
    [
        ('semantic', 'aAcc', False), ('binary', 'maxF', False), ('binary', 'odsF', False),
        ('unit_vector', 'median', True), ('unit_vector', 'under_11.25', False),
        ('scalar', 'abs_rel', True), ('scalar', 'delta1', False),
    ],
)  # fmt: skip
def test_the_direction_follows_from_the_metric(kind: str, metric: str, less: bool) -> None:
    row = dict(name='a', kind=kind, metric=metric, **(dict(channels=2) if kind == 'semantic' else {}))
    spec = complete_row(row)
    assert spec.lower_is_better is less
    # from 80 to 90 is 12.5 percent of 80, better or worse
    assert multi_task_gain({'a': 90.0}, {'a': 80.0}, (spec,)) == pytest.approx(-12.5 if less else 12.5)
    assert complete_row(dict(row, lower_is_better=less)) == spec
    direction = 'lower' if less else 'higher'
    with pytest.raises(
        ValueError,
        match=f"the row: .*'a': lower_is_better must be {less}, as of '{metric}' {direction} values are better, got {not less}",
    ):
        complete_row(dict(row, lower_is_better=not less))


def test_so_many_classes_without_names_have_distinct_colours() -> None:
    spec = complete_row(dict(name='parts', kind='semantic', channels=200))
    assert spec.classes[:2] + spec.classes[-1:] == ('class_0', 'class_1', 'class_199')
    assert len(set(spec.palette)) == 200


def test_classes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / 'classes.txt'
    file.write_bytes('\ufeffnull\r\nt-shirt\n long coat \n\n'.encode())
    assert complete_row(dict(GARMENTS, classes=str(file))).classes == ('null', 't-shirt', 'long coat')
    assert read_classes(file) == ('null', 't-shirt', 'long coat')
    file.write_text('null\n\ncoat\n')
    with pytest.raises(ValueError, match=r'classes\.txt: expected .* class 0 first; line 2 is blank'):
        read_classes(file)
    file.write_text('\n')
    with pytest.raises(ValueError, match='it is empty'):
        read_classes(file)
    with pytest.raises(FileNotFoundError, match=r"'absent\.txt' does not exist, seen from "):
        complete_row(dict(GARMENTS, classes='absent.txt'))


# -------------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ('row', 'error', 'message'),
    [
        ('garments', TypeError, r"row must be a dict\(name=..., kind=..., ...\), got 'garments'"),
        (dict(name='x'), ValueError, r"lacks \['kind'\]: a row is dict"),
        (dict(name='x', kind='classes'), ValueError, r"kind must be one of \('semantic', 'binary', .*'classes'"),
        (dict(name='x', kind='semantic'), ValueError, r"'semantic' task needs classes=\(<name>, ...\), classes='<file"),
        (dict(SILHOUETTE, colour=1), ValueError, r"unknown keys \['colour'\]; allowed: \['name', .*'loss_weight'\]"),
        (dict(SILHOUETTE, loss_weight=1, loss=dict(type='A')), ValueError, 'both loss and loss_weight'),
        (dict(GARMENTS, channels=4), ValueError, '3 class names for 4 channels'),
        (dict(GARMENTS, palette=[[0, 0, 0]]), ValueError, '1 palette colours for 3 channels'),
        (dict(name='two words', kind='scalar'), ValueError, 'the name must be a valid identifier'),
        (dict(name='x', kind='semantic', channels='many'), ValueError, 'channels must be a positive int'),
        (dict(name='x', kind='semantic', channels=300), ValueError, '300 channels: at most 255 classes fit into uint8'),
        (dict(name='x', kind='semantic', channels=10**12), ValueError, 'at most 255 classes fit into uint8 labels'),
        (dict(SILHOUETTE, metric='rmse'), ValueError, r"metric 'rmse' is not among those of kind 'binary': \['mIoU', "),
        (dict(SILHOUETTE, metric=3), ValueError, 'metric must be the name of a metric, got 3'),
        (dict(SILHOUETTE, loss_weight='x'), ValueError, "loss_weight must be a finite number of 0 or above, got 'x'"),
        (dict(SILHOUETTE, loss_weight=-1), ValueError, 'loss_weight must be a finite number of 0 or above, got -1'),
        (dict(SILHOUETTE, loss_weight=float('nan')), ValueError, 'loss_weight must be a finite number .* got nan'),
        (dict(SILHOUETTE, loss_weight=True), ValueError, 'loss_weight must be a finite number .* got True'),
        (dict(name='x', kind='semantic', classes=7), ValueError, 'classes must be a sequence of names, or a file, got 7'),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_wrong_row_is_named(row: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        complete_row(row, 'the row')
    before = known_tasks()
    with pytest.raises(error, match=r'new_tasks\[1\]'):
        add_tasks([dict(name='good', kind='binary'), row])
    assert known_tasks() == (*before, 'good')


@pytest.mark.parametrize('rows', ['garments', GARMENTS, 3], ids=['name', 'dict', 'number'])
def test_rows_come_as_a_list(rows: object) -> None:
    with pytest.raises(TypeError, match=r'new_tasks must be a list of rows'):
        add_tasks(rows)


def test_a_row_twice_is_one_and_another_of_its_name_is_an_error() -> None:
    (first,) = add_tasks([GARMENTS])
    (second,) = add_tasks([ConfigDict(dict(GARMENTS, classes=tuple(GARMENTS['classes'])))])
    assert second is first and known_tasks()[-1] == 'garments'
    with pytest.raises(
        ValueError, match=r"new_tasks\[0\]: a task named 'garments' .*, with metric='mIoU', here 'mAcc'\."
    ):
        add_tasks([dict(GARMENTS, metric='mAcc')])  # fmt: skip
    with pytest.raises(
        ValueError, match=r"new_tasks\[0\]: a task named 'semseg' exists already, with channels=21, here 3;"
    ):
        add_tasks([dict(GARMENTS, name='semseg')])  # fmt: skip
    with pytest.raises(
        ValueError, match=r"new_tasks\[0\]: task 'x': gt_key 'gt_depth_map' belongs to task 'depth'"
    ):
        add_tasks([dict(name='x', kind='scalar', gt_key='gt_depth_map')])  # fmt: skip
    assert get_task('garments') == first


def message_of(row: dict, other: dict) -> str:
    """What is said of a row whose name a differing one has."""
    add_tasks([row])
    with pytest.raises(ValueError) as caught:
        add_tasks([other])
    return str(caught.value)


def test_what_differs_is_said_in_short() -> None:
    many = dict(name='many', kind='semantic', channels=200)
    said = message_of(many, dict(many, channels=199))
    assert 'channels=200, here 199; 200 classes, here 199. Choose another name' in said
    assert 'palette' not in said and len(said) < 250
    names = [f'name {i}' for i in range(150)]
    named = dict(name='named', kind='semantic', classes=names)
    said = message_of(named, dict(named, classes=[*names[:7], 'x' * 500, *names[8:]]))
    assert "classes[7]='name 7', here 'xxx" in said and len(said) < 300
    loss = dict(type='CrossEntropyLoss', class_weight=[1.0] * 150)
    assert len(message_of(dict(named, name='lossy'), dict(named, name='lossy', loss=loss))) < 400


def test_a_palette_of_its_own_is_a_difference() -> None:
    said = message_of(GARMENTS, dict(GARMENTS, palette=[[0, 0, 0], [128, 0, 0], [7, 8, 9]]))
    assert 'with palette[2]=(0, 128, 0), here (7, 8, 9).' in said


def test_a_direction_that_follows_is_no_difference() -> None:
    row = dict(name='a', kind='scalar')
    assert "with metric='rmse', here 'delta1'." in message_of(row, dict(row, metric='delta1'))


# -------------------------------------------------------------------------------------------------- who takes them
CONFIG = """
new_tasks = [
    dict(name='garments', kind='semantic', classes=['background', 'shirt', 'shoe']),
    dict(name='silhouette', kind='binary'),
]
tasks = ('garments', 'silhouette')
model = dict(
    type='MultiTaskSegmentor',
    new_tasks=new_tasks,
    tasks=tasks,
    backbone=dict(
        type='AdaptedSwin', arch=dict(embed_dims=16, depths=[1, 1], num_heads=[2, 2]), tasks=tasks,
        adapter=dict(type='LoRA', rank=2)),
    decode_heads=dict(type='AllMLPHead', in_channels=[16, 32], channels=8),
    data_preprocessor=dict(type='MultiTaskDataPreProcessor', mean=[0] * 3, std=[255] * 3, size_divisor=32))
dataset = dict(
    type='MultiTaskDataset',
    new_tasks=new_tasks,
    tasks=tasks,
    data_prefix=dict(img_path='images', any='masks'),
    suffixes=dict(img_path='.jpg', any='.png'),
    sources=dict(
        garments=dict(path='any', reader=dict(type='index_image')),
        silhouette=dict(path='any', reader=dict(type='grey_image'))),
    pipeline=[dict(type='MultiTaskRandomCrop', crop_size=16, cat_max_ratio=0.75, cat_task='garments')],
    lazy_init=True)
test_pipeline = [dict(type='LoadImageFromFile')]
"""


@pytest.mark.parametrize('first', ['model', 'dataset'])
def test_model_and_data_set_know_the_tasks_without_each_other(first: str) -> None:
    cfg = Config.fromstring(CONFIG, '.py')
    built = dict(
        model=lambda: MODELS.build(cfg.model).tasks, dataset=lambda: DATASETS.build(cfg.dataset).tasks
    )
    assert built.pop(first)() == ('garments', 'silhouette')
    (other,) = built.values()
    assert other() == ('garments', 'silhouette')


def test_a_checkpoint_loads_where_nobody_knows_the_tasks(tmp_path: Path) -> None:
    cfg = Config.fromstring(CONFIG, '.py')
    model = MODELS.build(cfg.model)
    names = ('garments', 'silhouette')
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=[], palette=[]))),
        tmp_path / 'model.pth',
    )
    for name in names:
        del tasks._TASKS[name]
    loaded = init_model(cfg, str(tmp_path / 'model.pth'), device='cpu')
    assert [spec.name for spec in loaded.specs] == list(names)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert set(names) < set(known_tasks())


@pytest.mark.parametrize('kind', ['model', 'dataset'])
def test_the_message_says_whose_row_it_is(kind: str) -> None:
    cfg = Config.fromstring(CONFIG, '.py')
    cfg[kind].new_tasks[0]['clases'] = cfg[kind].new_tasks[0].pop('classes')
    name = dict(model='MultiTaskSegmentor', dataset='MultiTaskDataset')[kind]
    with pytest.raises(ValueError, match=rf"{name}: new_tasks\[0\] has unknown keys \['clases'\]"):
        dict(model=MODELS, dataset=DATASETS)[kind].build(cfg[kind])
