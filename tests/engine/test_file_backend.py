"""The atomic backend: a target is either the old file or the whole new one."""

from __future__ import annotations

import errno
import os

import pytest
from mmengine.fileio import get_file_backend


@pytest.fixture
def backend():
    return get_file_backend(backend_args=dict(backend='atomic_local'))


def test_writes_and_replaces(tmp_path, backend):
    """Content arrives, directories are made, nothing else is left behind."""
    path = tmp_path / 'new dir' / 'a.pth'
    for content in (b'one', b'two'):
        backend.put(content, str(path))
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ['a.pth']


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_failure_leaves_the_old_file(tmp_path, backend, monkeypatch, step):
    """A full disk or a kill at any step before the rename changes nothing."""
    path = tmp_path / 'a.pth'
    backend.put(b'old', path)

    def fail(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match='No space'):
            backend.put(b'new', path)
    assert path.read_bytes() == b'old'
    backend.put(b'newer', path)
    assert path.read_bytes() == b'newer' and os.listdir(tmp_path) == ['a.pth']
