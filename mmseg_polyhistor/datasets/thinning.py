"""Thinning a mask to lines that are one pixel wide."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

__all__ = ['thin']

# (row, column) of a pixel's neighbours, counter-clockwise from the right: x1 .. x8 of Guo and Hall; bit k - 1 is x_k.
NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def thin(mask: np.ndarray) -> np.ndarray:
    """The lines in the middle of a mask's regions: bool (H, W), a part of the mask.

    Border pixels are taken away in two alternating passes until nothing changes. Regions that are connected (by corners
    too) stay connected, holes stay holes, and ends of lines stay. What lies beyond the map counts as empty.

    Args:
        mask: bool (H, W).

    Reference:
        Guo and Hall, Parallel thinning with two-subiteration algorithms, CACM 1989 (algorithm A1).
    """
    left = mask.astype(np.uint8)
    kernel, passes = _tables()
    while True:
        before = left
        for removed in passes:
            code = cv2.filter2D(left, -1, kernel, borderType=cv2.BORDER_CONSTANT)
            left = cv2.bitwise_and(left, cv2.LUT(code, removed))
        if np.array_equal(left, before):
            return left.view(bool)


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The kernel that packs a pixel's neighbours into 8 bits, and what stays of the pixel, 0 or 1, in either pass."""
    kernel = np.zeros((3, 3), np.float32)
    for bit, (row, column) in enumerate(NEIGHBOURS):
        kernel[1 + row, 1 + column] = 1 << bit
    passes = ([], [])
    for code in range(256):
        x = [None, *(bool(code >> bit & 1) for bit in range(8))]
        x.append(x[1])  # x9 = x1
        pairs = range(2, 9, 2)
        crossings = sum(not x[k - 1] and (x[k] or x[k + 1]) for k in pairs)  # 1: its removal parts nothing
        thickness = min(sum(x[k - 1] or x[k] for k in pairs), sum(x[k] or x[k + 1] for k in pairs))
        removable = crossings == 1 and 2 <= thickness <= 3
        passes[0].append(not (removable and not ((x[2] or x[3] or not x[8]) and x[1])))
        passes[1].append(not (removable and not ((x[6] or x[7] or not x[4]) and x[5])))
    return kernel, tuple(np.array(stays, np.uint8) for stays in passes)
