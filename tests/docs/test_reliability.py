"""docs/reliability.md names tests that exist."""

from __future__ import annotations

import re

import pytest


def references(text):
    """(file, test or None) of every test that the page names. A name without file is in the last file that its line
    named, or else in that of the head of its table."""
    of_table = None
    for line in text.splitlines():
        file = of_table
        for found in re.finditer(r'`([\w/]+\.py)?(?:::(test_\w+))?`', line):
            file = found[1] or file
            if found[1] or found[2]:
                yield file, found[2]
        if line.startswith('| fault'):
            of_table = file


def test_every_test_that_the_page_names_exists(repo):
    """Files under tests/, and functions in them."""
    named = list(references((repo / 'docs' / 'reliability.md').read_text(encoding='utf-8')))
    assert len(named) > 80
    for file, test in named:
        path = next((p for p in (repo / 'tests' / file, repo / file) if p.is_file()), None)
        assert path is not None, file
        if test is not None:
            assert re.search(rf'^def {test}\(', path.read_text(encoding='utf-8'), re.M), f'{file}::{test}'


@pytest.mark.parametrize('file', ['label_files', 'transforms', 'task_specs', 'metrics'])
def test_the_counts_of_fuzzing_are_those_of_the_tests(repo, file):
    """The sum of what the file's tests ask for is the number on the page."""
    page = (repo / 'docs' / 'reliability.md').read_text(encoding='utf-8')
    (printed,) = re.findall(rf'\| ([\d,]+) \|[^|]*\| `fuzz/test_fuzz_{file}\.py`', page)
    source = (repo / 'tests' / 'fuzz' / f'test_fuzz_{file}.py').read_text(encoding='utf-8')
    assert int(printed.replace(',', '')) == sum(map(int, re.findall(r'^@fuzz\((\d+)', source, re.M)))
