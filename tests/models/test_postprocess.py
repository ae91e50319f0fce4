"""Predictions by kind, against loops and hand-made cases."""

from __future__ import annotations

import math

import pytest
import torch

from mmseg_polyhistor.models.postprocess import (
    POSTPROCESS,
    most_likely_class,
    probability,
    quantity,
    undo_flip,
    unit_vector,
)
from mmseg_polyhistor.tasks import FLIP_RULES, KINDS


def test_every_kind_has_its_function():
    assert set(POSTPROCESS) == set(KINDS)


def test_most_likely_class():
    torch.manual_seed(0)
    logits = torch.randn(5, 3, 4)
    prediction = most_likely_class(logits)
    assert prediction.dtype == torch.int64
    assert prediction.shape == (1, 3, 4)
    for y in range(3):
        for x in range(4):
            values = logits[:, y, x].tolist()
            assert prediction[0, y, x] == values.index(max(values))


def test_probability():
    logits = torch.tensor([[[-1e4, -1.0, 0.0, 2.0, 1e4]]])
    prediction = probability(logits.half())
    assert prediction.dtype == torch.float32
    expected = [0.0, 1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-2)), 1.0]
    assert prediction.shape == (1, 1, 5)
    assert prediction.flatten().tolist() == pytest.approx(expected)


def test_a_quantity_is_never_negative():
    prediction = quantity(torch.tensor([[[-3.0, 0.0, 2.5, 300.0]]]).bfloat16())
    assert prediction.dtype == torch.float32
    assert prediction.tolist() == [[[0, 0, 2.5, 300]]]


@pytest.mark.parametrize('scale', [1.0, 1e-38, 1e-45, 1e38])
def test_unit_vector_of_any_length(scale):
    vectors = torch.tensor([[3.0, -1.0], [0.0, 1.0], [-2.0, 1.0]])  # exact multiples of any denormal number
    prediction = unit_vector((vectors * scale).view(3, 1, 2))
    expected = (vectors / vectors.square().sum(0).sqrt()).view(3, 1, 2)
    assert prediction.dtype == torch.float32
    torch.testing.assert_close(prediction, expected, rtol=1e-6, atol=1e-6)


def test_unit_vector_of_length_zero_looks_at_the_viewer():
    assert unit_vector(torch.zeros(3, 1, 1)).flatten().tolist() == [0, 0, 1]
    assert unit_vector(torch.zeros(3, 1, 1, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize('kind', KINDS)
def test_leading_dimensions_are_a_batch(kind):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5)
    batch = POSTPROCESS[kind](logits)
    for i in range(2):
        torch.testing.assert_close(batch[i], POSTPROCESS[kind](logits[i]))


@pytest.mark.parametrize('rule', FLIP_RULES)
@pytest.mark.parametrize(('direction', 'negated'), [('horizontal', 0), ('vertical', 1)])
def test_undo_flip(rule, direction, negated):
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 5)
    before = logits.clone()
    undone = undo_flip(logits, direction=direction, rule=rule)
    assert torch.equal(logits, before)
    for c in range(3):
        sign = -1 if rule == 'negate_x' and c == negated else 1
        for y in range(4):
            for x in range(5):
                at = (y, 4 - x) if direction == 'horizontal' else (3 - y, x)
                assert undone[c, y, x] == sign * before[(c, *at)]


def test_undo_flip_refuses_other_directions():
    with pytest.raises(ValueError, match="flip_direction='diagonal'"):
        undo_flip(torch.zeros(3, 2, 2), direction='diagonal', rule='keep')
