"""PASCAL-Part annotations, normals that hold for some contexts, and the cache."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import loadmat, savemat

from mmseg_polyhistor.datasets.labels import LabelError
from mmseg_polyhistor.datasets.pascal_labels import (
    PART_GROUPS,
    PART_IDS,
    borders,
    load_mat,
    valid_context_ids,
)
from mmseg_polyhistor.datasets.readers import read_label
from mmseg_polyhistor.tasks import get_task

PARTS, NORMALS = get_task('human_parts'), get_task('normals')
SHAPE = (20, 28)


def read_parts(path: Path, shape: tuple[int, int] = SHAPE, **options: object) -> np.ndarray:
    return read_label(str(path), PARTS, shape, dict(type='pascal_parts', **options))


def ones() -> np.ndarray:
    return np.ones(SHAPE, np.uint8)


def test_the_merge_of_24_parts() -> None:
    table = """head 1 (hair head lear rear lebrow rebrow leye reye mouth nose), torso 2 (torso neck), upper arm 3
    (luarm ruarm), lower arm 4 (llarm rlarm lhand rhand), upper leg 5 (luleg ruleg), lower leg 6
    (llleg rlleg lfoot rfoot)"""
    expected = {
        part: int(group.split('(')[0].split()[-1])
        for group in table.replace('\n', ' ').split('),')
        for part in group.split('(')[1].strip(' )').split()
    }
    assert expected == PART_IDS
    assert len(PART_IDS) == 24
    assert ('background', *PART_GROUPS) == PARTS.classes


def test_every_part_gets_its_class(tmp_path: Path, write_parts: Callable[..., None]) -> None:
    masks = {}
    for k, part in enumerate(PART_IDS):
        masks[part] = np.zeros(SHAPE, np.uint8)
        masks[part][k // 6, k % 6] = 1
    write_parts(tmp_path / 'a.mat', [('person', 15, ones(), list(masks.items()))])
    label = read_parts(tmp_path / 'a.mat')
    for k, (part, group) in enumerate(PART_IDS.items()):
        assert label[k // 6, k % 6] == group, part
    assert (label > 0).sum() == 24


def test_later_parts_overwrite_and_other_objects_are_left_out(
    tmp_path: Path, write_parts: Callable[..., None]
) -> None:
    top, middle = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    top[:10], middle[5:15] = 1, 1
    write_parts(
        tmp_path / 'a.mat',
        [
            ('person', 15, ones(), [('torso', top), ('head', middle)]),
            ('dog', 12, ones(), [('head', ones()), ('tail', ones())]),
            ('person', 15, ones(), [('lfoot', np.roll(middle, 7, axis=0))]),
            ('tvmonitor', 20, ones(), []),
        ],
    )
    expected = np.zeros(SHAPE, np.uint8)
    expected[:5], expected[5:12], expected[12:20] = 2, 1, 6
    expected[0:2] = 6  # rows 12..21 wrap around
    np.testing.assert_array_equal(read_parts(tmp_path / 'a.mat'), expected)


def test_an_annotation_without_objects_is_background(
    tmp_path: Path, write_parts: Callable[..., None]
) -> None:
    write_parts(tmp_path / 'a.mat', [])
    assert (read_parts(tmp_path / 'a.mat') == 0).all()


def test_an_unknown_part_of_a_person_is_named(tmp_path: Path, write_parts: Callable[..., None]) -> None:
    write_parts(tmp_path / 'a.mat', [('person', 15, ones(), [('head', ones()), ('wing', ones())])])
    with pytest.raises(
        LabelError, match=r"a\.mat: found a person with the part 'wing'; expected one of \['hair'"
    ):
        read_parts(tmp_path / 'a.mat')


def test_a_mask_of_another_size_is_named(tmp_path: Path, write_parts: Callable[..., None]) -> None:
    write_parts(tmp_path / 'a.mat', [('person', 15, ones(), [('neck', np.ones((28, 20), np.uint8))])])
    with pytest.raises(LabelError, match=r"a\.mat: found a mask of the part 'neck' of size \(28, 20\)"):
        read_parts(tmp_path / 'a.mat')


def test_another_file_is_not_taken_instead(tmp_path: Path, write_parts: Callable[..., None]) -> None:
    write_parts(tmp_path / 'a.mat', [])
    with pytest.raises(LabelError, match=r'a: found a file that cannot be read'):
        read_parts(tmp_path / 'a')


def test_a_mat_without_the_key(tmp_path: Path) -> None:
    savemat(tmp_path / 'a.mat', {'annotation': 1, 'other': 2})
    with pytest.raises(LabelError, match=r"a\.mat: found the variables \['annotation', 'other'\].*'anno'"):
        read_parts(tmp_path / 'a.mat')


@pytest.mark.parametrize(
    'anno',
    [
        np.zeros((3, 3)),
        np.zeros((0, 0)),
        np.zeros((1, 1, 2, 0)),
        'a text',
        {'objects': 1},
        {'imname': 'x', 'objects': np.ones(3)},
        {'imname': 'x', 'objects': {'class': 'person', 'class_ind': 'fifteen', 'mask': 1, 'parts': 1}},
        {'imname': 'x', 'objects': {'class': 'person', 'class_ind': 15, 'mask': 1, 'parts': np.ones(2)}},
    ],
)
def test_other_nestings_are_an_error(tmp_path: Path, anno: object) -> None:
    savemat(tmp_path / 'a.mat', {'anno': anno})
    with pytest.raises(
        LabelError, match=r"a\.mat: found a variable 'anno' that is nested otherwise .*PASCAL-Part"
    ):
        read_parts(tmp_path / 'a.mat')


@functools.cache
def whole_mat() -> tuple[bytes, np.ndarray]:
    """A sound, uncompressed file: half of its cuts end between two of its elements."""
    buffer = io.BytesIO()
    savemat(buffer, {'LabelMap': np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE).astype(np.uint16) % 460})
    return buffer.getvalue(), loadmat(io.BytesIO(buffer.getvalue()))['LabelMap']


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, len(whole_mat()[0]) - 1), noise=st.binary(max_size=8))
def test_a_truncated_or_damaged_mat_is_never_read_as_something_else(
    tmp_path: Path, cut: int, noise: bytes
) -> None:
    content, label_map = whole_mat()
    path = tmp_path / 'cut.mat'
    path.write_bytes(content[:cut] + noise)
    try:
        read = load_mat(str(path), 'LabelMap')
    except LabelError as e:
        assert str(path) in str(e)
    else:  # what was cut off was padding, or the noise completed it
        assert read.shape == label_map.shape
        assert (read != label_map).sum() <= 4


# -------------------------------------------------------------------------------------------------------- normals
def test_the_valid_ids_are_170_of_459() -> None:
    ids = valid_context_ids()
    assert len(ids) == 170
    assert list(ids) == sorted(set(ids))
    assert (ids[0], ids[-1], sum(ids)) == (3, 457, 37556)


def write_normals(
    root: Path, write_png: Callable[..., None], context: np.ndarray, shape: tuple[int, int] = SHAPE
) -> np.ndarray:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    rgb[..., 2] |= 192  # no vector without direction
    write_png(root / 'n.png', rgb)
    savemat(root / 'c.mat', {'LabelMap': context})
    return rgb


def read_normals(root: Path, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    reader = dict(type='pascal_normals', context_path=str(root / 'c.mat'))
    return read_label(str(root / 'n.png'), NORMALS, shape, reader)


@pytest.mark.parametrize('dtype', [np.uint16, np.float64])
def test_normals_are_valid_on_the_ids_only(
    tmp_path: Path, write_png: Callable[..., None], dtype: type
) -> None:
    context = np.arange(460).reshape(20, 23)
    rgb = write_normals(tmp_path, write_png, context.astype(dtype), context.shape)
    label = read_normals(tmp_path, context.shape)
    ids = {int(i) for i in valid_context_ids()}
    assert len(ids) == 170
    for y in range(20):
        for x in range(23):
            vector = [2 * int(c) / 255 - 1 for c in rgb[y, x]]
            length = sum(v * v for v in vector) ** 0.5
            expected = [v / length for v in vector] if int(context[y, x]) in ids else [255] * 3
            np.testing.assert_allclose(label[y, x], expected, atol=1e-6)


@pytest.mark.parametrize(
    ('context', 'message'),
    [
        (np.full(SHAPE, 460), r'c\.mat: found ids from 460 to 460; expected 0\.\.459'),
        (np.full(SHAPE, -1), r'c\.mat: found ids from -1 to -1'),
        (
            np.zeros((28, 20), np.uint16),
            r"c\.mat: found a 'LabelMap' of size \(28, 20\); expected the size of .*n\.png",
        ),
        (np.zeros((2, 3, 4)), r"c\.mat: found a 'LabelMap' of float64 \(2, 3, 4\)"),
        ('text', r"c\.mat: found a 'LabelMap' of <U4"),
    ],
)
def test_a_label_map_that_does_not_fit(
    tmp_path: Path, write_png: Callable[..., None], context: np.ndarray, message: str
) -> None:
    write_normals(tmp_path, write_png, context)
    with pytest.raises(LabelError, match=message):
        read_normals(tmp_path)


# ---------------------------------------------------------------------------------------------------------- edges
def read_edges(path: Path, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return read_label(str(path), get_task('edge'), shape, dict(type='pascal_edges'))


def test_the_border_of_two_halves_is_one_line(tmp_path: Path) -> None:
    context = np.full(SHAPE, 3, np.uint16)
    context[:, 14:] = 459
    savemat(tmp_path / 'c.mat', {'LabelMap': context})
    label = read_edges(tmp_path / 'c.mat')
    assert label.dtype == np.uint8
    _, columns = np.nonzero(label)
    assert set(columns) <= {13, 14}, 'the two columns that meet'
    assert (label[1:-1].sum(axis=1) == 1).all()
    assert set(np.unique(label)) == {0, 1}


def test_a_border_where_the_differences_cancel_out(tmp_path: Path) -> None:
    """5 stands between 3 and 7: the Laplacian is zero on its one column."""
    context = np.full(SHAPE, 3, np.uint16)
    context[:, 10], context[:, 11:] = 5, 7
    savemat(tmp_path / 'c.mat', {'LabelMap': context})
    assert (read_edges(tmp_path / 'c.mat')[1:-1, 9:12].sum(axis=1) == 1).all()


@pytest.mark.parametrize('seed', range(3))
def test_borders_against_a_loop(seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 3, (7, 9))
    expected = np.zeros((7, 9), bool)
    for y in range(7):
        for x in range(9):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < 7 and 0 <= u < 9:
                    expected[y, x] |= ids[v, u] != ids[y, x]
    np.testing.assert_array_equal(borders(ids), expected)


def test_one_context_has_no_edges_and_a_wrong_file_is_named(tmp_path: Path) -> None:
    savemat(tmp_path / 'c.mat', {'LabelMap': np.full(SHAPE, 7)})
    assert not read_edges(tmp_path / 'c.mat').any()
    savemat(tmp_path / 'd.mat', {'LabelMap': np.full(SHAPE, 460)})
    with pytest.raises(LabelError, match=r'd\.mat: found ids from 460 to 460; expected 0\.\.459'):
        read_edges(tmp_path / 'd.mat')
    with pytest.raises(LabelError, match=r'c\.mat: found a label map of 20 x 28'):
        read_edges(tmp_path / 'c.mat', (20, 27))
    savemat(tmp_path / 'e.mat', {'LabelMap': np.zeros((0, 0))})
    with pytest.raises(LabelError, match=r"e\.mat: found a label map of 0 x 0 .*; expected the image's size"):
        read_edges(tmp_path / 'e.mat')


# ---------------------------------------------------------------------------------------------------------- cache
def test_the_cache_gives_the_same_maps_and_writes_only_where_it_is_told(
    pascal_tree: SimpleNamespace, tmp_path: Path
) -> None:
    def snapshot() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in [pascal_tree.root, *pascal_tree.root.rglob('*')]}

    before, cache = snapshot(), tmp_path / 'cache' / 'parts'
    for _ in range(2):
        for name, truth in zip(pascal_tree.ids, pascal_tree.truth['human_parts'], strict=True):
            label = read_parts(pascal_tree.root / f'human_parts/{name}.mat', cache_dir=cache)
            np.testing.assert_array_equal(label, truth)
            assert label.dtype == np.uint8
            label[:] = 9  # what is done to a map must not reach the cache
    assert snapshot() == before
    assert len(list(cache.iterdir())) == 3


def test_the_cache_is_used(
    pascal_tree: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pascal_tree.root / f'human_parts/{pascal_tree.ids[0]}.mat'
    read_parts(path, cache_dir=tmp_path / 'cache')
    monkeypatch.setattr('mmseg_polyhistor.datasets.pascal_labels.parse_parts', None)
    np.testing.assert_array_equal(
        read_parts(path, cache_dir=tmp_path / 'cache'), pascal_tree.truth['human_parts'][0]
    )


def test_a_changed_file_is_parsed_again(tmp_path: Path, write_parts: Callable[..., None]) -> None:
    path, cache = tmp_path / 'a.mat', tmp_path / 'cache'
    write_parts(path, [('person', 15, ones(), [('head', ones())])])
    stat = path.stat()
    assert (read_parts(path, cache_dir=cache) == 1).all()
    write_parts(path, [('person', 15, ones(), [('torso', ones()), ('neck', ones())])])  # another size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (read_parts(path, cache_dir=cache) == 2).all()
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize('content', [b'', b'\x89PNG\r\n\x1a\nbroken', 'cut'])
def test_a_corrupt_entry_is_written_anew(
    pascal_tree: SimpleNamespace, tmp_path: Path, content: bytes | str
) -> None:
    path, cache = pascal_tree.root / f'human_parts/{pascal_tree.ids[0]}.mat', tmp_path / 'cache'
    read_parts(path, cache_dir=cache)
    (entry,) = cache.iterdir()
    sound = entry.read_bytes()
    entry.write_bytes(sound[: len(sound) // 2] if content == 'cut' else content)
    np.testing.assert_array_equal(read_parts(path, cache_dir=cache), pascal_tree.truth['human_parts'][0])
    assert entry.read_bytes() == sound


def test_a_broken_mat_is_an_error_and_leaves_no_entry(tmp_path: Path) -> None:
    (tmp_path / 'a.mat').write_bytes(b'broken')
    for name in ('a.mat', 'absent.mat'):
        with pytest.raises(LabelError, match=name):
            read_parts(tmp_path / name, cache_dir=tmp_path / 'cache')
    assert not (tmp_path / 'cache').exists()


# ------------------------------------------------------------------------------------------------- the sample data
def parts_by_hand(path: Path) -> np.ndarray | None:
    """An independent reading of a PASCAL-Part file, by field names; None without any person part."""
    of_group = {
        1: 'hair head ear ebrow eye mouth nose',
        2: 'torso neck',
        3: 'uarm',
        4: 'larm hand',
        5: 'uleg',
        6: 'lleg foot',
    }
    group = {part: g for g, parts in of_group.items() for part in parts.split()}
    merged = None
    for obj in np.atleast_1d(loadmat(path, simplify_cells=True)['anno']['objects']):
        for part in np.atleast_1d(obj['parts']) if obj['class'] == 'person' else ():
            name = part['part_name']
            key = name if name in group else name[1:]  # without l or r
            merged = np.zeros(part['mask'].shape, np.uint8) if merged is None else merged
            merged[part['mask'] == 1] = group[key]
    return merged


def test_the_real_annotations_give_the_right_parts(shared_data: Path) -> None:
    root = shared_data / 'pascal_real18'
    with_parts = 0
    for path in sorted(root.glob('human_parts/*.mat')):
        with Image.open(root / f'JPEGImages/{path.stem}.jpg') as image:
            shape = image.size[::-1]
        label, expected = read_parts(path, shape), parts_by_hand(path)
        np.testing.assert_array_equal(label, np.zeros(shape) if expected is None else expected)
        assert label.max() <= 6
        with_parts += expected is not None
    assert with_parts == 8
