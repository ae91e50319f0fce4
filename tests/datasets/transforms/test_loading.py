"""Loading label maps with the readers that a sample names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmseg.registry import DATASETS

from mmseg_polyhistor.datasets import LabelError, LoadMultiTaskAnnotations, MultiTaskDataset
from mmseg_polyhistor.tasks import _TASKS, TaskSpec, register_task


def test_a_sample_without_label_paths_passes_unchanged() -> None:
    for results in (dict(img=1), dict(img=1, label_paths=None)):
        assert LoadMultiTaskAnnotations()(dict(results)) == results


def test_the_image_comes_first() -> None:
    with pytest.raises(KeyError, match='put LoadImageFromFile before it'):
        LoadMultiTaskAnnotations()(dict(label_paths={'semseg': 'x'}, tasks=('semseg',)))


def test_a_task_without_label_is_all_ignore_and_loading_twice_adds_no_field(
    tmp_path: Path, write_png: Callable
) -> None:
    write_png(tmp_path / 'a.png', np.full((3, 4), 7, np.uint8), palette=True)
    results = dict(
        ori_shape=(3, 4),
        tasks=('normals', 'semseg'),
        label_paths={'semseg': str(tmp_path / 'a.png'), 'normals': None},
        label_readers={'semseg': dict(type='index_image')},
    )
    load = LoadMultiTaskAnnotations()
    results = load(load(results))
    assert results['seg_fields'] == ['gt_normals', 'gt_seg_map']
    assert (results['gt_seg_map'] == 7).all()
    assert results['gt_normals'].shape == (3, 4, 3)
    assert (results['gt_normals'] == 255).all()


def test_a_users_tasks_and_folders_need_a_table_only(
    pascal_tree: SimpleNamespace, write_png: Callable
) -> None:
    """A data set of one's own: another task of every kind, read by the generic readers."""
    names = ('garments', 'shadow', 'flow')
    common = dict(loss=dict(type='L'), metric='m')
    palette = ((0, 0, 0), (1, 1, 1), (2, 2, 2))
    rng = np.random.default_rng(0)
    garments = rng.integers(0, 3, pascal_tree.shape).astype(np.uint8)
    shadow = rng.integers(0, 256, pascal_tree.shape).astype(np.uint8)
    flow = rng.normal(size=(*pascal_tree.shape, 3))
    for name in pascal_tree.ids:
        write_png(pascal_tree.root / f'mine/{name}_g.png', garments)
        write_png(pascal_tree.root / f'mine/{name}_s.png', shadow)
        np.save(pascal_tree.root / f'mine/{name}.npy', flow)
    try:
        for name, kind, channels, extra in (
            ('garments', 'semantic', 3, dict(classes=('a', 'b', 'c'), palette=palette)),
            ('shadow', 'binary', 1, {}),
            ('flow', 'unit_vector', 3, {}),
        ):
            keys = dict(gt_key=f'gt_{name}', gt_field=f'gt_{name}', pred_field=f'pred_{name}')
            register_task(TaskSpec(name=name, kind=kind, channels=channels, **keys, **common, **extra))
        dataset = DATASETS.build(
            dict(
                type='MultiTaskDataset',
                data_root=str(pascal_tree.root),
                ann_file='ImageSets/Context/train.txt',
                data_prefix=dict(img_path='JPEGImages', garments='mine', shadow='mine', flow='mine'),
                suffixes=dict(img_path='.jpg', garments='_g.png', shadow='_s.png', flow='.npy'),
                sources=dict(
                    garments=dict(path='garments', reader=dict(type='index_image')),
                    shadow=dict(path='shadow', reader=dict(type='grey_image', threshold=0.25)),
                    flow=dict(path='flow', reader=dict(type='vector_npy')),
                ),
                pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadMultiTaskAnnotations')],
            )
        )
        assert isinstance(dataset, MultiTaskDataset)
        assert dataset.metainfo == dict(
            tasks=names, classes=['a', 'b', 'c'], palette=[list(c) for c in palette]
        )
        sample = dataset[1]
        np.testing.assert_array_equal(sample['gt_garments'], garments)
        np.testing.assert_array_equal(sample['gt_shadow'], shadow / 255 > 0.25)
        np.testing.assert_allclose(
            sample['gt_flow'], flow / np.linalg.norm(flow, axis=2, keepdims=True), atol=1e-6
        )
        write_png(pascal_tree.root / 'mine/2008_000001_g.png', garments + np.uint8(1))
        with pytest.raises(LabelError, match=r'2008_000001_g\.png: found class id 3 .* expected 0\.\.2'):
            dataset[0]
    finally:
        for name in names:
            _TASKS.pop(name, None)


def test_a_task_needs_a_source() -> None:
    with pytest.raises(ValueError, match=r"MultiTaskDataset: no source for the tasks \['semseg'\]"):
        MultiTaskDataset(tasks=['semseg'], data_prefix=dict(img_path=''), suffixes=dict(img_path='.jpg'))
    with pytest.raises(ValueError, match="need 'img_path'"):
        MultiTaskDataset(
            tasks=['semseg'], sources=dict(semseg=dict(path='a', reader=dict(type='index_image')))
        )
