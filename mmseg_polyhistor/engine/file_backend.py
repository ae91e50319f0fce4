"""A file backend that replaces a file only when the new one is complete."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from .disk import disk_error

__all__ = ['PART', 'AtomicLocalBackend']

#: What the name of an incomplete file ends with.
PART = '.part'


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """mmengine's `LocalBackend`, with `put` writing beside the target, to disk, and then renaming.

    Whoever is killed while writing leaves the old file as it was, and at worst a `<name>.part`, which the next write of
    that name replaces. Whoever fails, as on a full disk, leaves the old file alone.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, creating its directory where needed.

        Raises:
            OSError: if they cannot be written; the message names file and disk.
        """
        target = Path(filepath)
        part = target.with_name(target.name + PART)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open('wb') as f:
                    f.write(obj)
                    f.flush()
                    os.fsync(f.fileno())
                os.replace(part, target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        except OSError as e:
            raise disk_error(e, target, f'the file of {len(obj):,} bytes') from e
