"""`tools/pretrain/pack_images.py`: folders of images as the one file that the pretraining reads."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools'))
from pretrain import pack_images  # as the tools do: under another name its dataset would register twice
from pretrain.jpeg_arrays import read_arrays


def paint(path, colour, size=(64, 64)):
    """A plain image with a red frame outside of its largest centred square; in a JPEG it would run into the centre."""
    image = Image.new('RGB', size, (255, 0, 0))
    side = min(size)
    image.paste(
        colour, ((size[0] - side) // 2, (size[1] - side) // 2, (size[0] + side) // 2, (size[1] + side) // 2)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def tree(tmp_path):
    """As Tiny ImageNet lies: train/<class>/images, val in one folder with a file of labels; sizes and suffixes differ."""
    paint(tmp_path / 'train/n02/images/b.JPEG', (0, 200, 0))
    paint(tmp_path / 'train/n02/images/a.png', (0, 0, 200), (96, 64))
    paint(tmp_path / 'train/n01/images/c.jpg', (90, 90, 90))
    paint(tmp_path / 'val/images/val_1.png', (20, 20, 220), (40, 80))
    paint(tmp_path / 'val/images/val_0.JPEG', (20, 220, 20))
    (tmp_path / 'val/labels.txt').write_text('val_1.png\tn02\t0\t0\t62\t62\nval_0.JPEG\tn01\t1\t2\t3\t4\n')
    return tmp_path


def call(tree, *more):
    out = tree / 'out' / 'images.npz'
    flat = ['--val-labels', str(tree / 'val/labels.txt')]
    return out, [str(out), '--train', str(tree / 'train'), '--val', str(tree / 'val/images'), *flat, *more]


def test_what_is_packed(tree, capsys):
    """In the order of classes and names, at one size, from the centre; the reader of the pretraining takes it."""
    out, arguments = call(tree, '--size', '16')
    assert pack_images.main(arguments) == 0
    assert (
        f'{out}: 3 train, 2 val images of 2 classes, {out.stat().st_size:,} bytes' in capsys.readouterr().out
    )
    arrays = read_arrays(out)
    assert arrays['labels'].tolist() == ['n01', 'n02', 'n02', 'n02', 'n01']
    assert arrays['split'].tolist() == ['train'] * 3 + ['val'] * 2
    colours = [(90, 90, 90), (0, 0, 200), (0, 200, 0), (20, 20, 220), (20, 220, 20)]
    for start, stop, colour in zip(arrays['offsets'][:-1], arrays['offsets'][1:], colours, strict=True):
        image = np.asarray(Image.open(io.BytesIO(arrays['jpeg'][start:stop].tobytes())))
        assert image.shape == (16, 16, 3)
        inner = image[2:-2, 2:-2]  # bicubic weights reach beyond the cut
        np.testing.assert_allclose(inner, np.broadcast_to(colour, inner.shape), atol=4)
    assert [path.name for path in out.parent.iterdir()] == ['images.npz']


def test_validation_images_in_folders_of_classes(tree):
    paint(tree / 'val2/n01/x.png', (1, 2, 3))
    paint(tree / 'val2/n02/y.png', (1, 2, 3))
    out = tree / 'images.npz'
    pack_images.main([str(out), '--train', str(tree / 'train'), '--val', str(tree / 'val2')])
    assert read_arrays(out)['labels'].tolist() == ['n01', 'n02', 'n02', 'n01', 'n02']


def unreadable(tree):
    (tree / 'train/n01/images/c.jpg').write_bytes(b'no image')


def another_class(tree):
    paint(tree / 'train/n03/d.png', (1, 2, 3))


def empty_class(tree):
    (tree / 'train/n00').mkdir()


def absent(tree):
    (tree / 'val/images/val_0.JPEG').unlink()


def unnamed(tree):
    paint(tree / 'val/images/val_9.png', (1, 2, 3))


def no_class(tree):
    (tree / 'val/labels.txt').write_text('val_0.JPEG n01\n\nval_1.png\n')


def twice(tree):
    (tree / 'val/labels.txt').write_text('val_0.JPEG n01\nval_0.JPEG n02\n')


def no_labels(tree):
    (tree / 'val/labels.txt').unlink()


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (unreadable, r'images/c\.jpg cannot be decoded: '),
        (another_class, "the same classes; 1 are in one of them alone, such as 'n03' in train"),
        (empty_class, r'n00 holds no image \(\.jpeg, \.jpg, \.png\)'),
        (absent, r'labels\.txt, line 2: .*val_0\.JPEG does not exist'),
        (unnamed, r'labels\.txt does not name 1 images of .*, the first is val_9\.png'),
        (no_class, r"labels\.txt, line 3: 'val_1\.png' is not a name and a class"),
        (twice, r'labels\.txt, line 2: val_0\.JPEG stands there twice'),
        (no_labels, r'No such file .*labels\.txt'),
    ],
)
def test_what_cannot_be_packed_is_named(tree, damage, message):
    damage(tree)
    out, arguments = call(tree)
    with pytest.raises(SystemExit, match=rf'(?s)^pack_images\.py: .*{message}'):
        pack_images.main(arguments)
    assert not out.exists()


def test_folders_that_cannot_be(tree):
    _, arguments = call(tree)
    for position, folder, message in (
        (2, tree / 'nowhere', 'does not exist'),
        (2, tree / 'val/images', 'has no folders'),
    ):
        with pytest.raises(SystemExit, match=message):
            pack_images.main([*arguments[:position], str(folder), *arguments[position + 1 :]])


@pytest.mark.parametrize(
    'arguments', [['images.txt'], ['a.npz', '--size', '0'], ['a.npz', '--quality', '101']]
)
def test_arguments_that_cannot_be(arguments, capsys):
    with pytest.raises(SystemExit):
        pack_images.main([*arguments, '--train', 'a', '--val', 'b'])
    assert 'must be' in capsys.readouterr().err
