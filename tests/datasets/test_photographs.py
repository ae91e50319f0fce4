"""Photographs with an EXIF orientation, and such as lose their grey values, beside labels."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
from PIL import Image

from mmseg_polyhistor.datasets import LabelError, PascalContextMTDataset, SampleError, read_label
from mmseg_polyhistor.datasets.photographs import check_photograph, read_head
from mmseg_polyhistor.tasks import get_task

LOAD = dict(type='LoadImageFromFile', imdecode_backend='pillow')
# EXIF 2.32, tag 0x0112: how the stored pixels must be moved to stand upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


def stored(shape: tuple[int, int]) -> np.ndarray:
    """A photograph whose pixels differ; smooth, so that JPEG keeps it."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    planes = [255 * rows / shape[0], 255 * columns / shape[1], 255 - 127 * rows / shape[0]]
    return np.stack(planes, axis=2).astype(np.uint8)


def encode(image: np.ndarray, orientation: int | None, fmt: str = 'JPEG') -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, fmt, exif=exif, **({'quality': 100} if fmt == 'JPEG' else {}))
    return buffer.getvalue()


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize('fmt', ['JPEG', 'PNG'])
@pytest.mark.parametrize('orientation', list(UPRIGHT))
def test_what_mmcv_makes_of_the_orientations(backend: str, fmt: str, orientation: int) -> None:
    """Both backends turn and mirror, and neither does with color_ignore_orientation: what our checks rely on."""
    image = stored((16, 24))
    content = encode(image, orientation, fmt)
    for flag, expected in (('color', UPRIGHT[orientation](image)), ('color_ignore_orientation', image)):
        loaded = mmcv.imfrombytes(content, flag=flag, channel_order='rgb', backend=backend)
        if backend == 'cv2' and flag != 'color':
            loaded = loaded[..., ::-1]  # OpenCV's order of channels stays for other flags than 'color'
        assert loaded.shape == expected.shape
        assert np.abs(loaded.astype(int) - expected).max() <= 12


@pytest.fixture
def load(pascal_tree: SimpleNamespace) -> Callable[..., dict]:
    """Put a photograph in the place of the second one, with labels of (height, width) `shape`, and load it."""

    def run(content: bytes, shape: tuple[int, int], color_type: str = 'color', **options: object) -> dict:
        name = pascal_tree.ids[1]
        (pascal_tree.root / f'JPEGImages/{name}.jpg').write_bytes(content)
        label = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(label).save(pascal_tree.root / f'sal_distill/{name}.png')
        pipeline = [dict(LOAD, color_type=color_type), dict(type='LoadMultiTaskAnnotations', **options)]
        dataset = PascalContextMTDataset(
            data_root=pascal_tree.root, tasks=('saliency',), pipeline=pipeline, test_mode=True
        )
        return dataset[1]

    return run


@pytest.mark.parametrize('orientation', [2, 3, 4])
def test_half_turns_and_mirror_images_are_refused(load: Callable[..., dict], orientation: int) -> None:
    """The label has the photograph's size whether it was drawn on the turned or on the stored one."""
    with pytest.raises(
        SampleError,
        match=rf'2008_000002\.jpg: found a photograph of 16 x 24 .* EXIF orientation {orientation}, .*upright',
    ):
        load(encode(stored((16, 24)), orientation), (16, 24))


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_after_a_quarter_turn_the_size_decides_unless_the_image_is_square(
    load: Callable[..., dict], orientation: int
) -> None:
    content = encode(stored((16, 24)), orientation)
    results = load(content, (24, 16))
    assert results['img'].shape[:2] == results['gt_saliency'].shape == (24, 16)
    with pytest.raises(
        LabelError, match=r"16 x 24 pixels .* image's size, 24 x 16\. Height and width are sw"
    ):
        load(content, (16, 24))
    assert load(content, (16, 24), color_type='color_ignore_orientation')['img'].shape[:2] == (16, 24)
    with pytest.raises(SampleError, match=f'16 x 16 .* EXIF orientation {orientation}'):
        load(encode(stored((16, 16)), orientation), (16, 16))


@pytest.mark.parametrize('orientation', [None, 0, 1, 9])
def test_no_orientation_is_no_reason(load: Callable[..., dict], orientation: int | None) -> None:
    image = stored((16, 24))
    results = load(encode(image, orientation), (16, 24))
    assert np.abs(results['img'][..., ::-1].astype(int) - image).max() <= 12


def test_labels_that_are_known_to_fit_are_loaded(load: Callable[..., dict]) -> None:
    image = stored((16, 24))
    for color_type, expected in (('color', UPRIGHT[3](image)), ('color_ignore_orientation', image)):
        results = load(encode(image, 3), (16, 24), color_type, check_photographs=False)
        assert np.abs(results['img'][..., ::-1].astype(int) - expected).max() <= 12


def test_without_a_label_nothing_can_be_in_the_wrong_place(pascal_tree: SimpleNamespace) -> None:
    name = pascal_tree.ids[1]
    (pascal_tree.root / f'JPEGImages/{name}.jpg').write_bytes(encode(stored(pascal_tree.shape), 3))
    (pascal_tree.root / f'sal_distill/{name}.png').unlink()
    dataset = PascalContextMTDataset(
        data_root=pascal_tree.root,
        tasks=('saliency',),
        pipeline=[LOAD, dict(type='LoadMultiTaskAnnotations')],
        allow_missing=True,
    )
    assert (dataset[1]['gt_saliency'] == 255).all()


def test_grey_of_16_bits_would_be_white(load: Callable[..., dict]) -> None:
    grey = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) * 170
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, 'PNG')
    loaded = mmcv.imfrombytes(buffer.getvalue(), backend='pillow')
    assert (loaded == 255).mean() > 0.99, 'Pillow scales by now: the check can go'
    with pytest.raises(
        SampleError, match=r'2008_000002\.jpg: found a photograph of mode I;16, .* Convert it'
    ):
        load(buffer.getvalue(), (16, 24))


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGBA', 'CMYK', 'P', '1', 'RGB'])
def test_other_modes_become_colour_images(load: Callable[..., dict], mode: str) -> None:
    """Whatever 8 bits can hold is loaded as three channels that look like the photograph."""
    image = stored((16, 24))
    buffer = io.BytesIO()
    converted = Image.fromarray(image).convert(mode)
    converted.save(buffer, 'TIFF' if mode == 'CMYK' else 'PNG')
    results = load(buffer.getvalue(), (16, 24))
    assert results['img'].shape == (16, 24, 3)
    assert results['img'].dtype == np.uint8
    expected = np.asarray(Image.fromarray(image).convert('L' if mode in 'LA' else mode).convert('RGB'))
    np.testing.assert_array_equal(results['img'][..., ::-1], expected)


def test_a_head_that_pillow_cannot_read_is_left_to_the_loader(tmp_path: Path) -> None:
    (tmp_path / 'a.jpg').write_bytes(b'another format')
    for name in ('a.jpg', 'absent.jpg'):
        assert read_head(str(tmp_path / name)) is None
        check_photograph(str(tmp_path / name))


def test_a_label_with_an_orientation_of_its_own_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    for orientation in (1, 3):
        exif[0x0112] = orientation
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / 'a.png', exif=exif)
        reader = dict(type='grey_image')
        if orientation == 1:
            read_label(str(tmp_path / 'a.png'), get_task('saliency'), (6, 8), reader)
        else:
            with pytest.raises(
                LabelError, match=r'a\.png: found the EXIF orientation 3; expected 8-bit grey'
            ):
                read_label(str(tmp_path / 'a.png'), get_task('saliency'), (6, 8), reader)
