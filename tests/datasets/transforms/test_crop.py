"""Cropping and padding."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmcv.transforms.utils import cache_random_params

from mmseg_polyhistor.datasets import MultiTaskPad, MultiTaskRandomCrop
from mmseg_polyhistor.datasets.transforms.geometry import window

SMALL = st.integers(1, 9)


@settings(max_examples=80, deadline=None)
@given(SMALL, SMALL, st.integers(-12, 12), st.integers(-12, 12), SMALL, SMALL, st.booleans())
def test_a_window_against_a_loop(
    height: int, width: int, top: int, left: int, new_height: int, new_width: int, channels: bool
) -> None:
    array = np.random.default_rng(0).integers(0, 200, (height, width, 3) if channels else (height, width))
    out = window(array, top, left, (new_height, new_width), (251, 252, 253) if channels else 255)
    assert out.shape[:2] == (new_height, new_width)
    for y in range(new_height):
        for x in range(new_width):
            inside = 0 <= y + top < height and 0 <= x + left < width
            outside = [251, 252, 253] if channels else 255
            np.testing.assert_array_equal(out[y, x], array[y + top, x + left] if inside else outside)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(0, 999))
def test_a_crop_moves_all_maps_together(
    make_sample: Callable[..., dict], height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    sample = make_sample(height, width)
    number = np.arange(height * width).reshape(height, width)
    sample['img'] = np.stack([number % 256, number // 256, np.full_like(number, 7)], axis=2).astype(np.uint8)
    np.random.seed(seed)  # noqa: NPY002
    out = MultiTaskRandomCrop((new_height, new_width), pad_val=(0, 0, 9))(copy.deepcopy(sample))
    assert out['img_shape'] == out['pad_shape'] == (new_height, new_width)
    image = out['img'].astype(int)
    for key in sample['seg_fields']:
        assert out[key].shape[:2] == (new_height, new_width)
        assert out[key].dtype == sample[key].dtype
        for y in range(new_height):
            for x in range(new_width):
                if image[y, x, 2] == 7:
                    source = divmod(image[y, x, 0] + 256 * image[y, x, 1], width)
                    np.testing.assert_array_equal(out[key][y, x], sample[key][source])
                else:
                    assert (out[key][y, x] == 255).all()
    assert (image[..., 2] == 7).sum() == min(height, new_height) * min(width, new_width), (
        'nothing is lost needlessly'
    )


def test_every_window_is_drawn(make_sample: Callable[..., dict]) -> None:
    np.random.seed(0)  # noqa: NPY002
    crop = MultiTaskRandomCrop((3, 6))
    corners = {crop.random_window(make_sample(5, 4, tasks=('semseg',))) for _ in range(300)}
    assert corners == {(top, left) for top in (0, 1, 2) for left in (-2, -1, 0)}
    with cache_random_params(crop):
        a, b = (crop(make_sample(5, 4))['img'] for _ in range(2))
    np.testing.assert_array_equal(a, b)


def two_halves(make_sample: Callable[..., dict]) -> dict:
    sample = make_sample(16, 64, tasks=('saliency', 'semseg'))
    sample['gt_seg_map'][:] = 3
    sample['gt_seg_map'][:, 56:] = 5
    return sample


def test_cat_max_ratio_looks_for_a_window_with_two_classes(make_sample: Callable[..., dict]) -> None:
    np.random.seed(0)  # noqa: NPY002

    def share(**options: object) -> float:
        crop = MultiTaskRandomCrop(16, **options)
        windows = [crop(two_halves(make_sample))['gt_seg_map'] for _ in range(200)]
        return np.mean([(w == 3).mean() < 0.75 and (w == 5).mean() < 0.75 for w in windows])

    plain, balanced = share(), share(cat_max_ratio=0.75, cat_task='semseg')
    assert plain < 0.2  # 4 of 49 windows will do
    assert balanced > 0.4  # 1 - (45 / 49) ** 10 = 0.57
    sample = two_halves(make_sample)
    sample['seg_fields'].remove('gt_seg_map')
    assert MultiTaskRandomCrop(16, cat_max_ratio=0.75, cat_task='semseg')(sample)['gt_saliency'].shape == (
        16,
        16,
    )


def test_ignored_pixels_are_no_class_for_cat_max_ratio(make_sample: Callable[..., dict]) -> None:
    np.random.seed(0)  # noqa: NPY002
    crop, both = MultiTaskRandomCrop(16, cat_max_ratio=0.75, cat_task='semseg'), []
    for _ in range(200):
        sample = two_halves(make_sample)
        sample['gt_seg_map'][::2] = 255
        both.append({3, 5} <= set(np.unique(crop(sample)['gt_seg_map'])))
    assert np.mean(both) > 0.4  # as without the ignored rows; 0.1 if they counted as a second class


@pytest.mark.parametrize(
    ('options', 'shape'),
    [
        (dict(size=(30, 25)), (25, 30)),
        (dict(size=[10, 25]), (25, 21)),  # wider than 10 already
        (dict(size_divisor=8), (24, 24)),
        (dict(pad_to_square=True), (21, 21)),
        (dict(pad_to_square=True, size_divisor=16), (32, 32)),
    ],
)
def test_padding_is_ignore_for_every_task(
    make_sample: Callable[..., dict], options: dict, shape: tuple[int, int]
) -> None:
    sample = make_sample(18, 21)
    out = MultiTaskPad(**options, pad_val=(3, 4, 5))(copy.deepcopy(sample))
    assert out['img_shape'] == shape
    assert out['pad_shape'][:2] == shape
    added = np.ones(shape, bool)
    added[:18, :21] = False
    assert (out['img'][added] == (3, 4, 5)).all()
    for key in ('img', *sample['seg_fields']):
        assert out[key].shape[:2] == shape
        np.testing.assert_array_equal(out[key][:18, :21], sample[key])
    for key in sample['seg_fields']:
        assert (out[key][added] == 255).all()


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: MultiTaskRandomCrop(0), 'crop_size must be a positive int'),
        (lambda: MultiTaskRandomCrop((3, 4, 5)), 'crop_size must be a positive int'),
        (lambda: MultiTaskRandomCrop(8, cat_max_ratio=0), 'cat_max_ratio must lie in'),
        (lambda: MultiTaskRandomCrop(8, cat_max_ratio=0.75), 'cat_max_ratio needs cat_task'),
        (lambda: MultiTaskRandomCrop(8, cat_max_ratio=0.75, cat_task='normals'), 'name of a semantic task'),
        (lambda: MultiTaskPad((8, 8), pad_val='black'), 'pad_val must be a number'),
    ],
)
def test_wrong_arguments_of_cropping(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize('transform', [MultiTaskRandomCrop(3), MultiTaskPad((9, 9))])
def test_labels_of_another_size_are_refused(make_sample: Callable[..., dict], transform: Callable) -> None:
    sample = make_sample(4, 6)
    sample['gt_normals'] = sample['gt_normals'][:3]
    with pytest.raises(ValueError, match=r"'gt_normals' is \(3, 6\)"):
        transform(sample)
