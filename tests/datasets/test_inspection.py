"""What the inspection of a tree says beside missing and broken files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmseg_polyhistor.datasets import PascalContextMTDataset
from mmseg_polyhistor.datasets.file_scan import FileScan
from mmseg_polyhistor.datasets.inspection import COUNT, inspect_sample, summarise
from mmseg_polyhistor.tasks import KINDS, get_task
from tests.tool_runner import load_tool

ORIENTATION = 0x0112


def turn(path: Path, orientation: int, shape: tuple[int, int]) -> None:
    """Give a photograph of (height, width) `shape` an EXIF orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(path, exif=exif)


@pytest.fixture(scope='module')
def tool(repo: Path) -> ModuleType:
    return load_tool(repo / 'tools/check_dataset.py')


@pytest.mark.parametrize(
    ('orientation', 'turned'), [(1, False), (3, True), (6, True), (0, False), (9, False)]
)
def test_photographs_with_an_orientation_are_found(
    pascal_tree: SimpleNamespace, orientation: int, turned: bool
) -> None:
    """Turned by half, an image has its label's size all the same: it is a problem, as it is in training."""
    turn(pascal_tree.root / 'JPEGImages/2008_000002.jpg', orientation, pascal_tree.shape)
    dataset = PascalContextMTDataset(data_root=str(pascal_tree.root), tasks=('saliency',))
    reports = [inspect_sample(dataset.get_data_info(k)) for k in range(3)]
    assert [report.turned for report in reports] == [False, turned, False]
    assert [report.image_error is not None for report in reports] == [False, orientation == 3, False]
    assert bool(reports[1].errors) == (orientation == 6), 'height and width are swapped'


def test_counts_of_every_kind(pascal_tree: SimpleNamespace) -> None:
    dataset = PascalContextMTDataset(data_root=str(pascal_tree.root))
    for k in range(3):
        report = inspect_sample(dataset.get_data_info(k))
        for task in ('semseg', 'human_parts', 'saliency'):
            values = pascal_tree.truth[task][k].ravel().tolist()
            assert report.counts[task].tolist() == [values.count(value) for value in range(256)]
        vectors = [v for v in pascal_tree.truth['normals'][k].reshape(-1, 3).tolist() if v[0] != 255]
        assert report.counts['normals'].tolist() == [
            len(vectors),
            sum(z < 0 for _, _, z in vectors),
            sum(y > 0.5 for _, y, _ in vectors),
            sum(y < -0.5 for _, y, _ in vectors),
            20 * 28 - len(vectors),
        ]
        assert report.labelled == dict(semseg=True, human_parts=k == 0, saliency=True, normals=True)


def test_counts_of_quantities(tmp_path: Path, tool: ModuleType) -> None:
    depth = get_task('depth')
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(tmp_path / 'a.png')
    np.save(tmp_path / 'a.npy', np.array([[0, 0, 0.05, 0.5], [5, 50, 500, 5000]]))
    sample = dict(
        img_path=str(tmp_path / 'a.png'),
        tasks=('depth',),
        label_paths=dict(depth=str(tmp_path / 'a.npy')),
        label_readers=dict(depth=dict(type='scalar_npy')),
    )
    report = inspect_sample(sample)
    assert report.counts['depth'].tolist() == [6, 1, 2, 3, 4, 5, 2]
    assert report.labelled == dict(depth=True)
    summary = summarise(FileScan([sample], [], dict(depth=[])), [report], [depth]).tasks[0]
    rows = tool.ROWS['scalar'](summary)
    assert rows[0][1:] == ('valid (of all pixels)', 6 / 8, 1)
    assert [(name, share) for _, name, share, _ in rows[1:]] == [
        (f'below {limit} (of valid)', k / 6)
        for k, limit in enumerate(('0.1', '1', '10', '100', '1000'), start=1)
    ]
    assert set(tool.ROWS) == set(COUNT) == set(KINDS)


def test_the_tool_names_them(
    pascal_tree: SimpleNamespace, tool: ModuleType, capsys: pytest.CaptureFixture
) -> None:
    photograph = pascal_tree.root / 'JPEGImages/2008_000002.jpg'
    arguments = [str(pascal_tree.root), '--tasks', 'saliency', '--split', 'train']
    turn(photograph, 6, pascal_tree.shape[::-1])
    assert tool.main(arguments) == 0
    out = capsys.readouterr().out
    assert 'note: train: 1 images have an EXIF orientation' in out
    assert f'drawn on the turned images: {photograph}\n' in out
    turn(photograph, 3, pascal_tree.shape)
    assert tool.main(arguments) == 1
    assert f'broken image: {photograph}: found a photograph of 20 x 28' in capsys.readouterr().out


def test_the_tool_takes_brackets_in_a_path_for_what_they_are(
    tool: ModuleType, capsys: pytest.CaptureFixture
) -> None:
    assert tool.main(['x[/red]y[bold]', '--split', 'train']) == 1
    assert 'x[/red]y[bold], train: decoding all files' in capsys.readouterr().out
