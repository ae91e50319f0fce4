"""The table in its four forms."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess

import pytest

from mmseg_polyhistor.results.rows import Row
from mmseg_polyhistor.results.table import FORMATS, metric_name, results_table

OURS = Row(
    method='Lo_RA | 50 %',
    name='lora/a & b',
    values={'semseg.mIoU': 70.123456, 'normals.mean': 18.0, 'normals.rmse': 24.5, 'gain': -2.175},
    source='val, epoch 60',
    encoder=317_952,
    total=2_866_976,
    seconds=0.12345,
    memory=12_345.0,
    trained='60/60 epochs',
)
BARE = Row(method='bare', name='bare', values={}, source='', encoder=None, total=None, trained='0/2 epochs')
PAPER = Row(
    method='LoRA',
    name='PASCAL-Context, Swin-T',
    values={'semseg.mIoU': 70.12, 'normals.mean': 18.96, 'saliency.mIoU': 61.9, 'gain': -2.17},
    source='printed',
    encoder=320_000,
    total=2_870_000,
    paper=True,
)
MEAN = Row(
    method='seeds',
    name='a, b',
    values={'semseg.mIoU': 50.0, 'gain': 1.0},
    spread={'semseg.mIoU': 1.414, 'gain': 0.5},
    source='val, epoch 60',
    encoder=1000,
    total=2000,
    runs=2,
)


def cells(line):
    return [cell.strip() for cell in line.replace(r'\|', 'I').strip('|').split('|')]


def parsed(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_markdown_rounds_and_marks_the_paper():
    head, rule, *lines = results_table([OURS, BARE, PAPER], 'markdown', gain=True).splitlines()
    assert cells(head) == [
        'method', 'run', 'semseg mIoU', 'normals mean ↓', 'saliency mIoU', 'gain %', 'encoder', 'all', 's / iteration',
        'GPU MB', 'trained', 'result',
    ]  # fmt: skip
    assert len(cells(rule)) == 12
    assert cells(lines[0]) == [
        'Lo_RA I 50 %', 'lora/a & b', '70.12', '18.00', '-', '-2.17', '317,952', '2,866,976', '0.123', '12,345',
        '60/60 epochs', 'val, epoch 60',
    ]  # fmt: skip
    assert cells(lines[1]) == ['bare', 'bare', *['-'] * 8, '0/2 epochs', '-']
    assert cells(lines[2])[0] == 'LoRA (paper)' and cells(lines[2])[6:8] == ['0.32 M', '2.87 M']


def test_csv_is_read_back_with_all_digits():
    first, bare, paper = parsed(results_table([OURS, BARE, PAPER], 'csv', gain=True))
    assert first['method'] == OURS.method and first['run'] == OURS.name
    for key in ('semseg.mIoU', 'normals.mean', 'gain'):
        assert float(first[key]) == OURS.values[key]
    assert first['saliency.mIoU'] == '' and bare['gain'] == '' and bare['parameters'] == ''
    assert (int(first['encoder_parameters']), int(first['parameters'])) == (317_952, 2_866_976)
    assert float(first['seconds_per_iteration']) == 0.12345 and float(first['gpu_memory_mb']) == 12_345.0
    assert first['origin'] == bare['origin'] == 'run'
    assert paper['origin'] == 'the paper, PASCAL-Context' and paper['method'] == 'LoRA'


def test_without_gain_and_without_memory_there_are_no_such_columns():
    (row,) = parsed(results_table([BARE], 'csv', gain=False))
    assert 'gain' not in row and 'gpu_memory_mb' not in row
    assert 'gain' not in results_table([OURS], gain=False) and 'GPU' not in results_table([BARE], gain=True)


def test_means_over_seeds():
    line = results_table([MEAN, OURS], 'markdown', gain=True, spread=True).splitlines()[2]
    assert cells(line)[2:5] == ['50.00 ± 1.41', '-', '+1.00 ± 0.50'] and cells(line)[-1] == '2'
    mean, alone = parsed(results_table([MEAN, OURS], 'csv', gain=True, spread=True))
    assert (mean['semseg.mIoU_std'], mean['gain_std'], mean['runs']) == ('1.414', '0.5', '2')
    assert (alone['semseg.mIoU_std'], alone['runs']) == ('', '1')


DEPTH = Row(
    method='depth',
    name='depth',
    values={'depth.rmse': 0.54678, 'depth.abs_rel': 0.12344, 'depth.delta1': 81.234, 'normals.rmse': 24.567},
    spread={'depth.rmse': 0.00412, 'depth.delta1': 0.4567},
    source='',
    encoder=None,
    total=None,
)


@pytest.mark.parametrize(('form', 'plus'), [('text', '±'), ('markdown', '±'), ('latex', r'$\pm$')])
def test_errors_in_metres_have_four_digits(form, plus):
    """Depths differ in their third; the rmse of directions is one of degrees."""
    more = ['depth.abs_rel', 'depth.delta1', 'normals.rmse']
    text = results_table([DEPTH], form, gain=False, spread=True, metrics=more)
    for cell in (f'0.5468 {plus} 0.0041', '0.1234', f'81.23 {plus} 0.46', '24.57'):
        assert f' {cell} ' in text.replace('|', ' ').replace('\n', ' \n')


def test_metrics_of_unknown_unit_keep_four_digits():
    odd = Row(
        method='a', name='a', values={'mse': 0.012345, 'mIoU': 12.346}, source='', encoder=None, total=None
    )
    line = results_table([odd], 'markdown', gain=False, metrics=['mse', 'mIoU']).splitlines()[2]
    assert cells(line)[2:4] == ['0.0123', '12.35']


def test_further_metrics():
    (row,) = parsed(results_table([OURS], 'csv', gain=False, metrics=['normals.rmse']))
    assert float(row['normals.rmse']) == 24.5


def test_notes_stand_below_a_text_and_before_latex():
    notes = ['gain: over 1', '(paper): theirs']
    assert results_table([OURS], gain=True, notes=notes).endswith('\n\ngain: over 1\n(paper): theirs')
    assert results_table([OURS], 'markdown', gain=True, notes=notes).endswith(
        '\n\ngain: over 1\n\n(paper): theirs'
    )
    assert results_table([OURS], 'latex', gain=True, notes=notes).startswith(
        '% gain: over 1\n% (paper): theirs\n'
    )
    assert 'theirs' not in results_table([OURS], 'csv', gain=True, notes=notes)


def test_latex():
    """Its structure; and compiled, where LaTeX is installed."""
    table = results_table([OURS, BARE, PAPER, MEAN], 'latex', gain=True, spread=True)
    lines = [line for line in table.splitlines() if line.endswith(r'\\')]
    assert len(lines) == 5 and {line.replace(r'\&', '').count('&') for line in lines} == {12}
    assert r'\begin{tabular}{llrrrrrrrrllr}' in table
    assert r'Lo\_RA \textbar{} 50 \% & lora/a \& b & 70.12' in table and r'& $-$2.17 &' in table
    assert r'50.00 $\pm$ 1.41' in table and r'normals mean $\downarrow$' in table


@pytest.mark.skipif(shutil.which('pdflatex') is None, reason='pdflatex is not installed')
def test_latex_compiles(tmp_path):
    table = results_table([OURS, BARE, PAPER, MEAN], 'latex', gain=True, spread=True)
    document = '\\documentclass{article}\n\\begin{document}\n' + table + '\n\\end{document}\n'
    (tmp_path / 'table.tex').write_text(document)
    subprocess.run(
        ['pdflatex', '-interaction=nonstopmode', '-halt-on-error', 'table.tex'], cwd=tmp_path, check=True
    )


def test_names():
    assert metric_name('normals.under_11.25') == 'normals under_11.25'
    assert metric_name('normals.mean') == 'normals mean ↓'


def test_unknown_format():
    with pytest.raises(ValueError, match="unknown format 'html'; known are"):
        results_table([OURS], 'html', gain=True)
    assert FORMATS == ('text', 'markdown', 'csv', 'latex')
