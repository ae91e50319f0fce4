"""Loading never runs code, whichever way a checkpoint comes in."""

from __future__ import annotations

import http.server
import os
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors.torch import save_file
from torch import nn

pytestmark = pytest.mark.stack


class Evil:
    """Unpickling makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and of `/broken_off/<name>` the first half, as if the connection broke off."""

    def do_GET(self):
        if not self.path.startswith('/broken_off/'):
            return super().do_GET()
        whole = (Path(self.directory) / Path(self.path).name).read_bytes()
        self.send_response(200)
        self.send_header('Content-Length', str(len(whole)))
        self.end_headers()
        return self.wfile.write(whole[: len(whole) // 2])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The URL of `tmp_path`, with a cache of its own."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'cache'))
    handler = partial(Handler, directory=str(tmp_path))
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


def test_safetensors_load(source, tmp_path, monkeypatch):
    """Tensors by name, in the precision of the file; a broken file and an absent package are told."""
    model, copy = nn.Linear(2, 3), nn.Linear(2, 3)
    half = {key: value.half() for key, value in model.state_dict().items()}
    save_file(half, tmp_path / 'good.safetensors')
    for _ in range(2):  # the second download is found in the cache
        loaded = CheckpointLoader.load_checkpoint(source('good.safetensors'), map_location='cpu')
        assert loaded.keys() == half.keys()
        assert all(
            torch.equal(loaded[key], value) and loaded[key].dtype == value.dtype
            for key, value in half.items()
        )
    load_checkpoint(copy, source('good.safetensors'), map_location='cpu')
    assert torch.equal(copy.weight, half['weight'].float())
    for where in (
        lambda storage, location: storage,
        {'cpu': 'meta'},
        'meta',
        torch.device('meta'),
    ):  # as of a .pth file
        loaded = CheckpointLoader.load_checkpoint(source('good.safetensors'), map_location=where)
        assert {value.device.type for value in loaded.values()} == {'cpu' if callable(where) else 'meta'}

    (tmp_path / 'broken.safetensors').write_bytes((tmp_path / 'good.safetensors').read_bytes()[:-1])
    with pytest.raises(RuntimeError, match=r'broken\.safetensors.*cannot be read'):
        load_checkpoint(copy, source('broken.safetensors'))
    assert not [path for path in (tmp_path / 'cache').rglob('broken*') if path.is_file()]
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with pytest.raises(RuntimeError, match=r'good\.safetensors.*pip install safetensors'):
        load_checkpoint(copy, source('good.safetensors'))


def test_malicious_pickle_is_refused_and_does_not_run(source, tmp_path):
    """The payload would make a directory; it must not."""
    torch.save(dict(state_dict={}, meta=Evil(tmp_path / 'pwned')), tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match=r'evil\.pth.*was not loaded.*mkdir') as caught:
        load_checkpoint(nn.Linear(2, 3), source('evil.pth'))
    assert 'set to `False`' not in str(caught.value)  # torch's advice to run the payload all the same
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


@pytest.mark.parametrize('broken', ['absent', 'broken_off'])
def test_a_failed_download_leaves_nothing_behind(server, tmp_path, broken):
    """torch keeps what came before the connection broke off; the next attempt must not find it."""
    weights = nn.Linear(2, 3).state_dict()
    (tmp_path / 'absent').mkdir()
    torch.save(weights, tmp_path / 'a.pth')
    with pytest.raises(
        RuntimeError, match=rf'{broken}/a\.pth.*(cannot be downloaded: HTTP Error 404|cannot be read)'
    ):
        load_checkpoint(nn.Linear(2, 3), f'{server}/{broken}/a.pth')
    assert not [path for path in (tmp_path / 'cache').rglob('*') if path.is_file()]
    copy = nn.Linear(2, 3)
    load_checkpoint(copy, f'{server}/a.pth')
    assert torch.equal(copy.weight, weights['weight'])


def _load_all(urls, served_by):
    """What this process loads, or the error, for each URL; rank 1 has a cache of its own if it is told to."""
    outcomes = []
    for url, own_cache in urls:
        if own_cache and torch.distributed.get_rank() == 1:  # another machine, which cannot reach the server
            torch.hub._hub_dir = str(served_by / 'other')
            url = 'http://127.0.0.1:9/a.pth'
        try:
            outcomes.append(load_checkpoint(nn.Linear(2, 3), url)['weight'])
        except RuntimeError as e:
            outcomes.append(str(e))
    return outcomes


def test_several_processes_fail_together(server, tmp_path, run_ranks):
    """If one cannot download or read the file, all raise the same error, instead of some that wait for ever."""
    weights = nn.Linear(2, 3).state_dict()
    torch.save(weights, tmp_path / 'a.pth')
    names = ['absent.pth', 'broken_off/a.pth', 'a.pth']
    urls = [(f'{server}/{name}', False) for name in names] + [(f'{server}/a.pth', True)]
    first, second = run_ranks(2, _load_all, urls, tmp_path)
    assert 'absent.pth' in first[0] and 'cannot be downloaded: HTTP Error 404' in first[0]
    assert 'broken_off/a.pth' in first[1] and 'cannot be read' in first[1]
    for i in (0, 1):
        assert second[i] == f'{first[i]} (told by process 0)'
    assert torch.equal(first[2], weights['weight']) and torch.equal(second[2], weights['weight'])
    assert 'http://127.0.0.1:9/a.pth' in second[3] and 'cannot be downloaded' in second[3]
    assert first[3] == f'{second[3]} (told by process 1)'
