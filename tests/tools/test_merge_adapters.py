"""The tool that merges a method into the encoder, as a user starts it."""

from __future__ import annotations

import re

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
def merge(tools, tmp_path):
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
        arguments = [config, tmp_path / 'c.pth', '--out', tmp_path / 'out']
        (status,), printed = tools.start(
            'model_converters/merge_adapters.py', *arguments, cwd=tmp_path, expect=None
        )
        return model, status, printed

    return run


@pytest.mark.integration
@pytest.mark.stack
def test_it_writes_a_config_and_weights_that_give_the_same_logits(merge, tmp_path):
    model, status, printed = merge(norm=False)
    assert status == 0, printed
    differences = re.findall(r'(\w+): logits differ by at most ([\d.e+-]+)', printed)
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
    _, status, printed = merge(norm=True)
    assert status == 1
    assert 'LoRA with a LayerNorm of its own cannot be merged' in printed
    assert 'Traceback' not in printed
    assert not (tmp_path / 'out').exists()
