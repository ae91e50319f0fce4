"""Checkpoints are loaded without running code that is in them, also where the stack below would run it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.runner import CheckpointLoader

__all__ = ['load_from_http', 'load_from_local']

SAFETENSORS = '.safetensors'


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a checkpoint file, in place of mmengine's loader of this name.

    mmengine leaves the protection to `torch.load`, which has it by default only since torch 2.6; the maintained fork
    loads a file that was refused once more, without protection.

    A `.safetensors` file gives its tensors by name; the package safetensors reads it.

    Raises:
        FileNotFoundError: if there is no such file.
        RuntimeError: if the file holds more than tensors and plain data, or cannot be read.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'the checkpoint {filename!r} does not exist')
    with _named_errors(filename):
        if path.suffix == SAFETENSORS:
            return _load_safetensors(path, map_location)
        return torch.load(path, map_location=map_location, weights_only=True)


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: Any = None) -> dict:
    """Load a checkpoint by its URL, through torch's cache, in place of mmengine's loader of this name.

    mmengine calls `torch.hub.load_state_dict_from_url` with its default, which is no protection in any torch; it has the
    other processes wait for ever where the first one fails; and it keeps a download that broke off.

    The first process downloads, the others find the file in the cache. If one process fails, all raise the same error.

    Raises:
        RuntimeError: if the file cannot be downloaded or read, or holds more than tensors and plain data. What was
            downloaded is removed from the cache then.
    """
    checkpoint = error = None
    for turn in (True, False):
        if is_main_process() is turn:
            try:
                checkpoint = _download_and_load(filename, map_location)
            except RuntimeError as e:
                error = e
        # Nobody goes on before all have been told.
        reasons = all_gather_object(None if error is None else str(error))
        failed = [rank for rank, reason in enumerate(reasons) if reason is not None]
        if failed:
            raise error or RuntimeError(f'{reasons[failed[0]]} (told by process {failed[0]})')
    return checkpoint


def _download_and_load(url: str, map_location: Any) -> dict:
    """Raises RuntimeError as `load_from_http` does, for this process alone."""
    cache = Path(torch.hub.get_dir(), 'checkpoints')
    name = os.path.basename(urlparse(url).path)
    try:
        with _named_errors(url):
            if name.endswith(SAFETENSORS):
                if not (cache / name).is_file():
                    cache.mkdir(parents=True, exist_ok=True)
                    torch.hub.download_url_to_file(url, str(cache / name), progress=sys.stderr.isatty())
                return _load_safetensors(cache / name, map_location)
            return torch.hub.load_state_dict_from_url(
                url,
                model_dir=str(cache),
                map_location=map_location,
                progress=sys.stderr.isatty(),
                file_name=name,
                weights_only=True,
            )
    except RuntimeError:
        (cache / name).unlink(missing_ok=True)  # torch takes whatever the server sent for the whole file
        raise


def _load_safetensors(path: Path, map_location: Any) -> dict:
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as e:  # no part of any stack
        raise ModuleNotFoundError('it needs the package safetensors (pip install safetensors)') from e
    tensors = load_file(path)
    if map_location in (None, 'cpu'):
        return tensors
    buffer = io.BytesIO()  # torch's own loader follows everything that it takes: devices, functions, tables
    torch.save(tensors, buffer)
    buffer.seek(0)
    return torch.load(buffer, map_location=map_location, weights_only=True)


@contextmanager
def _named_errors(source: str) -> Iterator[None]:
    try:
        yield
    except UnpicklingError as e:
        raise RuntimeError(
            f'the checkpoint {source!r} was not loaded: it is broken, or holds more than tensors and plain data, and '
            'unpickling other objects can run code. (Checkpoints of stock mmengine hold their log history as '
            f'objects; SafeCheckpointHook saves it as plain data.) torch says: {_reason(e)}'
        ) from e
    except (URLError, HTTPException) as e:
        raise RuntimeError(
            f'the checkpoint {source!r} cannot be downloaded: {e}. Where there is no network, fetch the file elsewhere '
            'and give its path'
        ) from e
    except Exception as e:  # of files of another kind: IndexError, KeyError, ..., from within the unpickler
        raise RuntimeError(f'the checkpoint {source!r} cannot be read: {type(e).__name__}: {e}') from e


def _reason(error: UnpicklingError) -> str:
    """What torch found, without its advice to load the file again with the protection switched off."""
    advice = ('Weights only load failed', 'Please file an issue', 'Check the documentation')
    lines = [line.strip() for line in str(error).splitlines()]
    return ' '.join(line for line in lines if line and not line.startswith(advice))
