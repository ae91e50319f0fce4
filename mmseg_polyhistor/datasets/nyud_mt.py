"""NYUD-v2 with labels for semantic segmentation, depth, surface normals and edges, in the four layouts in use."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmseg.registry import DATASETS
from PIL import Image

from ..tasks import TaskSpec, get_task
from .file_scan import FileScan, read_ids, source_files
from .labels import label_error, scalars
from .multi_task_dataset import MultiTaskDataset, class_metainfo
from .pascal_labels import load_mat
from .readers import INDEX_MODES, load_npy, open_image, register_reader

__all__ = ['NYUD_LAYOUTS', 'NYUDLayout', 'NYUDMTDataset', 'detect_layout']


@dataclass(frozen=True)
class NYUDLayout:
    """How one line of work stores NYUD-v2 under `images segmentation depth normals edge gt_sets`.

    Args:
        name: What messages and configs call it.
        size: (height, width) of the images.
        files: Suffix per kind of file.
        readers: Reader per kind of label file.
    """

    name: str
    size: tuple[int, int]
    files: Mapping[str, str]
    readers: Mapping[str, Mapping[str, Any]]


def _layout(name: str, size: tuple[int, int], image: str, **labels: tuple[str, dict[str, Any]]) -> NYUDLayout:
    files = {'img_path': image, **{kind: suffix for kind, (suffix, _) in labels.items()}}
    return NYUDLayout(name, size, files, {kind: reader for kind, (_, reader) in labels.items()})


_CLASSES_MAT = ('.mat', dict(type='nyud_classes_mat'))
_CLASSES_PNG = ('.png', dict(type='nyud_classes_image'))
_DEPTH_MAT = ('.mat', dict(type='scalar_mat', key='depth'))
_DEPTH_NPY = ('.npy', dict(type='scalar_npy'))
_NORMALS_NPY = ('.npy', dict(type='vector_npy'))
_EDGE_PNG = ('.png', dict(type='grey_image', threshold=0.5))
_EDGE_NPY = ('.npy', dict(type='mask_npy', threshold=0.5))

#: Layouts by name: ASTMT; MTI-Net and MTLoRA; InvPT and MLoRE; ATRC.
NYUD_LAYOUTS: dict[str, NYUDLayout] = {
    layout.name: layout
    for layout in (
        _layout(
            'astmt', (480, 640), '.jpg', segmentation=_CLASSES_MAT, depth=_DEPTH_MAT,
            normals=('.jpg', dict(type='vector_image')), edge=_EDGE_PNG,
        ),
        _layout(
            'mti_net', (480, 640), '.jpg', segmentation=_CLASSES_PNG, depth=_DEPTH_NPY,
            normals=_NORMALS_NPY, edge=_EDGE_NPY,
        ),
        _layout(
            'invpt', (425, 560), '.png', segmentation=_CLASSES_PNG, depth=_DEPTH_NPY,
            normals=('.png', dict(type='vector_image')), edge=_EDGE_PNG,
        ),
        _layout(
            'atrc', (425, 560), '.jpg', segmentation=_CLASSES_PNG, depth=_DEPTH_NPY,
            normals=_NORMALS_NPY, edge=_EDGE_NPY,
        ),
    )
}  # fmt: skip

# task -> kind of file
_KINDS = dict(nyud_semseg='segmentation', depth='depth', normals='normals', edge='edge')


@DATASETS.register_module()
class NYUDMTDataset(MultiTaskDataset):
    """The multi-task NYUD-v2 (795 training and 654 validation images), in any of the four layouts that are in use.

    .. code-block:: none

        data_root
        ├── gt_sets/{train,val}.txt
        ├── images/<id>.jpg | .png
        ├── segmentation/<id>.mat | .png    0 (no label) to 40
        ├── depth/<id>.mat | .npy           metres, 0 = no measurement
        ├── normals/<id>.jpg | .npy | .png  in [-1, 1], or 2 v / 255 - 1
        └── edge/<id>.png | .npy

    ==========  =========  =======================  =========  ========  =======  ========
    layout      image      segmentation             normals    depth     edge     pixels
    ==========  =========  =======================  =========  ========  =======  ========
    'astmt'     jpg        mat, `segmentation`      jpg        mat       png      480 x 640
    'mti_net'   jpg        png                      npy        npy       npy      480 x 640
    'invpt'     png        png                      png        npy       png      425 x 560
    'atrc'      jpg        png                      npy        npy       npy      425 x 560
    ==========  =========  =======================  =========  ========  =======  ========

    MTLoRA uses MTI-Net's files, MLoRE those of InvPT. Class ids are read minus 1, and 0 as ignore.

    Args:
        ann_file: List of ids. Defaults to 'gt_sets/train.txt'.
        tasks: Any of 'nyud_semseg', 'depth', 'normals', 'edge', in order. Defaults to all four.
        layout: Name of the layout, or 'auto': the one whose files exist, told in the log when the files are looked for (see
            `detect_layout`). Defaults to 'auto'.
        suffixes: See `MultiTaskDataset`; a suffix given here is that of its kind of file in every layout. Defaults to None.
        sources: See `MultiTaskDataset`. Defaults to None.
        **kwargs: See `MultiTaskDataset`. `data_prefix` may set other folders for 'img_path', 'segmentation', 'depth',
            'normals' and 'edge'.

    Raises:
        ValueError: if the layout is unknown, or (when the files are looked for) none or more than one fits; the message
            tells what was found.
    """

    TASKS = tuple(_KINDS)
    METAINFO = class_metainfo(get_task('nyud_semseg'))
    DATA_PREFIX = dict(
        img_path='images', segmentation='segmentation', depth='depth', normals='normals', edge='edge'
    )

    def __init__(
        self,
        ann_file: str = 'gt_sets/train.txt',
        tasks: Sequence[str] = TASKS,
        *,
        layout: str = 'auto',
        suffixes: Mapping[str, str] | None = None,
        sources: Mapping[str, Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if layout != 'auto' and layout not in NYUD_LAYOUTS:
            raise ValueError(
                f"NYUDMTDataset: layout must be 'auto' or one of {list(NYUD_LAYOUTS)}, got {layout!r}"
            )
        self.layout = layout
        self._own = dict(suffixes or {}), dict(sources or {})
        # Until the files are looked for, any layout stands for the one to be detected: all have the same kinds of file.
        known = NYUD_LAYOUTS[next(iter(NYUD_LAYOUTS)) if layout == 'auto' else layout]
        super().__init__(
            ann_file,
            tasks,
            suffixes=known.files | self._own[0],
            sources=_sources(known) | self._own[1],
            **kwargs,
        )

    def scan_files(self) -> FileScan:
        """As `MultiTaskDataset.scan_files`, in the layout that the files have."""
        if self.layout == 'auto' and osp.isfile(
            self.ann_file
        ):  # without a list, the data set's own message is clearer
            kinds = {kind for task in self.tasks for kind in source_files(self.sources[task]).values()}
            folders = {kind: self.data_prefix[kind] for kind in ('img_path', *sorted(kinds))}
            own_suffixes, own_sources = self._own
            found = detect_layout(read_ids(self.ann_file), folders, own_suffixes)
            print_log(
                f'NYUDMTDataset: {self.data_root or os.getcwd()} has the layout {found.name!r}',
                logger='current',
            )
            self.layout = found.name
            self.suffixes.update(found.files | own_suffixes)
            self.sources.update(_sources(found) | own_sources)
        return super().scan_files()


def _sources(layout: NYUDLayout) -> dict[str, dict[str, Any]]:
    return {task: dict(path=kind, reader=dict(layout.readers[kind])) for task, kind in _KINDS.items()}


def detect_layout(
    ids: Sequence[str], folders: Mapping[str, Sequence[str]], suffixes: Mapping[str, str] | None = None
) -> NYUDLayout:
    """The layout whose files exist for the first id that has a file of every kind in use.

    Where the files of several layouts exist, the one whose images have the size that is theirs is meant: MTI-Net's and ATRC's
    files have the same names.

    Args:
        ids: The list of ids.
        folders: Folders, looked through in order, per kind of file in use; 'img_path' is among them.
        suffixes: Suffixes that are given, whatever the layout. Defaults to None.

    Raises:
        ValueError: if no layout fits, or several; the message lists what was found.
    """

    def find(image_id: str, kind: str, suffix: str) -> str | None:
        paths = [osp.join(folder, image_id + suffix) for folder in folders[kind]]
        return next((path for path in paths if osp.isfile(path)), None)

    files = {name: {**layout.files, **(suffixes or {})} for name, layout in NYUD_LAYOUTS.items()}
    for image_id in ids:
        fitting = [name for name in files if all(find(image_id, kind, files[name][kind]) for kind in folders)]
        if not fitting:
            continue
        if len(fitting) > 1:
            sizes = {
                name: _image_size(find(image_id, 'img_path', files[name]['img_path'])) for name in fitting
            }
            of_size = [name for name in fitting if NYUD_LAYOUTS[name].size == sizes[name]]
            if len(of_size) != 1:
                shown = ', '.join(f'{name} with images of {NYUD_LAYOUTS[name].size}' for name in fitting)
                raise ValueError(
                    f'NYUDMTDataset: the files of {image_id!r} fit several layouts: {shown} pixels (height, width). Its '
                    f'image has {" or ".join(map(str, sorted(set(sizes.values()))))}; choose one by layout=...'
                )
            fitting = of_size
        return NYUD_LAYOUTS[fitting[0]]
    there = {
        kind: [s for s in sorted({of[kind] for of in files.values()}) if find(ids[0], kind, s)]
        for kind in folders
    }
    known = {name: {kind: of[kind] for kind in folders} for name, of in files.items()}
    raise ValueError(
        f'NYUDMTDataset: the files fit no known layout. Of the first id, {ids[0]!r}, there are {there}; the layouts have '
        f'{known}, in the folders {dict(folders)}. Check data_root and data_prefix, or name in `tasks` only what you have '
        'labels for'
    )


def _image_size(path: str) -> tuple[int, int]:
    """(height, width), from the head of the file."""
    with Image.open(path) as image:
        return image.size[::-1]


# ------------------------------------------------------------------------------------------------------- readers
def _shift(ids: np.ndarray, spec: TaskSpec, path: str) -> np.ndarray:
    """NYUD's ids 0 (no label) to `channels` -> classes 0 to `channels` - 1, and the ignore value."""
    expected = f'class ids 0 (no label) to {spec.channels}'
    if ids.ndim != 2 or ids.dtype.kind not in 'iuf' or not np.isfinite(ids).all():
        raise label_error(path, f'{ids.dtype} {ids.shape}', expected)
    if ids.size and not 0 <= ids.min() <= ids.max() <= spec.channels:
        raise label_error(path, f'ids from {ids.min()} to {ids.max()}', expected)
    classes = ids.astype(np.int16) - 1
    if (classes + 1 != ids).any():
        raise label_error(path, 'ids that are no whole numbers', expected)
    return np.where(classes < 0, spec.ignore_value, classes).astype(np.uint8)


@register_reader('nyud_classes_mat')
def read_nyud_classes_mat(path: str, *, spec: TaskSpec, shape: tuple[int, int]) -> np.ndarray:
    """Classes from the variable `segmentation` of a `.mat` file, ids 0 (ignore) to 40: uint8 (H, W), ids minus 1."""
    return _shift(load_mat(path, 'segmentation'), spec, path)


@register_reader('nyud_classes_image')
def read_nyud_classes_image(path: str, *, spec: TaskSpec, shape: tuple[int, int]) -> np.ndarray:
    """Classes from a palette or grey image, ids 0 (ignore) to 40: uint8 (H, W), ids minus 1."""
    return _shift(open_image(path, INDEX_MODES, shape), spec, path)


@register_reader('scalar_mat')
def read_scalar_mat(path: str, *, spec: TaskSpec, shape: tuple[int, int], key: str) -> np.ndarray:
    """Quantities (depth) from the variable `key` of a `.mat` file: float32 (H, W); not finite, or 0 of a depth: ignored."""
    values = load_mat(path, key)
    if values.ndim != 2 or values.dtype.kind not in 'fiu':
        raise label_error(path, f'{key!r} as {values.dtype} {values.shape}', 'numbers, (height, width)')
    return scalars(values, spec.ignore_value)


@register_reader('mask_npy')
def read_mask_npy(path: str, *, spec: TaskSpec, shape: tuple[int, int], threshold: float = 0.5) -> np.ndarray:
    """1 where the numbers (H, W) of a `.npy` file, in [0, 1], exceed `threshold` (0 <= threshold < 1), else 0: uint8."""
    if not 0 <= threshold < 1:
        raise ValueError(f'threshold of the reader mask_npy must lie in 0..1, below 1; got {threshold!r}')
    expected = 'a .npy file with numbers in 0..1, or booleans, (height, width)'
    values = load_npy(path, expected)
    if values.ndim != 2 or values.dtype.kind not in 'fiub':
        raise label_error(path, f'{values.dtype} {values.shape}', expected)
    if values.size and not 0 <= values.min() <= values.max() <= 1:  # False for a NaN
        raise label_error(path, f'numbers from {values.min()} to {values.max()}', expected)
    return (values > threshold).astype(np.uint8)
