"""What there is to look at: images by path, folder, glob or array, and the frames of videos."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

__all__ = ['IMAGE_SUFFIXES', 'VIDEO_SUFFIXES', 'InputError', 'Source', 'count_images', 'expand_inputs']

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.gif')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


class InputError(ValueError):
    """An input cannot be read; the message names it."""


@dataclass(frozen=True)
class Source:
    """One image to predict.

    Attributes:
        name: What results are called: the path within the folder that was given, without suffix.
        path: The image file, or the video that the frame is from; None for an array.
        image: uint8 (H, W, 3), BGR; None for an image file, which is read when it is its turn.
        problem: Why there is no image, for a video that cannot be read; else None.
    """

    name: str
    path: str | None = None
    image: np.ndarray | None = None
    problem: str | None = None


def expand_inputs(inputs: Any) -> Iterator[Source]:
    """The images behind what a user names, in order; frames of a video are read one at a time.

    Args:
        inputs: An image file, a video file, a folder (all images and videos below it, sorted by path), a pattern with
            `*`, `?` or `[...]` (`**` for folders at any depth), a uint8 array (H, W, 3) in BGR, or a sequence of these.

    Yields:
        A `Source` per image. Names are unique: where two would be equal, the suffix is kept, or a number added.

    Raises:
        InputError: if a path does not exist, a folder or pattern has no image, or an array has another type or shape.
    """
    taken: set[str] = set()
    for source in _expand(inputs, 'image'):
        name, suffix = source.name, Path(source.path).suffix[1:] if source.path else ''
        if name in taken and suffix and source.image is None:
            name = f'{name}_{suffix}'
        number = 2
        while name in taken:
            name = f'{source.name}_{number}'
            number += 1
        taken.add(name)
        yield Source(name, source.path, source.image, source.problem)


def _expand(inputs: Any, name: str) -> Iterator[Source]:
    if isinstance(inputs, np.ndarray):
        yield Source(name, None, _check_array(inputs, name))
    elif isinstance(inputs, (str, os.PathLike)):
        files, root = _files(os.path.expanduser(os.fspath(inputs)))
        for file in files:
            own = os.path.splitext(os.path.relpath(file, root or '.'))[0]
            if _is_video(file):
                yield from _frames(file, own)
            else:
                yield Source(own, file)
    elif isinstance(inputs, Sequence):
        if not inputs:
            raise InputError('the list of inputs is empty')
        digits = len(str(len(inputs) - 1))
        for i, item in enumerate(inputs):
            yield from _expand(item, f'image_{i:0{digits}}')
    else:
        raise InputError(
            f'an input must be a path, a uint8 array (H, W, 3), or a sequence of these, got {type(inputs).__name__}'
        )


def _check_array(image: np.ndarray, name: str) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f'{name}: an array must be uint8 (H, W, 3) in BGR, got {image.dtype} {image.shape}')
    return image


def count_images(inputs: Any) -> int:
    """How many images `expand_inputs` will give; of a video, as many frames as its head says; for its errors see there."""
    if isinstance(inputs, (str, os.PathLike)):
        return sum(map(_count_frames, _files(os.path.expanduser(os.fspath(inputs)))[0]))
    if isinstance(inputs, Sequence):
        return sum(map(count_images, inputs))
    return 1


def _count_frames(path: str) -> int:
    if not _is_video(path):
        return 1
    video = cv2.VideoCapture(path)
    try:
        return max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        video.release()


def _files(path: str) -> tuple[list[str], str]:
    """The files that a path stands for, sorted, and the folder that their names are relative to."""
    if os.path.isdir(path):
        found = [
            os.path.join(folder, file) for folder, _, names in os.walk(path) for file in names if _fits(file)
        ]
        if not found:
            raise InputError(f'the folder {path!r} has no image or video: {", ".join(IMAGE_SUFFIXES)}, ...')
        return sorted(found), path
    if os.path.exists(path):
        return [path], os.path.dirname(path)
    if not glob.has_magic(path):
        raise InputError(f'{path!r} does not exist')
    found = sorted(f for f in glob.glob(path, recursive=True) if os.path.isfile(f) and _fits(f))
    if not found:
        raise InputError(f'no image or video fits the pattern {path!r}')
    return found, os.path.commonpath([os.path.dirname(f) or '.' for f in found])


def _fits(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES) or _is_video(path)


def _is_video(path: str) -> bool:
    return path.lower().endswith(VIDEO_SUFFIXES)


def _frames(path: str, name: str) -> Iterator[Source]:
    """The frames of a video, or what is wrong with it."""
    video = cv2.VideoCapture(path)
    index = 0
    try:
        while True:
            read, frame = video.read()
            if not read:
                break
            yield Source(f'{name}/{index:06}', path, frame)
            index += 1
    finally:
        video.release()
    if index == 0:
        yield Source(name, path, problem='OpenCV cannot decode a frame of this video')
