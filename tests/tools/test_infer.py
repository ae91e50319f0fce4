"""`tools/infer.py` on a folder: the files that it writes read back as what the model predicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

from mmseg_polyhistor.apis import MultiTaskInferencer
from mmseg_polyhistor.tasks import get_task

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / 'configs' / 'polyhistor_lite' / 'swin-pico_mini-pascal.py'


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.init_weights()
    for head in model.decode_heads.values():
        torch.nn.init.normal_(head.conv_seg.weight)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'model.pth')
    return tmp_path / 'model.pth'


@pytest.mark.integration
@pytest.mark.stack
def test_a_folder_with_a_broken_file(tools, tmp_path, checkpoint):
    """Every good image has its files, the broken one is reported, and the exit status says so."""
    rng = np.random.default_rng(0)
    shapes = {'one': (60, 40), 'sub/two': (33, 71)}
    for name, shape in shapes.items():
        path = tmp_path / 'my photos' / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(path)
    (tmp_path / 'my photos' / 'broken.jpg').write_bytes(b'nothing')
    arguments = ['my photos', CONFIG, checkpoint, '--out', 'out', '--batch-size', 2]
    _, printed = tools.start('infer.py', *arguments, cwd=tmp_path, expect=1)
    assert 'broken.jpg: cannot be read as an image' in printed and '1 of 3 images' in printed
    assert '2 images, tasks semseg, human_parts, saliency, normals: out' in printed

    inferencer = MultiTaskInferencer(CONFIG, checkpoint, device='cpu')
    out = tmp_path / 'out'
    written = {str(p.relative_to(out)) for p in out.rglob('*') if p.is_file()}
    assert written == {'classes.json'} | {
        f'{folder}/{name}.{suffix}'
        for name in shapes
        for folder, suffix in (*((t, 'png') for t in inferencer.tasks), ('overview', 'jpg'))
    }
    assert json.loads((out / 'classes.json').read_text())['semseg'] == list(get_task('semseg').classes)
    for name, shape in shapes.items():
        arrays = inferencer(tmp_path / 'my photos' / f'{name}.png')
        classes = Image.open(out / 'semseg' / f'{name}.png')
        assert classes.mode == 'P' and classes.size == shape[::-1]
        assert (np.array(classes) != arrays['semseg']).mean() < 0.01  # ties: the tool ran them in a batch
        assert classes.getpalette()[: 3 * 21] == [c for rgb in get_task('semseg').palette for c in rgb]
        grey = np.array(Image.open(out / 'saliency' / f'{name}.png'))
        assert np.abs(grey / 255 - arrays['saliency']).max() < 0.51 / 255 + 1e-4
        normals = 2.0 * np.array(Image.open(out / 'normals' / f'{name}.png')) / 255 - 1
        assert np.abs(normals - arrays['normals']).max() < 1.01 / 255 + 1e-3
        assert Image.open(out / 'overview' / f'{name}.jpg').size[0] > 5 * 96


@pytest.mark.integration
def test_some_tasks_without_overview_and_mistakes(tools, tmp_path, checkpoint):
    """--tasks and --no-overview write less; what cannot work is one line."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / 'a.png')
    arguments = ['a.png', CONFIG, checkpoint, '--out', 'out', '--no-overview', '--tasks', 'normals']
    tools.start('infer.py', *arguments, cwd=tmp_path)
    assert {str(p.relative_to(tmp_path / 'out')) for p in (tmp_path / 'out').rglob('*.*')} == {
        'classes.json',
        'normals/a.png',
    }
    for arguments, message in (
        (['b.png', CONFIG, checkpoint], "'b.png' does not exist"),
        (['a.png', CONFIG, 'none.pth'], "the checkpoint 'none.pth' does not exist"),
        (['a.png', CONFIG, checkpoint, '--out', 'a.png'], 'after 0 of 1 images: [Errno 17] File exists'),
        (['a.png', CONFIG, checkpoint, '--batch-size', 0], 'error: --batch-size must be at least 1, got 0'),
        (['a.png', CONFIG, checkpoint, '--cell-size', 20], 'error: --cell-size must be at least 96, got 20'),
    ):
        (status,), printed = tools.start('infer.py', *arguments, cwd=tmp_path, expect=None)
        assert status in (1, 2) and message in printed and 'Traceback' not in printed
        assert printed.strip().splitlines()[-1].startswith('infer.py: ')
