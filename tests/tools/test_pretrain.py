"""Pretraining a backbone: the data set, the training, and the file that AdaptedSwin loads."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmpretrain.engine import SwitchRecipeHook
from mmpretrain.models import SwinTransformer
from mmpretrain.structures import DataSample
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from mmseg_polyhistor.engine import SeededDataset
from mmseg_polyhistor.models.backbones import AdaptedSwin

CONFIGS = Path(__file__).resolve().parents[2] / 'tools' / 'pretrain' / 'configs'
ARCH = dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2])
LABELS = ['zebra', 'ant', 'owl', 'yak', 'bat', 'eel']
NUMBERS = [5, 0, 3, 4, 1, 2]  # in alphabetical order
TRAIN, VAL = 9, 5
TINY = f"""
_base_ = {str(CONFIGS / 'swin-nano_10e.py')!r}
model = dict(
    data_preprocessor=dict(num_classes=6), head=dict(num_classes=6, in_channels=16),
    backbone=dict(arch=dict(_delete_=True, **{ARCH}), img_size=32, out_indices=(1,)))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=[dict(type='RandomResizedCrop', scale=32), dict(type='PackInputs')]))
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
custom_hooks = [
    dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.5, gamma=1),
    dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=2, train_pipeline={{{{_base_.late_pipeline}}}})]),
]
"""


def picture(i: int) -> Image.Image:
    """A smooth image, so that decoders agree; brighter from image to image."""
    ramp = np.linspace(0, 60, 32)
    planes = [
        10 * i + np.add.outer(ramp, 0 * ramp),
        200 - 5 * i + 0 * ramp + ramp[:, None] / 3,
        90 + ramp + 0 * ramp[:, None],
    ]
    return Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8))


def file_arrays() -> dict[str, np.ndarray]:
    """Nine images to train with and five to validate with, mingled, of six classes."""
    files = []
    for i in range(TRAIN + VAL):
        buffer = io.BytesIO()
        picture(i).save(buffer, 'JPEG', quality=95)
        files.append(buffer.getvalue())
    return dict(
        jpeg=np.frombuffer(b''.join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=np.array([LABELS[i % 6] for i in range(TRAIN + VAL)]),
        split=np.array(['val' if i % 3 == 1 else 'train' for i in range(TRAIN + VAL)]),
    )


@pytest.fixture(scope='module')
def data_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp('images') / 'images.npz'
    np.savez(path, **file_arrays())
    return str(path)


@pytest.fixture
def pretrain(monkeypatch):
    """The folder's modules, which its tools import as `pretrain.<name>`."""
    monkeypatch.syspath_prepend(str(CONFIGS.parents[1]))
    init_default_scope('mmpretrain')
    import pretrain.bf16
    import pretrain.jpeg_arrays

    return pretrain


# -------------------------------------------------------------------------------------------------- data set
@pytest.mark.parametrize('split', ['train', 'val'])
def test_images_and_labels(pretrain, data_file, split):
    """Pixels as Pillow decodes them, numbers of the alphabetical order, in the order of the file."""
    dataset = pretrain.jpeg_arrays.JpegArrays(data_file, split)
    chosen = [i for i in range(TRAIN + VAL) if (i % 3 == 1) == (split == 'val')]
    assert len(dataset) == len(chosen)
    assert dataset.metainfo['classes'] == ('ant', 'bat', 'eel', 'owl', 'yak', 'zebra')
    arrays = file_arrays()
    for item, i in zip(dataset, chosen, strict=True):
        start, stop = arrays['offsets'][i : i + 2]
        decoded = np.asarray(Image.open(io.BytesIO(arrays['jpeg'][start:stop].tobytes())))
        assert np.abs(item['img'][..., ::-1].astype(int) - decoded).max() <= 2
        assert item['gt_label'] == NUMBERS[i % 6]
        assert item['img_shape'] == item['ori_shape'] == (32, 32)


class Payload:
    """Unpickling makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda a: a.pop('split'), r"lacks the arrays \['split'\].*has \['jpeg', 'offsets', 'labels'\]"),
        (lambda a: a.update(jpeg=a['jpeg'].astype(np.int32)), r"'jpeg' is int32 of shape .*must be uint8"),
        (lambda a: a.update(jpeg=a['jpeg'][None]), r"'jpeg' is uint8 of shape \(1, .*one axis"),
        (lambda a: a.update(labels=np.arange(14)), r"'labels' is int64.*must be str"),
        (lambda a: a.update(offsets=a['offsets'] / 1), r"'offsets' is float64.*must be integers"),
        (lambda a: a.update(offsets=a['offsets'][:-1]), r"'labels' has 14 entries, 'offsets' 14 and 'split' 14"),
        (lambda a: a.update(split=a['split'][:-1]), r"'offsets' 15 and 'split' 13"),
        (lambda a: a.update(offsets=a['offsets'] + 1), r'goes from 1 to (\d+); it must go from 0 to the'),
        (lambda a: a.update(jpeg=a['jpeg'][:-1]), r'goes from 0 to (\d+); it must'),
        (lambda a: a['offsets'].__setitem__(3, a['offsets'][2]), r'must grow; it does not behind entry 2'),
        (lambda a: a['split'].__setitem__(3, 'test'), r"'split' has \['test'\]; it may have \['train', 'val'\]"),
        (lambda a: a.update(split=np.full(14, 'val')), r"no image of the split 'train'"),
        (lambda a: a.update({k: v[:0] for k, v in a.items()}, offsets=np.zeros(1, int)), r"no image of the split"),
    ],
)  # fmt: skip
def test_unfit_arrays_are_told(pretrain, tmp_path, change, message):
    arrays = file_arrays()
    arrays['split'] = arrays['split'].astype('U5')
    change(arrays)
    np.savez(tmp_path / 'unfit.npz', **arrays)
    with pytest.raises(pretrain.jpeg_arrays.DataFileError, match=rf'unfit\.npz.*{message}'):
        pretrain.jpeg_arrays.JpegArrays(str(tmp_path / 'unfit.npz'), 'train')


def test_unfit_files_are_told(pretrain, tmp_path, data_file):
    """No file, another kind of file, half a file, pickled objects (which do not run), an unknown split."""
    read, error = pretrain.jpeg_arrays.read_arrays, pretrain.jpeg_arrays.DataFileError
    with pytest.raises(FileNotFoundError, match=r'nowhere\.npz.*does not exist'):
        read(tmp_path / 'nowhere.npz')
    whole = Path(data_file).read_bytes()
    for name, content in [('text', b'some text'), ('empty', b''), ('half', whole[: len(whole) // 2])]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(error, match=rf'{name} (is no|cannot be read|.*broken)'):
            read(tmp_path / name)
    np.save(tmp_path / 'one.npy', np.zeros(3))
    with pytest.raises(error, match=r'one\.npy holds one array'):
        read(tmp_path / 'one.npy')
    payload = np.array([Payload(str(tmp_path / 'pwned'))] * 14, dtype=object)
    np.savez(tmp_path / 'evil.npz', **{**file_arrays(), 'labels': payload})
    with pytest.raises(error, match=r'evil\.npz cannot be read without unpickling'):
        read(tmp_path / 'evil.npz')
    assert not (tmp_path / 'pwned').exists()
    with pytest.raises(ValueError, match="split='test' is unknown"):
        pretrain.jpeg_arrays.JpegArrays(data_file, 'test')


def test_an_image_that_cannot_be_decoded_is_named(pretrain, tmp_path):
    arrays = file_arrays()
    arrays['jpeg'] = arrays['jpeg'].copy()
    arrays['jpeg'][arrays['offsets'][3] : arrays['offsets'][4]] = 7
    np.savez(tmp_path / 'images.npz', **arrays)
    dataset = pretrain.jpeg_arrays.JpegArrays(str(tmp_path / 'images.npz'), 'train')
    dataset[1]
    with pytest.raises(pretrain.jpeg_arrays.DataFileError, match=r'images\.npz: image 3 cannot be decoded'):
        dataset[2]


def test_a_switched_pipeline_arrives_behind_the_seeds(pretrain, data_file):
    """mmpretrain's hook sets `pipeline` on the loader's data set, which wraps the one that has it."""

    def loader_images(size: int) -> list[dict]:
        return [dict(type='Resize', scale=(size, size)), dict(type='PackInputs')]

    dataset = dict(type='JpegArrays', data_file=data_file, split='train', pipeline=loader_images(20))
    loader = DataLoader(SeededDataset(dataset), batch_size=2, collate_fn=default_collate)
    assert next(iter(loader))['inputs'].shape[-2:] == (20, 20)
    hook = SwitchRecipeHook([dict(action_epoch=2, train_pipeline=loader_images(12))])
    runner = type('Runner', (), dict(train_loop=type('Loop', (), dict(dataloader=loader))))
    hook._switch_train_pipeline(runner, hook.schedule[2]['train_pipeline'])
    assert next(iter(loader))['inputs'].shape[-2:] == (12, 12)


# ------------------------------------------------------------------------------------------------- training
@pytest.mark.parametrize(
    'capabilities, wanted',
    [
        (dict(avx2=True, avx512_bf16=False), torch.float32),
        (dict(avx512_bf16=True), torch.bfloat16),
        (dict(neon=True, bf16=True), torch.bfloat16),
        (dict(neon=True, bf16=False), torch.float32),
        (None, torch.float32),  # a release of torch that does not tell
    ],
)
def test_a_cpu_that_would_emulate_bf16_computes_in_float32(pretrain, monkeypatch, capabilities, wanted):
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, 'get_capabilities', raising=False)
    else:
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: capabilities, raising=False)
    monkeypatch.setattr(pretrain.bf16, 'get_device', lambda: 'cpu')
    said = []
    monkeypatch.setattr(pretrain.bf16, 'print_log', lambda message, **_: said.append(message))
    layer = nn.Linear(2, 2)
    wrapper = pretrain.bf16.Bf16OptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1))
    with wrapper.optim_context(layer):
        assert layer(torch.ones(1, 2)).dtype == wanted
    assert len(said) == (wanted == torch.float32)


def test_bf16_forward_and_float32_logits(pretrain, monkeypatch):
    """The context gives the layers bfloat16; logits, loss, weights and gradients stay float32."""
    monkeypatch.setattr(pretrain.bf16, 'computes_in_bf16', lambda device: True)
    torch.manual_seed(0)
    layer = nn.Linear(6, 5)
    head = pretrain.bf16.Fp32LinearClsHead(num_classes=3, in_channels=5)
    parameters = [*layer.parameters(), *head.parameters()]
    wrapper = pretrain.bf16.Bf16OptimWrapper(torch.optim.SGD(parameters, lr=0.1))
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    x = torch.randn(3, 6)
    with wrapper.optim_context(layer):
        features = layer(x)
        logits = head((features,))
        loss = head.loss((features,), samples)['loss']
    assert features.dtype == torch.bfloat16
    assert logits.dtype == loss.dtype == torch.float32
    wanted = features.float() @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(logits, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(wanted, torch.arange(3)))
    before = layer.weight.detach().clone()
    wrapper.backward(loss)
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in parameters)
    wrapper.step()
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize('name', sorted(path.name for path in CONFIGS.glob('*.py')))
def test_each_config_takes_two_steps(pretrain, data_file, tmp_path, name):
    """Model, augmentations, optimiser and hooks of each config: two steps change every weight."""
    cfg = Config.fromfile(CONFIGS / name)
    pretrain.jpeg_arrays.set_data_file(cfg, data_file)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_file == data_file
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.work_dir = str(tmp_path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        runner = Runner.from_cfg(cfg)
        loop = runner.build_train_loop(cfg.train_cfg)
        runner.model.init_weights()
        wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        before = {k: p.detach().clone() for k, p in runner.model.named_parameters()}
        losses = [runner.model.train_step(batch, wrapper)['loss'] for batch in islice(loop.dataloader, 2)]
    assert len(losses) == 2 and all(map(torch.isfinite, losses))
    still = [k for k, p in runner.model.named_parameters() if torch.equal(p, before[k])]
    assert not still


@pytest.fixture(scope='module')
def trained(tools, data_file, tmp_path_factory) -> Path:
    """A folder with a config, and `work` with what two epochs left."""
    folder = tmp_path_factory.mktemp('trained')
    (folder / 'tiny.py').write_text(TINY)
    _, printed = tools.start(
        'pretrain/train.py', 'tiny.py', '--data-file', data_file, '--work-dir', 'work', cwd=folder
    )
    assert len(re.findall(r'Epoch\(val\) .*accuracy/top1: [\d.]+  accuracy/top5: [\d.]+', printed)) == 2
    assert 'Switch train pipeline at epoch 2' in printed
    (folder / 'printed').write_text(printed)
    return folder


@pytest.mark.integration
@pytest.mark.stack
def test_a_resumed_training_ends_where_the_whole_one_does(tools, data_file, trained, tmp_path):
    """Weights, averaged weights and the optimiser's state, to the bit."""
    (tmp_path / 'work').mkdir()
    shutil.copy(trained / 'work' / 'epoch_1.pth', tmp_path / 'work')
    _, printed = tools.start(
        'pretrain/train.py', trained / 'tiny.py', '--data-file', data_file, '--work-dir', 'work', '--resume', cwd=tmp_path
    )  # fmt: skip
    assert set(re.findall(r'Epoch\(train\) +\[(\d)\]', printed)) == {'2'}
    ends = [torch.load(folder / 'work' / 'epoch_2.pth', weights_only=True) for folder in (trained, tmp_path)]
    for key in ('state_dict', 'ema_state_dict'):
        assert ends[0][key].keys() == ends[1][key].keys()
        assert all(torch.equal(value, ends[1][key][name]) for name, value in ends[0][key].items())
    states = [end['optimizer']['state'] for end in ends]
    assert all(torch.equal(state['exp_avg'], states[1][i]['exp_avg']) for i, state in states[0].items())


@pytest.mark.integration
def test_errors_of_the_training_tool(tools, trained, tmp_path):
    _, printed = tools.start(
        'pretrain/train.py', trained / 'tiny.py', '--data-file', 'none.npz', cwd=tmp_path, expect=1
    )
    assert re.search(r"train\.py: .*'none\.npz' does not exist", printed)


# --------------------------------------------------------------------------------------------------- export
def rounded_classifier(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the last checkpoint, those of the backbone rounded to half precision."""
    state = torch.load(folder / 'work' / 'epoch_2.pth', weights_only=True)['state_dict']
    return {
        k: v.half().float() if k.startswith('backbone.') and v.is_floating_point() else v
        for k, v in state.items()
    }


@pytest.mark.integration
@pytest.mark.stack
@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_the_exported_backbone(tools, data_file, trained, tmp_path, suffix):
    """Half precision, facts that are true, and in AdaptedSwin the features of the classifier's backbone."""
    out = tmp_path / f'nano{suffix}'
    _, printed = tools.start(
        'pretrain/export_backbone.py', trained / 'tiny.py', 'work/epoch_2.pth', '--out', out, '--data-file', data_file,
        cwd=trained,
    )  # fmt: skip
    content = out.read_bytes()
    assert f'{len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}' in printed
    if suffix == '.pth':
        file = torch.load(out, weights_only=True)
        stored, meta = file['state_dict'], file['meta']
    else:
        from safetensors import safe_open

        with safe_open(out, 'pt') as file:
            stored, meta = {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118
    assert {v.dtype for v in stored.values()} == {torch.float16, torch.int64}

    state = rounded_classifier(trained)
    stock = SwinTransformer(arch=ARCH, img_size=32, window_size=4, pad_small_map=True, out_indices=(0, 1))
    stock.eval()
    missing, unexpected = stock.load_state_dict(
        {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}, strict=False
    )
    assert set(missing) == {'norm0.weight', 'norm0.bias'} and not unexpected

    arrays, right = file_arrays(), 0
    for i in range(1, TRAIN + VAL, 3):  # the val split
        image = cv2.imdecode(arrays['jpeg'][slice(*arrays['offsets'][i : i + 2])], cv2.IMREAD_COLOR)
        image = cv2.resize(image, (64, 64), interpolation=cv2.INTER_CUBIC)[..., ::-1].astype(np.float32)
        image = (image - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
        features = stock(torch.from_numpy(image).float().permute(2, 0, 1)[None])[-1].mean((2, 3))
        right += (
            int((features @ state['head.fc.weight'].T + state['head.fc.bias']).argmax()) == NUMBERS[i % 6]
        )
    assert meta['accuracy/top1'] == f'{100 * right / VAL:.2f}'
    assert json.loads(meta['architecture']) == ARCH
    assert {k: meta[k] for k in ('window_size', 'image_size', 'epoch', 'iterations', 'averaged', 'classes')} == dict(
        window_size='4', image_size='32', epoch='2', iterations='4', averaged='True', classes='6'
    )  # fmt: skip
    assert all(re.search(rf'{key} +{re.escape(value)}', printed) for key, value in meta.items())

    init_default_scope('mmseg')
    source = dict(type='Pretrained', checkpoint=str(out))
    adapted = AdaptedSwin(ARCH, window_size=4, init_cfg=source)
    adapted.init_weights()
    report = adapted.load_encoder(stored)
    assert not report.missing and not report.unexpected
    assert set(report.loaded) | set(report.final_norm) == set(stored) | {
        k for k in report.loaded if k.endswith('relative_position_index')
    }
    adapted.eval()
    images = torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    for own, other in zip(adapted(images), stock(images), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)

    resized = AdaptedSwin(ARCH, tasks=('semseg', 'saliency'), init_cfg=source)  # windows of 7
    resized.init_weights()
    table = resized.stages[0].blocks[0].attn.w_msa.relative_position_bias_table
    grid = state['backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table'].T.reshape(1, 1, 7, 7)
    wanted = nn.functional.interpolate(grid, size=(13, 13), mode='bicubic').flatten(2)[0].T
    torch.testing.assert_close(table, wanted)


@pytest.mark.integration
def test_what_cannot_be_exported(tools, data_file, trained, tmp_path):
    """Messages name the file and what is wrong with it; nothing is written."""
    torch.save(
        dict(state_dict=dict(weight=torch.zeros(1)), meta=dict(epoch=1, iter=1)), tmp_path / 'other.pth'
    )
    torch.save(dict(weight=torch.zeros(1)), tmp_path / 'bare.pth')
    broken = torch.load(trained / 'work' / 'epoch_2.pth', weights_only=True)
    broken['state_dict']['backbone.norm1.weight'][3] = 1e6
    torch.save(broken, tmp_path / 'broken.pth')
    del broken['state_dict']['backbone.norm1.weight']
    torch.save(broken, tmp_path / 'short.pth')
    for checkpoint, out, message in [
        ('none.pth', 'a.pth', "checkpoint 'none.pth' does not exist"),
        ('bare.pth', 'a.pth', r"bare\.pth is no checkpoint of a training: it lacks \['meta', 'state_dict'\]"),
        ('other.pth', 'a.pth', r"no key starts with 'backbone\.'; keys start like \['weight'\]"),
        (
            'broken.pth',
            'a.pth',
            r'norm1\.weight has values that are not finite, or beyond the range of float16',
        ),
        ('short.pth', 'a.pth', r'do not fit the model of the config:\n(.*\n)*.*backbone\.norm1\.weight'),
        ('other.pth', 'a.onnx', r'a\.onnx: the suffix must be \.safetensors or \.pth'),
    ]:
        _, printed = tools.start(
            'pretrain/export_backbone.py', trained / 'tiny.py', checkpoint, '--out', out, '--data-file', data_file,
            cwd=tmp_path, expect=None,
        )  # fmt: skip
        assert re.search(f'export_backbone.py: .*{message}', printed), printed[-2000:]
        assert not (tmp_path / out).exists()
