"""Times of several workloads in turns, and the peak memory of one in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from .cases import Case, Setting
from .workload import Workload, build_workload

__all__ = ['Memory', 'Times', 'measure_memory', 'measure_times', 'summarise']

MIB = 2**20
MEMORY_STEPS = 2  # the first allocates the optimiser's state


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of every repetition.

    Args:
        wall: By the clock.
        cpu: Of the processor, all threads together, without what other processes took.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of a workload, in MiB.

    Args:
        base: In use when the model was built, in front of the first step.
        peak: The most in use during the first two steps.
        method: How it was measured.
    """

    base: float
    peak: float
    method: str

    @property
    def above_base(self) -> float:
        """What the steps took beside the model."""
        return self.peak - self.base


# ------------------------------------------------------------------------------------------------------ times
def measure_times(
    workloads: Mapping[str, Workload],
    step: str,
    *,
    warmup: int,
    repeats: int,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Times]:
    """Run all workloads in turns, so that what the machine does beside it hits all alike.

    Args:
        workloads: What to run, by name.
        step: 'train_step' or 'infer'.
        warmup: Rounds that are not measured.
        repeats: Rounds that are.
        report: Called with a line per round. Defaults to doing nothing.
    """
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in workloads}
    for workload in workloads.values():
        workload.model.train(step == 'train_step')
    for number in range(warmup + repeats):
        for name, workload in workloads.items():
            sample = _timed(getattr(workload, step), workload.setting.device)
            if number >= warmup:
                samples[name].append(sample)
        kind = 'warm-up' if number < warmup else 'round'
        report(f'{step}: {kind} {number + 1} of {warmup + repeats}')
    return {
        name: Times(wall=tuple(s[0] for s in taken), cpu=tuple(s[1] for s in taken))
        for name, taken in samples.items()
    }


def _timed(run: Callable[[], None], device: str) -> tuple[float, float]:
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    _wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait(device: str) -> None:
    if device == 'cuda':
        torch.cuda.synchronize()


def summarise(seconds: tuple[float, ...]) -> dict[str, float]:
    """Least, median and largest value."""
    return dict(min=min(seconds), median=statistics.median(seconds), max=max(seconds))


# ----------------------------------------------------------------------------------------------------- memory
def measure_memory(case: Case, setting: Setting, step: str) -> Memory:
    """The peak memory of the first steps of a case, in a fresh process that does nothing else.

    On CUDA it is what torch has allocated there (`torch.cuda.max_memory_allocated`); else the resident memory of the
    process.

    Args:
        case: What to run.
        setting: Sizes, device and precision.
        step: 'train_step' or 'infer'.
    """
    spawn = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return Memory(**pool.submit(_measure_here, case, setting, step).result())


def _measure_here(case: Case, setting: Setting, step: str) -> dict[str, float | str]:
    init_default_scope('mmseg')
    torch.set_num_threads(setting.threads)
    workload = build_workload(case, setting)
    workload.model.train(step == 'train_step')
    gc.collect()
    _give_back_freed_memory()
    start, read = _cuda_memory() if setting.device == 'cuda' else _process_memory()
    base = start()
    for _ in range(MEMORY_STEPS):
        getattr(workload, step)()
    _wait(setting.device)
    peak, method = read()
    return asdict(Memory(base=base / MIB, peak=peak / MIB, method=method))


Probe = tuple[Callable[[], float], Callable[[], tuple[float, str]]]


def _cuda_memory() -> Probe:
    def start() -> float:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    return start, lambda: (torch.cuda.max_memory_allocated(), 'torch.cuda.max_memory_allocated')


def _give_back_freed_memory() -> None:
    """What building left behind must not serve the steps unseen; where the C library cannot do it, it stays."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _process_memory() -> Probe:
    """Resident memory: Linux tells the peak since a reset, other systems that since the start of the process."""
    status, reset = Path('/proc/self/status'), Path('/proc/self/clear_refs')

    def field(name: str) -> float:
        lines = status.read_text(encoding='ascii').splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f'{name}:'))

    try:
        reset.write_text('5', encoding='ascii')
        return lambda: field('VmRSS'), lambda: (field('VmHWM'), 'VmHWM, reset when the model was built')
    except OSError:
        import resource  # which Windows lacks

        unit = 1 if sys.platform == 'darwin' else 1024

        def largest() -> float:
            return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        return largest, lambda: (largest(), 'ru_maxrss, above the largest while the model was built')
