"""`tools/browse_dataset.py`: sheets of what leaves the pipeline, for a data set with tasks that the config brings along."""

from __future__ import annotations

from pathlib import Path

import mmseg
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image

from mmseg_polyhistor import tasks as table
from mmseg_polyhistor.task_rows import add_tasks
from mmseg_polyhistor.visualization import draw_sheets
from mmseg_polyhistor.visualization.layout import Layout, fit

MMSEG = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'analysis_tools' / 'browse_dataset.py'
SIZE = (40, 56)
NAMES = [f'street_{k}' for k in range(7)]
ROWS = [
    dict(name='garments', kind='semantic', classes=('background', 'shirt', 'shoe')),
    dict(name='silhouette', kind='binary'),
]
CONFIG = """
custom_imports = dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)
default_scope = 'mmseg'
new_tasks = [
    dict(name='garments', kind='semantic', classes=('background', 'shirt', 'shoe')),
    dict(name='silhouette', kind='binary'),
]
dataset = dict(
    type='MultiTaskDataset',
    new_tasks=new_tasks,
    data_root='street',
    data_prefix=dict(img_path='images', garments='garments', silhouette='masks'),
    suffixes=dict(img_path='.png', garments='.png', silhouette='.png'),
    sources=dict(
        garments=dict(path='garments', reader=dict(type='index_image')),
        silhouette=dict(path='silhouette', reader=dict(type='grey_image'))))
load = [dict(type='LoadImageFromFile', imdecode_backend='pillow'), dict(type='LoadMultiTaskAnnotations')]
train_dataloader = dict(dataset=dict(dataset, ann_file='train.txt', pipeline=[
    *load, dict(type='MultiTaskRandomFlip', prob=0.5), dict(type='MultiTaskRandomRotate', degree=20.0),
    dict(type='PackMultiTaskInputs')]))
val_dataloader = dict(dataset=dict(
    dataset, ann_file='val.txt', pipeline=[*load, dict(type='PackMultiTaskInputs')]))
visualizer = dict(type='MultiTaskVisualizer', name='visualizer', cell_size=128)
"""


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Seven photographs with two masks each."""
    rng = np.random.default_rng(0)
    for folder in ('images', 'garments', 'masks'):
        (tmp_path / 'street' / folder).mkdir(parents=True)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(
            tmp_path / f'street/images/{name}.png'
        )
        Image.fromarray(rng.integers(0, 3, SIZE, np.uint8)).save(tmp_path / f'street/garments/{name}.png')
        Image.fromarray(255 * rng.integers(0, 2, SIZE, np.uint8)).save(tmp_path / f'street/masks/{name}.png')
    (tmp_path / 'street/train.txt').write_text('\n'.join(NAMES[:6]))
    (tmp_path / 'street/val.txt').write_text('\n'.join(NAMES[5:]))
    (tmp_path / 'config.py').write_text(CONFIG)
    return tmp_path


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def expected_sheet(street: Path, name: str, cell_size: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The files, drawn without data set and pipeline."""
    monkeypatch.setattr(table, '_TASKS', dict(table._TASKS))
    specs = add_tasks(ROWS)
    sample = SegDataSample()
    for spec, folder, divisor in zip(specs, ('garments', 'masks'), (1, 255), strict=True):
        label = torch.from_numpy(read(street / f'street/{folder}/{name}.png') // divisor)
        sample.set_data({spec.gt_field: PixelData(data=label[None])})
    return draw_sheets([read(street / f'street/images/{name}.png')], [sample], specs, cell_size=cell_size)


@pytest.mark.integration
def test_sheets_of_the_validation_data(tools, street, monkeypatch):
    _, printed = tools.start(
        'browse_dataset.py', 'config.py', '--split', 'val', '--out', 'sheets', cwd=street
    )
    assert '2 of 2 samples, val: sheets' in printed
    assert '2/2' in printed  # the progress bar
    files = sorted((street / 'sheets').iterdir())
    assert [file.name for file in files] == ['0_street_5.png', '1_street_6.png']
    for file, name in zip(files, NAMES[5:], strict=True):
        np.testing.assert_array_equal(read(file), expected_sheet(street, name, 256, monkeypatch))


@pytest.mark.integration
def test_augmentations_of_one_image_on_one_sheet(tools, street):
    command = ['browse_dataset.py', 'config.py', '--number', 2, '--times', 3, '--cell-size', 128]
    tools.start(*command, '--out', 'one', cwd=street)
    files = sorted((street / 'one').iterdir())
    assert [file.name for file in files] == ['0_street_0.png', '3_street_3.png']  # evenly spread over six
    sheet = read(files[0])
    height, width = fit(*SIZE, 128)
    layout = Layout([(height, width)] * 3, rows=1, columns=2, legend=[4, 3])
    assert sheet.shape[:2] == layout.size
    cells = [sheet[top:bottom, left:right] for left, top, right, bottom in map(layout.input, range(3))]
    assert any((cells[0] != cell).any() for cell in cells[1:])  # they are augmented
    tools.start(*command, '--out', 'again', cwd=street)
    np.testing.assert_array_equal(read(street / 'again' / files[0].name), sheet)
    tools.start(*command, '--out', 'other', '--seed', 1, cwd=street)
    assert (read(street / 'other' / files[0].name) != sheet).any()


@pytest.mark.integration
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--split', 'test'], 'browse_dataset.py: config.py has no test_dataloader'),
        (['--cfg-options', 'train_dataloader.dataset.ann_file=no.txt'], 'the list of images street/no.txt does not exist'),
        (['--cfg-options', 'train_dataloader.dataset.pipeline.4.type=LoadMultiTaskAnnotations'], 'as PackMultiTaskInputs does'),
        (['--cell-size', 20], 'cell_size must be at least 96 pixels'),
        (['--number', 0], 'must be at least 1, got 0'),
    ],
    ids=['no such split', 'no list', 'not packed', 'too small', 'none'],
)  # fmt: skip
def test_a_mistake_is_told_without_a_traceback(tools, street, options, message):
    statuses, printed = tools.start('browse_dataset.py', 'config.py', *options, cwd=street, expect=None)
    assert statuses[0] != 0
    assert message in printed
    assert 'Traceback' not in printed


@pytest.mark.integration
@pytest.mark.stack
def test_under_mmsegs_own_tool(tools, street, monkeypatch):
    options = [
        '--not-show',
        '--output-dir',
        'mmseg',
        '--cfg-options',
        'train_dataloader.dataset.ann_file=val.txt',
    ]
    pipeline = [
        'train_dataloader.dataset.pipeline.2.prob=0.0',
        'train_dataloader.dataset.pipeline.3.prob=0.0',
    ]
    tools.start(MMSEG, 'config.py', *options, *pipeline, cwd=street)
    for name in NAMES[5:]:
        expected = expected_sheet(street, name, 128, monkeypatch)
        np.testing.assert_array_equal(read(street / f'mmseg/{name}.png'), expected)
