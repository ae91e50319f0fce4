"""MATLAB files (version 5 to 7) whose headers claim no more than the file holds."""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any

from scipy.io import loadmat

__all__ = ['read_mat']

MAX_DEPTH = (
    64  # of structs and cells in each other; scipy's parser, which recurses without a check, ends the process
)
MAX_BYTES = 1 << 31  # of one variable: more does not fit into a file of this version

MATRIX, COMPRESSED = 14, 15  # types of element
DATA = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18))  # types of element: numbers and texts
CELL, STRUCT, OBJECT, CHAR, SPARSE, FUNCTION, OPAQUE = 1, 2, 3, 4, 5, 16, 17  # classes of array
NUMBERS = range(6, 16)
COMPLEX = 1 << 11  # flag of an array


def read_mat(path: str) -> dict[str, Any]:
    """The variables of a MATLAB file, as `scipy.io.loadmat` gives them.

    scipy's parser looks an element's type up in a table without a look at the table's end, allocates what the header of a
    cell, struct or text claims before it looks for the elements, and recurses as deep as they are nested: one flipped
    bit can end the process, or take gigabytes of memory. So compressed variables are inflated (which checks their
    sums), all headers are held against the format and the bytes that follow, and only then is the file parsed.

    Raises:
        Exception: whatever scipy or zlib say about a file that is none, and ValueError for a header that claims more
            than the file holds.

    Reference:
        MathWorks, MAT-File Format, chapter 1 (level 5).
    """
    with open(path, 'rb') as file:
        content = file.read()
    # As scipy tells the versions apart: one of the first four bytes of version 4 is zero; it knows numbers and texts
    # alone, whose sizes scipy holds against the bytes that there are.
    if len(content) >= 128 and 0 not in content[:4]:
        content = _checked(content)
    return loadmat(io.BytesIO(content))


def _checked(content: bytes) -> bytes:
    """A file of version 5 with its variables inflated; ValueError for a header that claims too much."""
    order = '>' if content[126:128] == b'MI' else '<'
    parts, position = [content[:128]], 128
    while position < len(content):
        kind, size = _tag(content, position, order)
        end = position + 8 + size
        if end > len(content):
            raise ValueError(f'a variable of {size} bytes, of which {len(content) - position - 8} are there')
        part = content[position:end]
        if kind == COMPRESSED:
            part = _inflated(part[8:])
        _Headers(part, order).matrix(0, 0)
        parts.append(part)
        position = end
    return b''.join(parts)


def _inflated(compressed: bytes) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(compressed, MAX_BYTES)
    if not stream.eof:
        raise ValueError(f'a compressed variable that is cut off, or of more than {MAX_BYTES} bytes')
    return data


def _tag(data: bytes, position: int, order: str) -> tuple[int, int]:
    """(type, number of bytes) of the element at a position."""
    if position + 8 > len(data):
        raise ValueError('an element that is cut off')
    return struct.unpack_from(f'{order}II', data, position)


class _Headers:
    """Walks through a variable as scipy's parser does, from header to header.

    Args:
        data: The variable, from its tag on.
        order: '<' or '>', the order of bytes.
    """

    def __init__(self, data: bytes, order: str) -> None:
        self.data = data
        self.order = order

    def element(self, position: int) -> tuple[int, int, int]:
        """(start, size, position of the next element) of the data at a position."""
        kind, size = _tag(self.data, position, self.order)
        if kind >> 16:  # a small element: its size and its data lie in the tag
            start, size, after = position + 4, kind >> 16, position + 8
        else:
            start = position + 8
            after = start + size + -size % 8
        if kind & 0xFFFF not in DATA:
            raise ValueError(f'an element of type {kind & 0xFFFF}')
        if start + size > len(self.data):
            raise ValueError(f'an element of {size} bytes, of which {len(self.data) - start} are there')
        return start, size, after

    def integers(self, position: int) -> tuple[tuple[int, ...], int]:
        """The 32-bit integers of an element, and the position of the next."""
        start, size, after = self.element(position)
        return struct.unpack_from(f'{self.order}{size // 4}i', self.data, start), after

    def children(self, position: int, number: int, depth: int) -> int:
        """Walk through so many arrays; returns the position behind them."""
        left = max(len(self.data) - position, 0)
        if 8 * number > left:
            raise ValueError(f'{number} elements in {left} bytes')
        for _ in range(number):
            position = self.matrix(position, depth + 1)
        return position

    def matrix(self, position: int, depth: int) -> int:
        """Walk through the array at a position; returns the position behind it."""
        if depth > MAX_DEPTH:
            raise ValueError(f'arrays that are nested more than {MAX_DEPTH} deep')
        kind, size = _tag(self.data, position, self.order)
        position += 8
        if kind != MATRIX or size == 0:
            if kind != MATRIX:
                raise ValueError(f'an element of type {kind} in the place of an array')
            return position
        flags, position = self.integers(position)
        array_class, is_complex = flags[0] & 0xFF, bool(flags[0] & COMPLEX)
        if array_class == OPAQUE:
            for _ in range(3):
                _, _, position = self.element(position)
            return self.children(position, 1, depth)
        shape, position = self.integers(position)
        number = math.prod(shape)
        if any(side < 0 for side in shape):
            raise ValueError(f'an array of size {shape}')
        _, _, position = self.element(position)  # the name
        if array_class == CELL:
            return self.children(position, number, depth)
        if array_class == FUNCTION:
            return self.children(position, 1, depth)
        if array_class not in (STRUCT, OBJECT, CHAR, SPARSE, *NUMBERS):
            raise ValueError(f'an array of class {array_class}')
        if array_class in (STRUCT, OBJECT):
            if array_class == OBJECT:
                _, _, position = self.element(position)  # the name of its class
            (length, *_), position = self.integers(position)
            _, names, position = self.element(position)
            if length <= 0 or number > len(self.data):
                raise ValueError(f'a struct of size {shape} with field names of length {length}')
            return self.children(position, number * (names // length), depth)
        for _ in range((3 if array_class == SPARSE else 1) + is_complex):
            _, size, position = self.element(position)
            if array_class == CHAR and number > size:
                raise ValueError(f'{number} characters in {size} bytes')
        return position
