"""mmseg's own interfaces for users serve a trained checkpoint: `init_model`, `inference_model`, `MMSegInferencer`."""

from __future__ import annotations

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.apis import MMSegInferencer, inference_model, init_model
from mmseg.registry import MODELS

from mmseg_polyhistor.tasks import get_task

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiTaskResize', scale=(64, 64), keep_ratio=False),
    dict(type='LoadMultiTaskAnnotations'),
    dict(type='PackMultiTaskInputs'),
]


@pytest.fixture
def run(tmp_path):
    """A config file, a checkpoint and an image, and the model that wrote the checkpoint."""
    backbone = dict(
        type='AdaptedSwin',
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
        tasks=TASKS,
        adapter=dict(type='PolyhistorLite', ratio=2, post_norm_gain=1.0),
    )
    model_cfg = dict(
        type='MultiTaskSegmentor',
        data_preprocessor=dict(
            type='MultiTaskDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, size_divisor=32
        ),
        backbone=backbone,
        decode_heads=dict(type='AllMLPHead', in_channels=[8, 16, 32, 64], channels=8),
        tasks=TASKS,
    )
    torch.manual_seed(0)
    model = MODELS.build(model_cfg).eval()
    for head in model.decode_heads.values():  # logits far from equal, so that predictions vary over the image
        torch.nn.init.normal_(head.conv_seg.weight)
    spec = get_task('semseg')
    meta = dict(dataset_meta=dict(tasks=TASKS, classes=list(spec.classes), palette=list(spec.palette)))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'trained.pth')
    # A checkpoint that does not exist: whoever loads trained weights must not look for the pretrained ones.
    backbone['init_cfg'] = dict(type='Pretrained', checkpoint='nowhere.pth')
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=model_cfg,
            test_pipeline=PIPELINE,
            test_dataloader=dict(dataset=dict(pipeline=PIPELINE)),
            visualizer=dict(
                type='MultiTaskVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
            ),
        )
    )
    cfg.dump(tmp_path / 'config.py')
    image = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    mmcv.imwrite(image, str(tmp_path / 'image.png'))
    return tmp_path, model, image


def expected(model, image):
    """The predictions of a plain call, with the resize by hand."""
    resized = torch.from_numpy(mmcv.imresize(image, (64, 64))).permute(2, 0, 1)
    batch = model.data_preprocessor(dict(inputs=[resized]))
    batch['data_samples'][0].set_metainfo(dict(ori_shape=image.shape[:2]))
    (sample,) = model(batch['inputs'], batch['data_samples'], mode='predict')
    return sample


def test_init_model_and_inference_model(run):
    path, trained, image = run
    model = init_model(path / 'config.py', str(path / 'trained.pth'), device='cpu')
    with torch.no_grad():
        want = expected(trained, image)
    file = str(path / 'image.png')
    single, batch, array = (inference_model(model, x) for x in (file, [file, file], image))
    for sample in (single, *batch, array):
        for task in TASKS:
            field = get_task(task).pred_field
            assert sample.get(field).data.shape[-2:] == (48, 40)
            torch.testing.assert_close(sample.get(field).data, want.get(field).data)
    assert single.pred_sem_seg.data.unique().numel() > 1


def test_inferencer_writes_and_returns_predictions(run):
    path, trained, image = run
    inferencer = MMSegInferencer(
        model=str(path / 'config.py'), weights=str(path / 'trained.pth'), device='cpu'
    )
    result = inferencer(str(path / 'image.png'), out_dir=str(path / 'out'))
    with torch.no_grad():
        want = expected(trained, image).pred_sem_seg.data[0].numpy()
    assert np.array_equal(result['predictions'], want)
    written = mmcv.imread(str(path / 'out/pred/00000000_pred.png'), flag='unchanged')
    assert np.array_equal(written, want)
    assert [p.name for p in (path / 'out/vis').iterdir()] == ['image.png']
