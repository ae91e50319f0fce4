"""Small checkpoints under the real tools: trained, tested, made full, made small again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / 'configs' / 'polyhistor_lite' / 'swin-pico_mini-pascal.py'
MMSEG_TEST = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'test.py'


@pytest.fixture
def run(tools, tmp_path):
    """Run a tool of ours, or one by its path, in a folder of its own; returns what it printed."""

    def run(tool, *arguments, ok=True):
        (status,), printed = tools.start(tool, *arguments, cwd=tmp_path, expect=0 if ok else None)
        assert ok or status != 0
        return printed

    return run


def metrics(work_dir):
    """The metrics of all tasks that a test run wrote into its work dir, without the times."""
    found = json.loads(max(Path(work_dir).glob('*/*.json'), key=os.path.getmtime).read_text())
    return {k: v for k, v in found.items() if not k.endswith('time')}


@pytest.mark.integration
@pytest.mark.stack
def test_train_test_and_convert(run, tmp_path):
    """The metrics of the small checkpoint, of the full one made of it, and of mmseg's own tool are the same."""
    cfg = Config.fromfile(CONFIG)
    torch.manual_seed(5)  # another one than the config's, whose random weights would be the same
    weights = MODELS.build({**cfg.model.backbone, 'tasks': None, 'adapter': None}).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'swin pico.pth')
    data = tmp_path / 'data'
    run('dataset_converters/make_mini_pascal.py', data, '--train', 4, '--val', 2, '--size', 64, '--seed', 0)
    config = tmp_path / 'config.py'
    config.write_text(
        f"""
_base_ = {str(CONFIG)!r}
data = dict(data_root={str(data)!r})
loader = dict(dataset=data, num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=2, **loader)
val_dataloader = test_dataloader = dict(batch_size=2, **loader)
train_cfg = dict(max_epochs=1, val_interval=1)
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='swin pico.pth')))
default_hooks = dict(checkpoint=dict(type='AdapterCheckpointHook', interval=1))
"""
    )
    run('train.py', config, '--work-dir', tmp_path / 'work')
    small = tmp_path / 'work' / 'epoch_1.pth'
    assert not list((tmp_path / 'work').glob('frozen_backbone*'))  # the file that the config names is enough
    run('test.py', config, small, '--work-dir', tmp_path / 'small')

    tool = 'model_converters/adapter_checkpoint.py'
    full = tmp_path / 'full.pth'
    told = run(tool, config, small, '--to', 'full', '--out', full)
    assert f'written: {full}, {full.stat().st_size / 1e6:.1f} MB' in told
    state = torch.load(full, weights_only=True)['state_dict']
    for key, value in weights.items():
        if not key.startswith(('norm', 'adapters')):
            assert torch.equal(state[f'backbone.{key}'], value), key
    os.rename(tmp_path / 'swin pico.pth', tmp_path / 'moved.pth')
    run(MMSEG_TEST, config, full, '--work-dir', tmp_path / 'full')
    assert metrics(tmp_path / 'full') == metrics(tmp_path / 'small')

    # the backbone's file is gone: refused by name, by test.py and by the converter
    for command in (
        ['test.py', config, small],
        [tool, config, small, '--to', 'full', '--out', tmp_path / 'x.pth'],
    ):
        printed = run(*command, ok=False)
        assert 'swin pico.pth: ' in printed and 'does not exist' in printed
    assert not (tmp_path / 'x.pth').exists()

    # back to a small one, with the file at its new place
    again = tmp_path / 'again.pth'
    moved = ['--cfg-options', f'model.backbone.init_cfg.checkpoint={tmp_path / "moved.pth"}']
    run(tool, config, full, '--to', 'adapters', '--out', again, *moved)
    a, b = (torch.load(p, weights_only=True)['state_dict'] for p in (small, again))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a if k != 'backbone.frozen_record')
    assert again.stat().st_size < 0.5 * small.stat().st_size  # the optimiser's state is left out
    assert 'exists; remove it' in run(
        tool, config, full, '--to', 'adapters', '--out', again, *moved, ok=False
    )
