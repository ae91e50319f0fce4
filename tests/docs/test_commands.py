"""Every block of commands in README and docs is run by a test, or says why it is not.

A comment stands in front of each block of `bash`: `<!-- run -->` (this test runs it, with the page's other blocks in
order, in one folder), `<!-- run by tests/... -->` (another test does), or `<!-- not run: reason -->`. Blocks of `python`
may be marked likewise.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.tool_runner import load_tool

BLOCK = re.compile(r'(?:<!-- (?P<mark>[^>]*?) -->\n)?```(?P<language>bash|python)\n(?P<body>.*?)```', re.S)


def pages(repo):
    return [repo / 'README.md', *sorted((repo / 'docs').glob('*.md'))]


def test_every_block_of_commands_is_run_or_marked(repo):
    """A mark that names a test names one that exists."""
    seen = 0
    for page in pages(repo):
        for block in BLOCK.finditer(page.read_text(encoding='utf-8')):
            mark = block['mark'] or ''
            where = f'{page.name}: {block["body"][:60]!r}'
            if block['language'] == 'bash':
                assert mark == 'run' or mark.startswith(('run by tests/', 'not run: ')), where
                seen += 1
            if mark.startswith('run by '):
                assert (repo / mark.removeprefix('run by ')).is_file(), where
    assert seen >= 8


def commands(body):
    """The commands of a block: lines that a backslash joins, and a here-document with its command, are one."""
    lines = iter(body.splitlines())
    for line in lines:
        while line.endswith('\\'):
            line = line[:-1] + next(lines)
        if here := re.search(r"<<'(\w+)'$", line):
            text = [line]
            while text[-1] != here[1]:
                text.append(next(lines))
            line = '\n'.join(text)
        if line.strip() and not line.startswith('#'):
            yield line


def test_commands_that_no_test_runs_have_arguments_that_their_tools_take(repo, monkeypatch, capsys):
    """Those marked as not run, by the parser of the tool itself; `train.py` and `test.py` have mmseg's parsers."""
    parsed = 0
    for page in [*pages(repo), *sorted((repo / 'tools').rglob('README.md'))]:
        for block in BLOCK.finditer(page.read_text(encoding='utf-8')):
            if block['language'] != 'bash' or (block['mark'] or 'not run').startswith('run'):
                continue
            for command in commands(block['body']):
                if not command.startswith('python tools/'):
                    continue
                _, tool, *arguments = shlex.split(command, comments=True)
                assert (repo / tool).is_file(), f'{page.name}: {command}'
                if tool in ('tools/train.py', 'tools/test.py'):
                    continue
                monkeypatch.syspath_prepend((repo / tool).parent)
                try:
                    load_tool(repo / tool).parse_args(arguments)
                except SystemExit:
                    pytest.fail(f'{page.name}: {command}\n{capsys.readouterr().err}')
                parsed += 1
    assert parsed > 10


@pytest.mark.integration
@pytest.mark.parametrize('page', ['first_steps'])
def test_the_commands_of_a_page_run(repo, tools, tmp_path, page):
    """In a folder that sees the repository's tools and configs; each must succeed."""
    for name in ('tools', 'configs'):
        (tmp_path / name).symlink_to(repo / name)
    env = {**os.environ, 'PYTHONPATH': str(repo), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '-1'}
    ran = 0
    for block in BLOCK.finditer((repo / 'docs' / f'{page}.md').read_text(encoding='utf-8')):
        if block['mark'] != 'run':
            continue
        if block['language'] == 'python':
            command = [sys.executable, '-W', 'ignore', '-c', block['body']]
            done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-3000:]
            ran += 1
            continue
        for command in commands(block['body']):
            if command.startswith('python tools/'):
                words = shlex.split(command.split(' #')[0])
                tools.start(words[1].removeprefix('tools/'), *words[2:], cwd=tmp_path)
            else:
                done = subprocess.run(
                    ['bash', '-ec', command],
                    cwd=tmp_path,
                    env=env,
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert done.returncode == 0, f'{command}\n{done.stderr}'
            ran += 1
    assert ran >= 8
