"""The toy training, for this folder's tests."""

from __future__ import annotations

import copy
import itertools
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

HERE = Path(__file__).parent
RUNS = itertools.count()
sys.path.insert(0, str(HERE))  # `toy_training` is imported by name, as a config's custom_imports would

import toy_training  # noqa: E402

import mmseg_polyhistor.engine  # noqa: E402, F401  (registers what the toy config names)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def toy_runner(tmp_path):
    """A function (name of the work dir, changes of the toy config) -> Runner."""

    def build(name='run', **changes):
        cfg = Config.fromfile(HERE / 'toy_config.py')
        cfg.merge_from_dict(copy.deepcopy(changes))
        cfg.work_dir = str(tmp_path / name)
        # Runners of one name share their log.
        cfg.experiment_name = f'{tmp_path.name}_{name}_{next(RUNS)}'
        return Runner.from_cfg(cfg)

    return build


@pytest.fixture
def train_toy(toy_runner):
    """A function (name, changes) -> ({iteration: loss}, Runner) that trains the toy."""

    def train(name='run', **changes):
        runner = toy_runner(name, **changes)
        runner.train()
        # A runner is cyclic garbage, and torch takes 5 s per worker to end workers while garbage is collected.
        runner.train_dataloader._iterator = None
        runner.train_loop.dataloader_iterator = None
        return toy_training.read_losses(runner.work_dir), runner

    return train
