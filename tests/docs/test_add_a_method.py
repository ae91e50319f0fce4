"""The worked example of docs/add_a_method.md is taken out of the page and run."""

from __future__ import annotations

import importlib
import re
import sys

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn

from mmseg_polyhistor.models.backbones import AdaptedSwin, merged_segmentor


@pytest.fixture(scope='module')
def example(tmp_path_factory, repo):
    """The page's two files in a folder of their own, with the class registered while the tests run."""
    page = (repo / 'docs' / 'add_a_method.md').read_text()
    method, config = re.findall(r'```python\n(.*?)```', page, flags=re.S)
    folder = tmp_path_factory.mktemp('own method')
    (folder / 'ssf.py').write_text(method)
    config = config.replace("'configs/", f"'{repo.as_posix()}/configs/")
    (folder / 'my_config.py').write_text(config)
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module('ssf')
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop('ssf', None)
        MODELS.module_dict.pop('ScaleAndShift', None)


@pytest.fixture
def model(example):
    cfg = Config.fromfile(example / 'my_config.py').model
    cfg.backbone.arch = dict(embed_dims=24, depths=[1, 2], num_heads=[2, 3])
    cfg.backbone.init_cfg = None
    cfg.decode_heads.update(in_channels=[24, 48], channels=16)
    return cfg, MODELS.build(cfg)


def test_it_starts_as_the_frozen_network_and_trains_its_own_parameters_only(model):
    _, model = model
    model.eval()  # no stochastic depth
    x = torch.randn(2, 3, 64, 64)
    fresh, frozen = model.backbone(x), model.backbone(x, adapted=False)
    for task in model.tasks:
        assert all(torch.equal(a, b) for a, b in zip(fresh[task], frozen[task], strict=True))
    model.train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    sum(logits.square().mean() for logits in model(x).values()).backward()
    optimizer.step()
    for name, p in model.backbone.named_parameters():
        assert torch.equal(p, before[f'backbone.{name}']) != name.startswith(
            ('adapters.', 'output_norms.')
        ), name


def test_each_task_has_its_own_vectors(model):
    _, model = model
    for p in model.backbone.adapters.parameters():
        nn.init.normal_(p)
    x = torch.randn(1, 3, 40, 40)
    blocks = []
    for stage in model.backbone.stages:
        stage.blocks[0].ffn.layers[0][1].register_forward_hook(
            lambda m, args, out: blocks.append(out.shape[0])
        )
    maps = model.backbone(x)
    assert blocks == [4, 4]
    assert not torch.allclose(maps['semseg'][1], maps['normals'][1])


def test_it_merges(model):
    cfg, model = model
    model.double().eval()
    for name, p in model.named_parameters():
        nn.init.normal_(p, mean=float('norm' in name), std=0.2)
    merged_cfg, weights = merged_segmentor(cfg, model)
    merged = MODELS.build(merged_cfg).double().eval()
    merged.load_state_dict(weights)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    for task, logits in model(x).items():
        torch.testing.assert_close(merged(x)[task], logits)


def test_the_count_on_the_page_is_right(example):
    adapter = Config.fromfile(example / 'my_config.py').model.backbone.adapter
    tiny = AdaptedSwin(tasks=('a', 'b', 'c', 'd'), adapter=adapter)
    assert sum(p.numel() for p in tiny.adapters.parameters()) == 70_656
    one = AdaptedSwin(tasks=('a', 'b', 'c', 'd'), adapter=dict(adapter, per_task=False))
    assert sum(p.numel() for p in one.adapters.parameters()) == 70_656 // 4


@pytest.mark.integration
def test_the_count_tool_runs_on_the_config_as_the_page_says(tools, example):
    _, printed = tools.start(
        'count_params.py', 'my_config.py', cwd=example, environments=[dict(PYTHONPATH='.')]
    )
    assert '70,656' in printed
