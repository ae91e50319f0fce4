"""What a user may name as input, and how the images behind it are called."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_polyhistor.apis import InputError, count_images, expand_inputs


@pytest.fixture
def folder(tmp_path):
    """Images at two depths, two of one stem, a text file, and a name with blanks and letters beyond ASCII."""
    root = tmp_path / 'my photos'
    for name in ('b.png', 'a.jpg', 'a.png', 'sub/c.JPG', 'sub/größe 1.bmp'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(root / name)
    (root / 'notes.txt').write_text('no image')
    return root


def write_video(path, frames=5, size=(32, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, size[::-1])
    if not writer.isOpened():
        pytest.skip('this OpenCV cannot write a video')
    for i in range(frames):
        writer.write(np.full((*size, 3), 50 * i, np.uint8))
    writer.release()


def names(inputs):
    sources = list(expand_inputs(inputs))
    assert len(sources) == count_images(inputs)
    return [source.name for source in sources]


def test_a_folder_holds_all_images_below_it_in_order(folder):
    assert names(folder) == ['a', 'a_png', 'b', 'sub/c', 'sub/größe 1']
    paths = [source.path for source in expand_inputs(str(folder))]
    assert paths == sorted(str(p) for p in folder.rglob('*') if p.is_file() and p.suffix != '.txt')


def test_patterns(folder):
    assert names(str(folder / '*.png')) == ['a', 'b']
    assert names(str(folder / '**' / '*.[jJ][pP][gG]')) == ['a', 'sub/c']
    assert names([str(folder / 'a.*'), folder / 'sub']) == ['a', 'a_png', 'c', 'größe 1']


def test_a_file_whose_name_looks_like_a_pattern(folder):
    (folder / 'a.png').rename(folder / 'a[1].png')
    assert names(str(folder / 'a[1].png')) == ['a[1]']


def test_arrays_and_lists(folder):
    image = np.zeros((3, 5, 3), np.uint8)
    assert names(image) == ['image']
    assert names([image, folder / 'b.png', image]) == ['image_0', 'b', 'image_2']
    (source,) = expand_inputs(image)
    assert source.image is image and source.path is None


def test_names_are_unique(folder):
    """Whatever clashes: no result overwrites another."""
    given = names([folder / 'a.png', folder / 'a.png', folder / 'a.jpg', folder])
    assert len(given) == len(set(given)) == 8


def test_frames_of_a_video(tmp_path):
    write_video(tmp_path / 'walk.avi')
    sources = list(expand_inputs(tmp_path / 'walk.avi'))
    assert [s.name for s in sources] == [f'walk/{i:06}' for i in range(5)]
    assert [round(float(s.image.mean()) / 50) for s in sources] == [0, 1, 2, 3, 4]
    assert all(s.image.shape == (32, 48, 3) and s.path == str(tmp_path / 'walk.avi') for s in sources)
    assert count_images(tmp_path) == 5


def test_a_broken_video_is_told_in_its_turn(folder):
    (folder / 'broken.mp4').write_bytes(b'no video')
    sources = {s.name: s for s in expand_inputs(folder)}
    assert 'OpenCV cannot decode' in sources['broken'].problem and len(sources) == 6
    assert all(s.problem is None for name, s in sources.items() if name != 'broken')


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        ('nowhere.jpg', r"'nowhere\.jpg' does not exist"),
        ('no*where.jpg', r"no image or video fits the pattern 'no\*where\.jpg'"),
        ([], 'the list of inputs is empty'),
        (3, 'must be a path, a uint8 array .* got int'),
        (np.zeros((3, 5)), r'must be uint8 \(H, W, 3\) in BGR, got float64 \(3, 5\)'),
        ([np.zeros((3, 5, 3), np.uint8), np.zeros((0, 5, 3), np.uint8)], r'image_1: an array must be .* \(0, 5, 3\)'),
    ],
)  # fmt: skip
def test_what_is_no_input(inputs, message):
    with pytest.raises(InputError, match=message):
        list(expand_inputs(inputs))


def test_an_empty_folder(tmp_path):
    (tmp_path / 'x.txt').write_text('')
    with pytest.raises(InputError, match='has no image or video'):
        list(expand_inputs(tmp_path))
