"""What moving the pixels does to depths: they are copied, and divided by a zoom, never blended with what is invalid."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from mmcv.transforms.utils import cache_random_params

from mmseg_polyhistor.datasets import (
    MultiTaskPad,
    MultiTaskRandomCrop,
    MultiTaskRandomFlip,
    MultiTaskRandomRotate,
    MultiTaskRandomScale,
    MultiTaskResize,
    PackMultiTaskInputs,
)
from mmseg_polyhistor.datasets.transforms.geometry import resize_label, zoom_label
from mmseg_polyhistor.tasks import get_task, register_task

DEPTH = 'gt_depth_map'


@pytest.fixture
def sample(make_sample: Callable[..., dict]) -> dict:
    return make_sample(24, 32, tasks=('edge', 'depth'))


@pytest.mark.parametrize('factor', [0.5, 0.8, 1.25, 2.0])
def test_a_random_scale_divides_depths_by_its_factor(sample: dict, factor: float) -> None:
    out = MultiTaskRandomScale((factor, factor))(copy.deepcopy(sample))
    near = resize_label(sample[DEPTH], out['img_shape'][::-1], get_task('depth'))
    np.testing.assert_allclose(out[DEPTH], near / factor, rtol=1e-6)
    np.testing.assert_array_equal(out[DEPTH] == 0, near == 0)
    assert out[DEPTH].dtype == np.float32
    assert set(np.unique(out['gt_edge'])) == {0, 1, 255}, 'labels of other kinds keep their values'


def test_the_factor_is_the_one_that_was_drawn(sample: dict) -> None:
    scale = MultiTaskRandomScale((0.5, 2.0))
    sample[DEPTH][:] = 6
    with cache_random_params(scale):
        factor = scale.random_factor()
        np.testing.assert_allclose(scale(sample)[DEPTH], 6 / factor, rtol=1e-6)


@pytest.mark.parametrize('factor', [0.8, 1.0, 1.5])
@pytest.mark.parametrize('degree', [0, 30, -90])
def test_a_rotation_divides_depths_by_its_zoom(sample: dict, degree: float, factor: float) -> None:
    sample[DEPTH][:] = 6
    sample[DEPTH][:, :3] = 0
    out = MultiTaskRandomRotate((degree, degree), scale_range=(factor, factor))(sample)[DEPTH]
    assert out.dtype == np.float32
    assert (out > 0).sum() > 200
    np.testing.assert_allclose(out[out > 0], 6 / factor, rtol=1e-6)


def test_a_rotation_that_is_not_drawn_changes_nothing(sample: dict) -> None:
    out = MultiTaskRandomRotate(20, prob=0, scale_range=(2, 2))(copy.deepcopy(sample))
    np.testing.assert_array_equal(out[DEPTH], sample[DEPTH])


def test_what_comes_in_from_outside_is_ignore(sample: dict) -> None:
    sample[DEPTH][:] = 6
    sample['gt_edge'][:] = 1
    out = MultiTaskRandomRotate((30, 30), scale_range=(0.7, 0.7))(sample)
    np.testing.assert_array_equal(out[DEPTH] == 0, out['gt_edge'] == 255)
    assert 0.2 < (out[DEPTH] == 0).mean() < 0.8


@pytest.mark.parametrize('size', [(16, 12), (47, 61)])
def test_a_resize_copies_values_and_is_no_zoom(sample: dict, size: tuple[int, int]) -> None:
    out = MultiTaskResize(size)(copy.deepcopy(sample))[DEPTH]
    assert out.shape == size[::-1]
    assert set(np.unique(out)) <= set(np.unique(sample[DEPTH])), (
        'no value that was not there: nothing is blended'
    )


def test_flips_crops_and_padding_move_depths(sample: dict) -> None:
    flipped = MultiTaskRandomFlip(prob=1.0)(copy.deepcopy(sample))
    np.testing.assert_array_equal(flipped[DEPTH], sample[DEPTH][:, ::-1])
    padded = MultiTaskPad(size=(40, 30))(copy.deepcopy(sample))
    np.testing.assert_array_equal(padded[DEPTH][:24, :32], sample[DEPTH])
    assert (padded[DEPTH][24:] == 0).all()
    assert (padded[DEPTH][:, 32:] == 0).all()
    cropped = MultiTaskRandomCrop((48, 48))(copy.deepcopy(sample))
    assert np.count_nonzero(cropped[DEPTH]) == np.count_nonzero(sample[DEPTH])


def test_depth_is_packed_under_mmsegs_name(sample: dict) -> None:
    field = PackMultiTaskInputs()(copy.deepcopy(sample))['data_samples'].gt_depth_map
    assert field.data.shape == (1, 24, 32)
    np.testing.assert_array_equal(field.data[0].numpy(), sample[DEPTH])


def test_a_task_may_keep_its_values_and_ignore_another_one() -> None:
    depth = get_task('depth')
    label = np.array([[-1, 0, 3]], np.float32)
    other = replace(depth, ignore_value=-1)
    np.testing.assert_array_equal(zoom_label(label.copy(), 2.0, other), [[-1, 0, 1.5]])
    np.testing.assert_array_equal(zoom_label(label.copy(), 2.0, replace(other, zoom='keep')), label)
    assert register_task(depth) is depth
