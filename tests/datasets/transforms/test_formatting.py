"""Packing, and whole pipelines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmseg.apis import MMSegInferencer
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS
from mmseg.structures import SegDataSample

from mmseg_polyhistor.datasets import MultiTaskRandomCrop, PackMultiTaskInputs, PascalContextMTDataset
from mmseg_polyhistor.datasets.transforms.formatting import axes_first

LOAD_IMAGE = dict(type='LoadImageFromFile', imdecode_backend='pillow')
LOAD_LABELS = dict(type='LoadMultiTaskAnnotations')
TEST = [
    LOAD_IMAGE,
    dict(type='MultiTaskResize', scale=(64, 48)),
    LOAD_LABELS,
    dict(type='PackMultiTaskInputs'),
]


def test_fields_have_the_tables_layout(make_sample: Callable[..., dict]) -> None:
    sample = make_sample(6, 8)
    sample.update(img_path='a.jpg', flip=True, flip_direction='horizontal', scale_factor=(1, 1), unknown=3)
    given = copy.deepcopy(sample)
    packed = PackMultiTaskInputs()(sample)
    assert set(packed) == {'inputs', 'data_samples'}
    assert packed['inputs'].dtype == torch.uint8
    np.testing.assert_array_equal(packed['inputs'], given['img'].transpose(2, 0, 1))
    fields: SegDataSample = packed['data_samples']
    for field, key in (
        ('gt_sem_seg', 'gt_seg_map'),
        ('gt_human_parts', 'gt_human_parts'),
        ('gt_saliency', 'gt_saliency'),
    ):
        assert fields.get(field).data.dtype == torch.uint8
        np.testing.assert_array_equal(fields.get(field).data, given[key][None])
    assert fields.gt_normals.data.dtype == torch.float32
    np.testing.assert_array_equal(fields.gt_normals.data, given['gt_normals'].transpose(2, 0, 1))
    assert fields.metainfo == dict(
        img_path='a.jpg', ori_shape=(6, 8), img_shape=(6, 8), scale_factor=(1, 1), flip=True,
        flip_direction='horizontal', tasks=('semseg', 'human_parts', 'saliency', 'normals'),
    )  # fmt: skip


def test_an_image_with_negative_strides_is_packed(make_sample: Callable[..., dict]) -> None:
    sample = make_sample(6, 8)
    sample['img'] = sample['img'][:, :, ::-1]
    expected = sample['img'].transpose(2, 0, 1).copy()
    np.testing.assert_array_equal(PackMultiTaskInputs()(sample)['inputs'], expected)


def test_a_crop_without_any_part_is_packed_as_ignore(make_sample: Callable[..., dict]) -> None:
    sample = make_sample(16, 32)
    for key in ('gt_human_parts', 'gt_seg_map', 'gt_saliency'):
        sample[key][:] = 0
    sample['gt_human_parts'][:, :4] = 2
    sample['gt_human_parts'][0] = 255
    np.random.seed(0)  # noqa: NPY002
    seen = set()
    for _ in range(30):
        cropped = MultiTaskRandomCrop(8)(copy.deepcopy(sample))
        has_part = bool((cropped['gt_human_parts'] == 2).any())
        fields = PackMultiTaskInputs()(copy.deepcopy(cropped))['data_samples']
        expected = cropped['gt_human_parts'] if has_part else np.full((8, 8), 255)
        np.testing.assert_array_equal(fields.gt_human_parts.data[0], expected)
        assert (fields.gt_sem_seg.data == 0).all(), 'background of the other tasks stays'
        assert (fields.gt_saliency.data == 0).all()
        seen.add(has_part)
    assert seen == {True, False}


def test_a_map_of_a_third_size_is_refused(make_sample: Callable[..., dict]) -> None:
    sample = make_sample(6, 8)
    sample['gt_saliency'] = np.zeros((5, 5), np.uint8)
    with pytest.raises(ValueError, match=r"'gt_saliency' is \(5, 5\) .* neither .* \(6, 8\), nor"):
        PackMultiTaskInputs()(sample)


# ------------------------------------------------------------------------------------------------ whole pipelines
def dataset(tree: SimpleNamespace, pipeline: list[dict]) -> PascalContextMTDataset:
    return PascalContextMTDataset(data_root=str(tree.root), pipeline=pipeline)


def test_test_time_labels_keep_the_files_size(pascal_tree: SimpleNamespace) -> None:
    packed = dataset(pascal_tree, TEST)[0]
    sample = packed['data_samples']
    assert packed['inputs'].shape == (3, 48, 64)
    assert sample.img_shape == (48, 64)
    assert sample.ori_shape == pascal_tree.shape
    np.testing.assert_array_equal(sample.gt_sem_seg.data[0], pascal_tree.truth['semseg'][0])
    np.testing.assert_allclose(
        sample.gt_normals.data, pascal_tree.truth['normals'][0].transpose(2, 0, 1), atol=1e-6
    )
    assert (dataset(pascal_tree, TEST)[1]['data_samples'].gt_human_parts.data == 255).all(), 'no person'


def test_labels_before_the_resize_are_squashed_with_the_image(pascal_tree: SimpleNamespace) -> None:
    sample = dataset(pascal_tree, [TEST[0], TEST[2], TEST[1], TEST[3]])[0]['data_samples']
    for field in ('gt_sem_seg', 'gt_human_parts', 'gt_saliency', 'gt_normals'):
        assert sample.get(field).data.shape[1:] == (48, 64)


def test_a_transform_behind_late_labels_is_refused(pascal_tree: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r'2008_000001\.jpg: ValueError: .*Move LoadMultiTaskAnnotations'):
        dataset(pascal_tree, [*TEST[:3], dict(type='MultiTaskRandomFlip', prob=1.0)])[0]


def test_mmsegs_photometric_distortion_moves_no_label(pascal_tree: SimpleNamespace) -> None:
    distort = TRANSFORMS.build(dict(type='PhotoMetricDistortion'))
    np.random.seed(1)  # noqa: NPY002
    plain = dataset(pascal_tree, [LOAD_IMAGE, LOAD_LABELS])
    changed = 0
    for k in range(3):
        sample = plain[k]
        before = copy.deepcopy(sample)
        after = distort(sample)
        changed += bool((after['img'] != before['img']).any())
        assert after['img'].dtype == np.uint8
        assert after['img'].shape == before['img'].shape
        for key in before['seg_fields']:
            np.testing.assert_array_equal(after[key], before[key])
    assert changed


def test_a_training_pipeline_gives_one_size(pascal_tree: SimpleNamespace) -> None:
    pipeline = [
        LOAD_IMAGE,
        LOAD_LABELS,
        dict(type='MultiTaskRandomFlip', prob=0.5),
        dict(type='MultiTaskRandomScale', scale_range=(0.75, 1.25)),
        dict(type='MultiTaskRandomRotate', degree=20.0),
        dict(type='PhotoMetricDistortion'),
        dict(type='MultiTaskRandomCrop', crop_size=(24, 24), cat_max_ratio=0.9, cat_task='semseg'),
        dict(type='MultiTaskPad', size_divisor=32),
        dict(type='PackMultiTaskInputs'),
    ]
    data = dataset(pascal_tree, pipeline)
    for _ in range(5):
        for k in range(3):
            packed = data[k]
            sample = packed['data_samples']
            assert packed['inputs'].shape == (3, 32, 32)
            shapes = {tuple(field.data.shape[1:]) for field in sample.values()}
            assert shapes == {(32, 32)}
            assert len(sample.keys()) == 4


@pytest.mark.parametrize('as_array', [False, True])
def test_the_test_pipeline_serves_mmsegs_inferencer(pascal_tree: SimpleNamespace, as_array: bool) -> None:
    """It strips transforms named LoadAnnotations only, and replaces one that must be named LoadImageFromFile."""
    inferencer = MMSegInferencer.__new__(MMSegInferencer)
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=copy.deepcopy(TEST)))))
    pipeline: Compose = inferencer._init_pipeline(cfg)
    path = Path(pascal_tree.root / f'JPEGImages/{pascal_tree.ids[0]}.jpg')
    packed = pipeline(np.zeros((20, 28, 3), np.uint8) if as_array else str(path))
    assert packed['inputs'].shape == (3, 48, 64)
    assert packed['data_samples'].ori_shape == (20, 28)
    assert len(packed['data_samples'].keys()) == 0


def test_reprs_tell_the_arguments(pascal_tree: SimpleNamespace) -> None:
    text = repr(
        dataset(pascal_tree, [*TEST[:3], dict(type='MultiTaskRandomRotate', degree=7.0), TEST[3]]).pipeline
    )
    for part in ('MultiTaskResize(scale=(64, 48)', 'degree=(-7.0, 7.0)', "'tasks')"):
        assert part in text


@pytest.mark.parametrize('dtype', [np.uint8, np.float32], ids=str)
@pytest.mark.parametrize('channels', [1, 3, 5])
@pytest.mark.parametrize('layout', ['plain', 'mirrored', 'window', 'transposed'])
def test_axes_first_is_a_transposed_copy(dtype: type, channels: int, layout: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 14, channels)).astype(dtype)
    view = dict(
        plain=array, mirrored=array[:, ::-1], window=array[2:7, 3:8], transposed=array.transpose(1, 0, 2)
    )[layout]
    expected = np.ascontiguousarray(view.transpose(2, 0, 1))
    found = axes_first(view)
    assert found.flags.c_contiguous
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('shape', [(6, 8, 3), (6, 8, 1), (6, 8)], ids=str)
def test_an_image_is_packed_as_mmseg_packs_it(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = PackSegInputs(meta_keys=())(dict(img=image.copy()))['inputs']
    found = PackMultiTaskInputs(meta_keys=())(dict(img=image))['inputs']
    assert found.dtype == expected.dtype
    assert found.is_contiguous()
    assert torch.equal(found, expected)
