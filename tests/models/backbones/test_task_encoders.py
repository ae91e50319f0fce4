"""TaskEncoders: whole encoders side by side that share nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmseg_polyhistor.models.backbones import AdaptedSwin, TaskEncoders

ARCH = dict(embed_dims=24, depths=[1, 1], num_heads=[2, 3])
TASKS = ('semseg', 'normals')


def build(tasks=TASKS, encoder=None) -> TaskEncoders:
    torch.manual_seed(0)
    base = dict(type='AdaptedSwin', arch=ARCH, frozen=False)
    return TaskEncoders(tasks=tasks, encoder=base | (encoder or {}))


def test_every_task_has_its_encoder_s_maps_and_gradients():
    model = build(encoder=dict(drop_path_rate=0.0))
    x = torch.randn(2, 3, 40, 32)
    out = model(x)
    assert list(out) == list(TASKS)
    for task in TASKS:
        for a, b in zip(out[task], model.encoders[task](x), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(out['semseg'][1], out['normals'][1])
    sum(m.square().sum() for m in out['normals']).backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {name for name, _ in model.named_parameters() if name.startswith('encoders.normals.')}


def test_some_of_the_tasks_and_a_single_one():
    model = build()
    x = torch.randn(1, 3, 32, 32)
    assert list(model(x, tasks=('normals',))) == ['normals']
    assert isinstance(build(tasks=('semseg',))(x), tuple)


def test_every_encoder_is_initialised_from_its_checkpoint(tmp_path):
    source = AdaptedSwin(ARCH)
    for p in source.parameters():
        nn.init.normal_(p)
    torch.save(source.state_dict(), tmp_path / 'swin.pth')
    model = build(encoder=dict(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'swin.pth'))))
    model.init_weights()
    for encoder in model.encoders.values():
        for key, value in encoder.state_dict().items():
            assert torch.equal(value, source.state_dict()[key]), key


def test_counts_on_swin_tiny():
    model = TaskEncoders(
        tasks=('semseg', 'human_parts', 'saliency', 'normals'), encoder=dict(type='AdaptedSwin', frozen=False)
    )
    assert sum(p.numel() for p in model.output_norm_parameters()) == 4 * 2_880
    assert sum(p.numel() for p in model.parameters()) - 4 * 2_880 == 110_071_272


def test_any_backbone_serves_as_encoder():
    model = TaskEncoders(tasks=TASKS, encoder=dict(type='ResNet', depth=18))
    assert [m.shape[1] for m in model(torch.randn(1, 3, 64, 64))['normals']] == [64, 128, 256, 512]
    assert list(model.output_norm_parameters()) == []


@pytest.mark.parametrize('tasks', [(), 'semseg', ('a', 'a')])
def test_unfit_task_lists(tasks):
    with pytest.raises(ValueError, match='different names'):
        build(tasks=tasks)


def test_an_encoder_with_tasks_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"leave tasks=\('semseg', 'normals'\) out of the config `encoder`"):
        build(encoder=dict(tasks=TASKS))


def test_init_cfg_belongs_to_the_encoder():
    with pytest.raises(TypeError, match='init_cfg'):
        TaskEncoders(
            tasks=TASKS, encoder=dict(type='AdaptedSwin', arch=ARCH), init_cfg=dict(type='Pretrained')
        )


@pytest.mark.parametrize(
    ('tasks', 'message'),
    [(('edge',), r"unknown tasks \['edge'\]"), ((), 'non-empty'), (('semseg', 'semseg'), 'different')],
)
def test_unfit_tasks_at_forward(tasks, message):
    with pytest.raises(ValueError, match=message):
        build()(torch.zeros(1, 3, 32, 32), tasks=tasks)
