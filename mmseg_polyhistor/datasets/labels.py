"""Label maps as arrays: what each kind of task looks like in the pipeline, and the errors for files that do not fit.

All functions are pure: they read a `TaskSpec` and dispatch on its `kind`, never on a task's name.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..tasks import TaskSpec

__all__ = [
    'LabelError',
    'SampleError',
    'check_ids',
    'check_label',
    'check_size',
    'ignore_map',
    'label_error',
    'scalars',
    'unit_vectors',
    'valid_pixels',
    'without_empty',
]

# kind -> dtype and trailing axes of a label map
LAYOUT = {
    'semantic': (np.uint8, ()),
    'binary': (np.uint8, ()),
    'unit_vector': (np.float32, (3,)),
    'scalar': (np.float32, ()),
}
# kind -> number of classes that a label map may hold, beside the ignore value
NUM_CLASSES = {'semantic': lambda spec: spec.channels, 'binary': lambda spec: 2}

MIN_LENGTH = (
    0.1  # a decoded vector that is shorter has no direction: 8 bits alone give (128, 128, 128) length 0.007
)

STRIP = 64  # rows that are worked on at a time: what is in between fits into a processor's cache
SUM = np.ones((1, 3), np.float32)

TURNED = (
    '. Height and width are swapped: a photograph with an EXIF orientation is turned when it is loaded. Draw the label '
    "on the turned photograph, or give LoadImageFromFile color_type='color_ignore_orientation'"
)


class SampleError(ValueError):
    """A sample cannot be loaded; the message names the file."""


class LabelError(SampleError):
    """A label file is broken or holds something else than it should; the message names the file, what was found and
    what was expected."""


def label_error(path: str, found: str, expected: str) -> LabelError:
    """A `LabelError` in the one form that all readers use."""
    return LabelError(f'{path}: found {found}; expected {expected}')


def ignore_map(spec: TaskSpec, shape: tuple[int, int]) -> np.ndarray:
    """A label map of (H, W) `shape` in which no pixel carries a label."""
    dtype, tail = LAYOUT[spec.kind]
    return np.full((*shape, *tail), spec.ignore_value, dtype)


def valid_pixels(label: np.ndarray, spec: TaskSpec) -> np.ndarray:
    """Where a label map carries a label: bool (H, W)."""
    differs = label != spec.ignore_value
    return differs[..., 0] | differs[..., 1] | differs[..., 2] if label.ndim == 3 else differs


def without_empty(label: np.ndarray, spec: TaskSpec) -> np.ndarray:
    """The label, or an all-ignore map where `spec.ignore_if_empty` is set and no pixel has a class above 0.

    A human-parts map without any part, from the start or after a crop, has no loss and no metric (the benchmark's
    rule); so this comes last, when a sample is packed.
    """
    if spec.ignore_if_empty and not ((label > 0) & (label != spec.ignore_value)).any():
        return ignore_map(spec, label.shape[:2])
    return label


def unit_vectors(vectors: np.ndarray, ignore_value: int, valid: np.ndarray | None = None) -> np.ndarray:
    """Vectors of any length -> a label map of directions, in place.

    Args:
        vectors: float32 (H, W, 3); they are overwritten, for a map of this size is slow to allocate.
        ignore_value: What pixels without direction are set to, in all three components.
        valid: bool (H, W), the pixels that may carry a direction. Defaults to None: all.

    Returns:
        `vectors`, of length 1 where valid. A vector shorter than 0.1, or not finite, has no direction and is
        ignored as well.
    """
    for top in range(0, len(vectors), STRIP):
        strip = vectors[top : top + STRIP]
        length = cv2.transform(cv2.multiply(strip, strip), SUM)
        length = np.sqrt(length.reshape(strip.shape[:2]))
        bad = ~((length >= MIN_LENGTH) & (length < np.inf))  # a NaN fails every comparison
        if valid is not None:
            bad |= ~valid[top : top + STRIP]
        np.copyto(length, np.float32(1), where=bad)
        # Three equal planes: dividing by a last axis of size 1 takes five times as long.
        np.divide(strip, cv2.merge([length] * 3), out=strip)
        nowhere = np.full_like(strip, ignore_value)
        cv2.copyTo(nowhere, bad.view(np.uint8), strip)  # strip[bad] = ..., seven times as fast
    return vectors


def scalars(values: np.ndarray, ignore_value: int, factor: float = 1.0) -> np.ndarray:
    """Numbers of any type, times a factor -> a map of quantities: float32 (H, W), contiguous.

    A number that is not finite (a hole in the measurement) is ignored: set to `ignore_value`.
    """
    quantities = np.multiply(values, factor, dtype=np.float64)
    with np.errstate(over='ignore'):
        quantities = np.ascontiguousarray(quantities, np.float32)
    quantities[~np.isfinite(quantities)] = ignore_value
    return quantities


def check_label(label: np.ndarray, spec: TaskSpec, shape: tuple[int, int], path: str) -> np.ndarray:
    """Hold a label map, as a reader returned it, against its task and its image.

    Args:
        label: The map.
        spec: The task.
        shape: (height, width) of the image.
        path: The file that the map was read from, for the message.

    Returns:
        The map, unchanged.

    Raises:
        LabelError: if the size is not the image's, the array is not of the kind's dtype and layout, a class id is out
            of range, or a quantity is negative or not finite.
    """
    dtype, tail = LAYOUT[spec.kind]
    check_size(label.shape, shape, path)
    if label.dtype != dtype or label.shape[2:] != tail:
        raise label_error(
            path,
            f'an array of {label.dtype} {label.shape} from the reader',
            f'{np.dtype(dtype)} {(*shape, *tail)} (task {spec.name!r}, kind {spec.kind!r})',
        )
    if spec.kind in NUM_CLASSES:
        check_ids(label, spec, path)
    if spec.kind == 'scalar':
        _check_quantities(label, spec, path)
    return label


def check_size(size: tuple[int, ...], shape: tuple[int, int], path: str) -> None:
    """A label map must be as large as its image. A reader that knows the size before it decodes the file checks it then: a
    file of a few bytes may claim any size.

    Raises:
        LabelError: if the first two of `size` are not `shape`, (height, width).
    """
    if tuple(size[:2]) != tuple(shape):
        turned = tuple(size[1::-1]) == tuple(shape)
        raise label_error(
            path,
            f'a label map of {_size(size)} pixels (height x width)',
            f"the image's size, {_size(shape)}" + (TURNED if turned else ''),
        )


def check_ids(ids: np.ndarray, spec: TaskSpec, path: str) -> None:
    """Class ids of any integer dtype must be below the task's number of classes, or the ignore value.

    Raises:
        LabelError: naming the first few ids that are not, and how many pixels hold them.
    """
    classes = NUM_CLASSES[spec.kind](spec)
    bad = (ids != spec.ignore_value) & ((ids >= classes) | (ids < 0))
    if bad.any():
        found = np.unique(ids[bad])
        names = ', '.join(map(str, found[:5])) + (', ...' if len(found) > 5 else '')
        raise label_error(
            path,
            f'class id {names} in {np.count_nonzero(bad)} pixels',
            f'0..{classes - 1}, or {spec.ignore_value} for ignore (task {spec.name!r})',
        )


def _check_quantities(label: np.ndarray, spec: TaskSpec, path: str) -> None:
    bad = (label != spec.ignore_value) & ~((label >= 0) & (label < np.inf))  # a NaN fails every comparison
    if bad.any():
        found = label[bad]
        raise label_error(
            path,
            f'{found.size} values such as {found[0]:g}',
            f'finite numbers of 0 and above, or {spec.ignore_value} for ignore (task {spec.name!r})',
        )


def _size(shape: tuple[int, ...]) -> str:
    return ' x '.join(map(str, shape[:2])) or 'no'
