"""`MultiTaskInferencer` against a call of the model by hand, and under every kind of input, checkpoint and choice of tasks."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_polyhistor.apis import InputError, MultiTaskInferencer
from mmseg_polyhistor.tasks import get_task

TASKS = ('semseg', 'normals', 'saliency', 'depth')
MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
ARCH = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])


def config(**backbone):
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='MultiTaskSegmentor',
                tasks=TASKS,
                data_preprocessor=dict(
                    type='MultiTaskDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True, size_divisor=32,
                    test_cfg=dict(size_divisor=32),
                ),
                backbone=dict(
                    type='AdaptedSwin', arch=ARCH, tasks=TASKS,
                    adapter=dict(type='PolyhistorLite', ratio=2, post_norm_gain=1.0), **backbone,
                ),
                decode_heads=dict(type='AllMLPHead', in_channels=[8, 16, 32, 64], channels=8),
            ),
            test_pipeline=[
                dict(type='LoadImageFromFile', imdecode_backend='pillow'),
                dict(type='MultiTaskResize', scale=(64, 96), keep_ratio=False),
                dict(type='LoadMultiTaskAnnotations'),
                dict(type='PackMultiTaskInputs'),
            ],
        )
    )  # fmt: skip


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config file, a full checkpoint, and the model that wrote it, with predictions that vary over the image."""
    init_default_scope('mmseg')
    path = tmp_path_factory.mktemp('trained')
    cfg = config()
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg.model)).eval()
    model.init_weights()
    for head in model.decode_heads.values():
        torch.nn.init.normal_(head.conv_seg.weight)
    torch.save(dict(state_dict=model.state_dict(), meta={}), path / 'full.pth')
    cfg.dump(path / 'config.py')
    return path, model


@pytest.fixture(scope='module')
def inferencer(trained):
    path, _ = trained
    return MultiTaskInferencer(path / 'config.py', path / 'full.pth', device='cpu')


def picture(seed=0, shape=(50, 41, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def by_hand(model, bgr):
    """Resize, normalise, forward, resize, by numpy and torch alone."""
    import cv2

    resized = cv2.resize(bgr, (64, 96), interpolation=cv2.INTER_LINEAR)[..., ::-1]
    x = (torch.from_numpy(resized.astype(np.float32)) - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        logits = model(x.permute(2, 0, 1)[None])
    out = {}
    for task in TASKS:
        full = F.interpolate(logits[task], size=(96, 64), mode='bilinear')
        out[task] = F.interpolate(full, size=bgr.shape[:2], mode='bilinear')[0]
    return dict(
        semseg=out['semseg'].argmax(0).numpy(),
        normals=F.normalize(out['normals'], dim=0).permute(1, 2, 0).numpy(),
        saliency=out['saliency'].sigmoid()[0].numpy(),
        depth=out['depth'][0].clamp(min=0).numpy(),
    )


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for task in a:
        assert a[task].shape == b[task].shape and a[task].dtype == b[task].dtype, task
        if a[task].dtype == np.uint8:
            assert (a[task] != b[task]).mean() < 0.01, task  # a tie may fall either way in a batch
        else:
            np.testing.assert_allclose(a[task], b[task], atol=1e-4, err_msg=task)


def test_arrays_equal_a_call_by_hand(trained, inferencer):
    """Types, shapes and values for each kind of task."""
    image = picture()
    found, expected = inferencer(image), by_hand(trained[1], image)
    kinds = dict(semseg=np.uint8, normals=np.float32, saliency=np.float32, depth=np.float32)
    assert {task: array.dtype.type for task, array in found.items()} == kinds
    assert found['semseg'].shape == (50, 41) and found['normals'].shape == (50, 41, 3)
    assert (found['semseg'] == expected['semseg']).mean() > 0.99 and len(np.unique(found['semseg'])) > 2
    for task in ('normals', 'saliency', 'depth'):
        np.testing.assert_allclose(found[task], expected[task], atol=1e-4, err_msg=task)
    np.testing.assert_allclose(np.linalg.norm(found['normals'], axis=2), 1, atol=1e-5)


def test_files_arrays_lists_and_folders_agree(inferencer, tmp_path):
    """One input gives one dict, several a list; a batch of unequal images equals one after another."""
    images = [picture(0), picture(1, (33, 70, 3)), picture(2, (64, 64, 3))]
    for i, image in enumerate(images):
        Image.fromarray(image[..., ::-1]).save(tmp_path / f'{i}.png')
    alone = [inferencer(image) for image in images]
    assert isinstance(inferencer(tmp_path / '1.png'), dict)
    assert_equal(inferencer(tmp_path / '1.png'), alone[1])
    for inputs, size in (
        (images, 3),
        (tmp_path, 2),
        (str(tmp_path / '*.png'), 1),
        ([tmp_path / '0.png', *images[1:]], 3),
    ):
        several = inferencer(inputs, batch_size=size)
        assert len(several) == 3
        for a, b in zip(several, alone, strict=True):
            assert_equal(a, b)


def test_iterate_tells_names_and_images(inferencer, tmp_path):
    """Predictions come one by one, with what they belong to."""
    Image.fromarray(picture(3)[..., ::-1]).save(tmp_path / 'street.png')
    (prediction,) = inferencer.iterate(tmp_path)
    assert prediction.name == 'street' and prediction.path == str(tmp_path / 'street.png')
    assert np.array_equal(prediction.image, picture(3)) and isinstance(prediction.sample, SegDataSample)
    data = prediction.sample.get(get_task('normals').pred_field).data
    assert np.array_equal(data.permute(1, 2, 0).numpy(), prediction.arrays['normals'])


def test_photographs_are_turned_upright(inferencer, tmp_path):
    """By their EXIF orientation, as people see them; the arrays have the turned size."""
    upright = picture(4, (40, 60, 3))
    image = Image.fromarray(np.rot90(upright)[..., ::-1])  # stored a quarter turn to the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    image.save(tmp_path / 'turned.png', exif=exif)
    (prediction,) = inferencer.iterate(tmp_path / 'turned.png')
    assert np.array_equal(prediction.image, upright)
    assert_equal(prediction.arrays, inferencer(upright))


@pytest.mark.parametrize('execution', ['stacked', 'sequential'])
def test_some_tasks(trained, inferencer, execution):
    """Only those named come back, equal; the others' passes are left out."""
    path, _ = trained
    options = {'model.execution': execution}
    some = MultiTaskInferencer(
        path / 'config.py', path / 'full.pth', device='cpu', tasks=['depth', 'semseg'], cfg_options=options
    )
    assert some.tasks == ('semseg', 'depth')
    asked = []
    backbone = some.model.backbone
    generate = backbone.adapters.generate
    backbone.adapters.generate = lambda tasks: asked.extend(tasks) or generate(tasks)
    found = some(picture(5))
    assert set(asked) == {'semseg', 'depth'}
    everything = inferencer(picture(5))
    assert_equal(found, {task: everything[task] for task in ('semseg', 'depth')})
    for wrong, message in (
        (['flow'], r"unknown tasks \['flow'\]"),
        (['depth', 'depth'], 'depth'),
        ([], 'tasks'),
    ):
        with pytest.raises(ValueError, match=message):
            MultiTaskInferencer(path / 'config.py', path / 'full.pth', device='cpu', tasks=wrong)


def test_small_checkpoints(trained, tmp_path):
    """A checkpoint of AdapterCheckpointHook's form gives the same arrays, and is refused without its backbone."""
    from mmseg_polyhistor.engine.hooks.adapter_checkpoint_hook import frozen_backbones, without_frozen

    path, model = trained
    stock = {k: v for k, v in model.backbone.state_dict().items() if k.startswith(('patch_embed', 'stages'))}
    torch.save(dict(state_dict=stock), tmp_path / 'swin.pth')
    records = {name: b.frozen_record(str(tmp_path / 'swin.pth')) for name, b in frozen_backbones(model)}
    torch.save(
        dict(state_dict=without_frozen(model, model.state_dict(), records), meta={}), tmp_path / 'small.pth'
    )
    small = MultiTaskInferencer(path / 'config.py', tmp_path / 'small.pth', device='cpu')
    full = MultiTaskInferencer(path / 'config.py', path / 'full.pth', device='cpu')
    assert_equal(small(picture(6)), full(picture(6)))
    (tmp_path / 'swin.pth').unlink()
    with pytest.raises(RuntimeError, match=r'holds no frozen weights'):
        MultiTaskInferencer(path / 'config.py', tmp_path / 'small.pth', device='cpu')


def test_errors(trained, inferencer, tmp_path):
    """Broken files are named, and may be passed over one by one; configs that do not fit are refused."""
    path, _ = trained
    (tmp_path / 'broken.jpg').write_bytes(b'\xff\xd8\xff no image')
    Image.fromarray(picture()).save(tmp_path / 'fine.png')
    with pytest.raises(InputError, match=r'broken\.jpg: cannot be read as an image'):
        inferencer(tmp_path, batch_size=2)
    errors = []
    found = list(inferencer.iterate(tmp_path, batch_size=2, on_error=errors.append))
    assert [p.name for p in found] == ['fine'] and len(errors) == 1 and 'broken.jpg' in str(errors[0])
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(
        tmp_path / 'deep.png'
    )  # pillow would make it white
    with pytest.raises(InputError, match=r'deep\.png: found a photograph of mode I;16, .* Convert it'):
        inferencer(tmp_path / 'deep.png')
    with pytest.raises(ValueError, match='batch_size must be at least 1, got 0'):
        inferencer(tmp_path, batch_size=0)
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        MultiTaskInferencer(path / 'config.py', 'nowhere.pth', device='cpu')
    cfg = config()
    cfg.pop('test_pipeline')
    with pytest.raises(ValueError, match=r'neither test_pipeline nor test_dataloader'):
        MultiTaskInferencer(cfg, path / 'full.pth', device='cpu')
    cfg = config()
    cfg.test_pipeline = cfg.test_pipeline[1:]
    with pytest.raises(ValueError, match='must begin with LoadImageFromFile, not MultiTaskResize'):
        MultiTaskInferencer(cfg, path / 'full.pth', device='cpu')
    head = dict(
        type='FCNHead', in_channels=64, in_index=3, channels=4, num_classes=3, num_convs=1, norm_cfg=None
    )
    cfg.model = dict(type='EncoderDecoder', backbone=dict(type='AdaptedSwin', arch=ARCH), decode_head=head)
    with pytest.raises(ValueError, match=r'needs a MultiTaskSegmentor, the config has EncoderDecoder'):
        MultiTaskInferencer(cfg, path / 'full.pth', device='cpu')
    with pytest.raises(RuntimeError, match='do not fit this MultiTaskSegmentor'):
        MultiTaskInferencer(
            path / 'config.py',
            path / 'full.pth',
            device='cpu',
            cfg_options={'model.backbone.adapter.ratio': 4},
        )
