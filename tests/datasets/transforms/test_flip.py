"""Mirroring."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmseg_polyhistor.datasets import MultiTaskRandomFlip

DIRECTIONS = ('horizontal', 'vertical', 'diagonal')


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    direction=st.sampled_from(DIRECTIONS),
    seed=st.integers(0, 99),
)
def test_twice_is_the_identity(
    make_sample: Callable[..., dict], height: int, width: int, direction: str, seed: int
) -> None:
    sample = make_sample(height, width, seed)
    flip = MultiTaskRandomFlip(prob=1.0, direction=direction)
    twice = flip(flip(copy.deepcopy(sample)))
    for key in ('img', *sample['seg_fields']):
        np.testing.assert_array_equal(twice[key], sample[key])
        assert twice[key].dtype == sample[key].dtype


@pytest.mark.parametrize('direction', DIRECTIONS)
def test_against_a_loop(make_sample: Callable[..., dict], direction: str) -> None:
    sample = make_sample(5, 7)
    flipped = MultiTaskRandomFlip(prob=1, direction=direction)(copy.deepcopy(sample))
    across, down = direction != 'vertical', direction != 'horizontal'
    for y in range(5):
        for x in range(7):
            source = (4 - y if down else y, 6 - x if across else x)
            for key in ('img', 'gt_seg_map', 'gt_human_parts', 'gt_saliency'):
                np.testing.assert_array_equal(flipped[key][y, x], sample[key][source])
            normal = sample['gt_normals'][source].copy()
            if normal[0] != 255:
                normal *= [-1 if across else 1, -1 if down else 1, 1]
            np.testing.assert_array_equal(flipped['gt_normals'][y, x], normal)
    assert flipped['flip'] is True
    assert flipped['flip_direction'] == direction


@pytest.mark.parametrize(
    ('direction', 'x', 'y'),
    [('horizontal', 63 - 20, 25), ('vertical', 20, 47 - 25), ('diagonal', 63 - 20, 47 - 25)],
)
def test_a_mirrored_sphere_is_a_sphere_at_the_mirrored_place(
    make_sphere: Callable[..., dict], direction: str, x: float, y: float
) -> None:
    flipped = MultiTaskRandomFlip(prob=1, direction=direction)(make_sphere(48, 64, 20, 25, 14))
    expected = make_sphere(48, 64, x, y, 14)
    for key in ('img', 'gt_seg_map'):
        np.testing.assert_array_equal(flipped[key], expected[key])
    np.testing.assert_allclose(flipped['gt_normals'], expected['gt_normals'], atol=1e-6)


def test_the_share_of_flips_is_the_probability(make_sample: Callable[..., dict]) -> None:
    np.random.seed(0)  # noqa: NPY002
    flip = MultiTaskRandomFlip(prob=0.3)
    flips = [flip(make_sample(1, 2, tasks=('semseg',))) for _ in range(1000)]
    assert 0.25 < np.mean([results['flip'] for results in flips]) < 0.35
    assert {results['flip_direction'] for results in flips} == {None, 'horizontal'}


def test_a_label_of_another_size_is_refused(make_sample: Callable[..., dict]) -> None:
    sample = make_sample(4, 6)
    sample['img'] = sample['img'][:, :3]
    with pytest.raises(
        ValueError, match=r"'gt_seg_map' is \(4, 6\) .* image is \(4, 3\).*Move LoadMultiTaskAnnotations"
    ):
        MultiTaskRandomFlip(prob=1)(sample)


def test_a_label_of_no_known_task_is_refused(make_sample: Callable[..., dict]) -> None:
    sample = make_sample(4, 6)
    sample['seg_fields'].append('gt_flow_map')
    with pytest.raises(ValueError, match=r"\['gt_flow_map'\] belong to no known task"):
        MultiTaskRandomFlip(prob=1)(sample)
