"""The atomic backend: a target is either the old file or the whole new one."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend

from mmseg_polyhistor.engine.disk import disk_error


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


@pytest.mark.parametrize('step', ['open', 'fsync', 'replace'])
def test_failure_leaves_the_old_file(tmp_path, backend, monkeypatch, step):
    """A full disk at any step before the rename changes nothing, leaves nothing, and is reported with file and disk."""
    path = tmp_path / 'a.pth'
    backend.put(b'old', path)

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path if step == 'open' else os, step, fail)
        with pytest.raises(OSError, match='No space') as caught:
            backend.put(b'new!', path)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    mount = next(str(p) for p in (path, *path.parents) if os.path.ismount(p))
    assert re.search(
        rf"the file of 4 bytes was not written; the disk at '{mount}' has [0-9,]+ bytes free",
        str(caught.value),
    )
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.pth']
    backend.put(b'newer', path)
    assert path.read_bytes() == b'newer' and os.listdir(tmp_path) == ['a.pth']


def test_interrupted_by_the_user(tmp_path, backend, monkeypatch):
    """Ctrl-C in the middle leaves nothing incomplete either."""

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', interrupt)
    with pytest.raises(KeyboardInterrupt):
        backend.put(b'new', tmp_path / 'a.pth')
    assert not os.listdir(tmp_path)


def test_a_file_where_the_folder_should_be(tmp_path, backend):
    """The error names it."""
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(OSError, match=r'was not written') as caught:
        backend.put(b'new', tmp_path / 'file' / 'sub' / 'a.pth')
    assert caught.value.filename == str(tmp_path / 'file' / 'sub' / 'a.pth')


def test_other_errors_stay_as_they_are():
    """Without a number of the system there is nothing to add."""
    error = OSError('something else')
    assert disk_error(error, '/x/y', 'a file') is error
