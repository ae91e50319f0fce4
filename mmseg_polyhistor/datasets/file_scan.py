"""Looking for the files of a data set: which ids it lists, what exists, what is missing."""

from __future__ import annotations

import os
import os.path as osp
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ['FileScan', 'first_names', 'read_ids', 'scan_files', 'source_files']


@dataclass
class FileScan:
    """What a search for the files of a data set found.

    Attributes:
        samples: A `dict` per image that exists, as `BaseDataset.data_list` holds them.
        missing_images: Paths of images that do not exist.
        missing_labels: Per task, the paths of label files that do not exist.
    """

    samples: list[dict[str, Any]]
    missing_images: list[str]
    missing_labels: dict[str, list[str]]


def read_ids(path: str) -> list[str]:
    """The ids of a list, one a line, in order; blank lines are passed over.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it holds no id, or an id twice.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f'the list of images {path} does not exist; check data_root and ann_file')
    with open(path, encoding='utf-8-sig') as lines:  # some editors put a byte order mark first
        ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise ValueError(f'{path}: the list of images is empty')
    twice = [i for i, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f'{path}: {len(twice)} ids stand in the list more than once: {first_names(twice)}')
    return ids


def scan_files(
    ids: Sequence[str],
    tasks: Sequence[str],
    sources: Mapping[str, Mapping[str, Any]],
    folders: Mapping[str, Sequence[str]],
    suffixes: Mapping[str, str],
) -> FileScan:
    """Look for the image and the label files of every id.

    Args:
        ids: The ids.
        tasks: Names of the tasks whose files are looked for.
        sources: Reader and kinds of file per task (see `MultiTaskDataset`).
        folders: Per kind of file, the folders that are looked through in order.
        suffixes: Per kind of file, what an id is followed by.
    """
    exists = _Existence()
    scan = FileScan([], [], {task: [] for task in tasks})

    def find(kind: str, image_id: str) -> tuple[str | None, str]:
        """(path or None, how to call it in a message)."""
        paths = [osp.join(folder, image_id + suffixes[kind]) for folder in folders[kind]]
        return next((path for path in paths if path in exists), None), ' or '.join(paths)

    for image_id in ids:
        img_path, name = find('img_path', image_id)
        if img_path is None:
            scan.missing_images.append(name)
            continue
        sample = dict(img_path=img_path, tasks=tuple(tasks), label_paths={}, label_readers={}, seg_fields=[])
        for task in tasks:
            found = {key: find(kind, image_id) for key, kind in source_files(sources[task]).items()}
            absent = [name for path, name in found.values() if path is None]
            if absent:
                scan.missing_labels[task].append(absent[0])
                sample['label_paths'][task] = None
                continue
            paths = {key: path for key, (path, _) in found.items()}
            sample['label_paths'][task] = paths.pop('path')
            sample['label_readers'][task] = {**sources[task]['reader'], **paths}
        scan.samples.append(sample)
    return scan


def source_files(source: Mapping[str, Any]) -> dict[str, str]:
    """Argument of a source's reader -> kind of file."""
    return {key: kind for key, kind in source.items() if key != 'reader'}


def first_names(names: Sequence[str], number: int = 3) -> str:
    """The first few names, for a message."""
    return ', '.join(names[:number]) + (', ...' if len(names) > number else '')


class _Existence:
    """`path in self`: is there such a file? Every folder is listed once, which is fast on network drives too."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = osp.split(path)
        if folder not in self._names:
            self._names[folder] = frozenset(os.listdir(folder or '.') if osp.isdir(folder or '.') else ())
        return name in self._names[folder]
