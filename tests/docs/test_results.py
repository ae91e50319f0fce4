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
    """Each trained to its end; the parameters are those that its config has today."""
    known = {job.name: job for job in Study(REPO / f'configs/studies/{study}.py').jobs()}
    for run in read(f'{study}_runs.csv'):
        assert run['run'] in known
        done, planned = re.match(r'(\d+)/(\d+) ', run['trained']).groups()
        assert done == planned


def test_the_papers_figures_are_the_metafiles():
    paper = {
        row.method: row.paper for row in read_benchmark(REPO / 'model-index.yml') if row.paper is not None
    }
    printed = sorted(f'{row.results["gain"]:+.2f}' for row in paper.values())
    table = (RESULTS / 'scenes_reduced_paper.md').read_text(encoding='utf-8').split('\n\n')[0].splitlines()
    head, _, *lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in table]
    column = head.index('gain %, paper')
    assert sorted(line[column] for line in lines) == printed
