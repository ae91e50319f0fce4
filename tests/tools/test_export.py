"""`tools/export.py`: what it refuses, and that nothing is left behind then; docs/test_export.py runs it to the end."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

CONFIG = """
custom_imports = dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)
default_scope = 'mmseg'
tasks = ('semseg', 'saliency')
crop_size = (40, 32)
model = dict(
    type='MultiTaskSegmentor', tasks=tasks, data_preprocessor=dict(type='MultiTaskDataPreProcessor'),
    backbone=dict(type='AdaptedSwin', arch=dict(embed_dims=8, depths=[1], num_heads=[1]), tasks=tasks),
    decode_heads=dict(type='AllMLPHead', in_channels=[8], channels=8),
    test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(32, 32)))
"""
FIXED = ('--out', 'out/m.pt2', '--format', 'torch_export', '--no-dynamic')


@pytest.fixture
def export(tools, tmp_path):
    """Run the tool on a model of random weights; returns what it prints."""
    (tmp_path / 'config.py').write_text(CONFIG)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(tmp_path / 'config.py').model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'c.pth')

    def run(*arguments, checkpoint='c.pth', expect=1):
        return tools.start('export.py', 'config.py', checkpoint, *arguments, cwd=tmp_path, expect=expect)[1]

    return run


@pytest.mark.integration
def test_a_program_of_one_size(export, tmp_path):
    printed = export(*FIXED, '--tasks', 'saliency', expect=0)
    assert '1 x 40 x 32' in printed and 'saliency: differs by at most' in printed and 'semseg' not in printed
    assert "test_cfg.mode is 'slide'" in printed
    steps = ('loading c.pth ...', 'tracing the network ...', 'writing m.pt2 ...', 'checking on random images')
    assert sorted(map(printed.index, steps)) == [printed.index(step) for step in steps]
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['m.pt2']
    out = torch.export.load(tmp_path / 'out' / 'm.pt2').module()(torch.zeros(1, 3, 40, 32))
    assert {task: tuple(p.shape) for task, p in out.items()} == {'saliency': (1, 1, 40, 32)}


@pytest.mark.integration
def test_a_file_that_differs_is_not_written(export, tmp_path):
    printed = export(*FIXED, '--tasks', 'saliency', '--tolerance', '-1')
    assert 'export.py: saliency: the file differs from the model by more than -1' in printed
    assert '--no-dynamic' not in printed
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.integration
def test_one_size_is_advised_where_any_size_fails(export, tmp_path):
    """`crop_size` may be one number, as in mmseg's own transforms."""
    any_size = (*FIXED[:-1], '--tolerance', '-1')
    printed = export(*any_size, '--tasks', 'saliency', '--cfg-options', 'crop_size=40')
    assert '1 x 40 x 40, 2 x 33 x 37' in printed
    assert (
        'nothing was written. A file for images of one size may still pass: --no-dynamic --shape H W'
        in printed
    )
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.integration
def test_refusals(export, tmp_path):
    assert "unknown tasks ['depth']" in export(*FIXED, '--tasks', 'depth')
    assert 'must end with .onnx, got m.pt2' in export('--out', 'm.pt2', expect=2)
    assert '--shape must be two positive numbers' in export('--out', 'm.onnx', '--shape', '0', '8', expect=2)
    assert '--opset is an option of --format onnx' in export(*FIXED, '--opset', '18', expect=2)
    printed = export(*FIXED, '--cfg-options', 'crop_size=[8,8,8]')
    assert (
        'crop_size of config.py must be (height, width) or one number' in printed and '--shape H W' in printed
    )
    torch.save(dict(state_dict={}), tmp_path / 'empty.pth')
    printed = export(*FIXED, checkpoint='empty.pth')
    assert 'in the model, not in the checkpoint' in printed and 'Traceback' not in printed
    assert 'Traceback' not in export(*FIXED, checkpoint='absent.pth')
    assert not (tmp_path / 'out').exists()
