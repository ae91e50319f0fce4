"""Measuring: who runs when, and what is counted. No test looks at how long anything took."""

from __future__ import annotations

import statistics
from types import SimpleNamespace

import pytest
import torch

from mmseg_polyhistor.profiling import measure
from mmseg_polyhistor.profiling.cases import Setting, plan_cases
from mmseg_polyhistor.profiling.measure import measure_memory, measure_times, summarise
from mmseg_polyhistor.profiling.workload import build_workload

SETTING = Setting(size=(64, 64), batch=1, inference_batch=1)


class Recorder:
    """A workload that writes down when it runs, and in which mode."""

    def __init__(self, name, log):
        self.name, self.log = name, log
        self.setting = SETTING
        self.model = SimpleNamespace(train=lambda mode: log.append((name, 'train' if mode else 'eval')))

    def train_step(self):
        self.log.append((self.name, 'step'))

    def infer(self):
        self.log.append((self.name, 'infer'))


@pytest.mark.parametrize(
    ('step', 'mode', 'event'), [('train_step', 'train', 'step'), ('infer', 'eval', 'infer')]
)
def test_cases_take_turns(step, mode, event):
    log, lines = [], []
    times = measure_times(
        {name: Recorder(name, log) for name in 'ab'}, step, warmup=1, repeats=3, report=lines.append
    )
    assert log == [('a', mode), ('b', mode), *[('a', event), ('b', event)] * 4]
    assert [len(times[name].wall) for name in 'ab'] == [3, 3]
    assert [len(times[name].cpu) for name in 'ab'] == [3, 3]
    assert len(lines) == 4


def test_waiting_is_no_cpu_time(monkeypatch):
    """The two clocks are told apart: here the first stands still and the second runs."""
    ticks = iter(range(0, 100, 7))
    monkeypatch.setattr(measure.time, 'perf_counter', lambda: 5.0)
    monkeypatch.setattr(measure.time, 'process_time', lambda: float(next(ticks)))
    times = measure_times({'a': Recorder('a', [])}, 'infer', warmup=0, repeats=2)['a']
    assert (times.wall, times.cpu) == ((0.0, 0.0), (7.0, 7.0))


def test_the_summary():
    values = (3.0, 1.0, 2.0, 10.0)
    assert summarise(values) == dict(min=1.0, median=statistics.median(values), max=10.0)


def test_memory_of_a_process_of_its_own(config_file, repo):
    """A step keeps features: in the first of three stages alone 64 x 64 tokens, 16 channels, 2 images, 3 tasks."""
    (case,) = plan_cases([str(config_file())], repo, against=(), parts=())
    large = Setting(size=(256, 256), batch=2, inference_batch=1)
    memory = measure_memory(case, large, 'train_step')
    assert 'VmHWM' in memory.method or 'ru_maxrss' in memory.method
    assert memory.peak == pytest.approx(memory.base + memory.above_base)
    block = 64 * 64 * 16 * 4 / 2**20 * 2 * 3  # MiB of one tensor of a block
    assert memory.above_base > 6 * block


@pytest.mark.parametrize(
    'role', ['method', 'plain', 'full', 'full-plain', 'floor', 'own-floor', 'decoders', 'generation']
)
@pytest.mark.parametrize('channels_last', [False, True], ids=['', 'channels last'])
def test_every_kind_of_case_runs_both_steps(config_file, repo, role, channels_last):
    cases = plan_cases(
        [str(config_file())],
        repo,
        executions=('sequential',),
        against=('plain', 'full', 'full-plain', 'floor', 'own-floor'),
    )
    (case,) = [c for c in cases if c.role == role]
    workload = build_workload(
        case, Setting(size=(64, 64), batch=2, inference_batch=1, channels_last=channels_last)
    )
    watched = {
        'generation': workload.model.backbone,
    }.get(role, workload.model.decode_heads)
    before = [p.detach().clone() for p in watched.parameters()]
    workload.model.train()
    workload.train_step()
    moved = any(not torch.equal(a, b) for a, b in zip(before, watched.parameters(), strict=True))
    assert moved == (role != 'generation')
    assert all(p.grad is None for p in workload.model.parameters())
    workload.model.eval()
    workload.infer()


def test_the_generation_is_run_with_all_its_gradients(config_file, repo):
    cases = plan_cases([str(config_file())], repo, against=())
    (case,) = [c for c in cases if c.role == 'generation']
    workload = build_workload(case, SETTING)
    workload.optim_wrapper.zero_grad = lambda: None
    workload.train_step()
    grads = {name: p.grad for name, p in workload.model.backbone.adapters.named_parameters()}
    assert all(grad is not None for grad in grads.values())
    assert all(grads[f'task_embeddings.{task}'].abs().max() > 0 for task in workload.tasks)
