"""The plain reference against the package: two ways to write one model, so that each checks the other."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmseg.registry import MODELS

from mmseg_polyhistor.models.decode_heads import AllMLPHead
from mmseg_polyhistor.profiling.batches import random_batch
from mmseg_polyhistor.profiling.plain_reference import ConcatAllMLPHead
from mmseg_polyhistor.profiling.workload import plain_model

BOTH = ('attn', 'ffn')
METHODS = {
    'HyperFormer': dict(type='HyperFormer', ratio=4),
    'Polyhistor': dict(type='Polyhistor', ratio=4, rank=-2),
    'Polyhistor-Lite': dict(type='PolyhistorLite', ratio=2, rank=-2),
    'Lite, both positions, template first': dict(type='PolyhistorLite', positions=BOTH, kron_order='template_first'),
    'Lite, kernels per task': dict(type='PolyhistorLite', kernels_per_task=True, rank=None),
    'one hyper-network, no kernels': dict(type='HyperAdapter', ratio=4, shared=True, positions=BOTH),
    'a hyper-network per block, kernels': dict(type='HyperAdapter', ratio=4, rank=1, scaling_kernels=True),
    'parallel, both norms': dict(type='Polyhistor', insertion='parallel', pre_norm=True, positions=('attn',)),
    'no norm, scaled, relu': dict(type='Polyhistor', post_norm=False, scale=0.5, activation='relu'),
}  # fmt: skip


@pytest.fixture(params=METHODS.values(), ids=METHODS.keys())
def pair(request, model_cfg):
    """A model with adapters that count, and its plain counterpart."""
    cfg = model_cfg(**request.param)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model, plain_model(cfg, model)


def test_equal_logits(pair):
    model, plain = (m.eval() for m in pair)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        ours, theirs, bare = model(images), plain(images), model.backbone(images, adapted=False)
    for task in model.tasks:
        torch.testing.assert_close(theirs[task], ours[task], rtol=1e-3, atol=1e-4)
        assert (model.decode_heads[task](bare[task]) - ours[task]).abs().max() > 0.05, 'the adapters count'


def test_equal_losses_and_gradients(pair):
    model, plain = (m.train() for m in pair)
    results = []
    for m in (model, plain):
        wrapper = OptimWrapper(torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.0))
        wrapper.zero_grad = lambda: None
        results.append(m.train_step(random_batch(m.tasks, (64, 64), 2), wrapper))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-4, atol=1e-5)
    for task in model.tasks:
        ours = model.backbone.adapters.task_embeddings[task].grad
        theirs = plain.backbone.hyper_networks.task_embeddings[task].grad
        assert ours.abs().max() > 0
        torch.testing.assert_close(theirs, ours, rtol=2e-3, atol=1e-5 * float(ours.abs().max()) + 1e-7)
    ours, theirs = (dict(m.decode_heads.named_parameters()) for m in pair)
    for name, parameter in ours.items():
        torch.testing.assert_close(theirs[name].grad, parameter.grad, rtol=1e-3, atol=1e-5)


def test_equally_many_trained_parameters(pair):
    sizes = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in pair]
    assert sizes[0] == sizes[1]


def test_the_decoder_that_concatenates_equals_the_one_that_sums():
    torch.manual_seed(0)
    args = dict(in_channels=[4, 6, 8], channels=5, num_classes=3)
    ours, plain = AllMLPHead(**args).eval(), ConcatAllMLPHead(**args).eval()
    plain.load_state_dict(ours.state_dict())
    maps = [torch.randn(2, c, 16 >> i, 12 >> i) for i, c in enumerate(args['in_channels'])]
    torch.testing.assert_close(plain(maps), ours(maps), rtol=1e-4, atol=1e-5)
