"""Random images, labels and pipelines: labels stay with their pixels, and keep the form of their kind."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
from cases import fuzz, random_label, sides
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmseg.registry import TRANSFORMS

from mmseg_polyhistor import tasks
from mmseg_polyhistor.datasets.labels import check_label, valid_pixels
from mmseg_polyhistor.tasks import TaskSpec, get_tasks, known_tasks

SPECS = get_tasks(name for name in known_tasks() if not name.startswith('test_'))


def make_sample(height: int, width: int, seed: int, share: float) -> dict:
    """An image with random labels of all tasks; of each pixel `share` is the probability that it is labelled."""
    rng = np.random.default_rng(seed)
    sample = dict(
        img=rng.integers(0, 256, (height, width, 3), np.uint8),
        img_shape=(height, width),
        ori_shape=(height, width),
        tasks=tuple(spec.name for spec in SPECS),
        seg_fields=[spec.gt_key for spec in SPECS],
    )
    return sample | {spec.gt_key: random_label(spec, (height, width), rng, share) for spec in SPECS}


# ------------------------------------------------------------------------------------------------ random pipelines
NUMBERS = {'allow_nan': False, 'allow_infinity': False}
INTERPOLATIONS = st.sampled_from(['nearest', 'bilinear'])
PAIRS = st.tuples(sides(), sides())


def ordered(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(low, high, **NUMBERS), st.floats(low, high, **NUMBERS)).map(sorted).map(tuple)


FLIP = st.fixed_dictionaries(
    dict(
        type=st.just('MultiTaskRandomFlip'),
        prob=st.sampled_from([0.0, 0.5, 1.0]),
        direction=st.sampled_from(['horizontal', 'vertical', 'diagonal']),
    )
)
ROTATE = st.fixed_dictionaries(
    dict(
        type=st.just('MultiTaskRandomRotate'),
        degree=st.one_of(st.sampled_from([0.0, 90.0, 180.0]), ordered(-200, 200)),
        prob=st.sampled_from([0.5, 1.0]),
        scale_range=ordered(0.1, 4),
        pad_val=st.sampled_from([0, 255, (1.5, 2, 3)]),
        interpolation=st.sampled_from(['nearest', 'bilinear', 'bicubic', 'area', 'lanczos']),
        vector_interpolation=INTERPOLATIONS,
    )
)
RESIZE = st.fixed_dictionaries(
    dict(
        type=st.just('MultiTaskResize'),
        scale=PAIRS,
        keep_ratio=st.booleans(),
        interpolation=INTERPOLATIONS,
        vector_interpolation=INTERPOLATIONS,
    )
)
SCALE = st.fixed_dictionaries(
    dict(
        type=st.just('MultiTaskRandomScale'), scale_range=ordered(0.1, 3), vector_interpolation=INTERPOLATIONS
    )
)
CROP = st.fixed_dictionaries(
    dict(
        type=st.just('MultiTaskRandomCrop'),
        crop_size=st.one_of(sides(), PAIRS),
        cat_max_ratio=st.sampled_from([1.0, 0.75, 0.1]),
        cat_task=st.just('semseg'),
    )
)
PAD = st.one_of(
    st.fixed_dictionaries(dict(type=st.just('MultiTaskPad'), size=PAIRS)),
    st.fixed_dictionaries(dict(type=st.just('MultiTaskPad'), size_divisor=st.integers(1, 32))),
    st.fixed_dictionaries(
        dict(type=st.just('MultiTaskPad'), pad_to_square=st.just(True), size_divisor=st.integers(1, 9))
    ),
)
PIPELINES = st.lists(st.one_of(FLIP, ROTATE, RESIZE, SCALE, CROP, PAD), min_size=1, max_size=4)
SAMPLES = st.builds(
    make_sample,
    height=sides(),
    width=sides(),
    seed=st.integers(0, 2**16),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)


def run(pipeline: list[dict], sample: dict, seed: int) -> dict:
    np.random.seed(seed)  # noqa: NPY002 - the generator that the transforms draw from
    return Compose([TRANSFORMS.build(dict(t)) for t in pipeline])(copy.deepcopy(sample))


# ------------------------------------------------------------------------------------------------------ properties
@fuzz(350)
@given(sample=SAMPLES, pipeline=PIPELINES, seed=st.integers(0, 99))
def test_every_label_keeps_its_form_and_the_images_size(
    sample: dict, pipeline: list[dict], seed: int
) -> None:
    out = run(pipeline, sample, seed)
    height, width = out['img'].shape[:2]
    assert tuple(out['img_shape']) == (height, width)
    assert out['img'].shape == (height, width, 3)
    assert out['img'].dtype == np.uint8
    assert out['ori_shape'] == sample['ori_shape']
    for spec in SPECS:
        given_label, label = sample[spec.gt_key], out[spec.gt_key]
        check_label(
            label, spec, (height, width), 'a label'
        )  # dtype, layout, ids, no negative or infinite quantity
        valid = valid_pixels(label, spec)
        if spec.kind == 'unit_vector':
            np.testing.assert_allclose(np.linalg.norm(label[valid].astype(float), axis=1), 1, atol=1e-5)
            assert (label[~valid] == spec.ignore_value).all()
        elif spec.kind in ('semantic', 'binary'):
            assert set(np.unique(label[valid])) <= set(np.unique(given_label)), 'no class comes from nowhere'
        if not valid_pixels(given_label, spec).any():
            assert not valid.any()


@fuzz(150)
@given(sample=SAMPLES, pipeline=PIPELINES, seed=st.integers(0, 99))
def test_a_seed_gives_the_same_sample_again(sample: dict, pipeline: list[dict], seed: int) -> None:
    first, second = run(pipeline, sample, seed), run(pipeline, sample, seed)
    for key in ('img', *sample['seg_fields']):
        np.testing.assert_array_equal(first[key], second[key])


@fuzz(150)
@given(sample=SAMPLES, direction=st.sampled_from(['horizontal', 'vertical', 'diagonal']))
def test_two_flips_are_none(sample: dict, direction: str) -> None:
    flip = dict(type='MultiTaskRandomFlip', prob=1.0, direction=direction)
    out = run([flip, flip], sample, 0)
    for key in ('img', *sample['seg_fields']):
        np.testing.assert_array_equal(out[key], sample[key])


@fuzz(200)
@given(sample=SAMPLES, pipeline=PIPELINES, seed=st.integers(0, 99))
def test_packed_samples_hold_what_the_pipeline_made(sample: dict, pipeline: list[dict], seed: int) -> None:
    moved = run(pipeline, sample, seed)
    packed = run([*pipeline, dict(type='PackMultiTaskInputs')], sample, seed)
    np.testing.assert_array_equal(packed['inputs'].numpy(), moved['img'].transpose(2, 0, 1))
    for spec in SPECS:
        label, expected = packed['data_samples'].get(spec.gt_field).data.numpy(), moved[spec.gt_key]
        if spec.ignore_if_empty and not ((expected > 0) & (expected != spec.ignore_value)).any():
            assert (label == spec.ignore_value).all()
        elif expected.ndim == 3:
            np.testing.assert_array_equal(label, expected.transpose(2, 0, 1))
        else:
            np.testing.assert_array_equal(label, expected[None])


# ------------------------------------------------------------------------------------------------------- alignment
SIDE = 41  # sides of the coded images are below


def place_spec(name: str) -> TaskSpec:
    """A semantic task whose classes are numbers of rows or columns."""
    return TaskSpec(
        name=name,
        kind='semantic',
        channels=SIDE,
        gt_key=f'gt_{name}',
        gt_field=f'gt_{name}',
        pred_field=f'pred_{name}',
        loss=dict(type='CrossEntropyLoss'),
        metric='mIoU',
        classes=tuple(map(str, range(SIDE))),
        palette=((0, 0, 0),) * SIDE,
    )


@pytest.fixture(scope='module')
def _place_tasks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ('row', 'column'):
            patch.setitem(tasks._TASKS, name, place_spec(name))
        yield


def code(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A direction for every place."""
    vectors = np.stack([columns - 20.0, rows - 20.0, np.full(rows.shape, 60.0)], axis=-1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def coded(height: int, width: int) -> dict:
    """A sample in which image and labels say everywhere where they come from.

    The image is a ramp over the columns (blue), one over the rows (green), and 255 (red), which turns to less where it
    is mixed with what comes in from outside. There is a map of the rows, one of the columns, a checkerboard, a
    direction and a depth for every place.
    """
    rows, columns = np.mgrid[:height, :width]
    step = 250 // max(height, width)
    return dict(
        img=np.stack([step * columns, step * rows, np.full_like(rows, 255)], axis=2).astype(np.uint8),
        img_shape=(height, width),
        ori_shape=(height, width),
        tasks=('row', 'column', 'saliency', 'normals', 'depth'),
        seg_fields=['gt_row', 'gt_column', 'gt_saliency', 'gt_normals', 'gt_depth_map'],
        gt_row=rows.astype(np.uint8),
        gt_column=columns.astype(np.uint8),
        gt_saliency=((rows + columns) % 2).astype(np.uint8),
        gt_normals=code(columns, rows).astype(np.float32),
        gt_depth_map=(1 + columns + SIDE * rows).astype(np.float32),
    )


def mirrored(places: np.ndarray, axis: int) -> bool:
    """Whether places (H, W), nan where nothing is known, fall along an axis of the image."""
    differences = np.diff(places, axis=axis)
    return bool(np.nansum(differences) < 0)


# One step that resamples: a second one would round a second time, to pixels of another size.
EXACT = st.lists(st.one_of(FLIP, CROP, PAD), max_size=2)
RESAMPLE = st.lists(st.one_of(ROTATE, RESIZE, SCALE), max_size=1)


@pytest.mark.usefixtures('_place_tasks')
@fuzz(500)
@given(height=sides(), width=sides(), before=EXACT, resample=RESAMPLE, behind=EXACT, seed=st.integers(0, 99))
def test_labels_lie_where_their_pixels_lie(
    height: int, width: int, before: list[dict], resample: list[dict], behind: list[dict], seed: int
) -> None:
    """Every labelled pixel of every map comes from the point that the image shows there.

    A linear ramp stays one under linear interpolation, so that the image tells the point to a fraction of a pixel, from
    which its nearest neighbour is half a pixel away at most.
    """
    linear = {'interpolation': 'bilinear', 'vector_interpolation': 'nearest', 'pad_val': 0}
    resample = [t | {key: value for key, value in linear.items() if key in t} for t in resample]
    sample = coded(height, width)
    out = run([*before, *resample, *behind], sample, seed)

    labelled = out['gt_row'] != 255
    for key in ('gt_column', 'gt_saliency'):
        np.testing.assert_array_equal(out[key] != 255, labelled)
    np.testing.assert_array_equal((out['gt_normals'] != 255).any(axis=2), labelled)
    np.testing.assert_array_equal(out['gt_depth_map'] != 0, labelled)
    if not resample:
        np.testing.assert_array_equal(out['img'][..., 2] == 255, labelled)

    rows, columns = out['gt_row'].astype(float), out['gt_column'].astype(float)
    rows[~labelled] = columns[~labelled] = np.nan
    step, clean = 250 // max(height, width), labelled & (out['img'][..., 2] == 255)
    tolerance = 0.75 if resample else 0
    for places, channel in ((columns, 0), (rows, 1)):
        shown = out['img'][..., channel] / step
        assert np.abs(shown - places)[clean].max(initial=0) <= tolerance

    at = np.nonzero(labelled)
    np.testing.assert_array_equal(out['gt_saliency'][at], (rows + columns)[at] % 2)
    zoom = out['gt_depth_map'][at] / (1 + columns + SIDE * rows)[at]
    assert np.ptp(zoom) <= 1e-5 * zoom.max() if zoom.size else True
    expected = code(columns, rows)
    if resample and resample[0]['type'] == 'MultiTaskRandomRotate':  # turned: lengths and angles stay
        found = out['gt_normals'][at].astype(float)[:60]
        expected = expected[at][:60]
        np.testing.assert_allclose(found[:, 2], expected[:, 2], atol=1e-5)
        np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    else:
        # A single column cannot tell whether it was mirrored.
        for axis, places in ((0, columns), (1, rows)):
            if np.nanmin(places, initial=SIDE) < np.nanmax(places, initial=0):
                sign = -1 if mirrored(places, 1 - axis) else 1
                np.testing.assert_allclose(
                    out['gt_normals'][..., axis][at], sign * expected[..., axis][at], atol=1e-5
                )
