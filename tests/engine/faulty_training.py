"""Trainings of a moment in which chosen samples make losses or gradients that are not finite.

`FaultyModel` has two tasks and a BatchNorm; its loss 'loss_b' is a list, and its 'acc' is always NaN, which is no loss.
What a sample spoils is its `fault`:

- 'image': its input is NaN, so that the losses of both tasks are, and the statistics of the BatchNorm;
- 'loss': its truth is NaN, so that the loss of task b and its gradients are;
- 'value': its truth is infinite, so that the L1 loss of task b is, while its gradients are finite (a sign);
- 'gradient': all losses are finite, and gradients NaN (the root of a zero).
"""

from __future__ import annotations

import copy

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement, PixelData
from mmseg.registry import DATASETS, HOOKS, LOOPS, MODELS, OPTIM_WRAPPERS
from mmseg.structures import SegDataSample
from torch import nn
from torch.nn import functional as F

from mmseg_polyhistor.engine import SeededEpochBasedTrainLoop
from mmseg_polyhistor.tasks import get_task

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
TRUTH = dict(loss=float('nan'), value=float('inf'))


@DATASETS.register_module()
class FaultyDataset(torch.utils.data.Dataset):
    """Sample i is <i>.jpg; `faults` is {index: fault}."""

    def __init__(self, faults=None, size=8):
        self.faults = dict(faults or {})
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        fault = self.faults.get(index)
        sample = BaseDataElement(metainfo=dict(img_path=f'{index}.jpg', fault=fault))
        sample.truth = torch.tensor(TRUTH.get(fault, float(index % 3)))
        image = torch.randn(6, generator=generator)
        return dict(inputs=image * torch.nan if fault == 'image' else image, data_samples=sample)


@MODELS.register_module()
class FaultyModel(BaseModel):
    tasks = ('a', 'b')

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = weight
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh())
        self.heads = nn.ModuleDict(dict(a=nn.Linear(8, 1), b=nn.Linear(8, 1)))

    def forward(self, inputs, data_samples, mode='tensor'):
        x = self.encoder(torch.stack(inputs))
        a, b = (head(x)[:, 0] for head in self.heads.values())
        truth = torch.stack([s.truth for s in data_samples])
        first = (a - truth.nan_to_num(0, 0, 0)).square()
        if any(s.fault == 'gradient' for s in data_samples):
            first = first + (0 * a).square().sum().sqrt()
        return dict(
            loss_a=self.weight * first,
            loss_b=[(b - truth).abs(), 0.1 * b.square()],
            acc=first.sum() * torch.nan,
        )


@DATASETS.register_module()
class FaultyPictures(torch.utils.data.Dataset):
    """Images with labels of four tasks; the normals of those in `faults` are infinite."""

    def __init__(self, faults=()):
        self.faults = faults
        self.metainfo = dict(tasks=TASKS)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        g = torch.Generator().manual_seed(index)
        size = (32, 32)
        sample = SegDataSample(metainfo=dict(img_path=f'{index}.jpg', img_shape=size, ori_shape=size))
        for spec in map(get_task, TASKS):
            if spec.kind == 'unit_vector':
                label = F.normalize(torch.randn(3, *size, generator=g), dim=0)
                if index in self.faults:
                    label[0, 3, 4] = torch.inf
            else:
                label = torch.randint(max(spec.channels, 2), (1, *size), generator=g, dtype=torch.uint8)
            sample.set_data({spec.gt_field: PixelData(data=label)})
        return dict(
            inputs=torch.randint(256, (3, *size), generator=g, dtype=torch.uint8), data_samples=sample
        )


@OPTIM_WRAPPERS.register_module()
class CpuScalerOptimWrapper(OptimWrapper):
    """What `AmpOptimWrapper`, which wants a GPU, does with its loss scaler."""

    def __init__(self, init_scale, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=init_scale)

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


@HOOKS.register_module()
class GradientRecorder(Hook):
    """Keeps the gradients that the optimiser's steps meet, before they are clipped."""

    def before_train(self, runner):
        self.runner = runner
        self.norms = []
        wrapper = runner.optim_wrapper
        step = wrapper.step

        def recorded(**kwargs):
            squares = [
                p.grad.double().square().sum() for p in runner.model.parameters() if p.grad is not None
            ]
            self.norms.append(torch.stack(squares).sum().sqrt().item())
            step(**kwargs)
            clipped = [
                p.grad.double().square().sum() for p in runner.model.parameters() if p.grad is not None
            ]
            self.clipped = torch.stack(clipped).sum().sqrt().item()

        wrapper.step = recorded


CONFIG = dict(
    default_scope='mmseg',
    model=dict(type='FaultyModel'),
    train_dataloader=dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type='FaultyDataset'),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    ),
    train_cfg=dict(type='SeededEpochBasedTrainLoop', max_epochs=1),
    optim_wrapper=dict(
        type='OptimWrapper',
        constructor='TrainableOptimWrapperConstructor',
        optimizer=dict(type='Adam', lr=0.01, weight_decay=0.1),
    ),
    default_hooks=dict(
        logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='SafeCheckpointHook', interval=1)
    ),
    custom_hooks=[dict(type='FiniteTrainingHook')],
    randomness=dict(seed=0),
    log_level='WARNING',
)


def faulty_config(work_dir, name, **changes):
    """`CONFIG` with changes, as {dotted key: value}."""
    from mmengine.config import Config

    cfg = Config(copy.deepcopy(CONFIG))
    cfg.merge_from_dict(copy.deepcopy(changes))
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = name
    return cfg


def train_by_hand(batches, epochs=1, accumulate=1, **adam):
    """The weights and buffers after Adam has trained on {epoch: batches} in turn, without any of mmengine's machinery.

    Args:
        batches: Per update, the lists of indices of its iterations.
    """
    model, data = FaultyModel().train(), FaultyDataset()
    optimizer = torch.optim.Adam(model.parameters(), **(dict(lr=0.01, weight_decay=0.1) | adam))
    for update in batches * epochs:
        for indices in update:
            samples = [data[i] for i in indices]
            losses = model([s['inputs'] for s in samples], [s['data_samples'] for s in samples], mode='loss')
            total = losses['loss_a'].mean() + sum(part.mean() for part in losses['loss_b'])
            (total / accumulate).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


@LOOPS.register_module()
class WithoutThirdBatchLoop(SeededEpochBasedTrainLoop):
    """Passes over the third batch of each epoch, without any hook."""

    def run_iter(self, idx, data_batch):
        if idx == 2:
            self._iter += 1
        else:
            super().run_iter(idx, data_batch)
