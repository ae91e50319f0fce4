"""`tools/benchmark.py`: what it compares, prints and refuses. No test looks at how long anything took."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmseg_polyhistor.profiling import equality

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
custom_imports = dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)
default_scope = 'mmseg'
tasks = ('semseg', 'normals')
model = dict(
    type='MultiTaskSegmentor', tasks=tasks, data_preprocessor=dict(type='MultiTaskDataPreProcessor'),
    backbone=dict(
        type='AdaptedSwin', arch=dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2]), tasks=tasks,
        adapter=dict(type='ADAPTER')),
    decode_heads=dict(type='AllMLPHead', in_channels=[16, 32], channels=8))
"""
SMALL = ['--size', '64', '--batch', '1', '--repeats', '3', '--warmup', '0']
CLOCKS = ('wall', 'cpu')


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('benchmark_tool', ROOT / 'tools/benchmark.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


@pytest.fixture
def write(tmp_path):
    def make(adapter='PolyhistorLite', name='mine.py'):
        path = tmp_path / name
        path.write_text(CONFIG.replace('ADAPTER', adapter))
        return str(path)

    return make


@pytest.fixture
def run(tool, tmp_path, capsys):
    """Runs the tool in this process; gives what it wrote and what it printed."""

    def call(*arguments):
        file = tmp_path / 'result.json'
        assert tool.main([*arguments, *SMALL, '--json', str(file)]) == 0
        return json.loads(file.read_text()), capsys.readouterr().out

    return call


def test_everything_in_one_run(run, write):
    """Figures of every case, and the ratios that follow from them, in the file and in print."""
    result, printed = run(
        write(), '--execution', 'stacked', 'sequential', '--measure', 'train', 'inference',
        '--against', 'plain', 'full', 'full-plain', 'floor', 'own-floor',
    )  # fmt: skip
    assert result['setting']['size'] == [64, 64]
    assert result['setting']['repeats'] == 3
    assert result['machine']['torch'] == torch.__version__
    assert result['machine']['threads'] == 1
    assert len(result['checks']) == 2
    assert all(check['difference'] <= check['tolerance'] for check in result['checks'])

    cases = {case['name']: case for case in result['cases']}
    roles = [case['role'] for case in result['cases']]
    assert roles.count('method') == roles.count('own-floor') == roles.count('generation') == 2
    assert all(roles.count(r) == 1 for r in ('plain', 'full', 'full-plain', 'floor', 'decoders'))
    for case in cases.values():
        for kind in ('train', 'inference'):
            assert (kind in case) == ((case['role'], kind) != ('generation', 'inference'))
            for clock in CLOCKS if kind in case else ():
                times = case[kind][clock]
                assert len(times['all']) == 3
                assert times['min'] == min(times['all'])
                assert times['median'] == statistics.median(times['all'])
                assert times['max'] == max(times['all'])
    for line in result['ratios']:
        own, other = cases[line['case']], cases[line['of']]
        over, under = (other, own) if line['against'] in ('decoders', 'generation') else (own, other)
        for kind in ('train', 'inference'):
            for clock in CLOCKS:
                if kind in over:
                    expected = over[kind][clock]['median'] / under[kind][clock]['median']
                    assert line[f'{kind}_{clock}'] == pytest.approx(expected)
    pairs = {(cases[line['case']]['role'], line['against']) for line in result['ratios']}
    references = {'plain', 'full-plain', 'floor', 'own-floor'}
    assert pairs == {
        *(('method', role) for role in {*references, 'full', 'decoders', 'generation'}),
        *((role, 'full') for role in references),
    }

    lines = {line.split('  ')[0]: line.split() for line in printed.splitlines()}
    (name,) = [
        case['name']
        for case in result['cases']
        if case['name'].endswith('swin-16 stacked') and case['role'] == 'method'
    ]
    (ratio,) = [line for line in result['ratios'] if (line['case'], line['against']) == (name, 'floor')]
    assert lines[f'{name} / floor'][-4:] == [
        f'{ratio[key]:.3f}' for key in ('train_wall', 'train_cpu', 'inference_wall', 'inference_cpu')
    ]
    assert 'logits equal to the plain reference' in printed


def test_parameters_are_those_of_the_models(run, write):
    """The plain reference trains what the method trains; the floor its decoders alone."""
    result, _ = run(write(), '--measure', 'inference', '--against', 'plain', 'full', 'floor', '--parts')
    trained = {case['role']: case['trainable'] for case in result['cases']}
    assert trained['method'] == trained['plain']
    assert trained['floor'] == dict(
        encoder=0, decoders=trained['method']['decoders'], total=trained['method']['decoders']
    )
    assert min(trained[role]['encoder'] for role in ('full', 'method')) > 0
    assert all(t['total'] == t['encoder'] + t['decoders'] for t in trained.values())


def test_a_method_without_hyper_networks_has_no_plain_reference(run, write):
    result, printed = run(write('LoRA'), '--measure', 'inference', '--against', 'plain', 'full')
    assert result['checks'] == []
    assert [line['of'] for line in result['ratios'] if line['against'] == 'plain'] == [None]
    assert ' has no plain' in printed
    assert ' / plain' not in printed


def test_unequal_models_are_not_timed(tool, write, capsys, monkeypatch):
    def disturbed(cfg, model):
        plain = plain_model(cfg, model)
        with torch.no_grad():
            next(plain.backbone.hyper_networks.heads.parameters()).add_(0.1)
        return plain

    plain_model = equality.plain_model
    monkeypatch.setattr(equality, 'plain_model', disturbed)
    monkeypatch.setattr(tool, 'measure', lambda *args: pytest.fail('it measured'))
    assert tool.main([write(), *SMALL]) == 1
    assert 'the logits differ from those of the plain reference' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['polyhister'], 'polyhister: neither a config nor one of'),
        (['polyhistor', '--precision', 'bf16'], '--precision bf16 needs --device cuda'),
        (['polyhistor', '--size', '1', '2', '3'], '--size takes a side or H W'),
        (['polyhistor', '--repeats', '0'], 'must be positive numbers'),
        (['polyhistor', '--against', 'nothing'], "invalid choice: 'nothing'"),
    ],
    ids=['method', 'precision', 'size', 'repeats', 'reference'],
)
def test_wrong_arguments_are_answered(tool, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert message in f'{stop.value.code} {capsys.readouterr().err}'


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_a_missing_gpu_is_said(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(['polyhistor', '--device', 'cuda'])
    assert 'torch sees no CUDA device' in capsys.readouterr().err


@pytest.mark.integration
def test_as_a_user_starts_it(write, tmp_path):
    """From another folder, with memory, which is measured in a process of its own."""
    command = [sys.executable, '-W', 'ignore', ROOT / 'tools/benchmark.py']
    file = tmp_path / 'result.json'
    arguments = [write('BitFit'), '--against', '--parts', '--measure', 'memory', 'train', '--markdown']
    done = subprocess.run(
        [*command, *arguments, *SMALL, '--json', file],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (case,) = json.loads(file.read_text())['cases']
    memory = case['train_memory']
    assert memory['above_base'] == pytest.approx(memory['peak'] - memory['base'])
    assert memory['above_base'] > 0
    assert 'inference_memory' not in case
    assert f' {memory["peak"]:.0f} | ' in done.stdout
    assert 'ratio of medians' not in done.stdout
    assert f'memory: {memory["method"]}' in done.stdout


def test_help_shows_examples_and_references(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(['--help'])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert 'examples:' in text
    assert 'own-floor' in text.split('references and parts:')[1]
