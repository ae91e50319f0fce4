"""Rotating and zooming on a fixed canvas."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
from mmcv.transforms.utils import cache_random_params

from mmseg_polyhistor.datasets import MultiTaskRandomRotate


def rotate(degree: float, scale: float = 1.0, **options: object) -> MultiTaskRandomRotate:
    """A rotation that is not random."""
    return MultiTaskRandomRotate(degree=(degree, degree), scale_range=(scale, scale), **options)


@pytest.mark.parametrize(('degree', 'turns'), [(90, -1), (-90, 1), (180, 2)])
def test_quarter_turns_are_permutations(make_sample: Callable[..., dict], degree: float, turns: int) -> None:
    """Clockwise is positive; np.rot90 turns counter-clockwise."""
    sample = make_sample(17, 17)
    out = rotate(degree)(copy.deepcopy(sample))
    for key in ('img', 'gt_seg_map', 'gt_human_parts', 'gt_saliency'):
        np.testing.assert_array_equal(out[key], np.rot90(sample[key], turns))
    x, y, z = np.moveaxis(np.rot90(sample['gt_normals'], turns), 2, 0)
    turned = {-1: (y, -x, z), 1: (-y, x, z), 2: (-x, -y, z)}[turns]  # clockwise: what faced up faces right
    expected = np.where((x == 255)[..., None], 255, np.stack(turned, axis=2))
    np.testing.assert_allclose(out['gt_normals'], expected, atol=1e-4)


def test_no_rotation_is_the_identity(make_sample: Callable[..., dict]) -> None:
    sample = make_sample(13, 19)
    for transform in (rotate(0), MultiTaskRandomRotate(20, prob=0)):
        out = transform(copy.deepcopy(sample))
        for key in ('img', *sample['seg_fields']):
            np.testing.assert_allclose(out[key], sample[key], atol=1e-6)


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
@pytest.mark.parametrize(
    ('degree', 'scale'), [(20, 1.0), (-20, 1.0), (7.5, 1.25), (-13, 0.75), (130, 1.0), (0, 1.2)]
)
def test_a_rotated_sphere_is_a_sphere_at_the_rotated_place(
    make_sphere: Callable[..., dict],
    angles: Callable[..., np.ndarray],
    degree: float,
    scale: float,
    mode: str,
) -> None:
    """A camera that rolls sees another place of the sphere, and again a sphere's normals there."""
    height, width, x, y, radius = 72, 80, 46.0, 31.0, 19.0
    out = rotate(degree, scale, vector_interpolation=mode)(make_sphere(height, width, x, y, radius))
    turn = np.radians(degree)
    right, down = x - (width - 1) / 2, y - (height - 1) / 2
    new_x = (width - 1) / 2 + scale * (np.cos(turn) * right - np.sin(turn) * down)  # clockwise on the screen
    new_y = (height - 1) / 2 + scale * (np.sin(turn) * right + np.cos(turn) * down)
    expected = make_sphere(height, width, new_x, new_y, scale * radius)

    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(columns - new_x, rows - new_y)
    assert (out['gt_seg_map'] == 15)[distance < scale * radius - 1.5].all()
    assert (out['gt_seg_map'] != 15)[distance > scale * radius + 1.5].all()
    assert (out['img'][..., 0] > 127)[distance < scale * radius - 1.5].all()
    assert (out['img'][..., 0] < 128)[distance > scale * radius + 1.5].all()
    inside = distance < 0.75 * scale * radius
    assert (out['gt_normals'][inside] != 255).all()
    error = angles(out['gt_normals'], np.where(inside[..., None], expected['gt_normals'], 255))
    assert error.max() < (0.5 if mode == 'bilinear' else 4)


@pytest.mark.parametrize('degree', [-20.0, 11.0, 75.0])
def test_a_rotated_plane_keeps_its_normal_turned(make_sample: Callable[..., dict], degree: float) -> None:
    """The gradient of a tilted plane's height, taken from the rotated image itself, gives the rotated normal."""
    height, width = 61, 61
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    slope_x, slope_up = 0.7, 1.6  # grey levels per pixel to the right and upwards
    relief = 120 + slope_x * (columns - 30) - slope_up * (rows - 30)
    normal = np.array([-slope_x, -slope_up, 1]) / np.sqrt(slope_x**2 + slope_up**2 + 1)
    sample = make_sample(height, width, tasks=('normals',))
    sample['img'] = np.repeat(relief[..., None], 3, axis=2)
    sample['gt_normals'][:] = normal
    out = rotate(degree)(sample)
    seen, label = out['img'][22:39, 22:39, 0], out['gt_normals'][22:39, 22:39]
    seen_x, seen_up = np.gradient(seen, axis=1).mean(), -np.gradient(seen, axis=0).mean()
    expected = np.array([-seen_x, -seen_up, 1]) / np.sqrt(seen_x**2 + seen_up**2 + 1)
    np.testing.assert_allclose(label, np.broadcast_to(expected, label.shape), atol=2e-3)
    assert abs(expected - normal).max() > 0.1, 'the plane did turn'


@pytest.mark.parametrize('mode', ['nearest', 'bilinear'])
def test_what_comes_in_is_ignore_for_every_task(make_sample: Callable[..., dict], mode: str) -> None:
    sample = make_sample(32, 48)
    for key in sample['seg_fields']:
        sample[key][:] = (0, 0, 1) if key == 'gt_normals' else 1
    sample['img'][:] = 200
    out = rotate(30, 0.8, pad_val=(1, 2, 3), vector_interpolation=mode)(sample)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert out['img'][corner].tolist() == [1, 2, 3]
        for key in sample['seg_fields']:
            assert (out[key][corner] == 255).all()
    masks = [(out[key] == 255).reshape(32, 48, -1).all(axis=2) for key in sample['seg_fields']]
    assert all((mask == masks[0]).all() for mask in masks), 'all tasks lose the same pixels'
    assert 0.2 < masks[0].mean() < 0.6
    assert ((out['img'] == 200).all(axis=2) <= ~masks[0]).all(), (
        'a pixel that the image has whole is labelled'
    )


def test_a_grey_pad_value_fills_all_channels(make_sample: Callable[..., dict]) -> None:
    assert rotate(30, pad_val=128)(make_sample(32, 32))['img'][0, 0].tolist() == [128, 128, 128]


def test_labels_against_a_loop(make_sample: Callable[..., dict]) -> None:
    """Nearest neighbour at the point that the rotation takes to the pixel; near ties either neighbour will do."""
    height, width, degree, scale = 21, 29, 17.0, 1.1
    sample = make_sample(height, width)
    out = rotate(degree, scale, vector_interpolation='nearest')(copy.deepcopy(sample))
    cos, sin = np.cos(np.radians(degree)), np.sin(np.radians(degree))
    checked = 0
    for y in range(height):
        for x in range(width):
            right, down = (x - (width - 1) / 2) / scale, (y - (height - 1) / 2) / scale
            column = (width - 1) / 2 + cos * right + sin * down
            row = (height - 1) / 2 - sin * right + cos * down
            c, r = round(column), round(row)
            if max(abs(column - c), abs(row - r)) > 0.46:
                continue
            checked += 1
            inside = 0 <= r < height and 0 <= c < width
            for key in ('gt_seg_map', 'gt_human_parts', 'gt_saliency'):
                assert out[key][y, x] == (sample[key][r, c] if inside else 255)
            vector = sample['gt_normals'][r, c] if inside else np.full(3, 255)
            if vector[0] != 255:  # clockwise, x right and y up
                vector = [cos * vector[0] + sin * vector[1], cos * vector[1] - sin * vector[0], vector[2]]
            np.testing.assert_allclose(out['gt_normals'][y, x], vector, atol=1e-5)
    assert checked > 0.7 * height * width


def test_bilinear_vectors_have_length_1(make_sample: Callable[..., dict]) -> None:
    label = rotate(23, 1.2)(make_sample(40, 40))['gt_normals']
    valid = label[..., 0] != 255
    np.testing.assert_allclose(np.linalg.norm(label[valid], axis=1), 1, atol=1e-6)
    assert (label[~valid] == 255).all()


def test_angles_and_zooms_are_drawn_from_the_whole_range_and_repeat(make_sample: Callable[..., dict]) -> None:
    transform = MultiTaskRandomRotate(20, scale_range=(0.75, 1.25))
    np.random.seed(5)  # noqa: NPY002
    first = [transform.random_motion() for _ in range(200)]
    np.random.seed(5)  # noqa: NPY002
    assert first == [transform.random_motion() for _ in range(200)]
    _, degrees, scales = zip(*first, strict=True)
    assert -20 <= min(degrees) < -18 < 18 < max(degrees) <= 20
    assert 0.75 <= min(scales) < 0.78 < 1.22 < max(scales) <= 1.25
    with cache_random_params(transform):
        a, b = (transform(make_sample(20, 20))['gt_normals'] for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(degree=(20, -20)), r'degree must be \(low, high\)'),
        (dict(degree=20, prob=1.5), 'prob must lie in 0..1'),
        (dict(degree=20, scale_range=(-1, 1)), 'scale_range must be positive'),
        (dict(degree=20, interpolation='best'), 'interpolation must be one of'),
        (dict(degree=20, pad_val=(1, 2)), 'pad_val must be a number or'),
        (dict(degree=20, pad_val=256), 'pad_val must be a number or'),
    ],
)
def test_wrong_arguments_of_rotation(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiTaskRandomRotate(**options)
