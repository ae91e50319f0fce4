"""Random, truncated and damaged label files: every reader gives a sound label, or its own error that names the file."""

from __future__ import annotations

import functools
import io
import os
import pickle
import resource
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cases import fuzz
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from mmseg_polyhistor.datasets import LabelError, known_readers, read_label
from mmseg_polyhistor.datasets.label_cache import cached_map
from mmseg_polyhistor.datasets.labels import check_label
from mmseg_polyhistor.tasks import get_task

SHAPE = (6, 8)
LIMIT = 64 * 2**10  # KiB that reading files of a few kilobytes may take


def struct_array(fields: tuple[str, ...], rows: list[tuple]) -> np.ndarray:
    """A MATLAB struct array 1 x n."""
    array = np.zeros((1, len(rows)), [(name, 'O') for name in fields])
    for index, row in enumerate(rows):
        array[0, index] = row
    return array


def image(array: np.ndarray, fmt: str, *, palette: bool = False, **options: object) -> bytes:
    picture = Image.fromarray(array)
    if palette:
        picture.putpalette([(37 * i + 11) % 256 for i in range(768)])
    buffer = io.BytesIO()
    picture.save(buffer, fmt, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def mat(variables: dict, compressed: bool) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=compressed)
    return buffer.getvalue()


def parts(compressed: bool) -> bytes:
    """A PASCAL-Part annotation of a person with two parts and a dog."""
    mask = np.ones(SHAPE, np.uint8)
    head = struct_array(('part_name', 'mask'), [('head', mask), ('torso', np.eye(*SHAPE, dtype=np.uint8))])
    objects = [('person', 15, mask, head), ('dog', 12, mask, np.zeros((0, 0)))]
    objects = struct_array(('class', 'class_ind', 'mask', 'parts'), objects)
    return mat({'anno': struct_array(('imname', 'objects'), [('x', objects)])}, compressed)


@functools.cache
def sound_files() -> dict[str, tuple[str, tuple[bytes, ...]]]:
    """Reader -> (task, sound files in several formats)."""
    rng = np.random.default_rng(0)
    ids, rgb = rng.integers(0, 7, SHAPE).astype(np.uint8), rng.integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
    vectors, context = (
        rng.normal(size=(*SHAPE, 3)),
        {'LabelMap': rng.integers(0, 460, SHAPE).astype(np.uint16)},
    )
    floats = {'LabelMap': context['LabelMap'].astype(float)}
    indices = (image(ids, 'PNG', palette=True), image(ids, 'GIF'), image(ids, 'BMP'), image(ids, 'PPM'))
    wide = (image(ids.astype(np.uint16), 'PNG'), image(ids.astype(np.int32), 'TIFF'))
    grey = (image(ids, 'PNG'), image(ids, 'JPEG'), image(ids, 'TIFF', compression='tiff_lzw'))
    colour = (image(rgb, 'PNG'), image(rgb, 'JPEG'), image(rgb, 'TIFF', compression='tiff_deflate'))
    webp = image(rgb, 'WEBP', lossless=True)
    arrays = (npy(vectors), npy(np.asfortranarray(vectors.astype('>f4'))))
    return {
        'index_image': ('semseg', (*indices, *wide, *grey)),
        'grey_image': ('saliency', grey),
        'vector_image': ('normals', (*colour, webp)),
        'vector_npy': ('normals', arrays),
        'scalar_npy': ('depth', (npy(rng.random(SHAPE)), npy(ids))),
        'scalar_image': ('depth', (*wide, *grey)),
        'nyud_classes_image': ('nyud_semseg', (*indices, *wide)),
        'nyud_classes_mat': ('nyud_semseg', tuple(mat({'segmentation': ids}, c) for c in (True, False))),
        'scalar_mat': ('depth', tuple(mat({'depth': rng.random(SHAPE)}, c) for c in (True, False))),
        'mask_npy': ('edge', (npy(rng.random(SHAPE)), npy(ids > 3))),
        'pascal_parts': ('human_parts', (parts(True), parts(False))),
        'pascal_normals': ('normals', colour),
        'pascal_edges': ('edge', tuple(mat(v, c) for v in (context, floats) for c in (True, False))),
    }


def read(path: Path, reader: str) -> np.ndarray | None:
    """The label of the file at a path, checked once more, or None where the file was refused as it should be."""
    options: dict = {'scalar_image': dict(factor=0.001), 'scalar_mat': dict(key='depth')}.get(reader, {})
    if reader == 'pascal_normals':
        options['context_path'] = str(path.with_name('context.mat'))
    spec = get_task(sound_files()[reader][0])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's and scipy's, about what they find in damaged files
        try:
            label = read_label(str(path), spec, SHAPE, dict(type=reader, **options))
        except LabelError as e:
            assert str(path) in str(e) or str(path.with_name('context.mat')) in str(e)
            return None
    check_label(label, spec, SHAPE, str(path))
    if spec.kind == 'unit_vector':
        lengths = np.linalg.norm(label.astype(float), axis=2)
        assert (np.isclose(lengths, 1, atol=1e-5) | (label == spec.ignore_value).all(axis=2)).all()
    return label


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / 'context.mat').write_bytes(mat({'LabelMap': np.full(SHAPE, 3, np.uint16)}, False))
    return tmp_path / 'label.bin'


@pytest.fixture(autouse=True)
def _bounded_memory():
    """No test of this module may have taken much memory, whatever its files claimed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # in KiB
    assert grown < LIMIT, f'{grown / 2**10:.0f} MiB'


def test_all_readers_have_sound_files_here(path: Path) -> None:
    assert set(sound_files()) == {name for name in known_readers() if not name.startswith('test_')}
    for reader, (_, files) in sound_files().items():
        for content in files:
            path.write_bytes(content)
            assert read(path, reader) is not None, reader


READERS = st.sampled_from(sorted(sound_files()))


@fuzz(500)
@given(reader=READERS, content=st.binary(max_size=400))
def test_random_bytes(path: Path, reader: str, content: bytes) -> None:
    path.write_bytes(content)
    read(path, reader)


@fuzz(700)
@given(reader=READERS, magic=st.integers(0, 99), content=st.binary(max_size=300))
def test_random_bytes_behind_a_sound_beginning(path: Path, reader: str, magic: int, content: bytes) -> None:
    """Of a sound file of any reader, as long as its signature or its header."""
    files = [file for _, kind in sound_files().values() for file in kind]
    file = files[magic % len(files)]
    path.write_bytes(file[: (8, 26, 128, 136)[magic % 4]] + content)
    read(path, reader)


@fuzz(600)
@given(reader=READERS, number=st.integers(0, 99), share=st.floats(0, 1, exclude_max=True))
def test_truncated_files(path: Path, reader: str, number: int, share: float) -> None:
    files = sound_files()[reader][1]
    content = files[number % len(files)]
    path.write_bytes(content[: int(share * len(content))])
    read(path, reader)


@st.composite
def damage(draw: Callable) -> list[tuple[float, int]]:
    """Places (as a share of the file) and what is written there: a number below 256 is a byte, others flip a bit."""
    return draw(
        st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 263)), min_size=1, max_size=6)
    )


def damaged(content: bytes, places: list[tuple[float, int]]) -> bytes:
    content = bytearray(content)
    for share, value in places:
        place = int(share * len(content))
        content[place] = value if value < 256 else content[place] ^ 1 << (value - 256)
    return bytes(content)


@fuzz(1500)
@given(reader=READERS, number=st.integers(0, 99), places=damage())
def test_damaged_files(path: Path, reader: str, number: int, places: list[tuple[float, int]]) -> None:
    files = sound_files()[reader][1]
    path.write_bytes(damaged(files[number % len(files)], places))
    read(path, reader)


@fuzz(300)
@given(number=st.integers(0, 9), places=damage())
def test_damaged_contexts(path: Path, number: int, places: list[tuple[float, int]]) -> None:
    """The second file of a reader that reads two."""
    path.write_bytes(sound_files()['pascal_normals'][1][0])
    contexts = sound_files()['pascal_edges'][1]
    path.with_name('context.mat').write_bytes(damaged(contexts[number % len(contexts)], places))
    read(path, 'pascal_normals')


SHAPES = st.one_of(
    st.sampled_from(
        [(), (0,), (1,), (0, 8), SHAPE, (*SHAPE, 1), (*SHAPE, 3), (*SHAPE, 0), (*SHAPE, 4), SHAPE[::-1]]
    ),
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
)
DTYPES = st.sampled_from(
    ['?', 'i1', 'u1', '<u2', '>i4', 'i8', 'u8', 'f2', '>f4', 'f8', 'c8', 'S3', 'U2', 'M8[s]', 'V4']
)


@fuzz(300)
@given(
    reader=st.sampled_from(['vector_npy', 'scalar_npy']), shape=SHAPES, dtype=DTYPES, seed=st.integers(0, 99)
)
def test_arrays_of_any_type_and_shape(path: Path, reader: str, shape: tuple, dtype: str, seed: int) -> None:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    content = np.random.default_rng(seed).bytes(size)
    array = np.frombuffer(content, dtype).reshape(shape) if size else np.zeros(shape, dtype)
    path.write_bytes(npy(array))
    label = read(path, reader)
    if label is not None:
        assert shape == (SHAPE if reader == 'scalar_npy' else (*SHAPE, 3))


@fuzz(300)
@given(
    reader=st.sampled_from(['pascal_parts', 'pascal_edges']),
    shape=SHAPES,
    dtype=st.sampled_from(['?', 'i1', 'u1', 'u2', 'i8', 'f4', 'f8', 'c16', 'U3', 'O']),
    seed=st.integers(0, 99),
    compressed=st.booleans(),
)
def test_variables_of_any_type_and_shape(
    path: Path, reader: str, shape: tuple, dtype: str, seed: int, compressed: bool
) -> None:
    values = np.random.default_rng(seed).integers(0, 461, shape)
    with np.errstate(all='ignore'):
        array = np.asarray(values).astype(dtype)
    path.write_bytes(mat({'anno' if reader == 'pascal_parts' else 'LabelMap': array}, compressed))
    label = read(path, reader)
    assert label is None or shape == SHAPE


@fuzz(200)
@given(
    reader=st.sampled_from(['index_image', 'grey_image', 'vector_image', 'scalar_image', 'pascal_normals']),
    mode=st.sampled_from(['1', 'L', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LA', 'I', 'F', 'I;16', 'LAB']),
    shape=st.sampled_from([SHAPE, SHAPE[::-1], (1, 1), (6, 9)]),
    seed=st.integers(0, 99),
)
def test_images_of_any_mode_and_size(path: Path, reader: str, mode: str, shape: tuple, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if mode == 'I;16':
        picture = Image.fromarray(rng.integers(0, 2**16, shape).astype(np.uint16))
    else:
        picture = Image.new(mode, shape[::-1])
        picture.frombytes(rng.bytes(len(picture.tobytes())))
    picture.save(path, 'TIFF')
    label = read(path, reader)
    assert label is None or shape == SHAPE


@fuzz(150)
@given(
    fmt=st.sampled_from(['PNG', 'BMP', 'GIF', 'PPM', 'npy']),
    height=st.integers(1, 2**31 - 1),
    width=st.integers(1, 2**31 - 1),
)
def test_sizes_that_a_header_merely_claims(path: Path, fmt: str, height: int, width: int) -> None:
    """`LIMIT` says that nothing of that size is allocated before the file is refused."""
    if fmt == 'npy':
        content = bytearray(npy(np.zeros(SHAPE)))
        claim = (
            f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({height}, {width}), }}".ljust(117) + '\n'
        )
        content[10:128] = claim.encode()
    else:
        content = bytearray(image(np.zeros(SHAPE, np.uint8), fmt))
        if fmt == 'PPM':
            content = content.replace(b'8 6', f'{width} {height}'.encode())
        else:
            start, size, order = {'PNG': (16, 4, 'big'), 'BMP': (18, 4, 'little'), 'GIF': (6, 2, 'little')}[
                fmt
            ]
            limit = 256**size
            content[start : start + size] = (width % limit).to_bytes(size, order)
            content[start + size : start + 2 * size] = (height % limit).to_bytes(size, order)
    assume((height, width) != SHAPE and (fmt != 'GIF' or min(height % 65536, width % 65536) > 8))
    path.write_bytes(bytes(content))
    assert read(path, 'scalar_npy' if fmt == 'npy' else 'index_image') is None


class Bomb:
    """Unpickling it makes a folder: code that a file brings along."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize('reader', sorted(sound_files()))
def test_no_reader_runs_code_of_a_file(path: Path, reader: str) -> None:
    mark = path.with_name('it ran')
    bomb = np.array([Bomb(mark)], object)
    pickles = [pickle.dumps(bomb), pickle.dumps(Bomb(mark)), npy(bomb)]
    archive = io.BytesIO()
    np.savez(archive, a=bomb, LabelMap=bomb, anno=bomb)
    script = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\n(it ran) (w) file closefile\n'
    for content in (*pickles, archive.getvalue(), script):
        path.write_bytes(content)
        assert read(path, reader) is None
        assert not mark.exists()
    pickle.loads(pickles[0])
    assert mark.exists(), 'the bomb of this test is a dud'


def test_pillow_hands_no_label_to_another_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript is drawn by Ghostscript, a program that runs it."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *a, **k: pytest.fail('Ghostscript was started'))
    path.write_bytes(image(np.zeros((*SHAPE, 3), np.uint8), 'EPS'))
    with Image.open(path) as picture:
        assert picture.format == 'EPS'
    assert read(path, 'vector_image') is None


@fuzz(200)
@given(content=st.binary(max_size=100), keep=st.floats(0, 1), places=damage())
def test_damaged_entries_of_the_cache(path: Path, content: bytes, keep: float, places: list) -> None:
    """Whatever happened to an entry: the map is what parsing gives, or, by its values alone, another one of its size."""
    truth = np.eye(*SHAPE, dtype=np.uint8)
    path.write_bytes(b'the annotation')
    folder = path.with_name('cache')
    shutil.rmtree(folder, ignore_errors=True)

    def load() -> np.ndarray:
        return cached_map(str(path), folder, SHAPE, 'recipe', lambda: truth.copy())

    load()
    (entry,) = folder.iterdir()
    sound = entry.read_bytes()
    for broken in (content, sound[: int(keep * (len(sound) - 1))], damaged(sound, places)):
        entry.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            label = load()
        assert label.dtype == np.uint8
        assert label.shape == SHAPE
        entry.write_bytes(sound)


def test_real_files_of_the_sample_data(shared_data: Path, path: Path) -> None:
    """Real annotations, truncated and damaged at a hundred places each."""
    rng = np.random.default_rng(0)
    root = shared_data / 'pascal_real18'
    files = [
        (sorted((root / 'human_parts').glob('*.mat'))[0], 'pascal_parts'),
        (sorted((root / 'semseg').rglob('*.png'))[0], 'index_image'),
    ]
    spec = {'pascal_parts': get_task('human_parts'), 'index_image': get_task('semseg')}
    for file, reader in files:
        content = file.read_bytes()
        with Image.open(root / 'JPEGImages' / f'{file.stem}.jpg') as photograph:
            shape = photograph.size[::-1]
        assert read_label(str(file), spec[reader], shape, dict(type=reader)).shape == shape
        for case in range(100):
            if case % 2:
                broken = content[: rng.integers(len(content))]
            else:
                broken = damaged(content, [(rng.random(), int(rng.integers(264))) for _ in range(3)])
            path.write_bytes(broken)
            try:
                label = read_label(str(path), spec[reader], shape, dict(type=reader))
            except LabelError as e:
                assert str(path) in str(e)
            else:
                assert label.shape == shape
