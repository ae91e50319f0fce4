"""`tools/count_params.py`: what it counts, what it compares, and its exit status."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn

from mmseg_polyhistor.benchmark import build_without_weights, read_benchmark

ROOT = Path(__file__).resolve().parents[2]
LITE = ROOT / 'configs/polyhistor_lite/swin-t_pascal.py'
FULL = ROOT / 'configs/multi_task/swin-t_pascal.py'
PRINTED = 'Reported by the Polyhistor paper'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('count_params', ROOT / 'tools/count_params.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def benchmark(tool, tmp_path, monkeypatch):
    """A copy of two rows of the benchmark; gives a function that changes one of them."""
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    index = tmp_path / 'model-index.yml'
    files = {folder: f'configs/{folder}/metafile.yml' for folder in ('multi_task', 'polyhistor_lite')}
    for file in files.values():
        content = yaml.safe_load((tmp_path / file).read_text())
        content['Models'] = content['Models'][:1]
        (tmp_path / file).write_text(yaml.safe_dump(content))
    index.write_text(yaml.safe_dump({'Import': list(files.values())}))
    monkeypatch.setattr(tool, 'ROOT', tmp_path)
    monkeypatch.setattr(tool, 'INDEX', index)

    def change(folder, *keys, value):
        content = yaml.safe_load((tmp_path / files[folder]).read_text())
        entry = content['Models'][0]
        for key in keys[:-1]:
            entry = entry[key]
        if value is None:
            del entry[keys[-1]]
        else:
            entry[keys[-1]] = value
        (tmp_path / files[folder]).write_text(yaml.safe_dump(content))

    return change


def words(text):
    return [' '.join(line.split()) for line in text.splitlines()]


def test_all_rows_beside_the_papers_numbers(tool, benchmark, capsys):
    """The paper cuts off in one row and rounds in the other: neither is a difference."""
    assert tool.main([]) == 0
    out, err = capsys.readouterr()
    assert words(out) == [
        'Swin-T, pretraining: ImageNet-1k',
        'method encoder decoders total paper: encoder paper: total config',
        'multi-task full fine-tuning 27,517,818 2,549,024 30,066,842 27.51 M 30.06 M '
        'configs/multi_task/swin-t_pascal.py',
        'Polyhistor-Lite 413,552 2,549,024 2,962,576 0.41 M 2.96 M configs/polyhistor_lite/swin-t_pascal.py',
        '',
    ]
    assert '2 configs compared with their metafiles, 2 with the paper: 0 differences' in err


@pytest.mark.parametrize(
    ('keys', 'value', 'message'),
    [
        (('Metadata', 'Trainable Parameters'), 2_962_575, 'total: 2,962,576 parameters, but the metafile records 2,962,575'),
        (('Metadata', 'Trainable Encoder Parameters'), 1, 'encoder: 413,552 parameters, but the metafile records 1'),
        ((PRINTED, 'Encoder Parameters (M)'), 0.43, 'encoder: 413,552 parameters, but the paper prints 0.43 M'),
        ((PRINTED, 'Parameters (M)'), 2.95, 'total: 2,962,576 parameters, but the paper prints 2.95 M'),
    ],
    ids=['recorded total', 'recorded encoder', 'printed encoder', 'printed total'],
)  # fmt: skip
def test_a_difference_names_the_row_and_fails(tool, benchmark, capsys, keys, value, message):
    benchmark('polyhistor_lite', *keys, value=value)
    assert tool.main([]) == 1
    err = capsys.readouterr().err.splitlines()
    assert f'configs/polyhistor_lite/swin-t_pascal.py: {message}' in err
    assert err[-1].endswith(': 1 differences')


@pytest.mark.parametrize(
    ('folder', 'printed', 'fits'),
    [
        ('polyhistor_lite', 0.40, False),
        ('polyhistor_lite', 0.41, True),
        ('polyhistor_lite', 0.42, False),
        ('multi_task', 27.50, False),
        ('multi_task', 27.51, True),
        ('multi_task', 27.52, True),
        ('multi_task', 27.53, False),
    ],
    ids=str,
)
def test_two_digits_rounded_or_cut_off_are_no_difference(tool, benchmark, folder, printed, fits):
    """413,552 is 0.41 rounded and cut off; 27,517,818 is 27.52 rounded and 27.51 cut off."""
    benchmark(folder, PRINTED, 'Encoder Parameters (M)', value=printed)
    assert (tool.main([]) == 0) == fits


def test_a_metafile_that_lacks_an_entry_is_named(tool, benchmark):
    benchmark('multi_task', 'Metadata', 'Pretraining', value=None)
    with pytest.raises(
        ValueError, match=r"multi_task/metafile.yml: the model multi_task_swin-t_pascal lacks .*'Pretraining'"
    ):
        tool.main([])  # fmt: skip


def test_named_configs_as_json(tool, capsys):
    assert tool.main([str(FULL), '--json']) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record == dict(
        config='configs/multi_task/swin-t_pascal.py',
        name='multi_task_swin-t_pascal',
        method='multi-task full fine-tuning',
        backbone='Swin-T',
        pretraining='ImageNet-1k',
        encoder=27_517_818,
        decoders=2_549_024,
        total=30_066_842,
        paper_encoder=27.51,
        paper_total=30.06,
        problems=[],
    )


def test_markdown_is_a_table(tool, capsys):
    assert tool.main([str(LITE), str(ROOT / 'configs/lora/shared_swin-t_pascal.py'), '--markdown']) == 0
    title, empty, *lines = capsys.readouterr().out.rstrip().splitlines()
    assert (title, empty) == ('### Swin-T, pretraining: ImageNet-1k', '')
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert [len(row) for row in cells] == [7] * 4
    assert {len(line) for line in lines} == {len(lines[0])}
    assert [row[0] for row in cells[2:]] == ['Polyhistor-Lite', 'LoRA, shared']
    assert cells[3][4:6] == ['-', '-']


def test_a_users_config_of_mmseg(tool, tmp_path, capsys):
    """Any backbone; the counts are those of the model as it is built in the ordinary way."""
    file = tmp_path / 'mine.py'
    file.write_text(
        'norm = dict(type="BN")\n'
        'model = dict(type="EncoderDecoder",\n'
        '    backbone=dict(type="SwinTransformer", embed_dims=24, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4),\n'
        '        init_cfg=dict(type="Pretrained", checkpoint="/nowhere/swin.pth")),\n'
        '    decode_head=dict(type="FCNHead", in_channels=192, channels=16, num_classes=5, norm_cfg=norm))\n'
    )
    model = MODELS.build(Config.fromfile(file).model)
    encoder = sum(p.numel() for p in model.backbone.parameters())
    head = sum(p.numel() for p in model.decode_head.parameters())
    assert tool.main([str(file)]) == 0
    text = words(capsys.readouterr().out)
    assert text[0] == 'Not in the benchmark'
    assert text[2] == f'- {encoder:,} {head:,} {encoder + head:,} - - {file}'


@MODELS.register_module()
class ReadsItsWeights(nn.Module):
    """A model whose constructor reads a value, which tensors without values refuse."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 3)
        self.first = self.backbone.weight[0, 0].item()


def test_models_that_read_values_are_built_in_the_ordinary_way():
    model = build_without_weights(dict(type='ReadsItsWeights'))
    assert model.first == model.backbone.weight[0, 0].item()
    assert build_without_weights(Config.fromfile(LITE).model).backbone.patch_embed.projection.weight.is_meta


def test_building_without_weights_leaves_the_config_alone():
    cfg = Config.fromfile(FULL)
    build_without_weights(cfg.model)
    assert cfg.pretty_text == Config.fromfile(FULL).pretty_text


def test_a_missing_config_says_what_to_give(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(['configs/polyhistor/swin_t.py', str(LITE)])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert (
        'configs/polyhistor/swin_t.py: no such file. Give paths of configs, such as configs/polyhistor/swin-t'
        in message
    )


def test_a_file_without_a_model_is_named(tool):
    with pytest.raises(SystemExit, match=r'adam_60e.py has no model'):
        tool.main([str(ROOT / 'configs/_base_/schedules/adam_60e.py')])


def test_every_row_is_read():
    rows = read_benchmark(ROOT / 'model-index.yml')
    assert all(row.config.is_file() for row in rows)
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.integration
def test_the_command_line_prints_the_whole_table(tools):
    _, text = tools.start('count_params.py', cwd=ROOT)
    printed = [line for line in text.splitlines() if line.count(' M  ') == 2]
    assert len(printed) == 17
    assert len([line for line in text.splitlines() if line.endswith('.py')]) == len(
        read_benchmark(ROOT / 'model-index.yml')
    )
