"""A folder of label maps that were slow to parse, as small PNG files."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ['cached_map']


def cached_map(
    path: str,
    cache_dir: str | os.PathLike,
    shape: tuple[int, int],
    recipe: str,
    parse: Callable[[], np.ndarray],
) -> np.ndarray:
    """`parse()`, or what it gave the last time for the same file.

    An entry belongs to the file's absolute path, size and time of change, to the image's size and to `recipe`; when
    one of them changes, it is not used any more. Entries are written whole or not at all, so that several processes
    may share the folder; one that cannot be decoded is written anew.

    Args:
        path: The file that `parse` reads.
        cache_dir: Folder of the entries; made where it does not exist.
        shape: (height, width) that the map must have.
        recipe: Whatever else the result depends on.
        parse: Gives the map, uint8 (H, W).

    Raises:
        OSError: if `path` does not exist, or the folder cannot be written.
    """
    stat = os.stat(path)
    key = '\0'.join(map(str, (os.path.abspath(path), stat.st_size, stat.st_mtime_ns, *shape, recipe)))
    entry = Path(cache_dir, f'{Path(path).stem}.{hashlib.sha256(key.encode()).hexdigest()[:32]}.png')
    cached = _read(entry)
    if cached is not None and cached.dtype == np.uint8 and cached.shape == tuple(shape):
        return cached
    array = parse()
    _write(entry, array)
    return array


def _read(entry: Path) -> np.ndarray | None:
    try:
        with Image.open(entry) as image:
            return np.array(image)
    except Exception:  # absent, or damaged in one of the many ways that Pillow reports: it is written anew
        return None


def _write(entry: Path, array: np.ndarray) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial = entry.with_name(f'{entry.name}.{uuid.uuid4().hex}.tmp')
    try:
        Image.fromarray(array).save(partial, format='PNG')
        os.replace(partial, entry)
    finally:
        partial.unlink(missing_ok=True)
