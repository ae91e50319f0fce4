"""Every tool explains itself: `--help` with examples that name the tool as it is called, and options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
PROGRAMS = sorted(
    path.relative_to(TOOLS).as_posix()
    for path in TOOLS.rglob('*.py')
    if "__name__ == '__main__'" in path.read_text(encoding='utf-8')
)
SCRIPTS = sorted(path.name for path in TOOLS.glob('*.sh'))


def test_the_lists_are_not_empty():
    assert len(PROGRAMS) >= 17 and len(SCRIPTS) >= 6


@pytest.mark.integration
@pytest.mark.parametrize('tool', PROGRAMS)
def test_help_of_a_program(tools, tmp_path, tool):
    _, printed = tools.start(tool, '--help', cwd=tmp_path)
    usage, examples = re.split('examples:', printed, maxsplit=1, flags=re.IGNORECASE)
    calls = re.findall(rf'^ +python tools/{re.escape(tool)}((?:.*\\\n)*.*)', examples, flags=re.MULTILINE)
    assert calls
    for call in calls:
        unknown = set(re.findall(r'(?<= )--[a-z][\w-]*', call.split(' #')[0])) - set(
            re.findall(r'--[a-z][\w-]*', usage)
        )
        assert not unknown, f'{call}: no such option as {unknown}'


@pytest.mark.parametrize('script', [name for name in SCRIPTS if name != 'environment.sh'])
def test_a_script_begins_with_how_it_is_called(script):
    """A comment with the call; `environment.sh` is not called but sourced."""
    lines = (TOOLS / script).read_text(encoding='utf-8').splitlines()
    head = [line for line in lines[:15] if line.startswith('#')]
    assert any(f'tools/{script}' in line for line in head)
