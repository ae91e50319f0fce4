"""Resizing and random scaling."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from math import floor

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmcv.transforms.utils import cache_random_params
from mmengine.registry import TRANSFORMS

from mmseg_polyhistor.datasets import MultiTaskRandomScale, MultiTaskResize
from mmseg_polyhistor.datasets.transforms.geometry import resize_label
from mmseg_polyhistor.tasks import get_task

NORMALS = get_task('normals')


def nearest(index: int, new: int, old: int) -> int:
    """The source pixel that covers the centre of a destination pixel, in exact arithmetic."""
    return floor((index + Fraction(1, 2)) * old / new)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 17), st.integers(1, 17), st.integers(1, 17), st.integers(1, 17), st.integers(0, 99))
def test_labels_are_the_nearest_pixels_at_aligned_centres(
    make_sample: Callable[..., dict], height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    sample = make_sample(height, width, seed)
    resize = MultiTaskResize((new_width, new_height), vector_interpolation='nearest')
    out = resize(copy.deepcopy(sample))
    assert out['img'].shape == (new_height, new_width, 3)
    assert out['img_shape'] == (new_height, new_width)
    for key in sample['seg_fields']:
        assert out[key].dtype == sample[key].dtype
        for y in range(new_height):
            for x in range(new_width):
                source = nearest(y, new_height, height), nearest(x, new_width, width)
                np.testing.assert_array_equal(out[key][y, x], sample[key][source])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 13), st.integers(1, 13), st.integers(1, 13), st.integers(1, 13), st.integers(0, 99))
def test_bilinear_vectors_against_a_loop(
    make_sample: Callable[..., dict], height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    label = make_sample(height, width, seed)['gt_normals']
    out = resize_label(label, (new_width, new_height), NORMALS)
    for y in range(new_height):
        for x in range(new_width):
            if label[nearest(y, new_height, height), nearest(x, new_width, width), 0] == 255:
                assert (out[y, x] == 255).all()
                continue
            row, column = (y + 0.5) * height / new_height - 0.5, (x + 0.5) * width / new_width - 0.5
            blend = np.zeros(3)
            for r in (floor(row), floor(row) + 1):
                for c in (floor(column), floor(column) + 1):
                    vector = label[min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
                    if vector[0] != 255:
                        blend += (1 - abs(row - r)) * (1 - abs(column - c)) * vector
            length = np.linalg.norm(blend)
            if abs(length - 0.1) > 1e-3:  # the length below which a vector has no direction
                expected = blend / length if length > 0.1 else [255] * 3
                np.testing.assert_allclose(out[y, x], expected, atol=2e-4)


def test_image_and_labels_stay_aligned(make_sphere: Callable[..., dict]) -> None:
    """A border between black and white lies where the classes change, to less than a pixel."""
    for size in ((97, 61), (40, 30), (128, 96)):
        out = MultiTaskResize(size)(make_sphere(48, 64, 31.5, 23.5, 17))
        white, labelled = out['img'][..., 0] > 127, out['gt_seg_map'] == 15
        ring = cv2.morphologyEx(labelled.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        assert ((white != labelled) <= ring.astype(bool)).all()
        for mask in (white, labelled):
            centre = np.argwhere(mask).mean(axis=0)
            np.testing.assert_allclose(centre, [(size[1] - 1) / 2, (size[0] - 1) / 2], atol=0.05)


@pytest.mark.parametrize('size', [(80, 60), (128, 96), (50, 37), (137, 103)])
def test_a_resized_sphere_keeps_its_normals(
    make_sphere: Callable[..., dict], angles: Callable[..., np.ndarray], size: tuple[int, int]
) -> None:
    sample = make_sphere(48, 64, 30, 25, 20)
    sx, sy = size[0] / 64, size[1] / 48
    rows, columns = np.mgrid[: size[1], : size[0]]
    right, up = ((columns + 0.5) / sx - 0.5 - 30) / 20, -((rows + 0.5) / sy - 0.5 - 25) / 20
    inside = right**2 + up**2 < 0.8**2  # well inside, where no pixel outside has a share
    expected = np.full((size[1], size[0], 3), 255.0)
    expected[inside] = np.stack([right, up, np.sqrt(np.clip(1 - right**2 - up**2, 0, 1))], 2)[inside]
    errors = {
        mode: angles(resize_label(sample['gt_normals'], size, NORMALS, mode), expected)
        for mode in ('nearest', 'bilinear')
    }
    assert len(errors['bilinear']) == inside.sum(), 'the whole inside is valid'
    assert errors['bilinear'].max() < 0.5
    assert errors['bilinear'].mean() < 0.2 * errors['nearest'].mean()


def test_bilinear_vectors_have_length_1_and_are_valid_where_nearest_ones_are(
    make_sample: Callable[..., dict],
) -> None:
    label = make_sample(23, 31)['gt_normals']
    out, near = (resize_label(label, (50, 40), NORMALS, mode) for mode in ('bilinear', 'nearest'))
    valid = out[..., 0] != 255
    np.testing.assert_allclose(np.linalg.norm(out[valid], axis=1), 1, atol=1e-6)
    assert (out[~valid] == 255).all()
    assert (valid <= (near[..., 0] != 255)).all()
    assert valid.sum() > 0.97 * (near[..., 0] != 255).sum(), 'only what cancels out is lost'


@pytest.mark.parametrize(
    ('options', 'shape'),
    [
        (dict(scale=(32, 16)), (16, 32)),
        (dict(scale=20), (20, 20)),
        (dict(scale=[60, 40], keep_ratio=True), (40, 53)),  # 48 x 64 in 40 x 60
        (dict(scale_factor=0.5), (24, 32)),
        (dict(scale_factor=[2, 0.5]), (24, 128)),
    ],
)
def test_the_new_size(make_sample: Callable[..., dict], options: dict, shape: tuple[int, int]) -> None:
    out = MultiTaskResize(**options)(make_sample(48, 64))
    assert {out[key].shape[:2] for key in ('img', *out['seg_fields'])} == {shape}
    assert out['img_shape'] == shape
    np.testing.assert_allclose(out['scale_factor'], (shape[1] / 64, shape[0] / 48))


def test_a_range_of_sizes_with_mmcvs_random_resize(make_sample: Callable[..., dict]) -> None:
    np.random.seed(0)  # noqa: NPY002
    resize = TRANSFORMS.build(
        dict(
            type='RandomResize',
            scale=(64, 48),
            ratio_range=(0.5, 2.0),
            resize_type='MultiTaskResize',
            keep_ratio=True,
        )
    )
    sizes = set()
    for seed in range(20):
        out = resize(make_sample(48, 64, seed))
        assert out['gt_normals'].shape == out['img'].shape
        sizes.add(out['img_shape'])
    assert len(sizes) > 10
    assert 24 <= min(sizes)[0] < max(sizes)[0] <= 96


def test_random_scale(make_sample: Callable[..., dict]) -> None:
    np.random.seed(0)  # noqa: NPY002
    scale = MultiTaskRandomScale((0.75, 1.25))
    factors = []
    for _ in range(50):
        out = scale(make_sample(40, 80, tasks=('semseg', 'normals')))
        height, width = out['img_shape']
        assert out['img'].shape == out['gt_normals'].shape == (height, width, 3)
        assert abs(width - 2 * height) <= 2, 'both sides by the same factor'
        factors.append(width / 80)
    assert 0.74 < min(factors) < 0.85
    assert 1.15 < max(factors) < 1.26
    with cache_random_params(scale):
        assert len({scale(make_sample(40, 80))['img_shape'] for _ in range(5)}) == 1


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (
            lambda: MultiTaskResize((8, 8), vector_interpolation='cubic'),
            "one of .*'nearest', 'bilinear'.*'cubic'",
        ),
        (lambda: MultiTaskRandomScale((1.25, 0.75)), r'scale_range must be \(low, high\)'),
        (lambda: MultiTaskRandomScale((0, 1)), 'scale_range must be positive'),
    ],
)
def test_wrong_arguments_of_resizing(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_labels_that_were_loaded_later_are_refused(make_sample: Callable[..., dict]) -> None:
    sample = make_sample(4, 6)
    sample['img'] = np.zeros((8, 12, 3), np.uint8)
    for transform in (MultiTaskResize((5, 5)), MultiTaskRandomScale()):
        with pytest.raises(ValueError, match='Move LoadMultiTaskAnnotations'):
            transform(copy.deepcopy(sample))


@pytest.mark.parametrize(
    ('shape', 'arguments', 'expected'),
    [
        ((1, 501), dict(scale=(96, 96), keep_ratio=True), (1, 96)),
        ((501, 1), dict(scale=(96, 96), keep_ratio=True), (96, 1)),
        ((3, 7), dict(scale_factor=0.1), (1, 1)),
        ((3, 7), dict(scale_factor=0.1, keep_ratio=True), (1, 1)),
    ],
)
def test_a_side_that_would_vanish_keeps_one_pixel(
    make_sample: Callable[..., dict], shape: tuple[int, int], arguments: dict, expected: tuple[int, int]
) -> None:
    out = MultiTaskResize(**arguments)(make_sample(*shape))
    assert out['img'].shape[:2] == out['img_shape'] == expected
    assert {out[key].shape[:2] for key in out['seg_fields']} == {expected}


@pytest.mark.parametrize('keep_ratio', [True, False])
@pytest.mark.parametrize('arguments', [dict(scale=(13, 8)), dict(scale_factor=1.7), dict(scale_factor=0.4)])
def test_images_are_mmcvs_to_the_bit(
    make_sample: Callable[..., dict], arguments: dict, keep_ratio: bool
) -> None:
    sample = make_sample(10, 23)
    ours = MultiTaskResize(**arguments, keep_ratio=keep_ratio)(copy.deepcopy(sample))
    stock = TRANSFORMS.build(dict(type='Resize', **arguments, keep_ratio=keep_ratio))(dict(img=sample['img']))
    np.testing.assert_array_equal(ours['img'], stock['img'])
    for key in ('img_shape', 'scale', 'scale_factor', 'keep_ratio'):
        assert ours[key] == stock[key]
