"""Fixtures of all folders: a small tree in the PASCAL_MT layout, written for the test, and its truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

SHAPE = (20, 28)  # height, width
IDS = ('2008_000001', '2008_000002', '2008_000003')


def _box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def _struct(fields: Sequence[str], rows: Sequence[Sequence[object]]) -> np.ndarray:
    """A MATLAB struct array 1 x n."""
    array = np.zeros((1, len(rows)), [(name, 'O') for name in fields])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row)
    return array


def write_parts(
    path: Path, objects: Sequence[tuple[str, int, np.ndarray, Sequence[tuple[str, np.ndarray]]]]
) -> None:
    """A PASCAL-Part annotation: objects (name, class index, mask, parts), parts (name, mask)."""
    rows = [
        (name, index, mask, _struct(('part_name', 'mask'), parts) if parts else np.zeros((0, 0)))
        for name, index, mask, parts in objects
    ]
    anno = _struct(
        ('imname', 'objects'), [(path.stem, _struct(('class', 'class_ind', 'mask', 'parts'), rows))]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {'anno': anno}, do_compression=True)


def write_png(path: Path, array: np.ndarray, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette([(37 * i + 11) % 256 for i in range(768)])
    image.save(path)


@pytest.fixture(name='write_parts')
def _write_parts() -> Callable[..., None]:
    return write_parts


@pytest.fixture(name='write_png')
def _write_png() -> Callable[..., None]:
    return write_png


@pytest.fixture
def pascal_tree(tmp_path: Path) -> SimpleNamespace:
    """Three images: a person, a horse with parts, and nobody; `truth[task][k]` is what the loader must give."""
    root = tmp_path / 'PASCAL MT'
    rng = np.random.default_rng(0)
    truth: dict[str, list[np.ndarray]] = {
        task: [] for task in ('semseg', 'human_parts', 'normals', 'saliency')
    }
    (root / 'ImageSets/Context').mkdir(parents=True)
    for split in ('train', 'val'):
        (root / f'ImageSets/Context/{split}.txt').write_text('\n'.join(IDS) + '\n')
    (root / 'JPEGImages').mkdir()

    for k, name in enumerate(IDS):
        Image.fromarray(rng.integers(0, 256, (*SHAPE, 3), np.uint8)).save(
            root / f'JPEGImages/{name}.jpg', quality=95
        )

        semseg = rng.choice(np.array([0, 3, 15, 20, 255], np.uint8), SHAPE)
        folder = 'semseg/VOC12' if k else 'semseg/pascal-context'
        write_png(root / f'{folder}/{name}.png', semseg, palette=True)
        if k == 2:  # both exist: VOC12 counts
            write_png(root / f'semseg/pascal-context/{name}.png', np.zeros(SHAPE, np.uint8), palette=True)
        truth['semseg'].append(semseg)

        head, torso, hand = _box(0, 4, 5, 9), _box(4, 3, 12, 12), _box(8, 10, 11, 14)
        objects = [
            [('person', 15, head | torso | hand, [('head', head), ('torso', torso), ('lhand', hand)])],
            [('horse', 13, torso, [('head', head), ('torso', torso)])],
            [('person', 15, torso, [])],
        ][k]
        write_parts(root / f'human_parts/{name}.mat', objects)
        parts = np.zeros(SHAPE, np.uint8)
        if k == 0:
            for mask, value in ((head, 1), (torso, 2), (hand, 4)):
                parts[mask > 0] = value
        truth['human_parts'].append(parts)

        rgb = rng.integers(0, 256, (*SHAPE, 3), np.uint8)
        rgb[..., 2] |= 128 + 64  # no vector without direction
        context = rng.choice(
            np.array([0, 2, 3, 104, 105, 459], np.uint16), SHAPE
        )  # of these, 3, 104 and 105 are valid
        write_png(root / f'normals_distill/{name}.png', rgb)
        (root / 'pascal-context/trainval').mkdir(parents=True, exist_ok=True)
        savemat(root / f'pascal-context/trainval/{name}.mat', {'LabelMap': context})
        vectors = 2 * rgb.astype(np.float64) / 255 - 1
        vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
        vectors[~np.isin(context, [3, 104, 105])] = 255
        truth['normals'].append(vectors)

        grey = rng.choice(np.array([0, 127, 128, 255], np.uint8), SHAPE)
        write_png(root / f'sal_distill/{name}.png', grey)
        truth['saliency'].append((grey > 127).astype(np.uint8))
    return SimpleNamespace(root=root, ids=IDS, shape=SHAPE, truth=truth)
