"""What is exported, before it is: equal to the trained model, for every method, size and setting."""

from __future__ import annotations

import pytest
import torch
from export_models import METHODS, STD, TASKS, build, expected_logits, photographs
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_polyhistor.export import ExportNetwork, compare, reference_logits

SIZES = [(1, 64, 64), (2, 96, 64), (2, 70, 90), (1, 5, 3)]


def assert_close(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert list(got) == list(want)
    for task, logits in want.items():
        torch.testing.assert_close(got[task], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('method', [*METHODS, 'single_task', 'mit'])
def test_logits_are_those_of_the_model(method):
    model = build(method)
    network = ExportNetwork(model, outputs='logits')
    for size in SIZES:
        images = photographs(*size)
        assert_close(network(images), expected_logits(model, images))
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(m.training for m in network.modules()) and any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('method', [*METHODS, 'single_task', 'mit'])
def test_some_of_the_tasks(method):
    """In the model's order; nothing of the others stays in the file."""
    model = build(method)
    images = photographs(2, 70, 90)
    want = expected_logits(model, images)
    network = ExportNetwork(model, tasks=('normals', 'semseg'), outputs='logits')
    assert_close(network(images), {task: want[task] for task in ('semseg', 'normals')})
    alone = ExportNetwork(model, tasks=('saliency',), outputs='logits')
    assert_close(alone(images), {'saliency': want['saliency']})
    for exported, kept in ((network, {'semseg', 'normals'}), (alone, {'saliency'})):
        named = {part for key in exported.state_dict() for part in key.split('.') if part in TASKS}
        assert named == kept
    everything = sum(t.numel() for t in ExportNetwork(model).state_dict().values())
    assert sum(t.numel() for t in alone.state_dict().values()) < everything
    assert model.tasks == TASKS and model.backbone.tasks == TASKS


@pytest.mark.parametrize('method', ['lora', 'mit_lora'])
def test_changes_of_the_only_task_become_part_of_the_encoder(method):
    model = build(method)
    assert ExportNetwork(model).segmentor.backbone.adapters is not None
    alone = ExportNetwork(model, tasks=('normals',), outputs='logits')
    assert alone.segmentor.backbone.adapters is None
    images = photographs(2, 70, 90)
    assert_close(alone(images), {'normals': expected_logits(model, images)['normals']})


def test_predictions_are_those_of_a_test_run():
    model = build()
    rgb = photographs(2, 70, 90)
    samples = model.test_step(dict(inputs=[image.byte() for image in rgb.flip(1)]))
    got = ExportNetwork(model)(rgb)
    assert {task: out.dtype for task, out in got.items()} == dict(
        semseg=torch.int64, saliency=torch.float32, normals=torch.float32
    )
    for spec in model.specs:
        want = torch.stack([sample.get(spec.pred_field).data for sample in samples])
        torch.testing.assert_close(got[spec.name], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('reverse', [True, False])
@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_the_order_of_the_channels(order, reverse):
    """Pipelines load BGR, and the model reverses it or not; the exported network is told what it gets."""
    model = build(bgr_to_rgb=reverse)
    rgb = photographs(1, 64, 64)
    want = expected_logits(model, rgb if reverse else rgb.flip(1))
    network = ExportNetwork(model, outputs='logits', channel_order=order)
    images = rgb if order == 'rgb' else rgb.flip(1)
    assert_close(network(images), want)
    assert_close(reference_logits(model, images, channel_order=order), want)


@pytest.mark.parametrize(
    'options', [dict(test_cfg=None), dict(test_cfg=dict(size_divisor=24), pad_val=1.5)], ids=['none', '24']
)
def test_other_paddings(options):
    model = build(**options)
    images = photographs(2, 37, 50)
    batch = model.data_preprocessor(dict(inputs=list(images.flip(1))))
    inputs = batch['inputs']
    logits = {
        t: nn.functional.interpolate(y, inputs.shape[2:], mode='bilinear') for t, y in model(inputs).items()
    }
    assert_close(
        ExportNetwork(model, outputs='logits')(images), {t: y[..., :37, :50] for t, y in logits.items()}
    )


def test_without_normalisation():
    model = build(mean=None, std=None)
    images = photographs(1, 64, 64)
    with torch.no_grad():
        want = model(images)
    got = ExportNetwork(model, outputs='logits')(images)
    assert_close(got, {t: nn.functional.interpolate(y, (64, 64), mode='bilinear') for t, y in want.items()})


def test_without_preprocessing():
    """What the data preprocessor makes goes in, whichever one it is."""
    model = build()
    images = photographs(2, 64, 96)
    network = ExportNetwork(model, outputs='logits', preprocessing=False)
    normalised = model.data_preprocessor(dict(inputs=list(images.flip(1))))['inputs']
    assert_close(network(normalised), expected_logits(model, images))
    assert_close(reference_logits(model, normalised, preprocessing=False), expected_logits(model, images))
    assert not any(key in network.state_dict() for key in ('mean', 'std'))


def test_a_model_that_shares_nothing_with_its_export():
    model = build()
    network = ExportNetwork(model, outputs='logits')
    images = photographs(1, 64, 64)
    before = network(images)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    assert_close(network(images), before)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(tasks=('depth',)), "unknown tasks \\['depth'\\]"),
        (dict(outputs='classes'), "outputs must be one of .*, got 'classes'"),
        (dict(channel_order='gbr'), "channel_order must be one of .*, got 'gbr'"),
    ],
)
def test_unfit_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExportNetwork(build(), **options)


def test_preprocessors_that_cannot_be_part_of_it_are_refused():
    with pytest.raises(ValueError, match=r'pads images to one size, \(64, 64\).*--no-preprocessing'):
        ExportNetwork(build(test_cfg=dict(size=(64, 64))))
    model = build()
    model.data_preprocessor = MODELS.build(dict(type='SegDataPreProcessor', mean=[0] * 3, std=STD))
    with pytest.raises(ValueError, match='data_preprocessor is SegDataPreProcessor'):
        ExportNetwork(model)
    ExportNetwork(model, preprocessing=False)
    with pytest.raises(TypeError, match='only a MultiTaskSegmentor can be exported, the config has Linear'):
        ExportNetwork(nn.Linear(1, 1))


def test_the_measure_of_differences():
    """Near-ties of classes, and vectors of hardly any length, are no differences; other classes and vectors are."""
    semseg, saliency, normals = build().specs
    logits = torch.zeros(1, 21, 1, 2)
    logits[0, 3, 0], logits[0, 4, 0] = 2.0, torch.tensor([1.999, -1.0])
    classes = torch.tensor([3, 3]).view(1, 1, 1, 2)
    assert compare(semseg, classes, logits) == (0.0, 2.0)
    assert compare(semseg, classes + torch.tensor([1, 0]), logits).largest == pytest.approx(0.001, rel=1e-3)
    assert compare(semseg, classes + torch.tensor([0, 1]), logits).largest == 3.0
    assert compare(semseg, logits + 0.5, logits, 'logits') == pytest.approx((0.5, 2.0))
    assert compare(saliency, torch.full((1, 1, 1, 1), 0.75), torch.zeros(1, 1, 1, 1)) == (0.25, 1.0)
    short = torch.tensor([3e-6, 0.0, 4e-6]).view(1, 3, 1, 1)
    up = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    assert compare(normals, up, short).largest == pytest.approx(5e-6 * 2**0.5)
    assert compare(normals, up, 1e6 * short).largest == pytest.approx(5 * 2**0.5)
    assert not compare(normals, up * float('nan'), short).within(1e9)
    with pytest.raises(ValueError, match=r'semseg has the shape \(1, 21, 1, 2\) instead of \(1, 1, 1, 2\)'):
        compare(semseg, logits, logits)
