"""`tools/train.py --check` with the real mini config."""

from __future__ import annotations

from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.integration, pytest.mark.stack]


@pytest.fixture
def config(tools, tmp_path):
    tools.start(
        'dataset_converters/make_mini_pascal.py', 'data', '--train', 4, '--val', 2, '--size', 32, '--workers', 0,
        cwd=tmp_path,
    )  # fmt: skip
    base = REPO / 'configs' / 'polyhistor_lite' / 'swin-pico_mini-pascal.py'
    path = tmp_path / 'config.py'
    path.write_text(
        f"""
_base_ = {str(base)!r}
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='data'))
train_dataloader = val_dataloader = loader
"""
    )
    return path


def test_it_fits_and_leaves_nothing(tools, config, tmp_path):
    _, printed = tools.start('train.py', config, '--check', cwd=tmp_path)
    assert 'training data: 4 images, 2 batches of 2' in printed
    assert printed.rstrip().endswith('--check: everything fits; nothing was written to work_dirs/config')
    assert not (tmp_path / 'work_dirs').exists()


def test_what_is_wrong_ends_it_in_one_line(tools, config, tmp_path):
    next((tmp_path / 'data' / 'sal_distill').glob('val*')).unlink()
    _, printed = tools.start('train.py', config, '--check', cwd=tmp_path, expect=1)
    assert 'Traceback' not in printed
    assert 'train.py: --check failed: FileNotFoundError' in printed and 'saliency: 1 of 2' in printed
    _, printed = tools.start('train.py', config, '--check', '--launcher', 'slurm', cwd=tmp_path, expect=1)
    assert 'use --launcher pytorch' in printed or 'runs in one process' in printed
