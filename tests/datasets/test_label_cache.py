"""The cache under several processes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from mmseg_polyhistor.datasets.label_cache import cached_map


def slow_map() -> np.ndarray:
    return np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)


def fetch(directory: str) -> int:
    arrays = [
        cached_map(f'{directory}/source', f'{directory}/cache', (64, 64), 'r', slow_map) for _ in range(20)
    ]
    return sum(int((array == slow_map()).all()) for array in arrays)


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / 'source').write_bytes(b'x')
    with multiprocessing.get_context('fork').Pool(4) as pool:
        assert pool.map(fetch, [str(tmp_path)] * 8, chunksize=1) == [20] * 8
    assert [p.suffix for p in (tmp_path / 'cache').iterdir()] == ['.png'], 'no half-written file stays behind'


def test_an_entry_belongs_to_path_size_and_recipe(tmp_path: Path) -> None:
    for name in ('a', 'b'):
        (tmp_path / name).write_bytes(b'x')
    for name in ('a', 'b'):
        for shape in ((2, 3), (3, 2)):
            for recipe in ('r', 's'):
                cached_map(
                    str(tmp_path / name),
                    tmp_path / 'cache',
                    shape,
                    recipe,
                    lambda s=shape: np.zeros(s, np.uint8),
                )
    assert len(list((tmp_path / 'cache').iterdir())) == 8


def test_a_file_that_changed_without_growing_is_parsed_again(tmp_path: Path) -> None:
    source = tmp_path / 'source'
    source.write_bytes(b'x')
    now = source.stat().st_mtime_ns
    for value, time in ((3, now), (4, now + 1), (5, now + 1)):
        source.write_bytes(bytes([value]))
        os.utime(source, ns=(time, time))
        found = cached_map(
            str(source), tmp_path / 'cache', (2, 2), 'r', lambda v=value: np.full((2, 2), v, np.uint8)
        )
        assert (found == min(value, 4)).all(), 'the third has size and time of the second'


def test_an_absent_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='absent'):
        cached_map(str(tmp_path / 'absent'), tmp_path / 'cache', (2, 2), 'r', slow_map)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'source').write_bytes(b'x')

    def fail(*args: object) -> None:
        raise OSError('disk full')

    monkeypatch.setattr('mmseg_polyhistor.datasets.label_cache.os.replace', fail)
    with pytest.raises(OSError, match='disk full'):
        cached_map(str(tmp_path / 'source'), tmp_path / 'cache', (64, 64), 'r', slow_map)
    assert list((tmp_path / 'cache').iterdir()) == []
