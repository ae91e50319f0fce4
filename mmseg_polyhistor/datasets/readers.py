"""Readers: functions that turn a label file into a label map, chosen by name in a data set's table of sources.

A data set says which reader serves which task (`sources=dict(garments=dict(path='garments', reader=dict(
type='index_image')))`); a user adds a format with one function:

    >>> @register_reader('my_format')
    ... def read_my_format(path, *, spec, shape, some_option=3):
    ...     return label_map  # dtype and layout of the task's kind, see mmseg_polyhistor/tasks.py
"""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from ..tasks import TaskSpec
from .labels import LabelError, check_ids, check_label, check_size, label_error, scalars, unit_vectors
from .photographs import EXIF_ORIENTATION

__all__ = ['LabelReader', 'get_reader', 'known_readers', 'read_label', 'register_reader']

LabelReader = Callable[..., np.ndarray]

_READERS: dict[str, LabelReader] = {}


def register_reader(name: str, *, force: bool = False) -> Callable[[LabelReader], LabelReader]:
    """Decorator that makes a reader known by name.

    A reader is called as `reader(path, *, spec, shape, **options)` with the file's path, the `TaskSpec`, the image's
    (height, width), and the options that stand beside `type` in the data set's table. It returns a label map of the
    task's kind and raises `LabelError` for a file that it cannot read.

    Args:
        name: What configs call the reader.
        force: Replace a reader of the same name. Defaults to False.

    Raises:
        ValueError: if there is another reader of that name and `force` is not set.
    """

    def add(reader: LabelReader) -> LabelReader:
        if not force and _READERS.get(name, reader) is not reader:
            raise ValueError(f'a reader named {name!r} exists already; pass force=True to replace it')
        _READERS[name] = reader
        return reader

    return add


def known_readers() -> tuple[str, ...]:
    """The names of all readers."""
    return tuple(_READERS)


def get_reader(name: str) -> LabelReader:
    """The reader of that name.

    Raises:
        ValueError: if there is none; the message lists the known ones.
    """
    if name not in _READERS:
        raise ValueError(f'unknown label reader {name!r}; known readers are {list(_READERS)}')
    return _READERS[name]


def read_label(path: str, spec: TaskSpec, shape: tuple[int, int], reader: Mapping[str, Any]) -> np.ndarray:
    """Read one label file and check the result.

    Args:
        path: The file.
        spec: The task.
        shape: (height, width) of the image.
        reader: `dict(type=<name of the reader>, **options)`.

    Returns:
        The label map in the dtype and layout of the task's kind.

    Raises:
        LabelError: if the file is broken, or does not fit the image or the task; it names the file.
    """
    options = {key: value for key, value in reader.items() if key != 'type'}
    label = get_reader(reader['type'])(path, spec=spec, shape=shape, **options)
    return check_label(label, spec, shape, path)


# What labels are stored in. Pillow knows more formats, among them PostScript, which it hands to another program.
FORMATS = ('PNG', 'JPEG', 'TIFF', 'BMP', 'GIF', 'PPM', 'WEBP')


def open_image(path: str, modes: Mapping[str, str], shape: tuple[int, int]) -> np.ndarray:
    """Decode an image file of (height, width) `shape` whose Pillow mode is one of `modes` (mode -> its description),
    without any conversion.

    Palette images give their indices.

    Raises:
        LabelError: if the file cannot be decoded (absent, empty, truncated, no image of `FORMATS`), has another mode or
            size, or has an EXIF orientation, which would leave open how it lies on its photograph.
    """
    expected = ' or '.join(modes.values())
    try:
        with open(path, 'rb') as file:
            content = io.BytesIO(
                file.read()
            )  # of a file, Python allocates what a chunk claims before it reads it
        with Image.open(content, formats=FORMATS) as image:
            mode, size = image.mode, image.size
            if mode in modes:
                check_size(size[::-1], shape, path)
            array = np.array(image) if mode in modes else None
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except LabelError:
        raise
    except (
        Exception
    ) as e:  # Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error ...
        raise label_error(path, f'a file that cannot be decoded ({type(e).__name__}: {e})', expected) from e
    if array is None:
        raise label_error(path, f'an image of mode {mode}, {size[1]} x {size[0]} pixels', expected)
    if orientation in range(2, 9):
        raise label_error(
            path,
            f'the EXIF orientation {orientation}',
            f'{expected}, stored as it is meant, without an orientation',
        )
    return array


INDEX_MODES = {'P': 'a palette image', 'L': '8-bit grey', 'I;16': '16-bit grey', 'I': '32-bit grey'}


@register_reader('index_image')
def read_index_image(path: str, *, spec: TaskSpec, shape: tuple[int, int]) -> np.ndarray:
    """Class ids from a palette or grey image: uint8 (H, W). The palette's colours play no part.

    Raises:
        LabelError: also for a colour image, and for ids beyond the task's classes.
    """
    ids = open_image(path, INDEX_MODES, shape)
    if ids.dtype != np.uint8:
        check_ids(ids, spec, path)  # before 8 bits cut them off
    return ids.astype(np.uint8, copy=False)


@register_reader('grey_image')
def read_grey_image(
    path: str, *, spec: TaskSpec, shape: tuple[int, int], threshold: float = 0.5
) -> np.ndarray:
    """1 where an 8-bit grey image, divided by 255, exceeds `threshold` (0 <= threshold < 1), else 0: uint8 (H, W)."""
    if not 0 <= threshold < 1:
        raise ValueError(f'threshold of the reader grey_image must lie in 0..1, below 1; got {threshold!r}')
    grey = open_image(path, {'L': '8-bit grey'}, shape)
    if grey.size and grey.max() == 1 and threshold >= 1 / 255:
        _tell_of_zeros_and_ones(path)
    return (grey > 255 * threshold).astype(np.uint8)


_TOLD: set[str] = set()  # what this process has warned of


def _tell_of_zeros_and_ones(path: str) -> None:
    if 'zeros and ones' not in _TOLD:
        _TOLD.add('zeros and ones')
        print_log(
            f'{path} holds the values 0 and 1 alone, and the reader grey_image divides by 255: its mask is empty. Masks of 0 '
            'and 1 are read by index_image (further files of this kind are not told)',
            logger='current',
            level=logging.WARNING,
        )


def decode_vectors(path: str, shape: tuple[int, int]) -> np.ndarray:
    """Vectors from an 8-bit RGB image: 2 * rgb / 255 - 1 for (x, y, z), float32 (H, W, 3), not normalised."""
    rgb = open_image(path, {'RGB': '8-bit RGB (x, y, z)'}, shape)
    vectors = rgb * np.float32(2 / 255)
    vectors -= np.float32(1)
    return vectors


@register_reader('vector_image')
def read_vector_image(path: str, *, spec: TaskSpec, shape: tuple[int, int]) -> np.ndarray:
    """Directions from an 8-bit RGB image, 2 * rgb / 255 - 1 for (x, y, z): float32 (H, W, 3), of length 1.

    A pixel without direction (shorter than 0.1: middle grey) is ignored.
    """
    return unit_vectors(decode_vectors(path, shape), spec.ignore_value)


@register_reader('vector_npy')
def read_vector_npy(path: str, *, spec: TaskSpec, shape: tuple[int, int]) -> np.ndarray:
    """Directions from a floating-point `.npy` array (H, W, 3) of any length: float32 (H, W, 3), of length 1.

    A pixel without direction (shorter than 0.1, or not finite) is ignored.
    """
    expected = 'a .npy file with a floating-point array (height, width, 3)'
    vectors = load_npy(path, expected)
    if vectors.ndim != 3 or vectors.shape[2] != 3 or vectors.dtype.kind != 'f':
        raise label_error(path, f'{vectors.dtype} {vectors.shape}', expected)
    check_size(vectors.shape, shape, path)  # OpenCV has no work to do on an empty map
    return unit_vectors(np.ascontiguousarray(vectors, np.float32), spec.ignore_value)


def load_npy(path: str, expected: str) -> np.ndarray:
    """The array of a `.npy` file.

    Raises:
        LabelError: if the file cannot be decoded, or is an archive; `expected` says what it should be.
    """
    try:
        _check_header(path)
        array = np.load(path, allow_pickle=False)
    except Exception as e:  # numpy raises ValueError, OSError, EOFError, and more for hostile headers
        raise label_error(path, f'a file that cannot be decoded ({type(e).__name__}: {e})', expected) from e
    if not isinstance(array, np.ndarray):
        raise label_error(path, f'an archive of arrays {list(array)}', expected)
    return array


def _check_header(path: str) -> None:
    """ValueError for a `.npy` file that claims more bytes than it holds, which `np.load` would allocate."""
    with open(path, 'rb') as file:
        if file.read(6) != np.lib.format.MAGIC_PREFIX:
            return  # another format, which `np.load` tells apart
        file.seek(0)
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:  # version 3: names of fields, which a map of numbers has none of
            raise ValueError(f'version {version} of the format')
        shape, _, dtype = read_header(file)
        claimed, held = math.prod(shape) * dtype.itemsize, os.path.getsize(path) - file.tell()
        if not dtype.hasobject and claimed > held:
            raise ValueError(f'{claimed} bytes of {dtype} {shape}, of which {held} are there')


def _positive(reader: str, factor: float) -> float:
    if not (factor > 0 and factor < float('inf')):
        raise ValueError(f'factor of the reader {reader} must be positive and finite, got {factor!r}')
    return float(factor)


@register_reader('scalar_npy')
def read_scalar_npy(path: str, *, spec: TaskSpec, shape: tuple[int, int], factor: float = 1.0) -> np.ndarray:
    """Quantities (depth) from a `.npy` array of numbers (H, W), times `factor`: float32 (H, W).

    A number that is not finite is ignored, and so is one that equals the task's ignore value: for depth, 0.

    Raises:
        LabelError: also for an array that is not (H, W), and for negative numbers.
    """
    expected = 'a .npy file with an array of numbers (height, width)'
    values = load_npy(path, expected)
    if values.ndim != 2 or values.dtype.kind not in 'fiu':
        raise label_error(path, f'{values.dtype} {values.shape}', expected)
    return scalars(values, spec.ignore_value, _positive('scalar_npy', factor))


@register_reader('scalar_image')
def read_scalar_image(path: str, *, spec: TaskSpec, shape: tuple[int, int], factor: float) -> np.ndarray:
    """Quantities (depth) from a grey image of 8, 16 or 32 bits, times `factor`: float32 (H, W).

    `factor` has no default, since files differ: 0.001 for millimetres, 1 / 256 for KITTI's. A product that equals the
    task's ignore value is ignored: for depth, black.
    """
    modes = {mode: name for mode, name in INDEX_MODES.items() if mode != 'P'}
    return scalars(open_image(path, modes, shape), spec.ignore_value, _positive('scalar_image', factor))
