"""The single table of what a task is.

Loading, augmentation, padding, heads, losses, metrics, post-processing and drawing all read a task's `TaskSpec` and
dispatch on `TaskSpec.kind`; none of them knows a task by its name. A user adds a task with one row:

    >>> register_task(TaskSpec(name='garments', kind='semantic', channels=59, ...))

in a module that the config names in `custom_imports`, or in the config itself, as a short row in `new_tasks` (see
`mmseg_polyhistor.task_rows`).

Arrays and tensors of the kinds:

============  =================================  ==============================  ================================
kind          label in the pipeline (`gt_key`)   label in a sample (`gt_field`)  prediction (`pred_field`)
============  =================================  ==============================  ================================
semantic      uint8 (H, W), 0..channels-1        uint8 (1, H, W)                 int64 (1, H, W), the class
binary        uint8 (H, W), 0 or 1               uint8 (1, H, W)                 float32 (1, H, W), in [0, 1]
unit_vector   float32 (H, W, 3), length 1        float32 (3, H, W)               float32 (3, H, W), length 1
scalar        float32 (H, W), 0 or above         float32 (1, H, W)               float32 (1, H, W), 0 or above
============  =================================  ==============================  ================================

A pixel (for vectors: all three components) that equals `ignore_value` carries no label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    'KINDS',
    'MOST_CLASSES',
    'TaskMetric',
    'TaskSpec',
    'get_task',
    'get_tasks',
    'known_tasks',
    'register_task',
    'restored_tasks',
    'voc_palette',
]

KINDS = ('semantic', 'binary', 'unit_vector', 'scalar')
FLIP_RULES = ('keep', 'negate_x')  # what a horizontal flip does to the values, beside moving them
ROTATION_RULES = ('keep', 'turn_xy')  # what an in-plane rotation does to the values, beside moving them
ZOOM_RULES = ('keep', 'divide')  # what a zoom does to the values, beside moving them

RESERVED_KEYS = ('img', 'img_path', 'img_shape', 'ori_shape', 'pad_shape', 'tasks', 'seg_fields')
LARGEST_IGNORE_VALUE = 1 << 24
MOST_CLASSES = 255  # of a semantic task: labels are uint8, and one value is left to pixels without label

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One dense task.

    Args:
        name: The task's name in configs, log keys and metrics (a valid identifier).
        kind: 'semantic' (one of several classes), 'binary' (a probability), 'unit_vector' (a direction) or 'scalar' (a
            quantity that is never negative, such as a depth).
        channels: Output channels of the task's decoder.
        gt_key: Key of the label map in the pipeline's `results` dict.
        gt_field: Field of the label in `SegDataSample`.
        pred_field: Field of the prediction in `SegDataSample`.
        ignore_value: The label value of a pixel without label; of a 'scalar' task 0, or a negative number where 0 is a
            label like others. Defaults to 255.
        ignore_if_empty: A map of this task in which no pixel has a class above 0 (no object, from the start or after a
            crop) carries no label at all: every pixel is ignored. For 'semantic' and 'binary'. Defaults to False.
        flip: What a horizontal flip does to the values: 'keep' or, for 'unit_vector', 'negate_x'. Defaults to 'keep'.
        rotate: What a rotation of the image does to the values: 'keep' or, for 'unit_vector', 'turn_xy'. Defaults to
            'keep'.
        zoom: What a zoom of the image by a factor does to the values: 'keep' or, for 'scalar', 'divide' (by the factor).
            An image enlarged twice shows what a camera at half the distance would see: its depths are halved, as in ASTMT
            and MTI-Net. The random zooms of the augmentation (`MultiTaskRandomScale`, and `scale_range` of
            `MultiTaskRandomRotate`) are such; a resize to the network's size is none, and leaves the values alone.
            Defaults to 'keep'.
        loss: Config of the task's loss, registered in `mmseg.registry.MODELS`, its `loss_weight` included.
        metric: The metric that the multi-task gain uses: a key of what an accumulator of the kind reports, which by this
            is chosen ('mIoU' of a binary task is that of regions, 'odsF' that of boundaries).
        lower_is_better: Direction of `metric`, which must be the one that its accumulator tells
            (`mmseg_polyhistor.evaluation`). Defaults to False.
        classes: Class names of a semantic task, or what 0 and 1 of a binary one mean. Defaults to ().
        palette: RGB colour per class, components in 0..255. Defaults to ().

    Raises:
        ValueError: if a field has another type or contradicts another; the message names the task, the field and what is
            allowed.
    """

    name: str
    kind: str
    channels: int
    gt_key: str
    gt_field: str
    pred_field: str
    loss: dict[str, Any]
    metric: str
    ignore_value: int = 255
    ignore_if_empty: bool = False
    flip: str = 'keep'
    rotate: str = 'keep'
    zoom: str = 'keep'
    lower_is_better: bool = False
    classes: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        def demand(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(f'TaskSpec {self.name!r}: {message}')

        def demand_type(attribute: str, fits: bool, what: str) -> None:
            demand(fits, f'{attribute} must be {what}, got {getattr(self, attribute)!r}')

        def demand_choice(attribute: str, allowed: tuple[str, ...]) -> None:
            value = getattr(self, attribute)
            fits = isinstance(value, str) and value in allowed  # an array is in nothing, and raises
            demand_type(attribute, fits, f'one of {allowed}')

        demand(isinstance(self.name, str) and self.name.isidentifier(), 'the name must be a valid identifier')
        demand_choice('kind', KINDS)
        demand_type('channels', _is_int(self.channels) and self.channels > 0, 'a positive int')
        for key in ('gt_key', 'gt_field', 'pred_field'):
            value = getattr(self, key)
            demand_type(key, isinstance(value, str) and value.isidentifier(), 'a valid identifier')
        demand(
            self.gt_key not in RESERVED_KEYS, f'gt_key {self.gt_key!r} is a key of the image: {RESERVED_KEYS}'
        )
        demand_type('ignore_value', _is_int(self.ignore_value), 'an int')
        demand(
            abs(self.ignore_value) <= LARGEST_IGNORE_VALUE,
            f'ignore_value must lie within +-{LARGEST_IGNORE_VALUE}, which float32 holds exactly, '
            f'got {self.ignore_value}',
        )
        for key in ('ignore_if_empty', 'lower_is_better'):
            demand_type(key, isinstance(getattr(self, key), bool), 'True or False')
        for key, rules in (('flip', FLIP_RULES), ('rotate', ROTATION_RULES), ('zoom', ZOOM_RULES)):
            demand_choice(key, rules)
        demand(self.gt_field != self.pred_field, f'gt_field and pred_field are both {self.gt_field!r}')
        demand(
            isinstance(self.loss, Mapping) and 'type' in self.loss,
            f"loss must be a config dict with the key 'type', got {self.loss!r}",
        )
        demand_type('metric', isinstance(self.metric, str), 'the name of a metric')
        demand_type(
            'classes',
            isinstance(self.classes, (tuple, list)) and all(isinstance(name, str) for name in self.classes),
            'a sequence of names',
        )
        demand_type('palette', isinstance(self.palette, (tuple, list)), 'a sequence of (red, green, blue)')
        expected = {'binary': 1, 'unit_vector': 3, 'scalar': 1}.get(self.kind)
        demand(
            expected is None or self.channels == expected,
            f'kind {self.kind!r} has {expected} channel(s), got {self.channels}',
        )
        for rule, kind, what in (
            ('flip', 'unit_vector', 'vectors'),
            ('rotate', 'unit_vector', 'vectors'),
            ('zoom', 'scalar', 'quantities'),
        ):
            value = getattr(self, rule)
            demand(
                value == 'keep' or self.kind == kind,
                f"{rule}={value!r} acts on {what}; kind {self.kind!r} needs 'keep'",
            )
        demand(
            all(_is_colour(rgb) for rgb in self.palette),
            f'palette must hold (red, green, blue), ints in 0..255, per class, got {self.palette!r}',
        )
        demand(
            not self.ignore_if_empty or self.kind in ('semantic', 'binary'),
            f'ignore_if_empty asks for classes, which kind {self.kind!r} has none of',
        )
        if self.kind == 'semantic':
            demand(
                self.channels <= MOST_CLASSES,
                f'{self.channels} channels: at most {MOST_CLASSES} classes fit into uint8 labels, beside the ignore_value',
            )
            demand(
                len(self.classes) == self.channels,
                f'{len(self.classes)} class names for {self.channels} channels',
            )
            demand(
                len(self.palette) == self.channels,
                f'{len(self.palette)} palette colours for {self.channels} channels',
            )
            demand(
                self.channels <= self.ignore_value <= 255,
                f'ignore_value must lie in {self.channels}..255 (labels are uint8), got {self.ignore_value}',
            )
        if self.kind == 'binary':
            demand(
                1 < self.ignore_value <= 255,
                f'ignore_value must lie in 2..255 (labels are uint8), got {self.ignore_value}',
            )
            demand(
                len(self.classes) in (0, 2),
                f'{len(self.classes)} class names; a binary task has two (for 0 and 1), or none',
            )
        if self.kind == 'scalar':
            demand(
                self.ignore_value <= 0,
                f'ignore_value must be 0 or negative (a quantity may have any value above), got {self.ignore_value}',
            )


@dataclass(frozen=True, kw_only=True)
class TaskMetric:
    """What a result of a task is judged by, where its whole row is not at hand: fields of `TaskSpec`."""

    name: str
    kind: str
    metric: str
    lower_is_better: bool


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 3
        and all(_is_int(part) and 0 <= part <= 255 for part in value)
    )


_TASKS: dict[str, TaskSpec] = {}


def register_task(spec: TaskSpec, *, force: bool = False) -> TaskSpec:
    """Add a row to the table.

    Args:
        spec: The task.
        force: Replace a row of the same name. Defaults to False.

    Returns:
        The task, so that the call can stand in an assignment.

    Raises:
        TypeError: if `spec` is no `TaskSpec`.
        ValueError: if the name, or one of the fields, belongs to another task already.
    """
    if not isinstance(spec, TaskSpec):
        raise TypeError(f'register_task takes a TaskSpec, got {spec!r}')
    known = _TASKS.get(spec.name)
    if known is not None and known != spec and not force:
        raise ValueError(
            f'a task named {spec.name!r} exists already; choose another name, or pass force=True to replace it'
        )
    for other in _TASKS.values():
        if other.name == spec.name:
            continue
        for attribute, taken in (
            ('gt_key', (other.gt_key,)),
            ('gt_field', (other.gt_field, other.pred_field)),
            ('pred_field', (other.gt_field, other.pred_field)),
        ):
            if getattr(spec, attribute) in taken:
                raise ValueError(
                    f'task {spec.name!r}: {attribute} {getattr(spec, attribute)!r} belongs to task {other.name!r} already'
                )
    _TASKS[spec.name] = spec
    return spec


def known_tasks() -> tuple[str, ...]:
    """The names of all registered tasks, in the order of their registration."""
    return tuple(_TASKS)


def get_task(name: str) -> TaskSpec:
    """The row of one task.

    Raises:
        ValueError: if there is no such task; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in _TASKS:
        raise ValueError(
            f'unknown task {name!r}; known tasks are {list(_TASKS)}. Add one as a row of new_tasks of model and '
            'data sets, or with mmseg_polyhistor.tasks.register_task'
        )
    return _TASKS[name]


def get_tasks(names: Iterable[str], where: str = 'tasks') -> tuple[TaskSpec, ...]:
    """The rows of several tasks, in the order given.

    Args:
        names: The names.
        where: What they are given as, for the message. Defaults to 'tasks'.

    Raises:
        TypeError: if `names` is no sequence.
        ValueError: if `names` is a plain string, empty, or names a task that is unknown, or one twice.
    """
    if isinstance(names, str):
        raise ValueError(f'{where} must be a sequence of names, got the string {names!r}; write ({names!r},)')
    if not isinstance(names, Iterable):
        raise TypeError(f'{where} must be a sequence of names, got {names!r}')
    names = tuple(names)
    if not names:
        raise ValueError(f'{where}: no task is named; known tasks are {list(_TASKS)}')
    try:
        specs = tuple(get_task(n) for n in names)
    except ValueError as e:
        raise ValueError(f'{where}: {e}') from None
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f'{where}: tasks named more than once: {twice} in {list(names)}')
    return specs


@contextmanager
def restored_tasks(without: Iterable[str] = ()) -> Iterator[None]:
    """A context after which the table is what it was before, whatever is registered or replaced in it.

    Args:
        without: Names that the table does not have within it, so that other tasks can have them. Defaults to ().
    """
    rows = dict(_TASKS)
    for name in without:
        _TASKS.pop(name, None)
    try:
        yield
    finally:
        _TASKS.clear()
        _TASKS.update(rows)


def voc_palette(n: int) -> tuple[Colour, ...]:
    """The first colours of PASCAL VOC's map: the bits of the index, spread over the high bits of R, G and B (VOC devkit)."""
    colours = []
    for index in range(n):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append(tuple(rgb))
    return tuple(colours)


# Loss weights 1 / 2 / 5 / 10 (edge 50): the recipe of the ASTMT line of work, which the paper builds on.
register_task(
    TaskSpec(
        name='semseg',
        kind='semantic',
        channels=21,
        gt_key='gt_seg_map',
        gt_field='gt_sem_seg',
        pred_field='pred_sem_seg',
        loss=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0),
        metric='mIoU',
        classes=(
            'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
            'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
        ),
        palette=voc_palette(21),
    )
)  # fmt: skip
register_task(
    TaskSpec(
        name='human_parts',
        kind='semantic',
        channels=7,
        gt_key='gt_human_parts',
        gt_field='gt_human_parts',
        pred_field='pred_human_parts',
        loss=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=2.0),
        metric='mIoU',
        ignore_if_empty=True,  # two thirds of PASCAL's images show no person
        classes=('background', 'head', 'torso', 'upper_arm', 'lower_arm', 'upper_leg', 'lower_leg'),
        palette=voc_palette(7),
    )
)
register_task(
    TaskSpec(
        name='saliency',
        kind='binary',
        channels=1,
        gt_key='gt_saliency',
        gt_field='gt_saliency',
        pred_field='pred_saliency',
        loss=dict(type='ClassBalancedBCELoss', loss_weight=5.0),
        metric='mIoU',
        classes=('background', 'salient'),
        palette=((0, 0, 0), (255, 255, 255)),
    )
)
register_task(
    TaskSpec(
        name='normals',
        kind='unit_vector',
        channels=3,
        gt_key='gt_normals',
        gt_field='gt_normals',
        pred_field='pred_normals',
        loss=dict(type='UnitVectorL1Loss', loss_weight=10.0),
        metric='mean',
        flip='negate_x',
        rotate='turn_xy',
        lower_is_better=True,
    )
)
register_task(
    TaskSpec(
        name='edge',
        kind='binary',
        channels=1,
        gt_key='gt_edge',
        gt_field='gt_edge',
        pred_field='pred_edge',
        loss=dict(type='ClassBalancedBCELoss', pos_weight=0.95, loss_weight=50.0),
        metric='odsF',
        classes=('no_edge', 'edge'),
        palette=((0, 0, 0), (255, 255, 255)),
    )
)
register_task(
    TaskSpec(
        name='depth',
        kind='scalar',
        channels=1,
        gt_key='gt_depth_map',
        gt_field='gt_depth_map',
        pred_field='pred_depth_map',
        loss=dict(type='ScalarL1Loss', loss_weight=1.0),
        metric='rmse',
        ignore_value=0,  # metres; a sensor's 0 is no measurement
        zoom='divide',
        lower_is_better=True,
    )
)
register_task(
    TaskSpec(
        name='nyud_semseg',
        kind='semantic',
        channels=40,
        gt_key='gt_nyud_semseg',
        gt_field='gt_nyud_semseg',
        pred_field='pred_nyud_semseg',
        loss=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0),
        metric='mIoU',
        classes=(  # the 40 classes of Gupta et al. (CVPR 2013), in their order
            'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf', 'picture',
            'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror', 'floor_mat', 'clothes',
            'ceiling', 'books', 'refrigerator', 'television', 'paper', 'towel', 'shower_curtain', 'box', 'whiteboard',
            'person', 'night_stand', 'toilet', 'sink', 'lamp', 'bathtub', 'bag', 'other_structure', 'other_furniture',
            'other_prop',
        ),
        palette=voc_palette(41)[1:],  # the colours of the ids 1..40 that the files hold
    )
)  # fmt: skip
