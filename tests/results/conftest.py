"""Work dirs made by hand, file by file as mmengine writes them, with known numbers."""

from __future__ import annotations

import json

import pytest
from mmseg.registry import MODELS
from torch import nn

# 3 x 3 x 3 x 8 + 8 = 224 parameters in the backbone, (8 x 4 + 4) + (4 x 3 + 3) = 51 in the head
CONFIG = """
default_scope = 'mmseg'
tasks = {tasks!r}
model = dict(
    type='EncoderDecoder',
    backbone=dict(type={backbone!r}),
    decode_head=dict(
        type='FCNHead', in_channels=8, channels=4, num_classes=3, num_convs=1, kernel_size=1, concat_input=False))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
val_dataloader = dict(dataset=dict(type='PascalContextMTDataset', data_root='data', ann_file='val.txt'))
randomness = dict(seed={seed!r})
{more}
"""


@MODELS.register_module()
class BackboneOfResults(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)


def train(iteration, epoch=1, **more):
    """A line of a training."""
    return {'lr': 0.1, 'loss': 2.0, 'time': 0.5, **more, 'epoch': epoch, 'iter': iteration, 'step': iteration}


def val(step, semseg, normals, **more):
    """A line of a validation; the time of a validation is none of the training."""
    values = {'semseg.mIoU': semseg, 'semseg.aAcc': 90.0, 'normals.mean': normals, 'normals.rmse': 40.0}
    return {**values, **more, 'data_time': 0.1, 'time': 7.0, 'step': step}


#: Ten iterations an epoch, logged at 5 and 10; a validation after each of two epochs.
LINES = [train(5), train(10), val(1, 40.0, 20.0), train(15, 2), train(20, 2), val(2, 50.0, 25.0)]


class Lines:
    """What lines of a log are made with."""

    train, val, whole = staticmethod(train), staticmethod(val), LINES


@pytest.fixture
def lines():
    return Lines


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a work dir and gives its path.

    `starts`: time stamp -> lines of its scalars (text stays as it is); `tests`: time stamp -> result, and the checkpoint.
    """

    def make(
        name='runs/method/config',
        starts=None,
        *,
        tests=None,
        config_name='config',
        seed=0,
        backbone='BackboneOfResults',
        tasks=('semseg', 'normals'),
        more='',
        last_checkpoint=None,
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        text = CONFIG.format(backbone=backbone, seed=seed, tasks=tasks, more=more)
        (folder / f'{config_name}.py').write_text(text)
        for stamp, rows in ({'20260101_000000': LINES} if starts is None else starts).items():
            vis = folder / stamp / 'vis_data'
            vis.mkdir(parents=True)
            (vis / 'config.py').write_text(text)
            written = ''.join(row if isinstance(row, str) else json.dumps(row) + '\n' for row in rows)
            if rows:
                (vis / 'scalars.json').write_text(written)
        for stamp, (values, checkpoint) in (tests or {}).items():
            vis = folder / stamp / 'vis_data'
            vis.mkdir(parents=True)
            (vis / 'config.py').write_text(f'{text}load_from = {checkpoint!r}\n')
            result = values if isinstance(values, str) else json.dumps(values)
            (folder / stamp / f'{stamp}.json').write_text(result)
        if last_checkpoint:
            (folder / 'last_checkpoint').write_text(f'/elsewhere/{last_checkpoint}')
        return folder

    return make


# a model of one task that its config defines
OWN = """
model = dict(
    type='MultiTaskSegmentor', tasks=tasks, new_tasks=[{row!r}],
    backbone=dict(
        type='AdaptedSwin', arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4), tasks=tasks,
        adapter=dict(type='LoRA', rank=2)),
    decode_heads=dict(type='AllMLPHead', in_channels=[8, 16, 32, 64], channels=8),
    data_preprocessor=dict(type='MultiTaskDataPreProcessor'))
{more}
"""


@pytest.fixture
def make_own_run(make_run):
    """A function: the row of a task, and the metrics of its last two validations, or the last -> a work dir."""

    def make(name, row, *validations, more='', **options):
        rows = [train(20, 2)]
        for step, values in enumerate(validations, start=3 - len(validations)):
            rows.append({**{f'{row["name"]}.{key}': value for key, value in values.items()}, 'step': step})
        text = OWN.format(row=row, more=more)
        return make_run(name, {'20260101_000000': rows}, tasks=(row['name'],), more=text, **options)

    return make
