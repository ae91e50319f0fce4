"""Differences between rows seed by seed, and ranks beside the paper's, of results made by hand."""

from __future__ import annotations

import re

import pytest

from mmseg_polyhistor.benchmark import read_benchmark
from mmseg_polyhistor.results.comparison import differences_table, paper_table
from mmseg_polyhistor.results.rows import Row
from mmseg_polyhistor.results.study import Job, Study
from mmseg_polyhistor.results.study_runs import StudyPart

# the gains that the paper prints for five of its methods, from the best to the worst
PAPER = dict(hyperformer=2.64, polyhistor=2.34, polyhistor_lite=1.74, single_task=0.0, decoder_only=-11.02)


@pytest.fixture
def study(repo):
    return Study(repo / 'configs/studies/scenes_reduced.py')


def part(results):
    """(row, seed) -> gain and mIoU, as the part of a study; None for a result without gain."""
    each = {}
    for (name, seed), (gain, semseg) in results.items():
        values = {'semseg.mIoU': semseg} | ({} if gain is None else {'gain': gain})
        row = Row(method=name, name=f'{name}/{seed}', values=values, source='', encoder=1, total=2)
        each[Job(row=name, encoder='pretrained', seed=seed, rate=0.1)] = row
    return StudyPart(runs=(), rows=(), reference=None, notes=(), remarks=[], each=each)


def cells(table):
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()]


def test_differences_are_taken_seed_by_seed(study):
    """By hand: 6 - 1, 8 - 5 and 9 - 8 are 3 on average, deviation 2; a seed that one row lacks does not count."""
    results = {('polyhistor', seed): (gain, 40.0) for seed, gain in enumerate((6.0, 8.0, 9.0, 99.0))}
    results |= {('decoder_only', seed): (gain, 39.5) for seed, gain in enumerate((1.0, 5.0, 8.0))}
    once = {('polyhistor', 1): (None, 20.0), ('decoder_only', 1): (1.0, 20.25)}
    found = dict(pretrained=part(results), random=part(once))
    head, _, *lines = cells(differences_table(study, found, markdown=True))
    assert head == ['method', 'minus', 'encoder', 'semseg mIoU', 'gain', 'runs']
    assert lines == [
        ['Polyhistor', 'Decoders only', 'pretrained', '+0.50 ± 0.00', '+3.00 ± 2.00', '3'],
        ['Polyhistor', 'Decoders only', 'random', '-0.25', '-', '1'],
    ]
    assert differences_table(study, dict(pretrained=part({('bitfit', 0): (1.0, 2.0)}))) == ''
    assert '|' not in differences_table(study, found)


def test_ranks_beside_the_papers(study, repo):
    """Our ranks are the paper's with the first two and the last two exchanged: 1 - 6 (4 x 1) / (5 x 24) = 0.8."""
    ours = dict(polyhistor=9.0, hyperformer=8.0, polyhistor_lite=1.0, decoder_only=0.5, single_task=0.0)
    results = {(name, 0): (gain, 1.0) for name, gain in ours.items()}
    results['polyhistor', 1] = (11.0, 1.0)  # a row counts with its mean
    results['mtlora', 0] = (50.0, 1.0)  # which the paper does not have
    results['bitfit', 0] = (None, 1.0)
    few = {key: results[key] for key in (('polyhistor', 0), ('single_task', 0))}
    benchmark = read_benchmark(repo / 'model-index.yml')
    table, *notes = paper_table(
        study, dict(pretrained=part(results), random=part(few)), benchmark, markdown=True
    ).split('\n\n')
    head, _, *lines = cells(table)
    assert head == ['method', 'gain %, pretrained', 'rank', 'gain %, paper', 'rank', 'encoder, paper']
    found = {line[0]: line[1:] for line in lines}
    assert found['Polyhistor'] == ['+10.00', '1', '+2.34', '2', '6.41 M']
    assert found['HyperFormer'] == ['+8.00', '2', '+2.64', '1', '72.77 M']
    assert found['Decoders only'][:4] == ['+0.50', '4', '-11.02', '5']
    assert {study.rows[name].label: f'{gain:+.2f}' for name, gain in PAPER.items()} == {
        label: cells[2] for label, cells in found.items()
    }
    (note,) = notes
    assert re.fullmatch(r".*Spearman's.*, pretrained: 0\.80 over 5 methods", note)
    assert paper_table(study, dict(random=part(few)), benchmark) == ''
    study.paper = False
    assert paper_table(study, dict(pretrained=part(results)), benchmark) == ''


@pytest.mark.parametrize(
    ('pairs', 'message'),
    [
        ([('polyhistor', 'none')], r"comparisons: unknown \['none'\]; rows: \["),
        (['polyhistor'], "comparisons: must be pairs of rows, got 'polyhistor'"),
        ([('polyhistor',)], 'comparisons: must be pairs of rows'),
        ([('polyhistor', 'polyhistor')], 'comparisons must be a non-empty sequence of different names'),
    ],
)
def test_what_comparisons_may_not_be(repo, pairs, message):
    with pytest.raises(ValueError, match=message):
        Study(repo / 'configs/studies/scenes_reduced.py', dict(comparisons=pairs))
