"""The real tools: `Tools` runs each in a fork of one process, so that a test can afford dozens; `load_tool` imports one."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parent


def load_tool(path: Path) -> ModuleType:
    """A file's module, made anew; `sys.modules` has it under its stem with `tool_` in front, for dataclasses look there."""
    name = f'tool_{path.stem}'
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def user_environment(**own: str) -> dict[str, str]:
    """The environment of a user on a machine without GPU, whose config imports a module of his own."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    ours = dict(
        PYTHONPATH=str(TESTS / 'engine'),
        PORT=str(port),
        PYTHON=sys.executable,
        OMP_NUM_THREADS='1',
        CUDA_VISIBLE_DEVICES='-1',
    )
    return {**os.environ, **ours, **own}


class Tools:
    """Starts tools, see `tools/fork_server.py`.

    Attributes:
        no_mounts: Why disks cannot be mounted for the tools alone; empty where they can.
    """

    def __init__(self, log: Path) -> None:
        paths = [
            TESTS / 'engine',
            TESTS / 'tools',
            TESTS.parent,
            *filter(None, [os.environ.get('PYTHONPATH')]),
        ]
        own = dict(
            PYTHONPATH=os.pathsep.join(map(str, paths)), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1'
        )
        namespace = ['unshare', '--mount', *([] if os.geteuid() == 0 else ['--map-root-user'])]
        self.no_mounts = _trouble(
            [*namespace, 'mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(log.parent)]
        )
        self.log = log
        self.server = subprocess.Popen(
            [
                *([] if self.no_mounts else namespace),
                sys.executable,
                '-W',
                'ignore',
                TESTS / 'tools' / 'fork_server.py',
            ],
            env={**os.environ, **own},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert 'ready\n' in iter(self.server.stdout.readline, ''), 'the server did not start'

    def shell(self, command: str) -> str:
        """Run a shell command where the tools run; returns its output."""
        print(json.dumps(dict(shell=command)), file=self.server.stdin, flush=True)
        status, output = json.loads(self.server.stdout.readline())
        assert status == 0, f'{command}: {output}'
        return output

    def start(self, *argv, cwd, environments=({},), expect=0) -> tuple[list[int], str]:
        """Run `tools/<argv[0]>`; returns the exit statuses and all that was printed.

        Every status must be `expect`, unless that is None.
        """
        self.log.unlink(missing_ok=True)
        argv = [str(TESTS.parent / 'tools' / argv[0]), *map(str, argv[1:])]
        order = dict(argv=argv, cwd=str(cwd), environments=environments, log=str(self.log))
        print(json.dumps(order), file=self.server.stdin, flush=True)
        statuses = json.loads(self.server.stdout.readline())
        printed = self.log.read_text()
        assert expect is None or set(statuses) == {expect}, f'{argv}: {statuses}\n{printed[-4000:]}'
        return statuses, printed


def _trouble(command: list[str]) -> str:
    """Why a command fails; empty where it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as e:
        return str(e)
    return done.stderr or str(done.returncode) if done.returncode else ''
