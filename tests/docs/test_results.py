"""docs/results.md says what the files of docs/results say, and those follow from the runs that they list."""

from __future__ import annotations

import csv
import re
import statistics
from pathlib import Path

import pytest

from mmseg_polyhistor.benchmark import read_benchmark
from mmseg_polyhistor.results.study import Study

REPO = Path(__file__).resolve().parents[2]
RESULTS = REPO / 'docs' / 'results'
STUDIES = sorted(path.name.removesuffix('_runs.csv') for path in RESULTS.glob('*_runs.csv'))
PAPER = [name for name in STUDIES if (RESULTS / f'{name}_paper.md').exists()]  # those beside the paper
LOWER_IS_BETTER = {'normals.mean'}


def read(name):
    with (RESULTS / name).open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def single_runs(study):
    """(encoder, row, seed) -> column -> text, of all runs of a study."""
    return {tuple(run['run'].replace('/seed_', '/').split('/')): run for run in read(f'{study}_runs.csv')}


def metrics(run):
    return {key: float(value) for key, value in run.items() if key.endswith(('.mIoU', '.mean')) and value}


def test_the_page_holds_the_files():
    """Every block behind a mark is the file that the mark names, and every file and picture has its place."""
    page = (REPO / 'docs/results.md').read_text(encoding='utf-8')
    found = dict(
        re.findall(r'<!-- (results/\S+) -->\n(?:```\n)?(.*?)(?:\n```)?\n<!-- end -->', page, flags=re.S)
    )
    for name, text in found.items():
        assert text == (REPO / 'docs' / name).read_text(encoding='utf-8').rstrip(), name
    shown = {*found, *re.findall(r'!\[[^\]]*\]\((results/[^)]+)\)', page)}
    shown |= {f'results/{name}' for name in re.findall(r'\(results/([^)]+\.csv)\)', page)}
    there = {f'results/{path.name}' for path in RESULTS.iterdir()}
    assert shown <= there
    assert {name for name in there if name.endswith(('.md', '.png', '_search.txt', '_runs.csv'))} == shown


@pytest.mark.parametrize('study', STUDIES)
def test_gains_follow_from_the_metrics(study):
    """By the formula, over the mean of the reference's runs with the same encoder."""
    runs = single_runs(study)
    for (encoder, _, _), run in runs.items():
        ours = [
            metrics(other)
            for (where, row, _), other in runs.items()
            if (where, row) == (encoder, 'single_task')
        ]
        values = metrics(run)
        reference = {key: statistics.fmean(row[key] for row in ours) for key in values}
        parts = [
            (-1 if key in LOWER_IS_BETTER else 1) * (value - reference[key]) / reference[key]
            for key, value in values.items()
        ]
        assert float(run['gain']) == pytest.approx(100 * statistics.fmean(parts)), run['run']


@pytest.mark.parametrize('study', STUDIES)
def test_means_and_deviations_follow_from_the_runs(study):
    runs = single_runs(study)
    for mean in read(f'{study}.csv'):
        own = [
            run
            for (encoder, *_), run in runs.items()
            if (encoder, run['method']) == (mean['run'], mean['method'])
        ]
        assert int(mean.get('runs', 1)) == len(own) > 0
        for key in (*metrics(own[0]), 'gain'):
            values = [float(run[key]) for run in own]
            assert float(mean[key]) == pytest.approx(statistics.fmean(values), abs=1e-9)
            if len(own) > 1:
                assert float(mean[f'{key}_std']) == pytest.approx(statistics.stdev(values), abs=1e-9)


@pytest.mark.parametrize('study', STUDIES)
def test_runs_are_those_of_the_study(study):
    """Each is one of today's study, trained to its end."""
    known = {job.name: job for job in Study(REPO / f'configs/studies/{study}.py').jobs()}
    for run in read(f'{study}_runs.csv'):
        assert run['run'] in known
        done, planned = re.match(r'(\d+)/(\d+) ', run['trained']).groups()
        assert done == planned


def cells_of(text):
    """The cells of a Markdown table: those of its head, and those of each line."""
    head, _, *lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()]
    return head, lines


def table_of(text):
    """Column -> cell, of each line of a Markdown table."""
    head, lines = cells_of(text)
    return [dict(zip(head, line, strict=True)) for line in lines]


@pytest.mark.parametrize('study', STUDIES)
def test_differences_follow_from_the_runs(study):
    """Of the runs of the same seed and encoder; to the last of the printed places."""
    lines = table_of((RESULTS / f'{study}_differences.md').read_text(encoding='utf-8'))
    runs = single_runs(study)
    for line in lines:
        ours, others = (
            {
                seed: {**metrics(run), 'gain': float(run['gain'])}
                for (encoder, _, seed), run in runs.items()
                if (encoder, run['method']) == (line['encoder'], method)
            }
            for method in (line['method'], line['minus'])
        )
        seeds = sorted(ours.keys() & others.keys())
        assert len(seeds) == int(line['runs']) > 0
        printed = {
            key: text for key, text in line.items() if key not in ('method', 'minus', 'encoder', 'runs')
        }
        assert len(printed) == len(ours[seeds[0]])
        for column, text in printed.items():
            key = column.removesuffix(' ↓').replace(' ', '.')
            values = [ours[seed][key] - others[seed][key] for seed in seeds]
            mean, *deviation = text.split(' ± ')
            assert float(mean) == pytest.approx(statistics.fmean(values), abs=0.0051), (line, column)
            assert len(deviation) == (len(seeds) > 1)
            if deviation:
                assert float(deviation[0]) == pytest.approx(statistics.stdev(values), abs=0.0051), (
                    line,
                    column,
                )


@pytest.mark.parametrize('study', PAPER)
def test_ranks_and_their_correlation_follow_from_the_gains(study):
    """By the formula 1 - 6 sum d^2 / n (n^2 - 1) for ranks without ties."""
    table, *told = (RESULTS / f'{study}_paper.md').read_text(encoding='utf-8').strip().split('\n\n')
    head, lines = cells_of(table)
    gains = {(row['method'], row['run']): float(row['gain']) for row in read(f'{study}.csv')}
    ranks = {}
    for column, name in enumerate(head):
        if name.startswith('gain %, '):
            who = name.removeprefix('gain %, ')
            values = [float(line[column]) for line in lines]
            assert len(set(values)) == len(values)
            ranks[who] = [int(line[column + 1]) for line in lines]
            assert ranks[who] == [1 + sum(other > value for other in values) for value in values]
            if who != 'paper':
                assert values == [pytest.approx(gains[line[0], who], abs=0.0051) for line in lines]
    paper, n = ranks.pop('paper'), len(lines)
    assert len(told) == 1 and ranks
    for who, own in ranks.items():
        squares = sum((a - b) ** 2 for a, b in zip(own, paper, strict=True))
        correlation = 1 - 6 * squares / (n * (n**2 - 1))
        assert f'{who}: {correlation:.2f} over {n} methods' in told[0]


@pytest.mark.parametrize('study', PAPER)
def test_the_papers_figures_are_the_metafiles(study):
    paper = {
        row.method: row.paper for row in read_benchmark(REPO / 'model-index.yml') if row.paper is not None
    }
    printed = sorted(f'{row.results["gain"]:+.2f}' for row in paper.values())
    table = (RESULTS / f'{study}_paper.md').read_text(encoding='utf-8').split('\n\n')[0]
    assert sorted(line['gain %, paper'] for line in table_of(table)) == printed
