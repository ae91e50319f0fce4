"""Finding mmseg's tools, and what is added to a command line without GPU."""

from __future__ import annotations

import sys
from argparse import Namespace

import mmseg
import pytest
from mmengine.config import Config, DictAction

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
def test_model_wrapper_on_a_cpu(monkeypatch, given, added):
    """No device id, mmengine's own settings, and what the config says wins."""
    cfg = Config(dict(model_wrapper_cfg=dict()))
    cfg.merge_from_dict(given)
    backends = []
    monkeypatch.setattr(launch.dist, 'init_process_group', backends.append)
    monkeypatch.setattr(sys, 'argv', ['train.py'])
    launch._prepare_cpu_processes('train.py', 'pytorch', cfg)
    assert backends == ['gloo'] and sys.argv[:2] == ['train.py', '--cfg-options']
    namespace = Namespace()
    DictAction(['--cfg-options'], 'options')(None, namespace, sys.argv[2:])
    assert namespace.options == {
        f'model_wrapper_cfg.{k}': v for k, v in dict(device_ids=None, **added).items()
    }


@pytest.mark.parametrize(
    ('config', 'folder'),
    [
        ('configs/polyhistor/swin-t_pascal.py', 'work_dirs/polyhistor/swin-t_pascal'),
        ('/a/configs/b/configs/vpt/deep_swin-t_pascal.py', 'work_dirs/vpt/deep_swin-t_pascal'),
        ('/own folder/my_config.py', 'work_dirs/my_config'),
        ('configs.py', 'work_dirs/configs'),
    ],
)
def test_runs_of_different_methods_have_different_folders(config, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert launch.default_work_dir(config) == folder


@pytest.mark.parametrize(
    ('content', 'arguments', 'expected'),
    [
        ('', [], ['--work-dir', 'work_dirs/lora/toy']),
        ('', ['--work-dir', 'mine'], ['--work-dir', 'mine']),
        ('work_dir = "theirs"', [], []),
        ('', ['--cfg-options', 'work_dir=theirs'], ['--cfg-options', 'work_dir=theirs']),
    ],
)
def test_a_work_dir_that_is_named_is_taken(content, arguments, expected, tmp_path, monkeypatch):
    config = tmp_path / 'configs' / 'lora' / 'toy.py'
    config.parent.mkdir(parents=True)
    config.write_text(content)
    tool = launch._load_tool('train.py')
    monkeypatch.setattr(tool, 'main', lambda: None)
    monkeypatch.setattr(launch, '_load_tool', lambda name: tool)
    monkeypatch.setattr(sys, 'argv', ['train.py', str(config), *arguments])
    launch.run_mmseg_tool('train.py')
    assert sys.argv[2:] == expected
