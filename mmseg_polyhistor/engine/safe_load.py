"""Checkpoints are loaded without running code that is in them, also where the stack below would run it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.runner import CheckpointLoader

__all__ = ['load_from_http', 'load_from_local']


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a checkpoint file, in place of mmengine's loader of this name.

    mmengine leaves the protection to `torch.load`, which has it by default only since torch 2.6; the maintained fork
    loads a file that was refused once more, without protection.

    Raises:
        FileNotFoundError: if there is no such file.
        RuntimeError: if the file holds more than tensors and plain data, or cannot be read.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'the checkpoint {filename!r} does not exist')
    with _named_errors(filename):
        return torch.load(path, map_location=map_location, weights_only=True)


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: Any = None) -> dict:
    """Load a checkpoint by its URL, through torch's cache, in place of mmengine's loader of this name.

    mmengine calls `torch.hub.load_state_dict_from_url` with its default, which is no protection in any torch.

    Raises:
        RuntimeError: if the file holds more than tensors and plain data, cannot be read or downloaded.
    """
    checkpoint = None
    for turn in (True, False):  # the first process downloads, the others find the file in the cache
        if is_main_process() is turn:
            with _named_errors(filename):
                checkpoint = torch.hub.load_state_dict_from_url(
                    filename, map_location=map_location, progress=sys.stderr.isatty(), weights_only=True
                )
        barrier()
    return checkpoint


@contextmanager
def _named_errors(source: str) -> Iterator[None]:
    try:
        yield
    except UnpicklingError as e:
        raise RuntimeError(
            f'the checkpoint {source!r} was not loaded: it is broken, or holds more than tensors and plain data, and '
            'unpickling other objects can run code. (Checkpoints of stock mmengine hold their log history as '
            f'objects; SafeCheckpointHook saves it as plain data.) torch says: {e}'
        ) from e
    except URLError as e:
        raise RuntimeError(
            f'the checkpoint {source!r} cannot be downloaded: {e}. Where there is no network, fetch the file elsewhere '
            'and give its path'
        ) from e
    except (EOFError, RuntimeError, OSError) as e:
        raise RuntimeError(f'the checkpoint {source!r} cannot be read: {e}') from e
