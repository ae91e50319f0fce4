"""`ClassBalancedBCELoss` against a loop over pixels that follows its definition."""

from __future__ import annotations

import math

import pytest
import torch
from mmseg.registry import MODELS

from mmseg_polyhistor.models.losses import ClassBalancedBCELoss


def brute_force(logits, target, pos_weight=None, weight=None):
    pixels = [(i, int(t)) for i, t in enumerate(target.flatten()) if t != 255]
    w = pos_weight
    if w is None:
        w = sum(t == 0 for _, t in pixels) / len(pixels)
    total = 0.0
    for i, t in pixels:
        p = 1 / (1 + math.exp(-logits.flatten()[i].item()))
        factor = 1.0 if weight is None else weight.flatten()[i].item()
        total += factor * (-w * math.log(p) if t == 1 else -(1 - w) * math.log(1 - p))
    return total / len(pixels)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 1, 5, 7, dtype=torch.float64)
    target = (torch.rand(2, 5, 7) < 0.2).to(torch.uint8)
    target[torch.rand(2, 5, 7) < 0.3] = 255
    return logits, target


@pytest.mark.parametrize('pos_weight', [None, 0.95, 0.0])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64])
def test_equals_the_definition(batch, pos_weight, dtype):
    logits, target = batch
    loss = MODELS.build(dict(type='ClassBalancedBCELoss', pos_weight=pos_weight, loss_weight=5.0))
    expected = 5 * brute_force(logits, target, pos_weight)
    assert loss(logits, target.to(dtype)).item() == pytest.approx(expected, rel=1e-12)


def test_the_two_classes_weigh_the_same():
    """At logit 0 every pixel's entropy is log 2: 1 positive among 10 gets 0.9, each of 9 negatives 0.1."""
    target = torch.zeros(1, 2, 5, dtype=torch.uint8)
    target[0, 0, 0] = 1
    logits = torch.zeros(1, 1, 2, 5, requires_grad=True)
    loss = ClassBalancedBCELoss()(logits, target)
    assert loss.item() == pytest.approx((0.9 + 9 * 0.1) * math.log(2) / 10)
    loss.backward()
    gradient = logits.grad[0, 0]
    assert gradient[0, 0].item() == pytest.approx(-(gradient.sum() - gradient[0, 0]).item())


def test_weight_per_pixel_and_other_ignore_value(batch):
    logits, target = batch
    weight = torch.rand(2, 5, 7, dtype=torch.float64)
    expected = brute_force(logits, target, weight=weight)
    loss = ClassBalancedBCELoss()
    assert loss(logits, target, weight=weight).item() == pytest.approx(expected, rel=1e-12)
    moved = target.clone()
    moved[target == 255] = 7
    assert loss(logits, moved, weight=weight, ignore_index=7).item() == pytest.approx(expected, rel=1e-12)


def test_gradient(batch):
    logits, target = batch
    loss = ClassBalancedBCELoss()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize('value', [0.0, 3e38, float('inf'), float('nan')])
def test_a_batch_without_a_valid_pixel_is_a_zero_with_a_graph(value):
    logits = torch.full((2, 1, 4, 4), value, requires_grad=True)
    loss = ClassBalancedBCELoss()(logits, torch.full((2, 4, 4), 255, dtype=torch.uint8))
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_one_class_alone_weighs_nothing():
    """Without positives the negatives' weight, the share of positives, is zero (and the other way round)."""
    logits = torch.randn(1, 1, 4, 4)
    for label in (0, 1):
        assert ClassBalancedBCELoss()(logits, torch.full((1, 4, 4), label)).item() == 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(batch, dtype):
    logits, target = batch
    half = logits.to(dtype).requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = ClassBalancedBCELoss()(half, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(brute_force(half.detach().double(), target), rel=1e-5)
    loss.backward()
    assert half.grad.dtype == dtype
    assert half.grad.abs().max() > 0


def test_errors():
    with pytest.raises(ValueError, match=r'pos_weight must lie in \[0, 1\], got 1.5'):
        ClassBalancedBCELoss(pos_weight=1.5)
    with pytest.raises(ValueError, match=r'target \(2, 1, 4, 4\)'):
        ClassBalancedBCELoss()(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r'pred \(2, 3, 4, 4\)'):
        ClassBalancedBCELoss()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4))
