"""Train and evaluate for an hour, and show that nothing grows: memory, files, threads, processes, checkpoints.

Trains a config on rendered data, epoch after epoch, each with an evaluation and a checkpoint. Behind every evaluation a
line goes to `<work dir>/soak.csv`; at the end the samples behind a warm-up are fitted with a line (the median of the slopes
between all pairs of samples), and a table says what grew. Exit status: 0 if nothing did, 1 if something did, 2 if there
were too few samples to tell. Needs Linux: the figures come from /proc.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import Hook
from mmengine.runner import Runner
from scipy.stats import theilslopes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401  (repairs the stack, and registers)
from mmseg_polyhistor.profiling.text_table import text_table

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs' / 'polyhistor_lite' / 'swin-pico_mini-pascal.py'
MAKER = ROOT / 'tools' / 'dataset_converters' / 'make_mini_pascal.py'
SHARED_MEMORY = '/dev/shm'
MIB, KIB = 2**20, 2**10
LEAST_SAMPLES = 10  # behind the warm-up
MOST_SAMPLES = 1500  # the fit compares all pairs

EXAMPLES = """examples:
  python tools/soak.py                                    an hour, Polyhistor-Lite on the CPU or the GPU
  python tools/soak.py --minutes 10 --config configs/polyhistor/swin-pico_mini-pascal.py --work-dir work_dirs/soak_10
  python tools/soak.py --cfg-options default_hooks.visualization.draw=True
"""


class Quantity(NamedTuple):
    """One column of the samples.

    Attributes:
        text: What it is, with its unit.
        allowed: Growth over the whole fitted time that is noise, in the unit; None: a record that grows by design.
        share: The same as a share of the first fitted value; the larger of the two counts.
    """

    text: str
    allowed: float | None
    share: float = 0.0


QUANTITIES = dict(
    main_mib=Quantity('resident memory, main process, MiB', 8.0, 0.01),
    workers_mib=Quantity('resident memory, workers, MiB', 8.0, 0.01),
    objects=Quantity('Python objects, main process', 50.0),
    cuda_mib=Quantity('CUDA memory allocated, MiB', 1.0),
    cuda_reserved_mib=Quantity('CUDA memory reserved, MiB', 8.0, 0.01),
    open_files=Quantity('open files, main process', 0.5),
    workers_open_files=Quantity('open files, workers', 0.5),
    threads=Quantity('threads, main process', 0.5),
    children=Quantity('child processes', 0.5),
    shared_mib=Quantity('shared memory, MiB', 1.0),
    checkpoints=Quantity('checkpoints', 0.5),
    checkpoint_kib=Quantity('size of the newest checkpoint, KiB', 1.0),
    files=Quantity('files in the work dir but logs', 0.5),
    files_mib=Quantity('size of these files, MiB', 0.1),
    logs_kib=Quantity('size of the logs, KiB', None),
)


class Fit(NamedTuple):
    """A line through the samples of one quantity.

    Attributes:
        first, last: The line's values at the first and the last sample.
        highest: The largest sample.
        per_hour: Slope.
        allowed: Growth from first to last that counts as noise; None: any.
        grows: Whether the growth exceeds it, and the slope's 95 % interval lies above zero.
    """

    first: float
    last: float
    highest: float
    per_hour: float
    allowed: float | None
    grows: bool


def fit(seconds: Sequence[float], values: Sequence[float], quantity: Quantity) -> Fit:
    """Fit one quantity by the Theil-Sen estimator, which single outliers do not move.

    Args:
        seconds: When the samples were taken; increasing, two at least.
        values: The samples.
        quantity: What they are.
    """
    keep = np.unique(np.linspace(0, len(values) - 1, MOST_SAMPLES).round().astype(int))
    x, y = np.asarray(seconds, float)[keep], np.asarray(values, float)[keep]
    slope, intercept, low, _ = map(float, theilslopes(y, x, 0.95))
    first, last = (intercept + slope * float(t) for t in (x[0], x[-1]))
    allowed = None if quantity.allowed is None else max(quantity.allowed, quantity.share * first)
    grows = allowed is not None and low > 0 and last - first > allowed
    return Fit(first, last, float(max(values)), 3600 * slope, allowed, grows)


# ------------------------------------------------------------------------------------------------- samples
def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have, without those that are gone."""
    found = []
    for task in Path(f'/proc/{pid}/task').glob('*/children'):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:  # the thread has ended
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def status_kib(pid: int, key: str) -> int:
    """A line of /proc/<pid>/status in KiB; 0 for a process that is gone."""
    try:
        text = Path(f'/proc/{pid}/status').read_text()
    except OSError:
        return 0
    found = re.search(rf'^{key}:\s+(\d+) kB', text, re.MULTILINE)
    return int(found[1]) if found else 0


def open_files(pid: int) -> int:
    """The number of open files of a process; 0 for one that is gone."""
    try:
        return len(os.listdir(f'/proc/{pid}/fd'))
    except OSError:
        return 0


def left_in_shared_memory(pids: Sequence[int]) -> int:
    """Bytes of the files that torch made in /dev/shm for these processes and did not remove."""
    names = {f'torch_{pid}' for pid in pids}
    folder = Path(SHARED_MEMORY)
    sizes = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if '_'.join(path.name.split('_')[:2]) in names:
            try:
                sizes.append(path.stat().st_size)
            except OSError:  # removed in between
                continue
    return sum(sizes)


def work_dir_files(work_dir: Path) -> tuple[list[Path], list[Path]]:
    """The files of a work dir: all but logs, and logs (in folders of their own, named after the time of the start)."""
    files = [path for path in work_dir.rglob('*') if path.is_file()]
    logs = [p for p in files if re.fullmatch(r'\d{8}_\d{6}', p.relative_to(work_dir).parts[0])]
    return sorted(set(files) - set(logs)), logs


def sample(work_dir: Path) -> dict[str, float]:
    """One sample of all quantities of this process, its children and its work dir."""
    gc.collect()
    objects = len(gc.get_objects())  # before there are any of this function
    main, workers = os.getpid(), descendants(os.getpid())
    pids = [main, *workers]
    files, logs = work_dir_files(work_dir)
    checkpoints = [path for path in files if path.suffix == '.pth']
    newest = max(checkpoints, key=lambda path: path.stat().st_mtime_ns, default=None)
    shared = sum(status_kib(pid, 'RssShmem') for pid in pids) * KIB + left_in_shared_memory(pids)
    cuda = torch.cuda.is_available()
    return dict(
        main_mib=status_kib(main, 'VmRSS') * KIB / MIB,
        workers_mib=sum(status_kib(pid, 'VmRSS') for pid in workers) * KIB / MIB,
        objects=objects,
        cuda_mib=torch.cuda.memory_allocated() / MIB if cuda else 0,
        cuda_reserved_mib=torch.cuda.memory_reserved() / MIB if cuda else 0,
        open_files=open_files(main),
        workers_open_files=sum(open_files(pid) for pid in workers),
        threads=len(os.listdir('/proc/self/task')),
        children=len(workers),
        shared_mib=shared / MIB,
        checkpoints=len(checkpoints),
        checkpoint_kib=newest.stat().st_size / KIB if newest else 0,
        files=len(files),
        files_mib=sum(path.stat().st_size for path in files) / MIB,
        logs_kib=sum(path.stat().st_size for path in logs) / KIB,
    )


class SoakHook(Hook):
    """Takes a sample behind every evaluation, and ends the training when the time is over.

    Args:
        minutes: How long to train.
        epochs: Stop after so many epochs, if it is earlier. None: no limit.
        work_dir: The run's work dir, which receives soak.csv.
    """

    priority = 'LOWEST'

    def __init__(self, *, minutes: float, epochs: int | None, work_dir: Path) -> None:
        self.seconds = 60 * minutes
        self.epochs = epochs
        self.work_dir = work_dir
        self.live = sys.stderr.isatty()
        self.tenth = 0
        self.started = 0.0

    def before_train(self, runner: Runner) -> None:
        """Start the clock and the file."""
        self.started = time.monotonic()
        with (self.work_dir / 'soak.csv').open('w', newline='') as f:
            csv.writer(f).writerow(['seconds', 'epoch', *QUANTITIES])

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Take a sample."""
        now = sample(self.work_dir)
        seconds = time.monotonic() - self.started
        with (self.work_dir / 'soak.csv').open('a', newline='') as f:
            csv.writer(f).writerow([f'{seconds:.2f}', runner.epoch, *(f'{now[k]:.10g}' for k in QUANTITIES)])
        over = seconds >= self.seconds or runner.epoch == self.epochs
        runner.train_loop.stop_training = over
        tenth = int(10 * seconds / self.seconds)
        if self.live or over or tenth > self.tenth:
            self.tenth = tenth
            left = timedelta(seconds=round(max(self.seconds - seconds, 0)))
            line = (
                f'epoch {runner.epoch}: {now["main_mib"]:.0f} MiB, workers {now["workers_mib"]:.0f} MiB, '
                f'{now["open_files"]} open files, checkpoint {now["checkpoint_kib"]:.0f} KiB, {left} left'
            )
            print(
                f'\r{line}  ' if self.live else line,
                end='\n' if over or not self.live else '',
                file=sys.stderr,
                flush=True,
            )


# --------------------------------------------------------------------------------------------------- result
def read_samples(path: Path) -> dict[str, list[float]]:
    """The columns of soak.csv."""
    with path.open(newline='') as f:
        rows = list(csv.DictReader(f))
    return {key: [float(row[key]) for row in rows] for key in ('seconds', 'epoch', *QUANTITIES)}


def judge(samples: Mapping[str, Sequence[float]], warm_up: float) -> dict[str, Fit]:
    """Fit every quantity behind the warm-up.

    Args:
        samples: What `read_samples` gives.
        warm_up: Share of the whole time that is left out, 0 to 1.

    Raises:
        ValueError: if there are fewer than `LEAST_SAMPLES` behind it.
    """
    seconds = samples['seconds']
    start = next((i for i, t in enumerate(seconds) if t > warm_up * seconds[-1]), 0)
    if len(seconds) - start < LEAST_SAMPLES:
        raise ValueError(
            f'{len(seconds) - start} samples behind the warm-up are too few to tell what grows; at least '
            f'{LEAST_SAMPLES} are needed: give more --minutes, or fewer images'
        )
    return {key: fit(seconds[start:], samples[key][start:], QUANTITIES[key]) for key in QUANTITIES}


def table_rows(fits: Mapping[str, Fit]) -> Iterator[list[str]]:
    """The rows of the printed table."""
    yield ['quantity', 'at first', 'at last', 'highest', 'per hour', 'allowed', 'verdict']
    for key, line in fits.items():
        verdict = 'GROWS' if line.grows else 'a record' if line.allowed is None else 'steady'
        yield [
            QUANTITIES[key].text,
            *(f'{v:,.1f}' for v in (line.first, line.last, line.highest)),
            f'{line.per_hour:+,.2f}',
            '-' if line.allowed is None else f'{line.allowed:,.1f}',
            verdict,
        ]


# ------------------------------------------------------------------------------------------------ the run
def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--minutes', type=float, default=60.0, help='how long to train (default: 60)')
    parser.add_argument('--epochs', type=int, help='stop after so many epochs, if it is earlier')
    parser.add_argument('--config', type=Path, default=CONFIG, help=f'default: {CONFIG.relative_to(ROOT)}')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/soak'), help='new or empty (default: work_dirs/soak)'
    )
    parser.add_argument(
        '--data-root', type=Path, help='a data set that is there (default: one is rendered in the work dir)'
    )
    parser.add_argument('--train', type=int, default=32, help='rendered training images (default: 32)')
    parser.add_argument('--val', type=int, default=16, help='rendered validation images (default: 16)')
    parser.add_argument('--size', type=int, default=128, help='their side in pixels (default: 128)')
    parser.add_argument('--workers', type=int, default=2, help='workers of each data loader (default: 2)')
    parser.add_argument(
        '--warm-up', type=float, default=0.25, help='share of the time that is not judged (default: 0.25)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='changes of the config, key=value'
    )
    args = parser.parse_args(arguments)
    if not Path('/proc/self/status').is_file():
        parser.error('the figures come from /proc, which only Linux has')
    if not args.config.is_file():
        parser.error(
            f'{args.config}: no such file; give a path such as configs/polyhistor/swin-pico_mini-pascal.py'
        )
    if args.minutes <= 0 or not 0 <= args.warm_up < 1 or args.workers < 0:
        parser.error('--minutes must be positive, --warm-up at least 0 and below 1, --workers not negative')
    if args.work_dir.is_dir() and any(args.work_dir.iterdir()):
        parser.error(f'{args.work_dir} is not empty: remove it, or name another with --work-dir')
    return args


def build_config(args: argparse.Namespace, data_root: Path) -> Config:
    """The config, made endless, with an evaluation and a checkpoint in every epoch."""
    cfg = Config.fromfile(args.config)
    cfg.work_dir = str(args.work_dir)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg[name]
        loader.num_workers, loader.persistent_workers = args.workers, args.workers > 0
        loader.dataset.data_root = str(data_root)
        loader.dataset.parts_cache_dir = str(args.work_dir / 'parts_cache')
    cfg.train_cfg.update(max_epochs=10**6, val_interval=1)
    cfg.param_scheduler = None  # its length is that of the training, which is not known
    cfg.default_hooks.checkpoint.interval = 1
    cfg.custom_hooks = [h for h in cfg.custom_hooks if h['type'] != 'ProgressBarHook']  # ours shows the time
    cfg.log_level = 'WARNING'
    cfg.merge_from_dict(args.cfg_options or {})
    return cfg


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table; returns the exit status."""
    args = parse_args(arguments)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    data_root = args.data_root or args.work_dir / 'data'
    if args.data_root is None:
        sizes = [f'--{key}={getattr(args, key)}' for key in ('train', 'val', 'size')]
        subprocess.run([sys.executable, '-W', 'ignore', str(MAKER), str(data_root), *sizes], check=True)
    runner = Runner.from_cfg(build_config(args, data_root))
    runner.register_hook(SoakHook(minutes=args.minutes, epochs=args.epochs, work_dir=args.work_dir))
    runner.train()

    samples = read_samples(args.work_dir / 'soak.csv')
    try:
        fits = judge(samples, args.warm_up)
    except ValueError as error:
        print(f'soak: {error}', file=sys.stderr)
        return 2
    growing = [QUANTITIES[key].text for key, line in fits.items() if line.grows]
    print(text_table(list(table_rows(fits)), left=(0, 6)))
    spent = timedelta(seconds=round(samples['seconds'][-1]))
    print(
        f'{len(samples["epoch"])} epochs with an evaluation and a checkpoint each in {spent}; the first '
        f'{args.warm_up:.0%} are left out. Samples: {args.work_dir / "soak.csv"}'
    )
    print(f'GROWS: {"; ".join(growing)}' if growing else 'Nothing grows.')
    return 1 if growing else 0


if __name__ == '__main__':
    sys.exit(main())
