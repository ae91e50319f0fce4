"""Fixtures that all tests share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

import mmseg_polyhistor  # noqa: F401  (before anything of mmseg: its repairs let the stack import)
from mmseg_polyhistor.tasks import restored_tasks
from tests.pascal_tree import _write_parts, _write_png, pascal_tree  # noqa: F401  (fixtures)
from tests.tool_runner import Tools
from tests.tools.plain_configs import leave_configs_plain

REPO = Path(__file__).resolve().parents[1]

leave_configs_plain()


@pytest.fixture(scope='session')
def repo() -> Path:
    """The repository's root."""
    return REPO


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The folder with sample data beside the repository; tests that need it skip where it is absent.

    The environment variable `POLYHISTOR_SHARED_DATA` names another place.
    """
    path = Path(os.environ.get('POLYHISTOR_SHARED_DATA', REPO.parent / 'shared' / 'data'))
    if not path.is_dir():
        pytest.skip('the sample data is not there: set POLYHISTOR_SHARED_DATA to its folder to run this test')
    return path


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    """Every test runs in the scope that a config's `default_scope = 'mmseg'` sets."""
    init_default_scope('mmseg')


@pytest.fixture
def task_table() -> Iterator[None]:
    """The table of tasks is as it was after the test."""
    with restored_tasks():
        yield


def _as_rank(rank: int, world_size: int, folder: Path, function: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=(folder / 'meeting').as_uri(), rank=rank, world_size=world_size
    )
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    torch.save(function(*arguments), folder / f'result_{rank}.pt')
    torch.distributed.destroy_process_group()


@pytest.fixture
def run_ranks(tmp_path_factory) -> Callable:
    """A function (world size, function, arguments) -> what the function returned, in tensors and plain data, rank by rank.

    The ranks are forks of the test, so that what takes longest, the imports, has happened; they talk by gloo. An exception
    of one ends all.
    """

    def run(world_size: int, function: Callable, *arguments: object, timeout: float = 100.0) -> list:
        folder = tmp_path_factory.mktemp('ranks')
        ranks = torch.multiprocessing.start_processes(
            _as_rank,
            (world_size, folder, function, arguments),
            nprocs=world_size,
            join=False,
            start_method='fork',
        )
        deadline = time.monotonic() + timeout
        try:
            while not ranks.join(timeout=1):
                assert time.monotonic() < deadline, f'the processes hang: {ranks.pids()}'
        finally:
            for process in ranks.processes:
                process.kill()
        return [torch.load(folder / f'result_{rank}.pt', weights_only=True) for rank in range(world_size)]

    return run


@pytest.fixture(scope='session')
def tools(tmp_path_factory):
    """`Tools`."""
    tools = Tools(tmp_path_factory.mktemp('tools') / 'log')
    yield tools
    tools.server.stdin.close()
    tools.server.wait()
