"""The commands and programs of docs/export.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image
from torch import nn

CONFIG = 'configs/polyhistor_lite/swin-pico_mini-pascal.py'


@pytest.fixture(scope='module')
def page(repo):
    """The page's blocks that this file runs: commands, and programs."""
    text = (repo / 'docs' / 'export.md').read_text(encoding='utf-8')
    marked = re.findall(r'<!-- run by tests/docs/test_export.py -->\n```(\w+)\n(.*?)```', text, flags=re.S)
    assert [language for language, _ in marked] == ['bash', 'python', 'python']
    return [body for _, body in marked]


@pytest.fixture(scope='module')
def trained(repo):
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(repo / CONFIG).model)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if 'adapters' in name or parameter.dim() == 1:
            gain = (('norm' in name or '.bn.' in name) and name.endswith('weight')) or name.endswith('gain')
            nn.init.normal_(parameter, float(gain), 0.1)
    return model.eval()


@torch.no_grad()
@pytest.mark.integration
def test_the_page(repo, tools, page, trained, tmp_path):
    """From a checkpoint to files, and from files to predictions, in processes that have no torch, or no OpenMMLab."""
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package, reason=f"{package} is missing: pip install -e '.[export]'")
    for name in ('tools', 'configs'):
        (tmp_path / name).symlink_to(repo / name)
    (tmp_path / 'work_dirs' / 'mini').mkdir(parents=True)
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'work_dirs' / 'mini' / 'epoch_8.pth')
    rgb = np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / 'street.jpg')

    commands, without_torch, with_torch = page
    for command in commands.replace('\\\n', ' ').splitlines():
        words = shlex.split(command)
        _, printed = tools.start(words[1].removeprefix('tools/'), *words[2:], cwd=tmp_path)
        assert 'differs by at most' in printed and 'written: ' in printed

    assert 'classes:' in run(without_torch, tmp_path, blocked=('torch', 'mmengine', 'mmseg_polyhistor'))
    assert 'torch.Size([1, 3, 128, 128])' in run(
        with_torch, tmp_path, blocked=('mmengine', 'mmseg_polyhistor')
    )
    image = np.asarray(Image.open(tmp_path / 'street.jpg'))  # as decoded
    (sample,) = trained.test_step(dict(inputs=[torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())]))
    want = (sample.pred_normals.data.permute(1, 2, 0).numpy() + 1) * 127.5
    got = np.asarray(Image.open(tmp_path / 'normals.png')).astype(float)
    assert np.abs(got - want).max() < 0.6
    assert not list(tmp_path.glob('.export-*'))


def run(program: str, folder, blocked) -> str:
    """What a program prints where some packages cannot be imported."""
    header = f'import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', header + program],
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
