"""`tools/analysis/get_flops.py`: what it prints; the counts themselves are tested with the package."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from mmseg.registry import MODELS
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
LITE = ROOT / 'configs/polyhistor_lite/swin-pico_mini-pascal.py'
MINE = """
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ConvBackbone'),
    decode_head=dict(type='FCNHead', in_channels=8, channels=4, num_classes=2, num_convs=1, kernel_size=1, concat_input=False))
"""


@MODELS.register_module()
class ConvBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, images):
        return (self.conv(images),)


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('get_flops', ROOT / 'tools/analysis/get_flops.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def record(tool, capsys):
    tool.main([str(LITE), '--shape', '64', '96', '--json'])
    (record,) = json.loads(capsys.readouterr().out)
    return record


def test_the_parts_of_a_method_as_json(record):
    assert record['config'] == str(LITE)
    assert record['shape'] == [64, 96]
    assert record['unit'] == 'multiply-adds'
    assert set(record['encoder_tasks']) == set(record['decoders']) == set(record['one_task'])
    assert record['encoder'] == record['encoder_shared'] + sum(record['encoder_tasks'].values())
    assert record['generation'] == record['generation_shared'] + sum(record['generation_tasks'].values()) > 0
    assert record['total'] == record['encoder'] + record['generation'] + sum(record['decoders'].values())
    for task, number in record['one_task'].items():
        parts = [record[key][task] for key in ('encoder_tasks', 'generation_tasks', 'decoders')]
        assert number == record['encoder_shared'] + record['generation_shared'] + sum(parts)


def test_the_table_shows_the_record_in_giga(tool, record, capsys):
    tool.main([str(LITE), '--shape', '64', '96'])
    out, err = capsys.readouterr()
    rows = {line.split('  ')[0]: line.split() for line in out.splitlines()}
    assert rows['total'][1] == f'{record["total"] / 1e9:.3f}'
    assert rows['encoder'][1:3] == [f'{record[key] / 1e9:.3f}' for key in ('encoder', 'encoder_shared')]
    assert rows['one task alone'][3:] == [f'{n / 1e9:.3f}' for n in record['one_task'].values()]
    assert 'FLOPs are twice as many' in err


def test_a_config_of_mmseg_at_its_own_size(tool, tmp_path, capsys):
    """A convolution 3 x 3 with stride 2, and a head 8 -> 4 -> 2, at 10 x 12."""
    path = tmp_path / 'mine.py'
    path.write_text(MINE + 'crop_size = (10, 12)\n')
    tool.main([str(path), '--json'])
    (record,) = json.loads(capsys.readouterr().out)
    assert record['shape'] == [10, 12]
    assert record['encoder'] == 30 * 27 * 8
    assert record['decoders'] == {'decode_head': 30 * 40}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['configs/nothing.py'], 'configs/nothing.py: no such file'),
        ([str(LITE), '--shape', '0', '5'], '--shape must be two positive numbers'),
        ([str(ROOT / 'configs/_base_/schedules/mini.py')], 'has no model'),
    ],
    ids=['file', 'shape', 'model'],
)
def test_wrong_arguments_are_answered(tool, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert message in f'{stop.value.code} {capsys.readouterr().err}'


@pytest.mark.integration
def test_as_a_user_starts_it(tools):
    _, printed = tools.start('analysis/get_flops.py', LITE, '--markdown', cwd=ROOT)
    assert f'{LITE}, one image of 96 x 96 pixels' in printed
    assert '| total ' in printed
