"""Written files, run by onnxruntime and by torch, against the trained models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from export_models import build, expected_logits, photographs
from torch import nn

from mmseg_polyhistor.export import (
    ExportError,
    ExportNetwork,
    largest_differences,
    run_file,
    write_file,
    writers,
)
from mmseg_polyhistor.version import __version__

ANY_SIZE = [(1, 64, 64), (2, 96, 64), (2, 70, 90), (1, 5, 3), (3, 224, 224)]


def assert_equal(path, form, model, sizes, tasks):
    batches = [photographs(*size) for size in sizes]
    for images, got in zip(batches, run_file(path, form, batches), strict=True):
        want = expected_logits(model, images)
        assert list(got) == list(tasks)
        for task, output in got.items():
            torch.testing.assert_close(output, want[task], rtol=1e-3, atol=1e-4)


def test_onnx_of_any_size(onnx, tmp_path):
    """Prompts take the longer way through the attention; the other one is that of docs/export.md and its test."""
    model = build('vpt_deep', depths=(2,))  # the second block has a shift
    path = tmp_path / 'model.onnx'
    tasks = ('saliency', 'normals')
    write_file(ExportNetwork(model, tasks=tasks, outputs='logits'), path)
    assert_equal(path, 'onnx', model, ANY_SIZE, tasks)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    (images,) = session.get_inputs()
    assert (images.name, images.type) == ('images', 'tensor(float)')
    assert images.shape == ['batch', 3, 'height', 'width']
    shapes = {out.name: out.shape for out in session.get_outputs()}
    channels = dict(saliency=1, normals=3)
    assert shapes == {task: ['batch', c, 'height', 'width'] for task, c in channels.items()}
    about = json.loads(session.get_modelmeta().custom_metadata_map['mmseg_polyhistor'])
    assert about['version'] == __version__ and about['outputs'] == 'logits'
    assert about['channel_order'] == 'rgb' and about['preprocessing'] is True
    assert {t: (row['kind'], row['channels']) for t, row in about['tasks'].items()} == dict(
        saliency=('binary', 1), normals=('unit_vector', 3)
    )
    assert about['tasks']['normals']['classes'] == []


@pytest.mark.parametrize(
    'method',
    ['polyhistor', 'lora', 'bitfit', 'decoder_only', 'shared_adapter', 'mtlora', 'single_task'],
)
def test_onnx_of_one_size(onnx, tmp_path, method):
    between = method in ('bitfit', 'mtlora')  # which change what lies between stages
    model = build(method, depths=(1, 1) if between else (1,))
    path = tmp_path / 'model.onnx'
    tasks = ('saliency', 'normals')
    write_file(ExportNetwork(model, tasks=tasks, outputs='logits'), path, shape=(1, 70, 90))
    assert_equal(path, 'onnx', model, [(1, 70, 90)], tasks)


def test_torch_export(tmp_path):
    model = build(depths=(2,))
    path = tmp_path / 'model.pt2'
    write_file(ExportNetwork(model, tasks=['normals'], outputs='logits'), path, form='torch_export')
    assert_equal(path, 'torch_export', model, ANY_SIZE, ('normals',))
    extra = {'mmseg_polyhistor.json': ''}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra['mmseg_polyhistor.json'])['tasks']['normals']['kind'] == 'unit_vector'
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert path.stat().st_size < weights + 1_000_000  # and no example images


@pytest.mark.parametrize(
    'method, form',
    [
        ('smallest_mit', 'torch_export'),
        ('smallest_mit', 'onnx'),
        ('smallest_pvt', 'torch_export'),
        ('smallest_pvt_pooled', 'onnx'),
    ],
)
def test_other_families_of_any_size(request, tmp_path, method, form):
    if form == 'onnx':
        request.getfixturevalue('onnx')
    if 'pvt' in method:
        pytest.importorskip('timm')
    model = build(method, test_cfg=dict(size_divisor=8))
    path = tmp_path / f'model{".onnx" if form == "onnx" else ".pt2"}'
    write_file(ExportNetwork(model, tasks=['normals'], outputs='logits'), path, form=form)
    sizes = [(1, 5, 3), (1, 32, 32), (2, 70, 90), (1, 224, 224)]
    batches = [photographs(*size) for size in sizes]
    for images, got in zip(batches, run_file(path, form, batches), strict=True):
        want = expected_logits(model, images, 8)['normals']
        torch.testing.assert_close(got['normals'], want, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_predictions_large_weights_and_opset(onnx, tmp_path, monkeypatch):
    """Weights beyond what one file takes lie in a second one; classes, probabilities and unit vectors are written."""
    monkeypatch.setattr(writers, 'LARGEST_FILE', 1000)
    model = build('decoder_only', depths=(1,))
    network = ExportNetwork(model)
    path = tmp_path / 'model.onnx'
    write_file(network, path, shape=(1, 33, 40), opset=20)
    assert {file.name for file in tmp_path.iterdir()} == {'model.onnx', 'model.onnx.data'}
    import onnx as library

    assert {i.domain: i.version for i in library.load(path, load_external_data=False).opset_import}[''] == 20
    samples = model.test_step(dict(inputs=list(photographs(1, 33, 40).flip(1).byte())))
    (got,) = run_file(path, 'onnx', [photographs(1, 33, 40)])
    for spec in model.specs:
        want = samples[0].get(spec.pred_field).data[None]
        np.testing.assert_allclose(got[spec.name].numpy(), want.numpy(), rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model.decode_heads.saliency.conv_seg.bias += 1  # another model than that which was written
    found = largest_differences(path, 'onnx', network, model, [(1, 33, 40)])
    assert not found['saliency'].within(1e-2)
    assert found['semseg'].within(1e-3) and found['normals'].within(1e-3)
    with pytest.raises(
        ExportError, match=r'model.onnx does not run on images of \(1, 3, 34, 40\): InvalidArg'
    ):
        run_file(path, 'onnx', [photographs(1, 33, 40), photographs(1, 34, 40)])
    with pytest.raises(ExportError, match=r'opset 99 cannot express this network'):
        write_file(network, path, shape=(1, 33, 40), opset=99)


class ByValue(nn.Module):
    """A network that decides by what it sees."""

    def forward(self, images):
        return images * 2 if images.max() > 1 else images


class BySize(nn.Module):
    """A network that decides by how many images it sees, or by how large they are, as stock Swins do."""

    def __init__(self, axis, number):
        super().__init__()
        self.axis, self.number = axis, number

    def forward(self, images):
        return images * 2 if images.shape[self.axis] % self.number == 0 else images


class ByNumber(nn.Module):
    """A network that writes the number of images into its graph."""

    def forward(self, images):
        return images.reshape(int(images.shape[0] / 0.5 * 0.5), -1)


def test_networks_that_cannot_be_traced():
    with pytest.raises(ExportError, match=r'(?s)cannot trace this network.*--no-dynamic --shape H W'):
        writers.trace(ByValue())
    with pytest.raises(ExportError, match='cannot trace this network') as caught:
        writers.trace(ByValue(), (1, 8, 8))
    assert '--no-dynamic' not in str(caught.value)


@pytest.mark.parametrize('network', [BySize(0, 2), BySize(2, 4), BySize(3, 11), ByNumber()], ids=str)
def test_networks_that_decide_by_size_are_refused(network):
    """A graph for all sizes would hold the decision for the example's."""
    with pytest.raises(
        ExportError, match=r'decides something by the number or the size .*--no-dynamic --shape H W'
    ):
        writers.trace(network)
    images = torch.rand(3, 3, 33, 40)
    assert torch.equal(writers.trace(network, (3, 33, 40)).module()(images), network(images))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(writers.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ExportError, match=r'needs onnx, onnxruntime, onnxscript: pip install'):
        writers.require_packages('onnx')
    with pytest.raises(ExportError, match='needs onnx, onnxscript: pip'):
        writers.require_packages('onnx', check=False)
    writers.require_packages('torch_export')
    monkeypatch.delattr(writers.symbolic_shapes, 'backed_size_oblivious')
    with pytest.raises(ExportError, match=r'torch .* cannot trace'):
        writers.require_packages('torch_export')


def test_opset_is_an_option_of_onnx(tmp_path):
    network = ExportNetwork(build('decoder_only', depths=(1,)))
    with pytest.raises(ExportError, match='opset is an option of the format onnx'):
        write_file(network, tmp_path / 'm.pt2', form='torch_export', shape=(1, 32, 32), opset=18)


def test_opsets_that_torch_does_not_write_itself_are_refused(onnx, tmp_path):
    """Conversion downwards leaves attributes that an old operator does not have."""
    steps = []
    with pytest.raises(ExportError, match='opset must be 18 or higher, got 17'):
        write_file(nn.Identity(), tmp_path / 'm.onnx', shape=(1, 32, 32), opset=17, tell=steps.append)
    assert steps == []  # and not after a minute
