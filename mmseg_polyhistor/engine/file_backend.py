"""A file backend that replaces a file only when the new one is complete."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

__all__ = ['AtomicLocalBackend']


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """mmengine's `LocalBackend`, with `put` writing beside the target, to disk, and then renaming.

    Whoever is killed while writing leaves the old file as it was, and at worst a `<name>.part` that the next write of
    that name replaces.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, creating its directory where needed."""
        target = Path(filepath)
        part = target.with_name(target.name + '.part')
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open('wb') as f:
            f.write(obj)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, target)
