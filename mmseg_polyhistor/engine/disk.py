"""What to say when a disk does not take a file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ['disk_error']


def disk_error(error: OSError, path: str | os.PathLike, what: str) -> OSError:
    """The same error, with the file and the state of its disk in the message.

    Python's own message names no file where writing fails, as on a full disk: it does so only where opening fails.

    Args:
        error: What happened.
        path: The file or folder that could not be written; it need not exist.
        what: What it was to hold, for the message: 'the checkpoint of 12,345 bytes'.
    """
    if error.errno is None:
        return error
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    while not place.is_mount():
        place = place.parent
    return OSError(
        error.errno,
        f'{os.strerror(error.errno)}: {what} was not written; the disk at {str(place)!r} has {free:,} bytes free',
        os.fspath(path),
    )
