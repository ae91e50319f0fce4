"""The floor: the frozen network's own features, once per task, with the gradient of their input."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmseg.registry import MODELS

from mmseg_polyhistor.profiling.batches import random_batch
from mmseg_polyhistor.profiling.cases import Case
from mmseg_polyhistor.profiling.workload import build_model


@pytest.fixture
def bare_cfg(model_cfg):
    cfg = model_cfg()
    del cfg['backbone']['adapter']
    return cfg


def build_pair(cfg, role):
    """The frozen network with decoders, in one pass, and a reference with the same weights."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg))
    other = build_model(Case(name='x', role=role, model=cfg, optim_wrapper={}))
    missing, unexpected = other.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected
    assert all(key.startswith('backbone.adapters.shifts') for key in missing)
    return model, other


@pytest.mark.parametrize('role', ['floor', 'own-floor', 'full-plain'])
def test_equal_logits(bare_cfg, role):
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        ours, theirs = (m.eval()(images) for m in build_pair(bare_cfg, role))
    for task, logits in ours.items():
        torch.testing.assert_close(theirs[task], logits, rtol=1e-3, atol=1e-4)


def train(model):
    """One step; returns the optimised parameters."""
    trained = [p for p in model.parameters() if p.requires_grad]
    model.train()
    model.train_step(random_batch(model.tasks, (64, 64), 2), OptimWrapper(torch.optim.SGD(trained, lr=0.1)))


@pytest.mark.parametrize('role', ['floor', 'own-floor'])
def test_a_training_step_moves_the_decoders_as_ever_and_nothing_else(bare_cfg, role):
    model, other = build_pair(bare_cfg, role)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model)
    train(other)
    theirs = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(theirs[name], parameter, rtol=1e-3, atol=1e-5)
        encoder = name.startswith('backbone.') and 'output_norms' not in name
        assert parameter.requires_grad != encoder
        if encoder:
            assert torch.equal(parameter, before[name])
            assert theirs[name].grad is None
        elif name.endswith('0.weight') and 'projections' in name:
            assert not torch.equal(parameter, before[name])


def test_every_block_runs_per_task_and_back_to_its_input(bare_cfg):
    model = build_model(Case(name='x', role='floor', model=bare_cfg, optim_wrapper={}))
    reached = []
    first = model.backbone.stages[0].blocks[0].norm1
    first.register_forward_pre_hook(lambda module, args: reached.append(args[0].retain_grad() or args[0]))
    train(model)
    assert len(reached) == len(model.tasks)
    assert all(x.is_leaf and x.grad.abs().max() > 0 for x in reached)


def test_the_own_floor_parts_the_streams_in_front_of_the_first_block(bare_cfg):
    model = build_model(Case(name='x', role='own-floor', model=bare_cfg, optim_wrapper={}))
    inputs = []
    embed = model.backbone.drop_after_pos
    embed.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    wrapper = OptimWrapper(torch.optim.SGD(model.backbone.adapters.parameters(), lr=0.1))
    wrapper.zero_grad = lambda: None
    model.train().train_step(random_batch(model.tasks, (64, 64), 2), wrapper)
    assert inputs[0].shape[0] == len(model.tasks)
    assert all(shift.grad.abs().max() > 0 for shift in model.backbone.adapters.shifts.values())
