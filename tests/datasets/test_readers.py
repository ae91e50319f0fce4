"""Readers of index, grey, vector and depth files."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_polyhistor.datasets import readers
from mmseg_polyhistor.datasets.labels import LabelError
from mmseg_polyhistor.datasets.readers import _READERS, get_reader, known_readers, read_label, register_reader
from mmseg_polyhistor.tasks import get_task

SEMSEG, SALIENCY, NORMALS, DEPTH, EDGE = (
    get_task(t) for t in ('semseg', 'saliency', 'normals', 'depth', 'edge')
)


def read(
    path: Path, spec: object, reader: str, shape: tuple[int, int] = (6, 8), **options: object
) -> np.ndarray:
    return read_label(str(path), spec, shape, dict(type=reader, **options))


@pytest.mark.parametrize('mode', ['P', 'L', 'I;16', 'I'])
def test_indices_are_read_whatever_the_palette(tmp_path: Path, mode: str) -> None:
    ids = np.random.default_rng(0).choice([0, 1, 20, 255], (6, 8))
    dtype = {'P': np.uint8, 'L': np.uint8, 'I;16': np.uint16, 'I': np.int32}[mode]
    image = Image.fromarray(ids.astype(dtype))
    if mode == 'P':
        image.putpalette(list(np.random.default_rng(1).integers(0, 256, 768)))
    assert image.mode == mode
    path = tmp_path / 'a.tif' if mode == 'I' else tmp_path / 'a.png'
    image.save(path)
    label = read(path, SEMSEG, 'index_image')
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, ids)


def test_a_colour_image_is_no_index_image(tmp_path: Path) -> None:
    path = tmp_path / 'rgb.png'
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(path)
    with pytest.raises(
        LabelError, match=r'rgb\.png: found an image of mode RGB, 6 x 8 .* expected a palette image'
    ):
        read(path, SEMSEG, 'index_image')


def test_a_16_bit_id_that_8_bits_would_cut_to_a_class_is_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / 'wide.png'
    Image.fromarray(np.full((6, 8), 256 + 15, np.uint16)).save(path)
    with pytest.raises(LabelError, match=r'wide\.png: found class id 271 in 48 pixels'):
        read(path, SEMSEG, 'index_image')


def test_a_negative_id_is_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / 'signed.tif'
    Image.fromarray(np.full((6, 8), 1 - 256, np.int32)).save(path)
    with pytest.raises(LabelError, match=r'signed\.tif: found class id -255 in 48 pixels'):
        read(path, SEMSEG, 'index_image')


def test_grey_is_salient_above_one_half(tmp_path: Path) -> None:
    path = tmp_path / 's.png'
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(path)
    label = read(path, SALIENCY, 'grey_image', (16, 16))
    np.testing.assert_array_equal(label, [[int(value / 255 > 0.5) for value in row] for row in grey])
    high = read(path, SALIENCY, 'grey_image', (16, 16), threshold=0.9)
    np.testing.assert_array_equal(high, [[int(value / 255 > 0.9) for value in row] for row in grey])


def test_masks_of_zeros_and_ones_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as grey they are empty, which no later step could tell from images without an object."""
    told: list[str] = []
    monkeypatch.setattr(readers, 'print_log', lambda message, **options: told.append(message))
    monkeypatch.setattr(readers, '_TOLD', set())
    mask = np.eye(6, 8, dtype=np.uint8)
    for name, values in (('full.png', 255 * mask), ('none.png', 0 * mask), ('a.png', mask), ('b.png', mask)):
        Image.fromarray(values).save(tmp_path / name)
        read(tmp_path / name, SALIENCY, 'grey_image')
    assert len(told) == 1 and 'a.png holds the values 0 and 1 alone' in told[0]
    assert read(tmp_path / 'a.png', SALIENCY, 'grey_image', threshold=0).sum() == 6 and len(told) == 1


@pytest.mark.parametrize('threshold', [-0.1, 1.0, 128])
def test_a_threshold_in_grey_levels_is_refused(tmp_path: Path, threshold: float) -> None:
    """It would make every pixel of every image background."""
    path = tmp_path / 's.png'
    Image.fromarray(np.full((6, 8), 255, np.uint8)).save(path)
    with pytest.raises(
        ValueError, match=f'threshold of the reader grey_image must lie in .* got {threshold}'
    ):
        read(path, SALIENCY, 'grey_image', threshold=threshold)


def test_vectors_from_rgb(tmp_path: Path) -> None:
    path = tmp_path / 'n.png'
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    rgb[..., 2] |= 192  # no vector without direction
    rgb[0, 0] = 128  # no direction
    rgb[0, 1] = (255, 128, 128)
    Image.fromarray(rgb).save(path)
    label = read(path, NORMALS, 'vector_image')
    expected = 2 * rgb.astype(float) / 255 - 1
    expected /= np.linalg.norm(expected, axis=2, keepdims=True)
    expected[0, 0] = 255
    assert label.dtype == np.float32
    np.testing.assert_allclose(label, expected, atol=1e-6)
    assert label[0, 1, 0] > 0.9999, 'red is x'


def test_vectors_from_npy(tmp_path: Path) -> None:
    path = tmp_path / 'n.npy'
    vectors = np.random.default_rng(0).normal(size=(6, 8, 3)) * 5
    vectors[1, 1] = 0
    vectors[1, 2] = np.nan
    np.save(path, vectors)
    label = read(path, NORMALS, 'vector_npy')
    assert (label[1, 1:3] == 255).all()
    keep = np.ones((6, 8), bool)
    keep[1, 1:3] = False
    expected = vectors[keep] / np.linalg.norm(vectors[keep], axis=1, keepdims=True)
    np.testing.assert_allclose(label[keep], expected, atol=1e-6)


@pytest.mark.parametrize('dtype', ['<f4', '>f4', '<f8', '<f2'])
def test_the_memory_layout_of_an_npy_plays_no_part(tmp_path: Path, dtype: str) -> None:
    """What comes from MATLAB is stored column by column."""
    vectors = np.random.default_rng(0).normal(size=(6, 8, 3)).astype(dtype)
    labels = []
    for name, array in (('rows', vectors), ('columns', np.asfortranarray(vectors))):
        np.save(tmp_path / f'{name}.npy', array)
        assert np.load(tmp_path / f'{name}.npy').flags.c_contiguous == (name == 'rows')
        labels.append(read(tmp_path / f'{name}.npy', NORMALS, 'vector_npy'))
    np.testing.assert_array_equal(labels[0], labels[1])
    expected = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=2, keepdims=True)
    np.testing.assert_allclose(labels[1], expected, atol=1e-6)


@pytest.mark.parametrize(
    'array', [np.zeros((6, 8)), np.zeros((6, 8, 4)), np.zeros((6, 8, 3), int), np.array([{}], object)]
)
def test_an_npy_of_another_layout_is_an_error(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / 'n.npy', array)
    with pytest.raises(LabelError, match=r'n\.npy: found .* expected a \.npy file'):
        read(tmp_path / 'n.npy', NORMALS, 'vector_npy')


def test_an_npy_without_a_pixel_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / 'n.npy', np.zeros((1, 0, 3)))
    with pytest.raises(LabelError, match=r'n\.npy: found a label map of 1 x 0 pixels'):
        read(tmp_path / 'n.npy', NORMALS, 'vector_npy')


def test_an_archive_is_no_npy(tmp_path: Path) -> None:
    np.savez(tmp_path / 'n.npz', a=np.zeros(3))
    with pytest.raises(LabelError, match=r"n\.npz: found an archive of arrays \['a'\]"):
        read(tmp_path / 'n.npz', NORMALS, 'vector_npy')


@pytest.mark.parametrize(
    ('reader', 'spec'),
    [
        ('index_image', SEMSEG),
        ('grey_image', SALIENCY),
        ('vector_image', NORMALS),
        ('vector_npy', NORMALS),
        ('scalar_npy', DEPTH),
        ('pascal_parts', get_task('human_parts')),
        ('pascal_edges', EDGE),
    ],
)
@pytest.mark.parametrize('content', [None, b'', b'no such format', b'\x89PNG\r\n\x1a\n', b'\x93NUMPY\x01'])
def test_files_that_cannot_be_decoded(
    tmp_path: Path, reader: str, spec: object, content: bytes | None
) -> None:
    path = tmp_path / 'broken.bin'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabelError, match=r'broken\.bin: found .*; expected '):
        read(path, spec, reader)


@pytest.mark.parametrize('share', [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_png_is_an_error(tmp_path: Path, write_png: Callable[..., None], share: float) -> None:
    path = tmp_path / 'cut.png'
    write_png(path, np.random.default_rng(0).integers(0, 21, (64, 64)).astype(np.uint8), palette=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(LabelError, match=r'cut\.png: found a file that cannot be decoded'):
        read(path, SEMSEG, 'index_image', (64, 64))


def test_a_label_of_another_size_than_the_image_is_an_error(
    tmp_path: Path, write_png: Callable[..., None]
) -> None:
    write_png(tmp_path / 's.png', np.zeros((8, 6), np.uint8))
    with pytest.raises(LabelError, match=r's\.png: found a label map of 8 x 6 .* size, 6 x 8'):
        read(tmp_path / 's.png', SEMSEG, 'index_image')


def header_that_claims(fmt: str, height: int, width: int) -> bytes:
    """A sound file of 6 x 8 pixels with another size in its header."""
    buffer = io.BytesIO()
    if fmt == 'npy':
        np.save(buffer, np.zeros((6, 8)))
        content = bytearray(buffer.getvalue())
        claim = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({height}, {width}), }}"
        content[10:128] = f'{claim:117}\n'.encode()
        return bytes(content)
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(buffer, fmt)
    content = bytearray(buffer.getvalue())
    if fmt == 'PNG':
        content[16:24] = struct.pack('>II', width, height)
        content[29:33] = struct.pack('>I', zlib.crc32(content[12:29]))
    else:
        content[18:26] = struct.pack('<ii', width, height)
    return bytes(content)


@pytest.mark.parametrize('fmt', ['PNG', 'BMP', 'npy'])
@pytest.mark.parametrize(('height', 'width'), [(10**9, 10**9), (10**4, 10**4)])
def test_a_size_that_is_merely_claimed_is_not_allocated(
    tmp_path: Path, fmt: str, height: int, width: int
) -> None:
    """The second one lies below Pillow's own limit: 100 MB and some seconds for a file of 100 bytes."""
    (tmp_path / 'liar.bin').write_bytes(header_that_claims(fmt, height, width))
    tracemalloc.start()
    with pytest.raises(LabelError, match=r'liar\.bin: found'):
        read(tmp_path / 'liar.bin', *((DEPTH, 'scalar_npy') if fmt == 'npy' else (SEMSEG, 'index_image')))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_chunk_that_claims_gigabytes_is_not_allocated(tmp_path: Path) -> None:
    """Of a file, `read(n)` allocates n bytes before it reads: found by flipping bits."""
    content = bytearray(header_that_claims('PNG', 6, 8))
    place = content.index(b'IDAT') - 4
    content[place:place] = struct.pack('>I', 2 * 10**9) + b'tEXt'
    (tmp_path / 'liar.png').write_bytes(content)
    tracemalloc.start()
    with pytest.raises(LabelError, match=r'liar\.png: found a file that cannot be decoded'):
        read(tmp_path / 'liar.png', SEMSEG, 'index_image')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_users_reader_is_chosen_by_name_and_checked() -> None:
    try:

        @register_reader('test_constant')
        def constant(path: str, *, spec: object, shape: tuple[int, int], value: int) -> np.ndarray:
            return np.full(shape, value, np.uint8)

        assert 'test_constant' in known_readers()
        assert (read(Path('any'), SEMSEG, 'test_constant', value=7) == 7).all()
        with pytest.raises(LabelError, match='class id 77'):
            read(Path('any'), SEMSEG, 'test_constant', value=77)
        with pytest.raises(ValueError, match="'test_constant' exists already"):
            register_reader('test_constant')(lambda path, **options: None)
        register_reader('test_constant')(constant)  # a second import of the same function is no conflict
    finally:
        _READERS.pop('test_constant', None)


def test_an_unknown_reader_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown label reader 'nope'.*'index_image'"):
        get_reader('nope')


# ------------------------------------------------------------------------------------------------------ quantities
@pytest.mark.parametrize('dtype', ['<f4', '>f8', '<f2', '<u2', '<i4'])
def test_quantities_from_npy(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(0).uniform(0, 60, (6, 8)).astype(dtype)
    values[0, :3] = 0
    for array in (values, np.asfortranarray(values)):
        np.save(tmp_path / 'd.npy', array)
        label = read(tmp_path / 'd.npy', DEPTH, 'scalar_npy', factor=0.5)
        assert label.dtype == np.float32
        assert label.flags.c_contiguous
        np.testing.assert_allclose(label, 0.5 * values.astype(float), rtol=1e-6)
    assert (label == DEPTH.ignore_value).sum() >= 3


def test_holes_of_a_measurement_are_ignored(tmp_path: Path) -> None:
    values = np.ones((6, 8))
    values[0, :4] = np.nan, np.inf, -np.inf, 0
    np.save(tmp_path / 'd.npy', values)
    assert read(tmp_path / 'd.npy', DEPTH, 'scalar_npy')[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    zero_counts = replace(DEPTH, ignore_value=-1)
    assert read(tmp_path / 'd.npy', zero_counts, 'scalar_npy')[0, :5].tolist() == [-1, -1, -1, 0, 1]


@pytest.mark.parametrize(('name', 'dtype'), [('d.png', np.uint8), ('d.png', np.uint16), ('d.tif', np.int32)])
def test_quantities_from_grey_images(tmp_path: Path, name: str, dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, min(np.iinfo(dtype).max, 100_000), (6, 8)).astype(dtype)
    values[1, 1] = 0
    Image.fromarray(values).save(tmp_path / name)
    label = read(tmp_path / name, DEPTH, 'scalar_image', factor=0.001)
    np.testing.assert_allclose(label, values / 1000, rtol=1e-6)
    assert label[1, 1] == DEPTH.ignore_value


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (
            np.ones((6, 8, 1)),
            r'd\.npy: found float64 \(6, 8, 1\); expected a \.npy file with an array of numbers',
        ),
        (np.ones((6, 8), complex), r'd\.npy: found complex128 \(6, 8\)'),
        (np.ones((6, 8), bool), r'd\.npy: found bool \(6, 8\)'),
        (
            np.full((6, 8), -2.5),
            r"d\.npy: found 48 values such as -2\.5; expected finite .* 0 for ignore \(task 'depth'\)",
        ),
        (np.ones((8, 6)), r'd\.npy: found a label map of 8 x 6 .* size, 6 x 8'),
    ],
)
def test_an_npy_that_holds_no_quantities(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / 'd.npy', array)
    with pytest.raises(LabelError, match=message):
        read(tmp_path / 'd.npy', DEPTH, 'scalar_npy')


def test_a_factor_is_positive_and_an_image_of_classes_no_depth(tmp_path: Path) -> None:
    np.save(tmp_path / 'd.npy', np.ones((6, 8)))
    image = Image.fromarray(np.zeros((6, 8), np.uint8))
    image.putpalette([0, 0, 0])
    image.save(tmp_path / 'p.png')
    for factor in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match='factor of the reader scalar_npy must be positive and finite'):
            read(tmp_path / 'd.npy', DEPTH, 'scalar_npy', factor=factor)
    with pytest.raises(LabelError, match=r'p\.png: found an image of mode P, .* expected 8-bit grey'):
        read(tmp_path / 'p.png', DEPTH, 'scalar_image', factor=0.001)


@pytest.mark.parametrize('value', [np.nan, np.inf, -0.5])
def test_what_a_users_reader_of_quantities_returns_is_checked(value: float) -> None:
    register_reader('test_depth')(lambda path, *, spec, shape: np.full(shape, value, np.float32))
    try:
        with pytest.raises(LabelError, match='any: found 48 values such as'):
            read(Path('any'), DEPTH, 'test_depth')
    finally:
        del _READERS['test_depth']
