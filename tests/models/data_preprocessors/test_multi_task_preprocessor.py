"""`MultiTaskDataPreProcessor` against mmseg's own, and its padding of the labels by task."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

import mmseg_polyhistor.models  # noqa: F401  (registers)
from mmseg_polyhistor import tasks as task_table
from mmseg_polyhistor.tasks import TaskSpec, get_task, known_tasks, register_task

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def build(**kwargs):
    return MODELS.build(dict(type='MultiTaskDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True) | kwargs)


def make_batch(sizes, tasks=('semseg', 'human_parts', 'saliency', 'normals')):
    torch.manual_seed(0)
    inputs, samples = [], []
    for i, size in enumerate(sizes):
        sample = SegDataSample(metainfo=dict(img_path=f'{i}.jpg', ori_shape=size, img_shape=size))
        for task in tasks:
            spec = get_task(task)
            label = {
                'unit_vector': lambda size: torch.randn(3, *size),
                'scalar': lambda size: 1 + torch.rand(1, *size),
            }.get(spec.kind, lambda size: torch.randint(2, (1, *size), dtype=torch.uint8))(size)
            sample.set_data({spec.gt_field: PixelData(data=label)})
        inputs.append(torch.randint(0, 256, (3, *size), dtype=torch.uint8))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('padding', [dict(size_divisor=32), dict(size=(70, 64))], ids=['divisor', 'size'])
@pytest.mark.parametrize(
    'channels', [dict(bgr_to_rgb=True), dict(bgr_to_rgb=False), dict(mean=None, std=None)]
)
def test_images_equal_mmseg_s_to_the_bit(channels, padding, training):
    kwargs = dict(pad_val=0.25, test_cfg=padding, **padding) | channels
    ours = build(**kwargs)
    stock = MODELS.build(
        dict(type='SegDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True) | kwargs | dict(seg_pad_val=255)
    )
    sizes = ((50, 33), (64, 64)) if training else ((50, 33), (50, 33))
    batch = make_batch(sizes, tasks=('semseg',))
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(img_shape=(1, 1)))  # out of date, as after a transform that forgot it
    theirs = stock(copy.deepcopy(batch), training)
    result = ours(batch, training)
    assert torch.equal(result['inputs'], theirs['inputs'])
    for a, b in zip(result['data_samples'], theirs['data_samples'], strict=True):
        assert torch.equal(a.gt_sem_seg.data, b.gt_sem_seg.data)
        assert a.pad_shape == b.pad_shape
        assert a.img_shape == b.img_shape


def test_a_batched_tensor_equals_a_list():
    batch = make_batch(((16, 16), (16, 16)))
    stacked = dict(batch, inputs=torch.stack(batch['inputs']))
    for training in (True, False):
        a, b = build()(batch, training), build()(stacked, training)
        assert torch.equal(a['inputs'], b['inputs'])


@pytest.fixture
def odd_task():
    """A task with an ignore value of its own."""
    spec = TaskSpec(
        name='odd',
        kind='binary',
        channels=1,
        gt_key='gt_odd',
        gt_field='gt_odd',
        pred_field='pred_odd',
        loss=dict(type='ClassBalancedBCELoss'),
        metric='mIoU',
        ignore_value=7,
    )
    register_task(spec)
    yield spec
    del task_table._TASKS['odd']


def test_every_label_is_padded_with_its_own_ignore_value(odd_task):
    tasks = known_tasks()
    assert 'odd' in tasks
    batch = make_batch(((20, 30), (32, 24)), tasks)
    before = copy.deepcopy(batch['data_samples'])
    result = build(size_divisor=16)(batch, True)
    assert result['inputs'].shape == (2, 3, 32, 32)
    for sample, old, (height, width) in zip(
        result['data_samples'], before, ((20, 30), (32, 24)), strict=True
    ):
        assert sample.img_shape == (height, width)
        assert sample.pad_shape == (32, 32)
        assert sample.img_padding_size == (0, 32 - width, 0, 32 - height)
        for task in tasks:
            spec = get_task(task)
            label, original = sample.get(spec.gt_field).data, old.get(spec.gt_field).data
            assert label.shape[-2:] == (32, 32)
            assert label.dtype == original.dtype
            assert torch.equal(label[:, :height, :width], original)
            assert (label[:, height:] == spec.ignore_value).all()
            assert (label[:, :, width:] == spec.ignore_value).all()


def test_the_data_set_s_samples_are_left_alone():
    batch = make_batch(((20, 30), (32, 24)))
    before = copy.deepcopy(batch)
    for training in (True, False):
        build()(batch, training)
    for a, b in zip(batch['data_samples'], before['data_samples'], strict=True):
        assert set(a.metainfo) == set(b.metainfo)
        assert a.gt_normals.data.shape == b.gt_normals.data.shape
    assert torch.equal(batch['inputs'][0], before['inputs'][0])


def test_labels_keep_their_size_at_test_time():
    batch = make_batch(((20, 30), (32, 24)))
    batch['data_samples'][0].set_data({'gt_saliency': PixelData(data=torch.zeros(1, 99, 98))})
    result = build(test_cfg=dict(size_divisor=16))(batch, False)
    assert result['inputs'].shape == (2, 3, 32, 32)
    first, second = result['data_samples']
    assert first.gt_saliency.data.shape == (1, 99, 98)
    assert second.gt_normals.data.shape == (3, 32, 24)
    assert first.img_padding_size == (0, 2, 0, 12)
    assert (first.ori_shape, first.img_shape) == ((20, 30), (20, 30))


def test_inference_without_samples():
    batch = dict(inputs=make_batch(((20, 30), (32, 24)))['inputs'])
    result = build()(batch)
    assert result['inputs'].shape == (2, 3, 32, 30)
    assert [s.img_padding_size for s in result['data_samples']] == [(0, 0, 0, 12), (0, 6, 0, 0)]
    assert [s.ori_shape for s in result['data_samples']] == [(20, 30), (32, 24)]
    with pytest.raises(ValueError, match='training needs labels'):
        build()(batch, True)


class AddOne(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, images, samples):
        self.seen.append(len(samples))
        return images + 1, samples[::-1]


def test_batch_augments_see_training_batches_only():
    seen = []
    MODELS.register_module(name='AddOneForTest', module=AddOne, force=True)
    ours = build(batch_augments=[dict(type='AddOneForTest', seen=seen)] * 2)
    batch = make_batch(((16, 16), (16, 16)))
    plain = build()(batch, True)
    augmented = ours(batch, True)
    assert torch.equal(augmented['inputs'], plain['inputs'] + 1 + 1)
    assert [s.img_path for s in augmented['data_samples']] == ['0.jpg', '1.jpg']
    assert len(seen) == 2
    assert torch.equal(ours(batch, False)['inputs'], build()(batch, False)['inputs'])


def test_errors():
    with pytest.raises(ValueError, match='only one of size and size_divisor'):
        build(size=(8, 8), size_divisor=4)
    with pytest.raises(ValueError, match=r"test_cfg: unknown keys \['divisor'\]"):
        build(test_cfg=dict(divisor=4))
    batch = make_batch(((16, 16),))
    with pytest.raises(ValueError, match=r'0.jpg has the size \(16, 16\), larger than .*\(16, 8\)'):
        build(size=(16, 8))(batch, True)
    batch['data_samples'][0].set_data({'gt_normals': PixelData(data=torch.zeros(3, 8, 16))})
    with pytest.raises(ValueError, match=r"0.jpg: the label of task 'normals' has the size \(8, 16\)"):
        build()(batch, True)
