"""`UnitVectorL1Loss` against a loop over pixels that follows its definition."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_polyhistor.models.losses import UnitVectorL1Loss


def brute_force(pred, target, divide_by, weight=None):
    total, valid = 0.0, 0
    batch, _, height, width = pred.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                truth, guess = target[b, :, y, x].tolist(), pred[b, :, y, x].tolist()
                if truth == [255.0] * 3:
                    continue
                valid += 1
                length = math.sqrt(sum(v * v for v in guess))
                factor = 1.0 if weight is None else weight[b, y, x].item()
                total += factor * sum(abs(v / length - t) for v, t in zip(guess, truth, strict=True))
    return total / (valid * divide_by)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    pred = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    target = F.normalize(torch.randn(2, 3, 4, 5), dim=1)
    target.masked_fill_(torch.rand(2, 1, 4, 5) < 0.4, 255)
    return pred, target


@pytest.mark.parametrize(('average', 'divide_by'), [('component', 3), ('pixel', 1)])
def test_equals_the_definition(batch, average, divide_by):
    pred, target = batch
    loss = MODELS.build(dict(type='UnitVectorL1Loss', average=average, loss_weight=10.0))
    expected = 10 * brute_force(pred, target, divide_by)
    assert loss(pred, target).item() == pytest.approx(expected, rel=1e-12)


def test_by_hand():
    pred = torch.tensor([0.0, 3.0, 4.0]).view(1, 3, 1, 1)
    target = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert UnitVectorL1Loss()(pred, target).item() == pytest.approx((1 + 0.6 + 0.8) / 3)


def test_weight_per_pixel_and_other_ignore_value(batch):
    pred, target = batch
    weight = torch.rand(2, 4, 5, dtype=torch.float64)
    expected = brute_force(pred, target, 3, weight)
    loss = UnitVectorL1Loss()
    assert loss(pred, target, weight=weight).item() == pytest.approx(expected, rel=1e-12)
    moved = target.masked_fill(target == 255, -9)
    assert loss(pred, moved, weight=weight, ignore_index=-9).item() == pytest.approx(expected, rel=1e-12)


def test_only_the_direction_counts(batch):
    pred, target = batch
    loss = UnitVectorL1Loss()
    assert loss(pred * 37, target).item() == pytest.approx(loss(pred, target).item(), rel=1e-12)


def test_gradient(batch):
    pred, target = batch
    loss = UnitVectorL1Loss()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), pred.requires_grad_())


def test_a_prediction_of_length_zero_has_a_bounded_gradient():
    pred = torch.zeros(1, 3, 2, 2, requires_grad=True)
    target = torch.zeros(1, 3, 2, 2)
    target[:, 2] = 1
    loss = UnitVectorL1Loss(eps=1e-3)(pred, target)
    assert loss.item() == pytest.approx(1 / 3)
    loss.backward()
    assert pred.grad.isfinite().all()
    assert pred.grad.abs().max() <= 1 / 1e-3 / 12  # 12 components share the mean
    assert (pred.grad[:, 2] < 0).all()  # it points towards the truth


@pytest.mark.parametrize('value', [0.0, 3e38, float('inf'), float('nan')])
def test_a_batch_without_a_valid_pixel_is_a_zero_with_a_graph(value):
    pred = torch.full((2, 3, 4, 4), value, requires_grad=True)
    loss = UnitVectorL1Loss()(pred, torch.full((2, 3, 4, 4), 255.0))
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(pred.grad, torch.zeros_like(pred))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(batch, dtype):
    pred, target = batch
    half = (1000 * pred).to(dtype).requires_grad_()  # squared, these overflow float16
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = UnitVectorL1Loss()(half, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(brute_force(half.detach().double(), target, 3), rel=1e-5)
    loss.backward()
    assert half.grad.dtype == dtype
    assert half.grad.abs().max() > 0


def test_errors():
    with pytest.raises(ValueError, match=r"one of .*'component', 'pixel'.*, got 'sum'"):
        UnitVectorL1Loss(average='sum')
    with pytest.raises(ValueError, match='eps must be positive, got 0'):
        UnitVectorL1Loss(eps=0)
    with pytest.raises(ValueError, match=r'pred \(2, 3, 4, 4\) and target \(2, 4, 4\)'):
        UnitVectorL1Loss()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4))
