"""Sheets that show the input, the truth and the prediction of several tasks side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from mmengine.structures import BaseDataElement
from PIL import Image, ImageDraw, ImageFont

from ..tasks import TaskSpec, get_task, known_tasks
from .colours import colourise, demand_shape, hatch, ignored_pixels, legend_entries, legend_picture
from .errors import colourise_error, error_legend, error_map
from .layout import LABEL, LEGEND_PICTURE, MARGIN, TITLE, Box, Layout, fit

__all__ = ['draw_sheets', 'tasks_in']

PAPER, INK, FRAME, BLANK = (255, 255, 255), (32, 32, 32), (150, 150, 150), (240, 240, 240)
SWATCH = 12
MIN_CELL = 96  # below that, captions do not fit over their columns

Maps = dict[str, np.ndarray]  # task -> array (channels, H, W), or errors (H, W)


@dataclass(frozen=True)
class _Row:
    """A row of every sample: what it is called, the maps of each sample, and how one is drawn over its image."""

    name: str
    maps: list[Maps]
    draw: Callable[[np.ndarray, TaskSpec, np.ndarray, float], np.ndarray]


def draw_sheets(
    images: Sequence[np.ndarray],
    samples: Sequence[BaseDataElement | None],
    specs: Sequence[TaskSpec] | None = None,
    *,
    draw_gt: bool = True,
    draw_pred: bool = True,
    draw_error: bool = False,
    cell_size: int = 256,
    alpha: float = 0.75,
    legend: bool = True,
) -> np.ndarray:
    """One picture of several samples: the input, and a column per task with its truth above its prediction and, on demand,
    the errors below (see `error_map`).

    A row for which no sample has a map is left out; a single missing map becomes a blank cell that says so. Maps are
    resized to the cell (nearest neighbour), whatever their size.

    Args:
        images: uint8 RGB (H, W, 3), one per sample.
        samples: `SegDataSample`s with the tasks' truth and prediction, as far as there are any.
        specs: The tasks to draw. Defaults to None: those for which a sample has a map.
        draw_gt: Draw the truth. Defaults to True.
        draw_pred: Draw the prediction. Defaults to True.
        draw_error: Draw where, and how far, the prediction is off the truth. Defaults to False.
        cell_size: Longer side of a cell in pixels, at least 96. Defaults to 256.
        alpha: Opacity of semantic maps over the input, in [0, 1]. Defaults to 0.75.
        legend: Explain the colours under each column; of semantic tasks the classes present, of normals also by a ball in
            their colours. Defaults to True.

    Returns:
        uint8 RGB (height, width, 3).

    Raises:
        ValueError: if there is no sample, the numbers of images and samples differ, an image is not uint8
            (H, W, 3), a map has the wrong shape, or `cell_size` is too small.
    """
    _check(images, samples, cell_size)
    specs = tasks_in(samples) if specs is None else tuple(specs)
    cells = [fit(*image.shape[:2], cell_size) for image in images]
    inputs = [_resize_image(image, cell) for image, cell in zip(images, cells, strict=True)]
    truths, preds = (
        [_maps(s, specs, field, c) for s, c in zip(samples, cells, strict=True)]
        for field in ('gt_field', 'pred_field')
    )
    errors = [_errors(p, t, specs) for p, t in zip(preds, truths, strict=True)] if draw_error else []
    rows = [
        _Row('truth', truths if draw_gt else [], colourise),
        _Row('prediction', preds if draw_pred else [], partial(colourise, is_truth=False)),
        _Row('error', errors, colourise_error),
    ]
    rows = [row for row in rows if any(row.maps)]
    specs = specs if rows else ()
    entries = [_legend(spec, rows) for spec in specs] if legend else []
    balls = [
        None if all(row.name == 'error' for row in rows) else legend_picture(LEGEND_PICTURE - 4, spec)
        for spec in specs
    ]
    layout = Layout(
        cells,
        max(1, len(rows)),
        len(specs),
        [len(lines) for lines in entries],
        [ball is not None for ball in balls],
    )

    sheet = Image.new('RGB', layout.size[::-1], PAPER)
    _draw_title(sheet, layout, MARGIN, 'input')
    for column, spec in enumerate(specs):
        _draw_title(sheet, layout, layout.column_left(column), spec.name.replace('_', ' '))
    for index, image in enumerate(inputs):
        _draw_cell(sheet, image, layout.input(index))
        for number, row in enumerate(rows):
            _draw_label(sheet, layout.cell(index, number, 0)[1::2], layout.column_left(0), row.name)
            for column, spec in enumerate(specs):
                array = row.maps[index].get(spec.name)
                picture = None if array is None else row.draw(array, spec, image, alpha)
                _draw_cell(sheet, picture, layout.cell(index, number, column), missing=f'no {row.name}')
    for column, lines in enumerate(entries):
        _draw_legend(sheet, layout, column, lines)
        if lines and balls[column] is not None:
            sheet.paste(Image.fromarray(balls[column]), layout.legend_picture(column)[:2])
    return np.array(sheet)


def tasks_in(samples: Sequence[BaseDataElement | None]) -> tuple[TaskSpec, ...]:
    """The known tasks for which a sample has truth or prediction."""
    fields = {field for sample in samples if sample is not None for field in sample.keys()}  # noqa: SIM118
    return tuple(s for s in map(get_task, known_tasks()) if {s.gt_field, s.pred_field} & fields)


def _check(images: Sequence[np.ndarray], samples: Sequence, cell_size: int) -> None:
    if not len(images) or len(images) != len(samples):
        raise ValueError(
            f'a sheet needs one sample per image, got {len(images)} images, {len(samples)} samples'
        )
    for index, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f'image {index} must be uint8 (H, W, 3), got {image.dtype} {image.shape}')
    if cell_size < MIN_CELL:
        raise ValueError(f'cell_size must be at least {MIN_CELL} pixels, for the captions, got {cell_size}')


# ---------------------------------------------------------------------------------------------- from samples to maps
def _maps(
    sample: BaseDataElement | None, specs: Sequence[TaskSpec], field: str, size: tuple[int, int]
) -> Maps:
    """The maps of one sample under `gt_field` or `pred_field`, at a cell's size (height, width)."""
    maps = {}
    for spec in specs:
        name = getattr(spec, field)
        if sample is not None and name in sample:
            array = torch.as_tensor(sample.get(name).data).cpu().numpy()
            demand_shape(array, spec)
            maps[spec.name] = _resize_map(array, size)
    return maps


def _errors(preds: Maps, truths: Maps, specs: Sequence[TaskSpec]) -> Maps:
    """The errors of one sample, for the tasks of which it has both prediction and truth."""
    both = [spec for spec in specs if spec.name in preds and spec.name in truths]
    return {spec.name: error_map(preds[spec.name], truths[spec.name], spec) for spec in both}


def _resize_map(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour over the last two axes: the pixel under the centre of the new one."""
    rows, columns = (
        (np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(size, array.shape[-2:], strict=True)
    )
    return array[..., rows[:, None], columns]


def _resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))


def _legend(spec: TaskSpec, rows: Sequence[_Row]) -> list[tuple[Image.Image, str]]:
    """Swatch and text per entry of one task's legend."""
    drawn = {row.name: [maps[spec.name] for maps in row.maps if spec.name in maps] for row in rows}
    errors, truths = drawn.pop('error', []), drawn.get('truth', [])
    colours = legend_entries([a for arrays in drawn.values() for a in arrays], spec) if drawn else []
    colours += error_legend(spec) if errors else []
    entries = [(Image.new('RGB', (SWATCH, SWATCH), colour), text) for colour, text in colours]
    unknown = [ignored_pixels(array, spec) for array in truths] + [np.isnan(array) for array in errors]
    if any(pixels.any() for pixels in unknown):
        entries.append((Image.fromarray(hatch(SWATCH, SWATCH)), 'no label'))
    return entries


# ------------------------------------------------------------------------------------------------------------ drawing
@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib (a requirement of mmengine) carries along."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')), size)


def _write(
    sheet: Image.Image,
    place: tuple[float, float],
    text: str,
    *,
    room: float,
    size: int = 12,
    anchor: str = 'mm',
    colour: tuple[int, int, int] = INK,
) -> None:
    """Write a line of text; one that is longer than the room is set smaller, and below size 9 cut short."""
    while size > 9 and _font(size).getlength(text) > room:
        size -= 1
    if _font(size).getlength(text) > room:
        while text and _font(size).getlength(text + '…') > room:
            text = text[:-1]
        text += '…'
    ImageDraw.Draw(sheet).text(place, text, fill=colour, font=_font(size), anchor=anchor)


def _draw_title(sheet: Image.Image, layout: Layout, left: int, title: str) -> None:
    width = layout.column_width
    _write(sheet, (left + width / 2, MARGIN + TITLE / 2 - 2), title, size=15, room=width)


def _draw_label(sheet: Image.Image, rows: tuple[int, int], right: int, label: str) -> None:
    """The name of a row (its upper and lower edge), turned a quarter, left of the first task."""
    top, bottom = rows
    strip = Image.new('RGB', (bottom - top, LABEL - 4), PAPER)
    _write(strip, (strip.width / 2, strip.height / 2), label, size=13, room=strip.width)
    sheet.paste(strip.transpose(Image.Transpose.ROTATE_90), (right - LABEL + 2, top))


def _draw_cell(sheet: Image.Image, picture: np.ndarray | None, box: Box, missing: str = '') -> None:
    """A framed picture, or a blank that says what is missing."""
    left, top, right, bottom = box
    ImageDraw.Draw(sheet).rectangle((left - 1, top - 1, right, bottom), fill=BLANK, outline=FRAME)
    if picture is not None:
        sheet.paste(Image.fromarray(picture), (left, top))
    else:
        centre = ((left + right) / 2, (top + bottom) / 2)
        _write(sheet, centre, missing, size=13, room=right - left, colour=FRAME)


def _draw_legend(
    sheet: Image.Image, layout: Layout, column: int, entries: list[tuple[Image.Image, str]]
) -> None:
    """Swatches with their meaning under a column."""
    draw = ImageDraw.Draw(sheet)
    for index, (swatch, text) in enumerate(entries):
        left, top = layout.legend_entry(column, index)
        draw.rectangle((left - 1, top - 1, left + SWATCH, top + SWATCH), outline=FRAME)
        sheet.paste(swatch, (left, top))
        place = (left + SWATCH + 6, top + SWATCH / 2)
        _write(sheet, place, text, anchor='lm', room=layout.entry_width - SWATCH - 12)
