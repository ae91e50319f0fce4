"""Finding mmseg's tools, and what is added to a command line without GPU."""

from __future__ import annotations

import sys
from argparse import Namespace

import mmseg
import pytest
from mmengine.config import DictAction

from mmseg_polyhistor.engine import launch


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An mmseg in a source checkout: `<checkout>/mmseg` without `.mim`."""
    monkeypatch.setattr(mmseg, '__file__', str(tmp_path / 'mmseg' / '__init__.py'))
    return tmp_path


def test_installed_tools_are_found():
    """The real ones."""
    for name in ('train.py', 'test.py'):
        tool = launch._load_tool(name)
        assert callable(tool.main) and callable(tool.parse_args)


def test_tools_of_a_checkout_are_found(elsewhere):
    """They lie beside the package."""
    (elsewhere / 'tools').mkdir()
    (elsewhere / 'tools' / 'train.py').write_text('here = 1')
    assert launch._load_tool('train.py').here == 1


def test_missing_tools(elsewhere):
    """The message says where they were looked for."""
    with pytest.raises(FileNotFoundError, match=r'mmseg has no tools/test\.py.*\.mim'):
        launch._load_tool('test.py')


@pytest.mark.parametrize(
    ('given', 'added'),
    [
        ({}, dict(type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=False)),
        (
            {'model_wrapper_cfg.type': 'Own', 'model_wrapper_cfg.broadcast_buffers': True},
            dict(find_unused_parameters=False),
        ),
        (
            {'find_unused_parameters': True},
            dict(type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=True),
        ),
    ],
)
def test_model_wrapper_on_a_cpu(tmp_path, monkeypatch, given, added):
    """No device id, mmengine's own settings, and what the config says wins."""
    config = tmp_path / 'config.py'
    config.write_text('model_wrapper_cfg = dict()')
    backends = []
    monkeypatch.setattr(launch.dist, 'init_process_group', backends.append)
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    launch._prepare_cpu_processes(
        'train.py', Namespace(config=str(config), cfg_options=given, launcher='pytorch')
    )
    assert backends == ['gloo'] and sys.argv[:2] == ['train.py', '--cfg-options']
    namespace = Namespace()
    DictAction(['--cfg-options'], 'options')(None, namespace, sys.argv[2:])
    assert namespace.options == {
        f'model_wrapper_cfg.{k}': v for k, v in dict(device_ids=None, **added).items()
    }
