"""Names and values of the losses of one head."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS

from mmseg_polyhistor import tasks as task_table
from mmseg_polyhistor.models.segmentors.head_losses import head_losses
from mmseg_polyhistor.models.segmentors.heads import build_head, head_configs
from mmseg_polyhistor.tasks import get_task, register_task

FCN = dict(
    type='FCNHead', in_channels=3, in_index=0, channels=3, num_convs=0, concat_input=False, dropout_ratio=0
)
CE = dict(type='CrossEntropyLoss', avg_non_ignore=True)


def make(task, **kwargs):
    torch.manual_seed(0)
    spec = get_task(task)
    (cfg,) = head_configs(FCN | kwargs, [spec]).values()
    return build_head(cfg, spec), spec


@pytest.fixture
def batch(make_batch):
    return make_batch()['data_samples']


@pytest.fixture
def maps():
    torch.manual_seed(1)
    return (torch.randn(2, 3, 16, 16),)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('task', ['semseg', 'human_parts', 'saliency', 'normals', 'edge', 'depth'])
def test_logits_are_resized_to_the_label(task, align_corners, maps, make_batch):
    batch = make_batch(tasks=(task,))['data_samples']
    head, spec = make(task, align_corners=align_corners)
    losses = head_losses(head, spec, maps, batch)
    assert list(losses) == [f'loss_{task}']
    logits = F.interpolate(head(maps), (64, 64), mode='bilinear', align_corners=align_corners)
    target = torch.stack([s.get(spec.gt_field).data for s in batch])
    if spec.kind in ('semantic', 'binary'):
        target = target[:, 0].long()
    expected = MODELS.build(spec.loss)(logits, target, ignore_index=spec.ignore_value)
    torch.testing.assert_close(losses[f'loss_{task}'], expected)


@pytest.fixture
def odd_task():
    """A semantic task with an ignore value of its own."""
    parts = get_task('human_parts')
    fields = dict(gt_key='gt_odd', gt_field='gt_odd', pred_field='pred_odd')
    register_task(dataclasses.replace(parts, name='odd', ignore_value=9, **fields))
    yield 'odd'
    del task_table._TASKS['odd']


def test_a_task_s_own_ignore_value_counts(odd_task, maps, make_batch):
    head, spec = make(odd_task)
    samples = make_batch(tasks=(odd_task,))['data_samples']
    target = torch.stack([s.gt_odd.data[0] for s in samples]).long()
    assert 0.1 < (target == 9).float().mean() < 0.3
    logits = F.interpolate(head(maps), (64, 64), mode='bilinear')
    want = spec.loss['loss_weight'] * F.cross_entropy(logits, target, ignore_index=9)
    torch.testing.assert_close(head_losses(head, spec, maps, samples)['loss_odd'], want)


def test_equals_mmseg_s_own_way_for_semseg(maps, batch):
    head, spec = make('semseg')
    ours = head_losses(head, spec, maps, batch)['loss_semseg']
    for sample in batch:
        sample.gt_sem_seg.data = sample.gt_sem_seg.data.long()
    theirs = head.loss(maps, batch, None)['loss_ce']
    assert torch.equal(ours, theirs)


def test_several_losses_have_several_names(maps, batch):
    dice = dict(type='DiceLoss', loss_name='loss_dice', loss_weight=0.5)
    shown = dict(
        CE, loss_name='entropy'
    )  # without 'loss' in its name mmengine logs it and leaves it out of the sum
    head, spec = make('human_parts', loss_decode=[CE, dice, shown])
    losses = head_losses(head, spec, maps, batch)
    assert set(losses) == {
        'loss_human_parts_ce',
        'loss_human_parts_dice',
        'human_parts.entropy',
    }
    torch.testing.assert_close(losses['loss_human_parts_ce'], losses['human_parts.entropy'])


def test_losses_of_one_name_are_summed(maps, batch):
    single, spec = make('human_parts', loss_decode=CE)
    double, _ = make('human_parts', loss_decode=[CE, dict(CE, loss_weight=2.0)])
    (one,) = head_losses(single, spec, maps, batch).values()
    three = head_losses(double, spec, maps, batch)
    assert list(three) == ['loss_human_parts']
    torch.testing.assert_close(three['loss_human_parts'], 3 * one)


def test_a_head_with_a_loss_of_its_own_is_asked_for_it(maps, batch):
    head, spec = make('human_parts', type='FCNHead', sampler=dict(type='OHEMPixelSampler', min_kept=10))
    losses = head_losses(head, spec, maps, batch)
    assert set(losses) == {'loss_human_parts', 'human_parts.acc_seg'}
    assert losses['loss_human_parts'].requires_grad

    spec = get_task('human_parts')
    cfg = dict(type='DAHead', in_channels=3, in_index=0, channels=8, pam_channels=4)
    (cfg,) = head_configs(cfg, [spec]).values()
    before = [s.get(spec.gt_field).data.clone() for s in batch]
    losses = head_losses(build_head(cfg, spec), spec, maps, batch)
    names = {f'loss_human_parts_{branch}.loss_ce' for branch in ('pam_cam', 'pam', 'cam')}
    assert {k for k in losses if 'loss' in k} == names
    for sample, label in zip(batch, before, strict=True):  # read, not written
        assert torch.equal(sample.get(spec.gt_field).data, label)


def test_a_missing_label_names_the_image(maps, batch):
    head, spec = make('normals')
    del batch[1].gt_normals
    with pytest.raises(
        ValueError, match=r"image_1.jpg has no label of task 'normals' \(field 'gt_normals'\)"
    ):
        head_losses(head, spec, maps, batch)
