"""The data set of tables: a user's own tasks and readers in a worker process that starts from nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.runner import Runner

from mmseg_polyhistor import tasks
from mmseg_polyhistor.datasets import readers

READER = """
import numpy as np
from mmseg_polyhistor.datasets import register_reader

@register_reader('constant')
def constant(path, *, spec, shape, value):
    return np.full(shape, value, np.uint8)
"""


@pytest.fixture
def own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A task, and a reader from a module, that a fresh process knows nothing of."""
    (tmp_path / 'modules').mkdir()
    (tmp_path / 'modules/users_reader.py').write_text(READER)
    monkeypatch.syspath_prepend(str(tmp_path / 'modules'))
    importlib.import_module('users_reader')
    tasks.register_task(
        tasks.TaskSpec(
            name='garments',
            kind='semantic',
            channels=3,
            gt_key='gt_garments',
            gt_field='gt_garments',
            pred_field='pred_garments',
            loss=dict(type='CrossEntropyLoss'),
            metric='mIoU',
            classes=('a', 'b', 'c'),
            palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
        )
    )
    yield
    for name in ('garments', 'silhouette'):
        tasks._TASKS.pop(name)
    readers._READERS.pop('constant')
    sys.modules.pop('users_reader')


@pytest.mark.usefixtures('own_table')
def test_a_spawned_worker_knows_the_users_tasks_and_readers(pascal_tree: SimpleNamespace) -> None:
    """macOS and Windows spawn workers, which import no module of the config's custom_imports."""
    loader = Runner.build_dataloader(
        dict(
            batch_size=3,
            num_workers=1,
            persistent_workers=True,
            multiprocessing_context='spawn',
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
            dataset=dict(
                type='MultiTaskDataset',
                data_root=str(pascal_tree.root),
                ann_file='ImageSets/Context/train.txt',
                data_prefix=dict(img_path='JPEGImages', any='sal_distill'),
                suffixes=dict(img_path='.jpg', any='.png'),
                new_tasks=[dict(name='silhouette', kind='binary')],
                sources=dict(
                    garments=dict(path='any', reader=dict(type='constant', value=2)),
                    silhouette=dict(path='any', reader=dict(type='constant', value=1)),
                ),
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadMultiTaskAnnotations'),
                    dict(type='MultiTaskRandomFlip', prob=0.5),
                    dict(type='PackMultiTaskInputs'),
                ],
            ),
        ),
        seed=0,
    )
    iterator = iter(loader)
    try:
        for _ in range(2):  # two epochs with the same worker
            (batch,) = list(iterator)
            assert [int(sample.gt_garments.data.unique()) for sample in batch['data_samples']] == [2, 2, 2]
            assert [int(sample.gt_silhouette.data.unique()) for sample in batch['data_samples']] == [1, 1, 1]
            iterator = iter(loader)
    finally:
        iterator._shutdown_workers()
