"""MATLAB files whose headers lie: scipy's parser ends the process, or allocates what they claim."""

from __future__ import annotations

import io
import struct
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from mmseg_polyhistor.datasets.labels import LabelError
from mmseg_polyhistor.datasets.mat_files import MAX_DEPTH, read_mat
from mmseg_polyhistor.datasets.pascal_labels import load_mat

HEAD = b'MATLAB 5.0 MAT-file'.ljust(124) + struct.pack('<H', 0x100) + b'IM'
CELL, STRUCT, OBJECT, CHAR, SPARSE, UINT8 = 1, 2, 3, 4, 5, 9


def element(kind: int, data: bytes) -> bytes:
    return struct.pack('<II', kind, len(data)) + data + b'\0' * (-len(data) % 8)


def array(kind: int, shape: tuple[int, ...], body: bytes, name: bytes = b'anno', flags: int = 0) -> bytes:
    """A variable of the format's level 5: flags, dimensions, name, and what belongs to its class."""
    return element(
        14,
        element(6, struct.pack('<II', kind | flags, 0))
        + element(5, struct.pack(f'<{len(shape)}i', *shape))
        + element(1, name)
        + body,
    )


FIELDS = element(5, struct.pack('<I', 8)) + element(1, b'field'.ljust(8, b'\0'))
BODIES = {
    CELL: b'',
    STRUCT: FIELDS,
    OBJECT: element(1, b'some_class') + FIELDS,
    CHAR: element(2, b''),
    UINT8: element(2, b''),
    SPARSE: element(5, b'') * 2 + element(9, b''),
}


def refusal(path: Path, content: bytes, key: str = 'anno') -> str:
    path.write_bytes(content)
    with pytest.raises(LabelError, match=r'liar\.mat: found a file that cannot be read \((\w+): (.*)\)') as e:
        load_mat(str(path), key)
    return str(e.value)


def test_the_helpers_of_this_test_write_what_scipy_reads() -> None:
    inner = array(UINT8, (1, 2), element(2, b'\1\2'), b'')
    content = HEAD + array(CELL, (1, 2), inner * 2) + array(STRUCT, (1, 1), FIELDS + inner, b'b')
    for read in (lambda c: loadmat(io.BytesIO(c)), read_bytes):
        variables = read(content)
        assert [cell.tolist() for cell in variables['anno'][0]] == [[[1, 2]]] * 2
        assert variables['b'][0, 0]['field'].tolist() == [[1, 2]]


def read_bytes(content: bytes) -> dict:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_mat(file.name)


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('kind', list(BODIES))
@pytest.mark.parametrize('shape', [(10**5, 10**4), (10**9, 10**9), (2**31 - 1, 1), (-1, -(10**9))])
def test_a_header_that_claims_too_much_allocates_nothing(
    tmp_path: Path, kind: int, shape: tuple[int, int], compressed: bool
) -> None:
    variable = array(kind, shape, BODIES[kind])
    if compressed:
        data = zlib.compress(variable)
        variable = struct.pack('<II', 15, len(data)) + data
    tracemalloc.start()
    refusal(tmp_path / 'liar.mat', HEAD + variable)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_many_field_names_times_many_elements_are_too_much_as_well(tmp_path: Path) -> None:
    """Either number fits into the file; what scipy allocates is their product: 3 GB."""
    names = element(5, struct.pack('<I', 1)) + element(1, b'x' * 20_000)
    inner = element(14, b'')
    content = HEAD + array(STRUCT, (1, 20_000), names + inner * 20_000)
    assert f'{20_000**2} elements in {8 * 20_000} bytes' in refusal(tmp_path / 'liar.mat', content)
    fieldless = array(STRUCT, (2**31 - 1, 1), element(5, struct.pack('<I', 8)) + element(1, b''))
    assert 'a struct of size' in refusal(tmp_path / 'liar.mat', HEAD + fieldless)


def test_what_is_nested_too_deep_does_not_end_the_process(tmp_path: Path) -> None:
    """scipy overflows the stack at some ten thousand levels."""

    def nested(depth: int) -> bytes:
        sizes = [len(array(UINT8, (1, 1), element(2, b'\1'), b''))]
        head = len(array(CELL, (1, 1), b'', b'')) - 8
        for _ in range(depth):
            sizes.append(sizes[-1] + head)
        cells = b''.join(
            struct.pack('<II', 14, size - 8) + array(CELL, (1, 1), b'', b'')[8:] for size in sizes[:0:-1]
        )
        variable = cells + array(UINT8, (1, 1), element(2, b'\1'), b'')
        return HEAD + array(CELL, (1, 1), variable)

    assert f'nested more than {MAX_DEPTH} deep' in refusal(tmp_path / 'liar.mat', nested(100_000))
    (tmp_path / 'sound.mat').write_bytes(nested(MAX_DEPTH - 2))
    assert load_mat(str(tmp_path / 'sound.mat'), 'anno').shape == (1, 1)


@pytest.mark.parametrize('kind', [UINT8, CHAR, SPARSE])
@pytest.mark.parametrize('number', [0, 8, 10, 11, 14, 15, 19, 20, 100, 65535])
def test_a_type_that_does_not_exist_does_not_end_the_process(tmp_path: Path, kind: int, number: int) -> None:
    """scipy takes the type as an index into a table without a look at its length: found by flipping bits."""
    variable = array(kind, (6, 8), element(number, b'\1' * 48) * (3 if kind == SPARSE else 1))
    assert f'an element of type {number}' in refusal(tmp_path / 'liar.mat', HEAD + variable)


@pytest.mark.parametrize('kind', [0, 18, 255])
def test_a_class_that_does_not_exist(tmp_path: Path, kind: int) -> None:
    assert f'an array of class {kind}' in refusal(tmp_path / 'liar.mat', HEAD + array(kind, (1, 1), b''))


def test_a_damaged_compressed_variable_is_told_by_its_sum(tmp_path: Path) -> None:
    """Stored blocks carry their bytes as they are: without the sum, nobody would notice the flipped bit."""
    data = bytearray(zlib.compress(array(UINT8, (6, 8), element(2, b'\5' * 48), b'anno'), 0))
    place = data.index(b'\5' * 48)
    data[place] ^= 1
    message = refusal(tmp_path / 'liar.mat', HEAD + struct.pack('<II', 15, len(data)) + bytes(data))
    assert 'incorrect data check' in message


def test_a_sparse_matrix_is_no_label(tmp_path: Path) -> None:
    """Its arithmetic is another one: the readers' checks would not see what is in it."""
    savemat(tmp_path / 'a.mat', {'LabelMap': csc_array(np.eye(3))})
    with pytest.raises(LabelError, match=r"a\.mat: found the variable 'LabelMap' as a cs._"):
        load_mat(str(tmp_path / 'a.mat'), 'LabelMap')


class Plain:
    """What `savemat` writes as a struct."""

    def __init__(self) -> None:
        self.text, self.number = 'häuser', 1 + 2j


@pytest.mark.parametrize('fmt', ['4', '5'])
@pytest.mark.parametrize('compressed', [False, True])
def test_sound_files_are_read_as_scipy_reads_them(tmp_path: Path, fmt: str, compressed: bool) -> None:
    variables: dict = {
        'numbers': np.arange(12.0).reshape(3, 4),
        'complex': np.array([[1 + 2j]]),
        'text': 'some text',
        'empty': np.zeros((0, 3)),
    }
    if fmt == '5':
        cells = np.empty((2, 2), object)
        cells[:] = [[1, 'two'], [np.zeros((0, 0)), {'a': {'b': [1, 2, 3]}}]]
        variables |= dict(
            cells=cells,
            plain=Plain(),
            nothing='',
            cube=np.zeros((2, 3, 4), np.uint8),
            flag=np.array([True]),
            large=2**40,
        )
    path = tmp_path / 'a.mat'
    savemat(path, variables, format=fmt, **({'do_compression': True} if compressed and fmt == '5' else {}))
    expected, found = loadmat(path), read_mat(str(path))
    assert found.keys() == expected.keys()
    for key in variables:
        assert repr(found[key]) == repr(expected[key]), key


def test_the_other_order_of_bytes() -> None:
    def big(kind: int, data: bytes) -> bytes:
        return struct.pack('>II', kind, len(data)) + data + b'\0' * (-len(data) % 8)

    def variable(number: int) -> bytes:
        parts = [big(6, struct.pack('>II', 6, 0)), big(5, struct.pack('>ii', 1, 2)), big(1, b'anno')]
        return big(14, b''.join(parts) + big(number, struct.pack('>dd', 3, 4)))

    head = HEAD[:124] + struct.pack('>H', 0x100) + b'MI'
    assert read_bytes(head + variable(9))['anno'].tolist() == [[3, 4]]
    with pytest.raises(ValueError, match='an element of type 20'):
        read_bytes(head + variable(20))
