"""Tasks that a config brings along: short rows, completed by what is usual for their kind, and added to the table of tasks.

>>> new_tasks = [
...     dict(name='garments', kind='semantic', classes=('background', 'shirt', 'trousers')),
...     dict(name='silhouette', kind='binary'),
... ]

`MultiTaskSegmentor` and `MultiTaskDataset` take such rows as `new_tasks`, so that a model works without its data sets and
a data set without its model; one variable of the config serves both.
"""

from __future__ import annotations

import copy
import math
import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from .evaluation.accumulators import check_metric, lower_is_better
from .tasks import (
    KINDS,
    MOST_CLASSES,
    TaskMetric,
    TaskSpec,
    get_task,
    known_tasks,
    register_task,
    voc_palette,
)

__all__ = ['add_tasks', 'complete_row', 'metric_of_row', 'read_classes']

# What a row of the kind has unless it says otherwise: losses with the weights of the table's rows of that kind.
DEFAULTS: dict[str, dict[str, Any]] = {
    'semantic': dict(
        loss=dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0),
        metric='mIoU',
    ),
    'binary': dict(
        channels=1,
        loss=dict(type='ClassBalancedBCELoss', loss_weight=5.0),
        metric='mIoU',
        palette=((0, 0, 0), (255, 255, 255)),
    ),
    'unit_vector': dict(
        channels=3,
        loss=dict(type='UnitVectorL1Loss', loss_weight=10.0),
        metric='mean',
        flip='negate_x',
        rotate='turn_xy',
    ),
    'scalar': dict(
        channels=1,
        loss=dict(type='ScalarL1Loss', loss_weight=1.0),
        metric='rmse',
        ignore_value=0,
    ),
}
SHORT = ('loss_weight',)  # keys of a row that are no fields of `TaskSpec`
FIELDS = {field.name: field for field in fields(TaskSpec)}


def add_tasks(rows: Iterable[Mapping[str, Any]], where: str = 'new_tasks') -> tuple[TaskSpec, ...]:
    """Add rows to the table of tasks; one that is there already, field by field, stays as it is.

    Args:
        rows: See `complete_row`.
        where: What they are given as, for messages. Defaults to 'new_tasks'.

    Returns:
        The tasks, in order.

    Raises:
        TypeError: if `rows` is no sequence of dicts.
        ValueError: if a row is wrong, or a known task of its name differs from it; the message names the row, and what
            differs.
    """
    if isinstance(rows, (str, Mapping)) or not isinstance(rows, Iterable):
        raise TypeError(f'{where} must be a list of rows, [dict(name=..., kind=...), ...], got {rows!r}')
    specs = []
    for number, row in enumerate(rows):
        spec = complete_row(row, f'{where}[{number}]')
        try:
            specs.append(_add(spec))
        except ValueError as e:
            raise ValueError(f'{where}[{number}]: {e}') from None
    return tuple(specs)


def _add(spec: TaskSpec) -> TaskSpec:
    if spec.name not in known_tasks():
        return register_task(spec)
    known = get_task(spec.name)
    if known == spec:
        return known
    differs = [key for key in FIELDS if getattr(known, key) != getattr(spec, key)]
    follows = dict(  # what no reader has written
        palette='classes' in differs and all(s.palette == voc_palette(len(s.classes)) for s in (known, spec)),
        lower_is_better='metric' in differs,
    )
    said = [
        _difference(key, getattr(known, key), getattr(spec, key))
        for key in differs
        if not follows.get(key, False)
    ]
    raise ValueError(
        f'a task named {spec.name!r} exists already, with {"; ".join(said)}. Choose another name, or make the rows equal'
    )


def _difference(key: str, known: Any, here: Any) -> str:
    """Where two values of a field differ, in a few words; of sequences their lengths, or the first entry that differs."""
    if isinstance(known, tuple) and isinstance(here, tuple):
        if len(known) != len(here):
            return f'{len(known)} {key}, here {len(here)}'
        i = next(i for i, pair in enumerate(zip(known, here, strict=True)) if pair[0] != pair[1])
        key, known, here = f'{key}[{i}]', known[i], here[i]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    return f'{key}={short.repr(known)}, here {short.repr(here)}'


def complete_row(row: Mapping[str, Any], where: str = 'the row') -> TaskSpec:
    """A task from a row that says what is special about it.

    Args:
        row: `name` and `kind`, and any other field of `TaskSpec`. What is left out is

            - of every kind: `gt_key` and `gt_field` 'gt_<name>', `pred_field` 'pred_<name>';
            - semantic: `channels` as many as there are `classes` (or classes 'class_0', 'class_1', .. for so many
              `channels`), the palette of PASCAL VOC, cross-entropy of weight 1, 'mIoU';
            - binary: classes 'no_<name>' and '<name>', black and white, class-balanced binary cross-entropy of weight 5, 'mIoU';
            - unit_vector: L1 loss of weight 10, 'mean', vectors that are mirrored and turned with the image, as normals are;
            - scalar: L1 loss of weight 1, 'rmse', ignored where 0; a zoom leaves the values alone (depth: `zoom='divide'`).

            `lower_is_better` follows from `metric`, and may not contradict it. `classes` may be the path of a file, see
            `read_classes`; `loss_weight` changes the weight of the usual loss.
        where: What the row is called in messages. Defaults to 'the row'.

    Raises:
        TypeError: if `row` is no dict.
        FileNotFoundError: if the file of classes does not exist.
        ValueError: if a key is unknown or missing, or a value is wrong (see `TaskSpec`); the message names the row.
    """
    if not isinstance(row, Mapping):
        raise TypeError(f'{where} must be a dict(name=..., kind=..., ...), got {row!r}')
    if unknown := sorted(set(row) - set(FIELDS) - set(SHORT)):
        raise ValueError(f'{where} has unknown keys {unknown}; allowed: {[*FIELDS, *SHORT]}')
    if missing := [key for key in ('name', 'kind') if key not in row]:
        raise ValueError(f'{where} lacks {missing}: a row is dict(name=..., kind=<one of {KINDS}>, ...)')
    given = copy.deepcopy(dict(row))
    _checked_kind(given['kind'], where)
    name = given['name']
    usual = {
        **dict(gt_key=f'gt_{name}', gt_field=f'gt_{name}', pred_field=f'pred_{name}'),
        **copy.deepcopy(DEFAULTS[given['kind']]),
    }
    if 'loss_weight' in given:
        if 'loss' in given:
            raise ValueError(f'{where} has both loss and loss_weight: give the weight in loss')
        usual['loss']['loss_weight'] = _checked_weight(given.pop('loss_weight'), where)
    if isinstance(given.get('classes'), (str, os.PathLike)):
        given['classes'] = read_classes(given['classes'])
    complete = usual | given
    if given['kind'] == 'binary':
        complete.setdefault('classes', (f'no_{name}', name))
    if given['kind'] == 'semantic':
        _complete_classes(complete, where)
    for key in ('classes', 'palette'):  # configs hold lists; the table compares tuples
        if isinstance(complete.get(key), (tuple, list)):
            complete[key] = tuple(tuple(v) if isinstance(v, list) else v for v in complete[key])
    try:
        if isinstance(complete['metric'], str):
            complete.setdefault('lower_is_better', lower_is_better(complete['kind'], complete['metric']))
        spec = TaskSpec(**complete)
        check_metric(spec)
    except ValueError as e:
        raise ValueError(f'{where}: {e}') from None
    return spec


def metric_of_row(row: Mapping[str, Any], where: str = 'the row') -> TaskMetric:
    """What the results of a row's task are judged by, though the rest of the row may not fit, or its file of classes be gone.

    Args:
        row: See `complete_row`.
        where: What the row is called in messages. Defaults to 'the row'.

    Raises:
        ValueError: if `name` or `kind` is missing or wrong, or no accumulator of the kind reports the row's `metric`; the
            message names the row.
    """
    kind, name = _checked_kind(row.get('kind'), where), row.get('name')
    metric = row.get('metric', DEFAULTS[kind]['metric'])
    if not isinstance(name, str) or not isinstance(metric, str):
        raise ValueError(f'{where}: name and metric must be names, got {name!r} and {metric!r}')
    try:
        return TaskMetric(name=name, kind=kind, metric=metric, lower_is_better=lower_is_better(kind, metric))
    except ValueError as e:
        raise ValueError(f'{where}: {e}') from None


def _checked_kind(kind: Any, where: str) -> str:
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f'{where}: kind must be one of {KINDS}, got {kind!r}')
    return kind


def _checked_weight(weight: Any, where: str) -> float:
    fits = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not fits or not 0 <= weight < math.inf:  # of nan, too
        raise ValueError(f'{where}: loss_weight must be a finite number of 0 or above, got {weight!r}')
    return weight


def _complete_classes(row: dict[str, Any], where: str) -> None:
    """Fill in what follows from the classes of a semantic task, or from their number."""
    if 'classes' not in row and 'channels' not in row:
        raise ValueError(
            f"{where}: a 'semantic' task needs classes=(<name>, ...), classes='<file with a name a line>', or channels=<number>"
        )
    if 'classes' not in row and isinstance(row['channels'], int) and row['channels'] <= MOST_CLASSES:
        row['classes'] = tuple(f'class_{i}' for i in range(row['channels']))
    if 'classes' in row:
        if not isinstance(row['classes'], (tuple, list)):
            raise ValueError(
                f'{where}: classes must be a sequence of names, or a file, got {row["classes"]!r}'
            )
        row.setdefault('channels', len(row['classes']))
        row.setdefault('palette', voc_palette(len(row['classes'])))


def read_classes(path: str | os.PathLike) -> tuple[str, ...]:
    """Class names from a text file: one a line, the first is class 0. Blank lines at the end are passed over.

    Args:
        path: The file; relative paths start from the working directory, as all paths in a config do.
            (`{{ fileDirname }}/classes.txt` in a config is a file beside the config.)

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it names no class, or a line before the last name is blank.
    """
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'the list of classes {path!r} does not exist, seen from {os.getcwd()}')
    with open(path, encoding='utf-8-sig') as file:  # some editors put a byte order mark first
        names = file.read().rstrip().splitlines()
    names = [name.strip() for name in names]
    if not names or '' in names:
        blank = f'line {names.index("") + 1} is blank' if names else 'it is empty'
        raise ValueError(f'{path}: expected the name of a class a line, class 0 first; {blank}')
    return tuple(names)
