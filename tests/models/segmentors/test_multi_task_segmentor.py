"""`MultiTaskSegmentor` on a tiny backbone: training, inference, post-processing, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_polyhistor import tasks as task_table
from mmseg_polyhistor.models.postprocess import POSTPROCESS
from mmseg_polyhistor.tasks import TaskSpec, get_task, register_task

WIDTHS = (4, 6, 8, 10)


def prediction(sample, task):
    return sample.get(get_task(task).pred_field).data


# ------------------------------------------------------------------------------------------------ training
def test_train_step_lowers_the_loss_and_uses_every_parameter(build, make_batch, tasks):
    model = build().train()
    optim = OptimWrapper(torch.optim.Adam(model.parameters(), lr=1e-2))
    history = [model.train_step(make_batch(), optim) for _ in range(15)]
    assert set(history[0]) == {'loss'} | {f'loss_{task}' for task in tasks}
    for log in history:
        assert log['loss'].item() == pytest.approx(sum(log[f'loss_{t}'].item() for t in tasks), rel=1e-5)
    assert all(history[-1][k] < history[0][k] for k in history[0])

    losses = model(**model.data_preprocessor(make_batch(), True), mode='loss')
    optim.zero_grad()
    model.parse_losses(losses)[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_task_s_loss_reaches_its_own_parameters_only(build, make_batch, tasks):
    model = build()
    losses = model(**model.data_preprocessor(make_batch(), True), mode='loss')
    losses['loss_normals'].backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {name for name, _ in model.named_parameters() if '.normals.' in name}


def test_a_batch_without_any_truth_trains_into_nothing(build, make_batch, tasks):
    model = build().train()
    batch = make_batch()
    for sample in batch['data_samples']:
        for task in tasks:
            spec = get_task(task)
            sample.get(spec.gt_field).data.fill_(spec.ignore_value)
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert [v.item() for v in losses.values()] == [0] * len(tasks)
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name


def test_images_of_different_sizes_train_together(build, make_batch):
    """What the padding adds is ignored: the losses do not change when it changes."""
    model = build(backbone=dict(type='PixelBackbone'), decode_heads=pixel_head()).eval()
    batch = make_batch(((48, 64), (64, 40)))
    losses = model(**model.data_preprocessor(copy.deepcopy(batch), True), mode='loss')
    model.data_preprocessor.train_padding = dict(size=(96, 80))
    padded = model(**model.data_preprocessor(batch, True), mode='loss')
    for key, value in losses.items():
        torch.testing.assert_close(padded[key], value, rtol=1e-5, atol=1e-6)


def test_autocast_computes_losses_and_predictions_in_float32(build, make_batch, tasks):
    model = build().eval()
    batch = model.data_preprocessor(make_batch(), True)
    full = model(**batch, mode='loss')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert model(batch['inputs'])['normals'].dtype == torch.bfloat16
        half = model(**batch, mode='loss')
        (sample, _) = model(batch['inputs'], mode='predict')
    for key, value in half.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[key], rtol=0.05, atol=0.01)
    assert sample.pred_saliency.data.dtype == sample.pred_normals.data.dtype == torch.float32
    torch.testing.assert_close(sample.pred_normals.data.norm(dim=0), torch.ones(64, 64))


def test_a_missing_label_names_the_image(build, make_batch):
    model = build()
    batch = make_batch()
    del batch['data_samples'][1].gt_saliency
    with pytest.raises(ValueError, match=r"image_1\.jpg has no label of task 'saliency'"):
        model(**model.data_preprocessor(batch, True), mode='loss')


@pytest.fixture
def tasks_whose_losses_clash():
    """Task 'a' with a loss 'loss_b', and task 'a_b': both would log loss_a_b."""
    bce = dict(type='ClassBalancedBCELoss')
    for name in ('a', 'a_b'):
        fields = dict.fromkeys(('gt_key', 'gt_field'), f'gt_{name}') | dict(pred_field=f'pred_{name}')
        register_task(TaskSpec(name=name, kind='binary', channels=1, loss=bce, metric='mIoU', **fields))
    yield ('a', 'a_b')
    for name in ('a', 'a_b'):
        del task_table._TASKS[name]


def test_a_loss_never_replaces_another_task_s(build, make_batch, tasks_whose_losses_clash):
    bce = dict(type='ClassBalancedBCELoss')
    head = dict(type='AllMLPHead', in_channels=WIDTHS, channels=8)
    heads = dict(a=dict(head, loss_decode=[bce, dict(bce, loss_name='loss_b')]), a_b=head)
    backbone = dict(type='TinyTaskBackbone')
    model = build(backbone=backbone, decode_heads=heads, tasks=tasks_whose_losses_clash)
    batch = model.data_preprocessor(make_batch(tasks=tasks_whose_losses_clash), True)
    with pytest.raises(ValueError, match=r"two tasks have losses named \['loss_a_b'\]"):
        model(**batch, mode='loss')


def test_init_weights_reaches_the_heads(build):
    for head in build().decode_heads.values():
        assert head.conv_seg.weight.abs().max() < 0.06  # N(0, 0.01^2); torch's default would reach 0.35
        assert head.conv_seg.bias.abs().max() == 0


# ------------------------------------------------------------------------------------- the shape of a model
def test_a_stock_backbone_serves_all_heads(build, make_batch, tasks):
    model = build(backbone=dict(type='TinyTaskBackbone'))
    maps = model.extract_feat(torch.randn(1, 3, 64, 64))
    assert tuple(maps) == tasks
    assert all(m is maps['semseg'] for m in maps.values())
    losses = model(**model.data_preprocessor(make_batch(), True), mode='loss')
    assert set(losses) == {f'loss_{task}' for task in tasks}


@pytest.mark.parametrize('shared', [False, True])
def test_neck(build, shared, tasks):
    neck = dict(type='FPN', in_channels=list(WIDTHS), out_channels=5, num_outs=4)
    heads = dict(type='AllMLPHead', in_channels=[5] * 4, channels=8)
    backbone = dict(type='TinyTaskBackbone') if shared else dict(type='TinyTaskBackbone', tasks=tasks)
    model = build(backbone=backbone, neck=neck, decode_heads=heads)
    image = torch.randn(1, 3, 64, 64)
    maps = model.extract_feat(image)
    raw = model.backbone(image)
    for task in tasks:
        for ours, expected in zip(maps[task], model.neck(raw if shared else raw[task]), strict=True):
            assert torch.equal(ours, expected)


def test_tensor_mode_gives_logits_per_task(build, tasks):
    logits = build()(torch.randn(2, 3, 64, 32))
    assert {t: tuple(v.shape) for t, v in logits.items()} == {
        t: (2, get_task(t).channels, 16, 8) for t in tasks
    }


def test_different_heads_side_by_side(build, make_batch, tasks):
    bn = dict(type='BN')
    heads = dict(
        semseg=dict(
            type='UPerHead', in_channels=WIDTHS, in_index=(0, 1, 2, 3), channels=8, norm_cfg=bn, align_corners=True
        ),
        human_parts=dict(type='SegformerHead', in_channels=WIDTHS, in_index=(0, 1, 2, 3), channels=8, norm_cfg=bn),
        saliency=dict(type='FCNHead', in_channels=8, in_index=2, channels=8, num_convs=1, norm_cfg=bn),
        normals=dict(type='AllMLPHead', in_channels=WIDTHS, channels=8),
    )  # fmt: skip
    model = build(decode_heads=heads).train()
    losses = model(**model.data_preprocessor(make_batch(), True), mode='loss')
    model.parse_losses(losses)[0].backward()
    unused = {name.rsplit('.', 1)[0] for name, p in model.named_parameters() if p.grad is None}
    assert unused == {f'backbone.stem.saliency.{i}' for i in (0, 1, 3)}  # the FCN head reads one map
    samples = model.eval().val_step(make_batch(ori_shape=(50, 70)))
    assert all(prediction(s, t).shape[-2:] == (50, 70) for s in samples for t in tasks)


def test_builds_from_a_config_file_s_objects(model_cfg, tmp_path):
    """`Config` hands over ConfigDict objects, and lists for tuples once dumped and read."""
    path = tmp_path / 'config.py'
    Config(dict(model=model_cfg(test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(16, 16))))).dump(path)
    model = MODELS.build(Config.fromfile(path).model)
    assert model.test_cfg.mode == 'slide'
    assert model(torch.randn(1, 3, 32, 32), mode='predict')[0].pred_normals.data.shape == (3, 32, 32)


# ---------------------------------------------------------------------------------------------- prediction
def test_edge_and_depth_train_and_predict(build, make_batch):
    tasks = ('edge', 'depth')
    model = build(tasks=tasks, backbone=dict(type='TinyTaskBackbone', tasks=tasks))
    batch = model.data_preprocessor(make_batch(tasks=tasks), True)
    losses = model(**batch, mode='loss')
    assert set(losses) == {'loss_edge', 'loss_depth'}
    sum(losses.values()).backward()
    for task in tasks:
        assert model.decode_heads[task].conv_seg.weight.grad.abs().sum() > 0
        assert model.decode_heads[task].ignore_index == get_task(task).ignore_value
    for sample in model.eval().val_step(make_batch(tasks=tasks, ori_shape=(50, 70))):
        assert sample.pred_edge.data.shape == sample.pred_depth_map.data.shape == (1, 50, 70)
        assert sample.pred_depth_map.data.dtype == torch.float32
        assert sample.pred_depth_map.data.min() >= 0
        assert 0 <= sample.pred_edge.data.min() <= sample.pred_edge.data.max() <= 1


def test_val_step_predicts_every_kind_at_the_image_s_own_size(build, make_batch, tasks):
    samples = build().eval().val_step(make_batch(ori_shape=(50, 70)))
    assert [s.img_path for s in samples] == ['image_0.jpg', 'image_1.jpg']
    for sample in samples:
        for task in tasks:
            spec, value = get_task(task), prediction(sample, task)
            assert value.shape == (3 if spec.kind == 'unit_vector' else 1, 50, 70)
            assert sample.get(spec.gt_field).data.shape[-2:] == (64, 64)  # labels stay as they are
            if spec.kind == 'semantic':
                assert value.dtype == torch.int64
                assert 0 <= value.min() <= value.max() < spec.channels
            elif spec.kind == 'binary':
                assert value.dtype == torch.float32
                assert 0 <= value.min() < value.max() <= 1
            else:
                assert value.dtype == torch.float32
                torch.testing.assert_close(value.norm(dim=0), torch.ones(50, 70))


@pytest.mark.parametrize('align_corners', [False, True])
def test_prediction_by_hand(build, make_batch, tasks, align_corners):
    """Logits, upsampled to the input, padding cut off, resized to the image's size, made by the kind."""
    head = dict(type='AllMLPHead', in_channels=WIDTHS, channels=8, align_corners=align_corners)
    model = build(decode_heads=head).eval()
    batch = make_batch(((48, 64),), ori_shape=(30, 50))
    model.data_preprocessor.test_padding = dict(size_divisor=64)
    samples = model.val_step(copy.deepcopy(batch))
    image = model.data_preprocessor(batch, False)['inputs']
    assert image.shape == (1, 3, 64, 64)
    for task, logits in model(image).items():
        logits = F.interpolate(logits, (64, 64), mode='bilinear', align_corners=align_corners)[:, :, :48]
        logits = F.interpolate(logits, (30, 50), mode='bilinear', align_corners=align_corners)[0]
        expected = POSTPROCESS[get_task(task).kind](logits)
        torch.testing.assert_close(prediction(samples[0], task), expected)


def test_logits_in_half_precision_are_resized_in_float32(build, tasks):
    model = build()
    meta = dict(ori_shape=(50, 70), img_shape=(16, 16))
    logits = torch.randn(1, 32, 16, 16).bfloat16()
    (half,) = model.postprocess_result(logits, [SegDataSample(metainfo=meta)])
    (full,) = model.postprocess_result(logits.float(), [SegDataSample(metainfo=meta)])
    for task in tasks:
        assert torch.equal(prediction(half, task), prediction(full, task))


def test_resolution_of_the_input(build, make_batch, tasks):
    model = build(test_cfg=dict(resolution='input')).eval()
    samples = model.val_step(make_batch(((48, 64), (64, 40)), ori_shape=(90, 91)))
    for sample, size in zip(samples, [(48, 64), (64, 40)], strict=True):
        assert {prediction(sample, t).shape[-2:] for t in tasks} == {size}


def test_images_of_different_sizes_and_shapes_of_their_own(build, make_batch, tasks):
    model = build().eval()
    batch = make_batch(((64, 64), (32, 48)))
    batch['data_samples'][0].set_metainfo(dict(ori_shape=(20, 30)))
    samples = model.val_step(batch)
    assert {prediction(samples[0], t).shape[-2:] for t in tasks} == {(20, 30)}
    assert {prediction(samples[1], t).shape[-2:] for t in tasks} == {(32, 48)}


def test_prediction_without_samples(build, tasks):
    model = build().eval()
    image = torch.randint(0, 256, (3, 60, 52), dtype=torch.uint8)
    model.data_preprocessor.test_padding = dict(size_divisor=32)
    (sample,) = model.test_step(dict(inputs=[image]))
    assert {prediction(sample, t).shape[-2:] for t in tasks} == {(60, 52)}
    bare = model(torch.randn(2, 3, 64, 32), mode='predict')
    assert {prediction(s, t).shape[-2:] for s in bare for t in tasks} == {(64, 32)}


# A 1x1 classifier on the pixels, so that windows and mirror images can be compared pixel by pixel.
def pixel_head(**kwargs):
    return dict(
        type='FCNHead', in_channels=3, in_index=0, channels=3, num_convs=0, concat_input=False, dropout_ratio=0
    ) | kwargs  # fmt: skip


def test_flips_are_undone(build, make_batch, tasks):
    model = build(backbone=dict(type='PixelBackbone'), decode_heads=pixel_head()).eval()
    head = model.decode_heads['normals']
    with (
        torch.no_grad()
    ):  # a network that sees the x of the normal in the red channel: mirrored, it is negated
        head.conv_seg.weight.copy_(torch.eye(3)[:, :, None, None])
        head.conv_seg.bias.zero_()
    torch.manual_seed(0)
    image = torch.randn(1, 3, 8, 12)
    for direction, axis, component in (('horizontal', 3, 0), ('vertical', 2, 1)):
        mirrored = image.flip(axis)
        mirrored_normals = mirrored.clone()
        mirrored_normals[:, component] *= -1
        meta = dict(ori_shape=(8, 12), img_shape=(8, 12), flip=True, flip_direction=direction)
        (plain,) = model(image, mode='predict')
        (undone,) = model(mirrored, [SegDataSample(metainfo=meta)], mode='predict')
        (undone_normals,) = model(mirrored_normals, [SegDataSample(metainfo=meta)], mode='predict')
        for task in tasks:
            undone_task = undone_normals if task == 'normals' else undone
            torch.testing.assert_close(prediction(undone_task, task), prediction(plain, task))


def test_padding_is_cut_off_before_the_flip_is_undone(build, make_batch, tasks):
    model = build(backbone=dict(type='PixelBackbone'), decode_heads=pixel_head()).eval()
    image = torch.randn(1, 3, 8, 12)
    padded = F.pad(image.flip(3), (1, 2, 3, 4))
    meta = dict(
        ori_shape=(8, 12), img_shape=(8, 12), img_padding_size=(1, 2, 3, 4), flip=True, flip_direction='horizontal'
    )  # fmt: skip
    (sample,) = model(padded, [SegDataSample(metainfo=meta)], mode='predict')
    (plain,) = model(image, mode='predict')
    assert torch.equal(prediction(sample, 'semseg'), prediction(plain, 'semseg'))
    torch.testing.assert_close(prediction(sample, 'saliency'), prediction(plain, 'saliency'))


# ------------------------------------------------------------------------------------------- sliding window
def slide(crop, stride, **kwargs):
    return dict(mode='slide', crop_size=crop, stride=stride, **kwargs)


def test_a_window_of_the_image_s_size_equals_whole_inference(build, tasks):
    image = torch.randn(2, 3, 64, 96)
    whole, window = (build(test_cfg=cfg).eval() for cfg in (None, slide((64, 96), (32, 32))))
    for a, b in zip(whole(image, mode='predict'), window(image, mode='predict'), strict=True):
        for task in tasks:
            assert torch.equal(prediction(a, task), prediction(b, task))


def test_windows_average_logits_and_encode_once_per_window(build, tasks):
    model = build(test_cfg=slide((32, 32), (24, 32))).eval()
    image = torch.randn(1, 3, 56, 64)
    (sample,) = model(image, mode='predict')
    windows = [(y, x) for y in (0, 24) for x in (0, 32)]
    assert model.backbone.calls == len(windows)
    for task in tasks:
        total, count = torch.zeros(1, get_task(task).channels, 56, 64), torch.zeros(56, 64)
        for y, x in windows:
            logits = model(image[:, :, y : y + 32, x : x + 32])[task]
            total[:, :, y : y + 32, x : x + 32] += F.interpolate(logits, (32, 32), mode='bilinear')
            count[y : y + 32, x : x + 32] += 1
        expected = POSTPROCESS[get_task(task).kind]((total / count)[0])
        torch.testing.assert_close(prediction(sample, task), expected)


def test_windows_that_see_single_pixels_equal_whole_inference(build, tasks):
    """Also where the image is smaller than a window, or the last window must step back."""
    kwargs = dict(backbone=dict(type='PixelBackbone'), decode_heads=pixel_head())
    whole, window = (build(test_cfg=cfg, **kwargs).eval() for cfg in (None, slide((16, 16), (10, 7))))
    for size in ((35, 41), (12, 40), (9, 9)):
        image = torch.randn(1, 3, *size)
        (a,), (b,) = whole(image, mode='predict'), window(image, mode='predict')
        for task in tasks:
            torch.testing.assert_close(prediction(a, task), prediction(b, task))


# ------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(tasks=('semseg', 'depths')), "unknown task 'depths'; known tasks are"),
        (dict(tasks=('semseg', 'semseg')), r"more than once: \['semseg'\]"),
        (dict(tasks='semseg'), "got the string 'semseg'"),
        (dict(tasks=()), 'no task is named'),
        (
            dict(tasks=('semseg', 'normals')),
            r"model\.backbone\.tasks=\['semseg', 'human_parts', 'saliency', 'normals'\], "
            r"but model\.tasks=\['semseg', 'normals'\]",
        ),
        (dict(decode_heads={'semseg': dict(type='AllMLPHead')}), 'no head for the tasks'),
        (dict(test_cfg=dict(mode='sliding')), "test_cfg.mode is 'sliding'; allowed: 'whole' or 'slide'"),
        (dict(test_cfg=dict(mode='slide', crop_size=(8, 8))), 'test_cfg.stride is None; allowed: a pair'),
        (dict(test_cfg=slide((8, 8), 4)), 'test_cfg.stride is 4; allowed: a pair'),
        (dict(test_cfg=slide((8, 8), (4, 9))), r'test_cfg.stride is \(4, 9\); allowed: at most crop_size'),
        (dict(test_cfg=dict(resolution='full')), "test_cfg.resolution is 'full'; allowed: 'original' or 'input'"),
        (dict(test_cfg=dict(modus='whole')), r"unknown keys \['modus'\]; allowed:"),
        (dict(pretrained='swin.pth'), r"pretrained='swin.pth' is no option here; .* checkpoint='swin.pth'"),
    ],
)  # fmt: skip
def test_contradictions_are_named(model_cfg, change, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(model_cfg(**change))
