"""A model, a data set and a config so small that a whole training takes a moment, for the tests of the engine.

Every source of randomness of a real training is in it: dropout and DropPath in the model, and augmentation that draws
from `random`, numpy and torch. `ToyLossLog` writes each loss to `losses_rank<r>.txt`, with all its bits.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmseg.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS
from torch import nn


@DATASETS.register_module()
class ToyDataset(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b'), palette=[(0, 0, 0), (1, 1, 1)])

    def __init__(self, size=16, noise=1.0):
        self.size, self.noise = size, noise

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=6)
        if self.noise:
            x = x + self.noise * np.random.normal(size=6)  # noqa: NPY002
            x = x * (1 + self.noise * random.random()) + self.noise * torch.rand(6).numpy()
        return dict(inputs=torch.tensor(x, dtype=torch.float32), data_samples=torch.tensor(float(index % 2)))


@DATA_SAMPLERS.register_module()
class ToyBatchSampler(torch.utils.data.BatchSampler):
    """A batch sampler that a config names."""


class ToyBackbone(nn.Module):
    """Frozen but for its adapters and output norms, as the real one."""

    def __init__(self, dropout):
        super().__init__()
        self.stock = nn.Sequential(nn.Linear(6, 8), nn.GELU())
        self.stock.requires_grad_(False)
        self.adapters = nn.ModuleDict(dict(up=nn.Linear(8, 4), down=nn.Linear(4, 8)))
        self.output_norms = nn.ModuleDict(dict(toy=nn.LayerNorm(8)))
        self.drop = nn.Sequential(nn.Dropout(dropout), DropPath(dropout))

    def output_norm_parameters(self):
        return self.output_norms.parameters()

    def forward(self, x):
        x = self.stock(x)
        return self.output_norms['toy'](x + self.drop(self.adapters['down'](self.adapters['up'](x))))


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, dropout=0.5, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = ToyBackbone(dropout)
        self.head = nn.Linear(8, 1)

    def forward(self, inputs, data_samples, mode='tensor'):
        out = self.head(self.backbone(inputs))[:, 0]
        if mode == 'loss':
            return dict(loss=(out - data_samples).square().mean())
        return list(zip(out, data_samples, strict=True))


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [(p - t).item() for p, t in data_samples]

    def compute_metrics(self, results):
        return dict(mse=float(np.square(results).mean()), mae=float(np.abs(results).mean()))


@HOOKS.register_module()
class ToyLossLog(Hook):
    def __init__(self, pause=0.0):
        self.pause = pause

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with (Path(runner.work_dir) / f'losses_rank{get_rank()}.txt').open('a') as f:
            f.write(f'{runner.iter} {outputs["loss"].item().hex()}\n')
        time.sleep(self.pause)


def read_losses(work_dir, rank=0):
    """{iteration: loss} from the log; of an iteration that ran twice, the later one."""
    lines = (Path(work_dir) / f'losses_rank{rank}.txt').read_text().splitlines()
    return {int(i): float.fromhex(loss) for i, loss in (line.split() for line in lines)}


def assert_identical(a, b, path='it'):
    """Same types, same keys, and every number the same to the bit."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_identical(a[key], b[key], f'{path}[{key!r}]')
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f'{path}[{i}]')
    elif isinstance(a, torch.Tensor | np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        assert bytes(np.asarray(a)) == bytes(np.asarray(b)), path
    else:
        assert a == b, path
