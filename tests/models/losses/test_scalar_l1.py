"""The depth loss against a loop over pixels, and what it does without truth."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS

import mmseg_polyhistor.models.losses  # noqa: F401  (registers)


def build(**kwargs):
    return MODELS.build(dict(type='ScalarL1Loss', **kwargs))


@pytest.fixture
def maps():
    torch.manual_seed(0)
    pred, target = torch.randn(2, 1, 3, 4), 5 * torch.rand(2, 1, 3, 4)
    target[0, :, :2] = 0
    return pred, target


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('ignore', [0, -1])
def test_is_the_mean_over_valid_pixels(maps, ignore, weighted):
    pred, target = maps
    target[target == 0] = ignore
    weight = torch.rand(2, 3, 4) if weighted else None
    total = number = 0
    for b in range(2):
        for y in range(3):
            for x in range(4):
                if target[b, 0, y, x] != ignore:
                    factor = weight[b, y, x].item() if weighted else 1
                    total += factor * abs(pred[b, 0, y, x].item() - target[b, 0, y, x].item())
                    number += 1
    assert number == 16
    value = build(loss_weight=3.0)(pred, target, weight, ignore_index=ignore)
    assert value.item() == pytest.approx(3 * total / number, rel=1e-6)


def test_gradients_are_signs_on_valid_pixels_and_zero_elsewhere(maps):
    pred, target = maps
    pred[0, 0, 0, 0] = float('inf')  # at a pixel without truth
    pred[1, 0, 0, 0] = -7.0  # a negative prediction learns too
    pred.requires_grad_()
    build()(pred, target, ignore_index=0).backward()
    expected = torch.where(target > 0, torch.sign(pred.detach() - target) / 16, torch.zeros(()))
    torch.testing.assert_close(pred.grad, expected)
    assert pred.grad[1, 0, 0, 0] < 0


def test_is_computed_in_float32(maps):
    pred, target = maps
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = build()(pred.bfloat16(), target)
    assert value.dtype == torch.float32
    assert build()(pred.double(), target.double()).dtype == torch.float64


@pytest.mark.parametrize(('pred', 'target'), [((2, 2, 3, 4), (2, 2, 3, 4)), ((2, 1, 3, 4), (2, 3, 4))])
def test_refuses_other_shapes(pred, target):
    with pytest.raises(ValueError, match=r'ScalarL1Loss expects pred and target \(B, 1, H, W\), got pred'):
        build()(torch.zeros(pred), torch.zeros(target))
