"""A training of the real segmentor on a frozen Swin, so small that it takes a moment; random images and labels."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.structures import PixelData
from mmpretrain.models.backbones.swin_transformer import SwinTransformer
from mmseg.registry import DATASETS, METRICS
from mmseg.structures import SegDataSample

TASKS = ('semseg', 'saliency')
ARCH = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])


@DATASETS.register_module(force=True)
class TinyImages(torch.utils.data.Dataset):
    metainfo = dict(classes=('a',), palette=[(0, 0, 0)], tasks=TASKS)

    def __init__(self, indices=4):
        self.images = range(4)[:indices] if indices > 0 else range(4)[indices:]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, position):
        index = self.images[position]
        g = torch.Generator().manual_seed(index)
        sample = SegDataSample(metainfo=dict(img_path=f'{index}.jpg', img_shape=(32, 32), ori_shape=(32, 32)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 21, (1, 32, 32), generator=g, dtype=torch.uint8))
        sample.gt_saliency = PixelData(data=torch.randint(0, 2, (1, 32, 32), generator=g, dtype=torch.uint8))
        return dict(
            inputs=torch.randint(0, 255, (3, 32, 32), generator=g, dtype=torch.uint8), data_samples=sample
        )


@METRICS.register_module(force=True)
class Checksum(BaseMetric):
    """The sum of all predicted saliencies: any change of any weight moves it."""

    def process(self, data_batch, data_samples):
        self.results += [float(sample['pred_saliency']['data'].double().sum()) for sample in data_samples]

    def compute_metrics(self, results):
        return dict(sum=sum(results))


def stock_file(path: Path, seed: int = 1) -> Path:
    """A file as the published ones: the weights of a stock Swin, by mmpretrain's class."""
    torch.manual_seed(seed)
    swin = SwinTransformer(arch=ARCH, out_indices=(3,))
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in swin.state_dict().items()}), path)
    return path


def tiny_config(work_dir: Path, pretrained: Path | None, **changes) -> dict:
    """A whole config of mmengine's runner."""
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='TinyImages'),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    backbone = dict(type='AdaptedSwin', arch=ARCH, tasks=TASKS, adapter=dict(type='LoRA', rank=2))
    if pretrained is not None:
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=str(pretrained))
    cfg = dict(
        work_dir=str(work_dir),
        default_scope='mmseg',
        model=dict(
            type='MultiTaskSegmentor',
            tasks=TASKS,
            backbone=backbone,
            decode_heads=dict(type='AllMLPHead', in_channels=[8, 16, 32, 64], channels=8),
            data_preprocessor=dict(type='MultiTaskDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3),
        ),
        train_dataloader=loader,
        train_cfg=dict(type='SeededEpochBasedTrainLoop', max_epochs=2, val_begin=3),
        val_dataloader=copy.deepcopy(loader),
        val_cfg=dict(type='ValLoop'),
        val_evaluator=dict(type='Checksum'),
        test_dataloader=copy.deepcopy(loader),
        test_cfg=dict(type='TestLoop'),
        test_evaluator=dict(type='Checksum'),
        optim_wrapper=dict(
            type='OptimWrapper',
            constructor='TrainableOptimWrapperConstructor',
            optimizer=dict(type='Adam', lr=0.01),
        ),
        param_scheduler=[dict(type='LinearLR', start_factor=1.0, end_factor=0.0, by_epoch=False, end=4)],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='AdapterCheckpointHook', interval=1),
        ),
        randomness=dict(seed=3),
        env_cfg=dict(dist_cfg=dict(backend='gloo')),
        log_level='WARNING',
    )
    cfg.update(changes)
    return cfg
