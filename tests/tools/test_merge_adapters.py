"""The tool that merges a method into the encoder, as a user starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn

CONFIG = """
custom_imports = dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)
default_scope = 'mmseg'
tasks = ('semseg', 'saliency')
model = dict(
    type='MultiTaskSegmentor', tasks=tasks, data_preprocessor=dict(type='MultiTaskDataPreProcessor'),
    backbone=dict(
        type='AdaptedSwin', arch=dict(embed_dims=24, depths=[1, 1], num_heads=[2, 2]), tasks=tasks,
        adapter=dict(type='LoRA', pre_norm=NORM)),
    decode_heads=dict(type='AllMLPHead', in_channels=[24, 48], in_index=[0, 1], channels=8),
    test_cfg=dict(mode='whole'))
"""


@pytest.fixture
def merge(repo, tmp_path):
    def run(norm):
        config = tmp_path / 'lora config.py'
        config.write_text(CONFIG.replace('NORM', str(norm)))
        model = MODELS.build(Config.fromfile(config).model)
        torch.manual_seed(0)
        for name, p in model.named_parameters():
            nn.init.normal_(p, mean=float('norm' in name), std=0.2)
        torch.save(
            dict(state_dict=model.state_dict(), meta=dict(epoch=1, dataset_meta=dict(a=1))),
            tmp_path / 'c.pth',
        )
        tool = repo / 'tools' / 'model_converters' / 'merge_adapters.py'
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', tool, config, tmp_path / 'c.pth', '--out', tmp_path / 'out'],
            cwd=tmp_path,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            check=False,
        )
        return model, done

    return run


@pytest.mark.integration
def test_it_writes_a_config_and_weights_that_give_the_same_logits(merge, tmp_path):
    model, done = merge(norm=False)
    assert done.returncode == 0, done.stderr
    differences = re.findall(r'(\w+): logits differ by at most ([\d.e+-]+)', done.stdout)
    assert [task for task, _ in differences] == ['semseg', 'saliency']
    checkpoint = torch.load(tmp_path / 'out' / 'merged.pth', weights_only=True)
    assert checkpoint['meta'] == dict(dataset_meta=dict(a=1))
    merged = MODELS.build(Config.fromfile(tmp_path / 'out' / 'config.py').model)
    merged.load_state_dict(checkpoint['state_dict'])
    x = torch.randn(1, 3, 64, 64)
    model.eval()
    merged.eval()
    for task, logits in model(x).items():
        torch.testing.assert_close(merged(x)[task], logits, rtol=1e-4, atol=1e-4)


@pytest.mark.integration
def test_it_refuses_what_is_not_linear_and_writes_nothing(merge, tmp_path):
    _, done = merge(norm=True)
    assert done.returncode == 1
    assert 'LoRA with a LayerNorm of its own cannot be merged' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out').exists()
