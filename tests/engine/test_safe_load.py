"""Loading never runs code, whichever way a checkpoint comes in."""

from __future__ import annotations

import http.server
import os
import threading
from functools import partial

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint
from torch import nn


class Evil:
    """Unpickling makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The URL of `tmp_path`, with a cache of its own."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'cache'))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{httpd.server_port}'
        httpd.shutdown()


@pytest.fixture(params=['path', 'url'])
def source(request, tmp_path, server):
    """A function: file name in `tmp_path` -> what to load it by."""
    return lambda name: str(tmp_path / name) if request.param == 'path' else f'{server}/{name}'


def test_weights_load(source, tmp_path):
    """A clean checkpoint arrives in the model."""
    model, copy = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'good.pth')
    load_checkpoint(copy, source('good.pth'), map_location='cpu')
    assert torch.equal(copy.weight, model.weight)


def test_malicious_pickle_is_refused_and_does_not_run(source, tmp_path):
    """The payload would make a directory; it must not."""
    torch.save(dict(state_dict={}, meta=Evil(tmp_path / 'pwned')), tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match=r'evil\.pth.*was not loaded'):
        load_checkpoint(nn.Linear(2, 3), source('evil.pth'))
    assert not (tmp_path / 'pwned').exists()
    torch.load(tmp_path / 'evil.pth', weights_only=False)  # the payload is a real one
    assert (tmp_path / 'pwned').exists()


def test_errors_name_the_file(source, tmp_path):
    """A stock mmengine checkpoint, a truncated one and garbage are told with their names."""
    torch.save(dict(state_dict={}, message_hub=dict(loss=HistoryBuffer([1.0], [1]))), tmp_path / 'stock.pth')
    whole = (tmp_path / 'stock.pth').read_bytes()
    (tmp_path / 'cut.pth').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'empty.pth').write_bytes(b'')
    (tmp_path / 'text.pth').write_bytes(b'not a checkpoint')
    for name, message in [
        ('stock.pth', 'SafeCheckpointHook saves it as plain data'),
        ('cut.pth', 'cannot be read'),
        ('empty.pth', 'cannot be read'),
        ('text.pth', 'was not loaded: it is broken'),
    ]:
        with pytest.raises(RuntimeError, match=rf'{name}.*{message}'):
            load_checkpoint(nn.Linear(2, 3), source(name))


def test_missing_file(tmp_path):
    """The path stands in the message."""
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        load_checkpoint(nn.Linear(2, 3), str(tmp_path / 'nowhere.pth'))
