"""Where everything stands on a sheet: pure arithmetic, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ['Box', 'Layout', 'fit']

Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom lie outside, as in numpy

MARGIN = 12  # around the sheet
GAP = 6  # between neighbouring cells
SAMPLE_GAP = 18  # between samples
TITLE = 26  # height of the columns' titles
LABEL = 26  # width of the rows' labels, between the input and the tasks
LEGEND_GAP = 10  # above the legend
LEGEND_LINE = 19  # height of a line of the legend
LEGEND_ENTRY = 122  # least width of an entry of the legend
LEGEND_PICTURE = 76  # height and width of a picture under a legend's entries


def fit(height: int, width: int, longer: int) -> tuple[int, int]:
    """(height, width) with the same shape whose longer side is `longer`."""
    scale = longer / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


@dataclass(frozen=True)
class Layout:
    """A sheet: the input on the left, a column per task, a block of rows per sample, a legend under each column.

    Args:
        cells: (height, width) of the cells of each sample.
        rows: Number of rows of each sample, at least 1.
        columns: Number of tasks.
        legend: Number of entries of each task's legend.
        pictures: Whether a picture stands under the entries of each task's legend. Defaults to (): under none.
    """

    cells: Sequence[tuple[int, int]]
    rows: int
    columns: int
    legend: Sequence[int]
    pictures: Sequence[bool] = ()

    @property
    def column_width(self) -> int:
        """Width of every column: that of the widest cell."""
        return max(width for _, width in self.cells)

    @property
    def entries_per_line(self) -> int:
        """How many entries of a legend stand side by side."""
        return max(1, self.column_width // LEGEND_ENTRY)

    @property
    def entry_width(self) -> int:
        """Width of an entry of a legend."""
        return self.column_width // self.entries_per_line

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the sheet."""
        bottom = max((self._legend_bottom(column) for column in range(len(self.legend))), default=0)
        height = max(bottom, self._legend_top() - LEGEND_GAP)
        right = self.column_left(self.columns) - GAP if self.columns else MARGIN + self.column_width
        return height + MARGIN, right + MARGIN

    def column_left(self, column: int) -> int:
        """The left edge of a task's column."""
        return MARGIN + self.column_width + LABEL + column * (self.column_width + GAP)

    def block_top(self, sample: int) -> int:
        """The upper edge of a sample's rows."""
        above = sum(self._block_height(s) + SAMPLE_GAP for s in range(sample))
        return MARGIN + TITLE + above

    def input(self, sample: int) -> Box:
        """Where a sample's input stands: half-way up its rows."""
        height, _ = self.cells[sample]
        return self._box(sample, MARGIN, self.block_top(sample) + (self._block_height(sample) - height) // 2)

    def cell(self, sample: int, row: int, column: int) -> Box:
        """Where a map stands."""
        top = self.block_top(sample) + row * (self.cells[sample][0] + GAP)
        return self._box(sample, self.column_left(column), top)

    def legend_entry(self, column: int, index: int) -> tuple[int, int]:
        """(left, top) of an entry of a task's legend, which is read from top to bottom, then to the right."""
        place, line = divmod(index, self._legend_lines(self.legend[column]))
        return self.column_left(column) + place * self.entry_width, self._legend_top() + line * LEGEND_LINE

    def legend_picture(self, column: int) -> Box:
        """Where the picture of a task's legend stands: under its entries."""
        left, bottom = self.column_left(column), self._legend_bottom(column)
        return left, bottom - LEGEND_PICTURE, left + LEGEND_PICTURE, bottom

    def _box(self, sample: int, left: int, top: int) -> Box:
        """A cell in a column; a narrow one stands in the middle."""
        height, width = self.cells[sample]
        left += (self.column_width - width) // 2
        return left, top, left + width, top + height

    def _block_height(self, sample: int) -> int:
        return self.rows * (self.cells[sample][0] + GAP) - GAP

    def _legend_lines(self, entries: int) -> int:
        return -(-entries // self.entries_per_line)

    def _legend_bottom(self, column: int) -> int:
        """The lower edge of a task's legend; 0 where it has none."""
        if not self.legend[column]:
            return 0
        picture = LEGEND_PICTURE if self.pictures and self.pictures[column] else 0
        return self._legend_top() + self._legend_lines(self.legend[column]) * LEGEND_LINE + picture

    def _legend_top(self) -> int:
        return self.block_top(len(self.cells)) - SAMPLE_GAP + LEGEND_GAP
