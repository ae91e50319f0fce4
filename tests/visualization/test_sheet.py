"""Sheets: everything stands where the layout says, in the colours of the maps."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_polyhistor.tasks import TaskSpec, get_tasks
from mmseg_polyhistor.visualization import colourise, colourise_error, draw_sheets, error_map
from mmseg_polyhistor.visualization.colours import hatch
from mmseg_polyhistor.visualization.layout import Layout, fit
from mmseg_polyhistor.visualization.sheet import tasks_in

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
CELL = (96, 128)


def _crop(sheet: np.ndarray, box) -> np.ndarray:
    left, top, right, bottom = box
    return sheet[top:bottom, left:right]


def test_cells_hold_the_pictures_in_rows_and_columns(image, sample):
    sheet = draw_sheets([image], [sample], cell_size=128, alpha=1.0, legend=False)
    layout = Layout([CELL], rows=2, columns=4, legend=[])
    assert sheet.shape == (*layout.size, 3)
    assert sheet.dtype == np.uint8
    np.testing.assert_array_equal(_crop(sheet, layout.input(0)), image)
    for column, spec in enumerate(get_tasks(TASKS)):
        for row, field in enumerate((spec.gt_field, spec.pred_field)):
            expected = colourise(sample.get(field).data.numpy(), spec)
            np.testing.assert_array_equal(_crop(sheet, layout.cell(0, row, column)), expected)


def test_cells_are_aligned_and_do_not_overlap():
    layout = Layout([(96, 128), (128, 96)], rows=2, columns=3, legend=[5, 0, 1])
    height, width = layout.size
    boxes = [layout.input(s) for s in range(2)]
    boxes += [layout.cell(s, r, c) for s in range(2) for r in range(2) for c in range(3)]
    seen = np.zeros((height, width), int)
    for left, top, right, bottom in boxes:
        seen[top:bottom, left:right] += 1
    assert seen.max() == 1
    assert seen.sum() == 2 * 7 * 96 * 128  # nothing sticks out
    for sample in range(2):
        for row in range(2):
            assert len({layout.cell(sample, row, c)[1::2] for c in range(3)}) == 1  # one height
        for column in range(3):
            assert (
                len({layout.cell(sample, r, column)[::2] for r in range(2)}) == 1
            )  # one left and right edge
        top, bottom = layout.cell(sample, 0, 0)[1], layout.cell(sample, 1, 0)[3]
        assert sum(layout.input(sample)[1::2]) == top + bottom  # half-way up
    for column, entries in enumerate(layout.legend):
        for index in range(entries):
            left, top = layout.legend_entry(column, index)
            assert top >= layout.cell(1, 1, 0)[3]
            assert layout.column_left(column) <= left < layout.column_left(column) + layout.column_width
            assert top < height


def test_several_samples_stand_below_each_other(image, sample):
    tall = np.ascontiguousarray(image.transpose(1, 0, 2))
    sheet = draw_sheets([image, tall], [sample, sample], cell_size=128, legend=False)
    layout = Layout([CELL, CELL[::-1]], rows=2, columns=4, legend=[])
    assert sheet.shape[:2] == layout.size
    np.testing.assert_array_equal(_crop(sheet, layout.input(0)), image)
    np.testing.assert_array_equal(_crop(sheet, layout.input(1)), tall)


def test_maps_of_another_size_are_resized_to_the_cell(image, sample):
    small = SegDataSample()
    small.gt_saliency = PixelData(data=sample.gt_saliency.data[:, ::4, ::2])
    sheet = draw_sheets([image], [small], cell_size=128, legend=False)
    cell = _crop(sheet, Layout([CELL], rows=1, columns=1, legend=[]).cell(0, 0, 0))
    (spec,) = get_tasks(('saliency',))
    np.testing.assert_array_equal(cell, colourise(sample.gt_saliency.data.numpy(), spec))


def test_a_larger_map_shows_the_pixels_under_the_centres_of_the_cells(image):
    large = np.zeros((1, 3 * CELL[0], 3 * CELL[1]), np.uint8)
    large[:, 1::3, 1::3] = 1
    sample = SegDataSample()
    sample.gt_saliency = PixelData(data=large)
    sheet = draw_sheets([image], [sample], cell_size=128, legend=False)
    assert (_crop(sheet, Layout([CELL], rows=1, columns=1, legend=[]).cell(0, 0, 0)) == 255).all()


def test_rows_are_named_on_their_left(image, sample):
    """Ink between the input and the first task, beside each row, and another word for each."""
    sheet = draw_sheets([image], [sample], cell_size=128, legend=False)
    layout = Layout([CELL], rows=2, columns=4, legend=[])
    words = []
    for row in range(2):
        left, top, _, bottom = layout.cell(0, row, 0)
        words.append(sheet[top:bottom, layout.input(0)[2] + 1 : left - 1])
    assert all((word < 128).any() for word in words)
    assert (words[0] != words[1]).any()


@pytest.mark.parametrize(('draw', 'kept'), [('draw_pred', 'gt_field'), ('draw_gt', 'pred_field')])
def test_a_row_that_is_not_wanted_or_not_there_is_left_out(image, sample, draw, kept):
    unwanted = draw_sheets([image], [sample], cell_size=128, alpha=1.0, legend=False, **{draw: False})
    layout = Layout([CELL], rows=1, columns=4, legend=[])
    assert unwanted.shape[:2] == layout.size
    for column, spec in enumerate(get_tasks(TASKS)):
        expected = colourise(sample.get(getattr(spec, kept)).data.numpy(), spec)
        np.testing.assert_array_equal(_crop(unwanted, layout.cell(0, 0, column)), expected)
        delattr(sample, spec.gt_field if kept == 'pred_field' else spec.pred_field)
    absent = draw_sheets([image], [sample], cell_size=128, alpha=1.0, legend=False)
    np.testing.assert_array_equal(absent, unwanted)


def test_a_single_missing_map_is_a_blank_cell(image, sample):
    full = draw_sheets([image], [sample], cell_size=128, legend=False)
    delattr(sample, 'pred_saliency')
    sheet = draw_sheets([image], [sample], cell_size=128, legend=False)
    left, top, right, bottom = Layout([CELL], rows=2, columns=4, legend=[]).cell(0, 1, 2)
    changed = np.argwhere((sheet != full).any(axis=2))
    assert (changed >= (top, left)).all() and (changed < (bottom, right)).all()
    values, counts = np.unique(sheet[top:bottom, left:right].reshape(-1, 3), axis=0, return_counts=True)
    assert tuple(values[counts.argmax()]) == (240, 240, 240)
    assert len(values) > 1  # the words 'no prediction'


def test_without_any_map_only_the_input_is_drawn(image):
    sheet = draw_sheets([image], [None], get_tasks(TASKS), cell_size=128)
    layout = Layout([CELL], rows=1, columns=0, legend=[])
    assert sheet.shape[:2] == layout.size
    np.testing.assert_array_equal(_crop(sheet, layout.input(0)), image)


def test_the_legend_shows_the_colours_present(image, sample):
    sheet = draw_sheets([image], [sample], cell_size=128)
    # background, car, person, no label | background, torso, lower leg, no label | 2 and no label | 3 and no label
    layout = Layout([CELL], rows=2, columns=4, legend=[4, 4, 3, 4], pictures=[False, False, False, True])
    assert sheet.shape[:2] == layout.size
    expected = [(0, 0, 0), (128, 128, 128), (192, 128, 128)]
    for index, colour in enumerate(expected):
        left, top = layout.legend_entry(0, index)
        assert (sheet[top : top + 12, left : left + 12] == colour).all()
    bare = draw_sheets([image], [sample], cell_size=128, legend=False)
    np.testing.assert_array_equal(sheet[: layout.cell(0, 1, 0)[3]], bare[: layout.cell(0, 1, 0)[3]])


def test_normals_are_explained_by_a_ball(image, sample):
    """Under the axes: its middle looks to the viewer, its rim to the right and up."""
    sheet = draw_sheets([image], [sample], get_tasks(('saliency', 'normals')), cell_size=128)
    layout = Layout([CELL], rows=2, columns=2, legend=[3, 4], pictures=[False, True])
    assert sheet.shape[:2] == layout.size
    left, top, right, bottom = layout.legend_picture(1)
    assert top > layout.legend_entry(1, 3)[1] and right <= sheet.shape[1] and bottom <= sheet.shape[0]
    side = right - left - 4
    middle = side // 2
    ball = sheet[top : top + side, left : left + side].astype(int)
    for row, column, normal in (
        (middle, middle, (0, 0, 1)),
        (middle, side - 1, (1, 0, 0)),
        (0, middle, (0, 1, 0)),
    ):
        expected = 127.5 * (np.array(normal) + 1)
        np.testing.assert_allclose(ball[row, column], expected, atol=30)  # a pixel beside the very rim
    assert (ball[0, 0] == 255).all()
    beside = layout.column_left(0)
    assert (sheet[top:bottom, beside : beside + 100] == 255).all()  # none for probabilities
    assert draw_sheets([image], [sample], legend=False, cell_size=128).shape[:2] == (
        Layout([CELL], rows=2, columns=4, legend=[]).size
    )


def test_errors_are_a_row_on_demand(image, sample):
    sheet = draw_sheets([image], [sample], draw_error=True, cell_size=128, alpha=1.0, legend=False)
    layout = Layout([CELL], rows=3, columns=4, legend=[])
    assert sheet.shape[:2] == layout.size
    without = draw_sheets([image], [sample], cell_size=128, alpha=1.0, legend=False)
    for column, spec in enumerate(get_tasks(TASKS)):
        for row in range(2):
            cell = _crop(sheet, layout.cell(0, row, column))
            assert cell.shape == (*CELL, 3)
            field = (spec.gt_field, spec.pred_field)[row]
            np.testing.assert_array_equal(cell, colourise(sample.get(field).data.numpy(), spec))
        errors = error_map(
            sample.get(spec.pred_field).data.numpy(), sample.get(spec.gt_field).data.numpy(), spec
        )
        expected = colourise_error(errors, spec)
        np.testing.assert_array_equal(_crop(sheet, layout.cell(0, 2, column)), expected)
    assert without.shape[:2] == Layout([CELL], rows=2, columns=4, legend=[]).size


def test_errors_need_truth_and_prediction_and_may_stand_alone(image, sample):
    alone = draw_sheets(
        [image], [sample], draw_gt=False, draw_pred=False, draw_error=True, cell_size=128, alpha=1.0
    )
    layout = Layout([CELL], rows=1, columns=4, legend=[3, 3, 6, 6])  # right, wrong | five marks; and no label
    assert alone.shape[:2] == layout.size
    for index, colour in enumerate(((228, 228, 228), (200, 30, 30))):
        left, top = layout.legend_entry(0, index)
        assert (alone[top : top + 12, left : left + 12] == colour).all()
    delattr(sample, 'gt_saliency')
    sheet = draw_sheets([image], [sample], draw_error=True, cell_size=128, legend=False)
    left, top, right, bottom = Layout([CELL], rows=3, columns=4, legend=[]).cell(0, 2, 2)
    blank = (sheet[top:bottom, left:right] == 240).all(axis=2)
    assert 0.8 < blank.mean() < 1  # a blank with the words 'no error'
    for field in ('gt_sem_seg', 'gt_human_parts', 'gt_normals'):
        delattr(sample, field)
    np.testing.assert_array_equal(
        draw_sheets([image], [sample], draw_error=True, cell_size=128),
        draw_sheets([image], [sample], cell_size=128),
    )


def test_a_predicted_depth_of_0_is_no_missing_label(image):
    """In the truth 0 means that nothing was measured; a prediction of 0 is as near as can be."""
    sample = SegDataSample()
    sample.gt_depth_map = PixelData(data=np.zeros((1, *CELL), np.float32))
    sample.pred_depth_map = PixelData(data=np.zeros((1, *CELL), np.float32))
    sheet = draw_sheets([image], [sample], cell_size=128)
    layout = Layout([CELL], rows=2, columns=1, legend=[7])
    truth, pred = (_crop(sheet, layout.cell(0, row, 0)) for row in range(2))
    np.testing.assert_array_equal(truth, hatch(*CELL))
    assert (pred == (68, 1, 84)).all()  # viridis at 0
    assert sheet.shape[:2] == layout.size  # six marks, and 'no label' for the truth
    only = draw_sheets([image], [sample], draw_gt=False, cell_size=128)
    assert only.shape[:2] == Layout([CELL], rows=1, columns=1, legend=[6]).size


def test_tasks_are_found_in_the_samples(sample):
    assert [spec.name for spec in tasks_in([None, sample])] == list(TASKS)
    delattr(sample, 'gt_normals')
    assert [spec.name for spec in tasks_in([sample])] == list(TASKS)
    delattr(sample, 'pred_normals')
    assert [spec.name for spec in tasks_in([sample])] == list(TASKS[:3])


def test_fit_keeps_the_shape():
    assert fit(375, 500, 256) == (192, 256)
    assert fit(64, 32, 256) == (256, 128)


def test_refuses_bad_input(image, sample):
    with pytest.raises(ValueError, match='2 images, 1 samples'):
        draw_sheets([image, image], [sample])
    with pytest.raises(ValueError, match=r'image 0 must be uint8 \(H, W, 3\), got float64'):
        draw_sheets([image / 255], [sample])
    with pytest.raises(ValueError, match='at least 96 pixels'):
        draw_sheets([image], [sample], cell_size=64)


def test_captions_stay_within_their_room(image, sample):
    """A long class name is cut before the next column of the legend, on the narrowest of sheets."""
    spec = TaskSpec(
        name='a_task_with_quite_a_long_name_for_so_narrow_a_column',
        kind='semantic',
        channels=2,
        gt_key='gt_long',
        gt_field='gt_sem_seg',
        pred_field='pred_long',
        loss=dict(type='CrossEntropyLoss'),
        metric='mIoU',
        classes=('background', 'a class whose name is far too long for the legend'),
        palette=((0, 0, 0), (200, 0, 0)),
    )
    sample.gt_sem_seg.data.clamp_(max=1)
    sheet = draw_sheets([image], [sample], [spec], cell_size=96)
    layout = Layout([fit(*image.shape[:2], 96)], rows=1, columns=1, legend=[2])
    assert sheet.shape[:2] == layout.size
    right = layout.column_left(0) + layout.column_width
    assert (sheet[:, right + 1 :] == 255).all()  # beyond the frame of the last cell there is only paper
