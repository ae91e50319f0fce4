"""The loss configs of the table of tasks, mmseg's cross-entropy among them, on batches without truth."""

from __future__ import annotations

import pytest
import torch
from mmseg.registry import MODELS

import mmseg_polyhistor.models.losses  # noqa: F401  (registers)
from mmseg_polyhistor.tasks import get_task, known_tasks


def all_ignored(spec, batch=2, size=4):
    if spec.kind in ('unit_vector', 'scalar'):
        return torch.full((batch, spec.channels, size, size), float(spec.ignore_value))
    return torch.full((batch, size, size), spec.ignore_value, dtype=torch.int64)


@pytest.mark.parametrize('magnitude', [1.0, 1e30])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('task', known_tasks())
def test_a_batch_without_truth_gives_zero_and_zero_gradients(task, dtype, autocast, magnitude):
    spec = get_task(task)
    loss = MODELS.build(spec.loss)
    pred = (magnitude * torch.randn(2, spec.channels, 4, 4)).to(dtype).requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        value = loss(pred, all_ignored(spec), ignore_index=spec.ignore_value)
    assert value.item() == 0
    value.backward()
    assert torch.equal(pred.grad, torch.zeros_like(pred))


@pytest.mark.parametrize('task', [t for t in known_tasks() if get_task(t).kind == 'semantic'])
def test_cross_entropy_is_the_mean_over_valid_pixels_in_float32(task):
    spec = get_task(task)
    torch.manual_seed(0)
    logits = torch.randn(2, spec.channels, 3, 4)
    target = torch.randint(spec.channels, (2, 3, 4))
    target[0, :2] = spec.ignore_value
    log_p = logits.double().log_softmax(1)
    terms = [
        -log_p[b, target[b, y, x], y, x].item()
        for b in range(2)
        for y in range(3)
        for x in range(4)
        if target[b, y, x] != spec.ignore_value
    ]
    expected = spec.loss['loss_weight'] * sum(terms) / len(terms)
    loss = MODELS.build(spec.loss)
    assert loss(logits, target, ignore_index=spec.ignore_value).item() == pytest.approx(expected, rel=1e-6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert loss(logits.bfloat16(), target, ignore_index=spec.ignore_value).dtype == torch.float32


def test_every_loss_of_the_table_has_a_name_and_a_weight():
    for task in known_tasks():
        loss = MODELS.build(get_task(task).loss)
        assert loss.loss_name.startswith('loss_')
        assert loss.loss_weight == get_task(task).loss['loss_weight']
