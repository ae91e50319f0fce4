"""Readers of PASCAL's own label formats: PASCAL-Part `.mat` files, normals that hold for some contexts only, and the
borders between contexts."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import resources

import numpy as np

from ..tasks import TaskSpec
from .label_cache import cached_map
from .labels import check_size, label_error, unit_vectors
from .mat_files import read_mat
from .readers import decode_vectors, register_reader
from .thinning import thin

__all__ = ['PART_GROUPS', 'PART_IDS', 'valid_context_ids']

PERSON = 15  # class index of a person in PASCAL VOC
NUM_CONTEXT_IDS = 460  # LabelMap of PASCAL-Context holds 0..459

# The 24 parts of a person in PASCAL-Part, merged into 6 (the ASTMT line of work); 0 is the background.
PART_GROUPS = {
    'head': ('hair', 'head', 'lear', 'rear', 'lebrow', 'rebrow', 'leye', 'reye', 'mouth', 'nose'),
    'torso': ('torso', 'neck'),
    'upper_arm': ('luarm', 'ruarm'),
    'lower_arm': ('llarm', 'rlarm', 'lhand', 'rhand'),
    'upper_leg': ('luleg', 'ruleg'),
    'lower_leg': ('llleg', 'rlleg', 'lfoot', 'rfoot'),
}
PART_IDS = {part: group for group, parts in enumerate(PART_GROUPS.values(), start=1) for part in parts}


def load_mat(path: str, key: str) -> np.ndarray:
    """The variable `key` of a MATLAB file (version 5 to 7).

    Raises:
        LabelError: if the file cannot be read, has no such variable, or holds a sparse matrix under this name.
    """
    expected = f"a MATLAB file (version 5 to 7) with the variable '{key}'"
    try:
        content = read_mat(path)
    except Exception as e:  # scipy lets through whatever its parser stumbles over
        raise label_error(path, f'a file that cannot be read ({type(e).__name__}: {e})', expected) from e
    if key not in content:
        raise label_error(
            path, f'the variables {[name for name in content if not name.startswith("__")]}', expected
        )
    if not isinstance(content[key], np.ndarray):
        raise label_error(path, f'the variable {key!r} as a {type(content[key]).__name__}', expected)
    return content[key]


@register_reader('pascal_parts')
def read_pascal_parts(
    path: str, *, spec: TaskSpec, shape: tuple[int, int], cache_dir: str | os.PathLike | None = None
) -> np.ndarray:
    """Human parts from a PASCAL-Part annotation, merged into 6 classes: uint8 (H, W), 0 (background) to 6.

    The variable `anno` holds the objects at `[0][0][1][0]`; an object is (name, class index, mask, parts), a part
    (name, mask). Of objects of class 15 (person) later parts overwrite earlier ones; other objects are left out.

    Args:
        path: The `.mat` file.
        spec: The task.
        shape: (height, width) of the image.
        cache_dir: Folder for parsed maps, which load faster than `.mat` files. Defaults to None: no cache.

    Raises:
        LabelError: if the file cannot be read, is nested otherwise, holds a mask of another size than the image, or
            names a part of a person that PASCAL-Part does not have.
    """
    if cache_dir is None:
        return parse_parts(path, shape)
    if not os.path.exists(path):
        raise label_error(path, 'no such file', 'a PASCAL-Part annotation')
    return cached_map(path, cache_dir, shape, f'pascal_parts {PART_IDS}', lambda: parse_parts(path, shape))


def parse_parts(path: str, shape: tuple[int, int]) -> np.ndarray:
    """See `read_pascal_parts`."""
    anno = load_mat(path, 'anno')
    merged = np.zeros(shape, np.uint8)
    try:
        if anno.dtype.names is None:
            raise TypeError(f'an array of {anno.dtype}, no struct')
        persons = [obj for obj in anno[0][0][1].ravel() if int(obj[1].item()) == PERSON]
        parts = [(str(part[0].item()), np.asarray(part[1])) for obj in persons for part in obj[3].ravel()]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise label_error(
            path,
            f"a variable 'anno' that is nested otherwise ({type(e).__name__}: {e})",
            'PASCAL-Part: objects at anno[0][0][1][0], each (name, class index, mask, parts), each part (name, mask)',
        ) from e
    for name, mask in parts:
        if name not in PART_IDS:
            raise label_error(path, f'a person with the part {name!r}', f'one of {sorted(PART_IDS)}')
        if mask.shape != tuple(shape):
            raise label_error(
                path,
                f'a mask of the part {name!r} of size {mask.shape} (height, width)',
                f"the image's size, {tuple(shape)}",
            )
        merged[mask.astype(bool)] = PART_IDS[name]
    return merged


@lru_cache(maxsize=1)
def valid_context_ids() -> tuple[int, ...]:
    """The ids of PASCAL-Context's 459 classes where distilled normals hold.

    They are the classes whose name also stands in NYU's class list, plus tvmonitor: the network that drew the
    normals was trained on NYU's rooms.
    """
    text = resources.files(__package__).joinpath('normals_valid_context_ids.txt').read_text(encoding='ascii')
    return tuple(map(int, text.split()))


@lru_cache(maxsize=1)
def _valid_table() -> np.ndarray:
    table = np.zeros(NUM_CONTEXT_IDS, bool)
    table[list(valid_context_ids())] = True
    return table


@register_reader('pascal_normals')
def read_pascal_normals(
    path: str, *, spec: TaskSpec, shape: tuple[int, int], context_path: str
) -> np.ndarray:
    """Distilled normals, valid where PASCAL-Context shows something that NYU has too: float32 (H, W, 3).

    Args:
        path: 8-bit RGB image, 2 * rgb / 255 - 1 for (x, y, z).
        spec: The task.
        shape: (height, width) of the image.
        context_path: The `.mat` file with the variable `LabelMap`, H x W, 0..459.

    Raises:
        LabelError: if one of the files cannot be read, their sizes differ, or an id is beyond 459.
    """
    context = load_context(context_path)
    vectors = decode_vectors(path, shape)
    if vectors.shape[:2] != context.shape:
        raise label_error(
            context_path,
            f"a 'LabelMap' of size {context.shape}",
            f'the size of {path}, {vectors.shape[:2]} (height, width)',
        )
    return unit_vectors(vectors, spec.ignore_value, _valid_table()[context.astype(np.intp)])


def load_context(path: str) -> np.ndarray:
    """PASCAL-Context's ids, (H, W), 0..459, in the file's own type of number.

    Raises:
        LabelError: if the file cannot be read, its `LabelMap` is laid out otherwise, or an id is beyond 459.
    """
    context = load_mat(path, 'LabelMap')
    if context.ndim != 2 or context.dtype.kind not in 'iuf':
        raise label_error(
            path, f"a 'LabelMap' of {context.dtype} {context.shape}", 'integers, (height, width)'
        )
    if context.size and not 0 <= context.min() <= context.max() < NUM_CONTEXT_IDS:
        raise label_error(path, f'ids from {context.min()} to {context.max()}', f'0..{NUM_CONTEXT_IDS - 1}')
    return context


@register_reader('pascal_edges')
def read_pascal_edges(path: str, *, spec: TaskSpec, shape: tuple[int, int]) -> np.ndarray:
    """The borders between PASCAL-Context's ids, thinned to lines: uint8 (H, W), 1 on a line, else 0.

    A pixel lies at a border if one of its four neighbours has another id; what is left of these after `thin` is the
    edge. (ASTMT takes the pixels where the Laplacian of the ids is not zero, which misses those where the differences
    to both sides cancel out, and thins them likewise.)

    Args:
        path: The `.mat` file with the variable `LabelMap`, H x W, 0..459.
        spec: The task.
        shape: (height, width) of the image.

    Raises:
        LabelError: if the file cannot be read, or an id is beyond 459.
    """
    context = load_context(path)
    check_size(context.shape, shape, path)  # before the work, and OpenCV has none to do on an empty map
    return thin(borders(context)).astype(np.uint8)


def borders(ids: np.ndarray) -> np.ndarray:
    """Where one of a pixel's four neighbours has another id: bool (H, W)."""
    border = np.zeros(ids.shape, bool)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = ids[here] != ids[there]
        border[here] |= differs
        border[there] |= differs
    return border
