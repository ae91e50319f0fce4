"""`tools/benchmark_data.py`: what it measures and prints. No test looks at how long anything took."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import torch

from tests.tool_runner import load_tool

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/polyhistor/swin-pico_mini-pascal.py'
PIPELINE = ['LoadImageFromFile', 'MultiTaskResize', 'LoadMultiTaskAnnotations', 'PackMultiTaskInputs']


@pytest.fixture(scope='module')
def data(tools, tmp_path_factory):
    """A rendered data set of six images."""
    root = tmp_path_factory.mktemp('data') / 'mini'
    arguments = [root, '--train', 4, '--val', 2, '--size', 32]
    tools.start('dataset_converters/make_mini_pascal.py', *arguments, cwd=root.parent)
    return root


@pytest.fixture
def tool():
    module = load_tool(ROOT / 'tools/benchmark_data.py')
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield module
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def test_both_splits_in_one_run(tool, data, tmp_path, capsys):
    file = tmp_path / 'result.json'
    tool.main([str(CONFIG), '--data-root', str(data), '--workers', '0', '--images', '4', '--json', str(file)])
    result = json.loads(file.read_text())
    assert result['machine']['torch'] == torch.__version__
    train, val = (result['splits'][split] for split in ('train', 'val'))
    assert (train['images_found'], val['images_found']) == (4, 2)
    assert list(val['warm']['transforms']) == PIPELINE
    assert 'MultiTaskRandomRotate' in train['warm']['transforms']
    for split in (train, val):
        assert split['cached_labels'] is True
        for name in ('cold', 'warm'):
            one = split[name]
            assert one['images'] == split['images_found']
            assert one['images_per_second'] == pytest.approx(one['images'] / one['wall'])
            assert one['images_per_cpu_second'] == pytest.approx(one['images'] / one['cpu'])
            assert list(one['labels']) == ['semseg', 'human_parts', 'normals', 'saliency']
            for part in (*one['transforms'].values(), *one['labels'].values()):
                assert part['share'] == pytest.approx(part['cpu'] / one['cpu'])
            loading = one['transforms']['LoadMultiTaskAnnotations']
            assert sum(part['cpu'] for part in one['labels'].values()) <= loading['cpu']
            assert sum(part['cpu'] for part in one['transforms'].values()) <= one['cpu']
        (rate,) = split['workers']
        assert rate['images_per_second'] == rate['images_per_second_and_worker'] > 0
    assert not [path for path in data.rglob('*') if path.name.endswith('.tmp')]

    printed = capsys.readouterr().out
    rows = {line.split('  ')[0]: line.split() for line in printed.split('val: ms per image')[1].splitlines()}
    for name, part in val['warm']['transforms'].items():
        assert rows[name][-1] == f'{part["share"]:.1%}'
        assert rows[name][-3:-1] == [f'{1e3 * part[clock] / 2:.2f}' for clock in ('wall', 'cpu')]


def test_the_first_pass_parses_and_the_second_reads_the_cache(tool, data, monkeypatch):
    from mmseg_polyhistor.datasets import pascal_labels

    parsed = []
    parse = pascal_labels.parse_parts
    monkeypatch.setattr(
        pascal_labels, 'parse_parts', lambda path, shape: parsed.append(Path(path).stem) or parse(path, shape)
    )
    tool.main([str(CONFIG), '--data-root', str(data), '--workers', '--images', '2', '--split', 'val'])
    assert sorted(parsed) == ['val_000000', 'val_000001']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['configs/nothing.py'], 'configs/nothing.py: no such file'),
        ([str(CONFIG), '--images', '0'], 'images and batch must be positive'),
        ([str(CONFIG), '--data-root', '/nowhere/at all'], '/nowhere/at all'),
        ([str(ROOT / 'configs/_base_/schedules/mini.py')], 'has no train_dataloader and no val_dataloader'),
    ],
    ids=['file', 'images', 'data', 'dataloader'],
)
def test_wrong_arguments_are_answered(tool, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert message in f'{stop.value.code} {capsys.readouterr().err}'


@pytest.mark.integration
def test_as_a_user_starts_it(tools, data, tmp_path):
    options = ['--split', 'train', '--workers', 2, '--images', 4, '--batch', 2, '--markdown']
    _, printed = tools.start('benchmark_data.py', CONFIG, '--data-root', data, *options, cwd=tmp_path)
    assert '| train: workers |' in printed
    assert list(tmp_path.iterdir()) == []
