"""`tools/soak.py`: what it samples, what it calls growth, and a run of a few epochs that leaks files."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.tool_runner import load_tool

SHARED_MEMORY = Path('/dev/shm')
linux = pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='the figures come from /proc')


@pytest.fixture(scope='module')
def soak(repo):
    return load_tool(repo / 'tools' / 'soak.py')


# ----------------------------------------------------------------------------------------------------- the fit
@pytest.mark.parametrize(
    ('key', 'values', 'grows'),
    [
        ('open_files', lambda n: np.full(n.size, 37), False),
        ('open_files', lambda n: 37 + (n % 7 == 0), False),  # comes and goes
        ('open_files', lambda n: 37 + 9.0 * (n == n[-1]), False),  # one outlier, at the worst place
        ('open_files', lambda n: 37 + n // 40, True),
        ('open_files', lambda n: 60 - n // 40, False),
        ('main_mib', lambda n: 700 + np.random.default_rng(0).normal(size=n.size), False),
        ('main_mib', lambda n: 700 + 0.1 * n + np.random.default_rng(0).normal(size=n.size), True),
        ('workers_mib', lambda n: 2000 + 0.05 * n, False),  # 15 MiB are less than 1 %
        ('checkpoint_kib', lambda n: 22_900 + n / 64, True),
        ('logs_kib', lambda n: 30.0 * n, False),  # a record
    ],
)
def test_what_grows(soak, key, values, grows):
    """Three hundred samples, one in twelve seconds."""
    n = np.arange(300.0)
    line = soak.fit(12 * n, values(n), soak.QUANTITIES[key])
    assert line.grows is grows
    assert line.highest == values(n).max()


def test_the_line(soak):
    """The exact one of samples on a line; more samples than are fitted change nothing."""
    for size in (11, 3 * soak.MOST_SAMPLES):
        seconds = np.linspace(100, 1900, size)
        line = soak.fit(seconds, 50 + seconds / 10, soak.QUANTITIES['files'])
        assert line[:4] == pytest.approx((60, 240, 240, 360)) and line.allowed == 0.5 and line.grows


def test_the_warm_up_is_left_out(soak):
    """What grows in the warm-up only is steady; with too few samples there is no verdict."""
    seconds = np.arange(1.0, 101)
    samples = dict.fromkeys(soak.QUANTITIES, np.minimum(seconds, 70)) | dict(seconds=seconds)
    assert not any(line.grows for line in soak.judge(samples, 0.7).values())
    assert soak.judge(samples, 0.25)['threads'].grows
    short = {key: values[:12] for key, values in samples.items()}
    with pytest.raises(ValueError, match=r'9 samples behind the warm-up are too few.*at least 10'):
        soak.judge(short, 0.25)


# ----------------------------------------------------------------------------------------------------- samples
@linux
def test_processes_files_and_threads(soak, tmp_path):
    """A child with a child, an open file and a thread are seen."""
    before = soak.sample(tmp_path)
    code = 'import subprocess, sys; subprocess.run([sys.executable, "-c", "print(1, flush=True); input()"])'
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    with (tmp_path / 'open').open('w'):
        child = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        thread.start()
        try:
            assert child.stdout.readline() == b'1\n'
            after = soak.sample(tmp_path)
            assert child.pid in soak.descendants(os.getpid())
        finally:
            stop.set()
            thread.join()
            child.communicate()
    assert after['children'] - before['children'] == 2
    assert after['threads'] - before['threads'] == 1
    assert after['open_files'] - before['open_files'] == 3  # the file and two pipes
    assert after['workers_open_files'] >= before['workers_open_files'] + 6  # three standard streams each
    assert after['workers_mib'] > before['workers_mib'] + 5
    assert after['files'] - before['files'] == 1


MEMORY = """
import importlib.util, mmap, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location('soak', sys.argv[1])
soak = sys.modules['soak'] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(soak)
before = soak.sample(Path())
memory = mmap.mmap(-1, 2**26)
for start in range(0, len(memory), mmap.PAGESIZE):
    memory[start] = 1
print(soak.sample(Path())['main_mib'] - before['main_mib'])
"""


@linux
def test_memory(repo, tmp_path):
    """64 MiB that nobody has had before, touched page by page, in a process that has nothing else to do."""
    command = [sys.executable, '-c', MEMORY, str(repo / 'tools' / 'soak.py')]
    grown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert 63 < float(grown) < 70


@linux
def test_what_is_gone_counts_nothing(soak):
    child = subprocess.Popen([sys.executable, '-c', ''])
    child.wait()
    assert soak.open_files(child.pid) == soak.status_kib(child.pid, 'VmRSS') == 0
    assert soak.descendants(child.pid) == []


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason='there is no /dev/shm')
def test_shared_memory_that_was_left(soak):
    """By its names' convention, `torch_<process>_<more>`."""
    left = SHARED_MEMORY / f'torch_{os.getpid()}_test'
    left.write_bytes(b'123')
    try:
        assert soak.left_in_shared_memory([os.getpid()]) == 3
        assert soak.left_in_shared_memory([os.getpid() * 10]) == 0
    finally:
        left.unlink()


@linux
def test_objects_are_those_of_the_program(soak, tmp_path):
    """Not those of the sampling itself, which looks at more and more files."""
    before = soak.sample(tmp_path)['objects']
    for i in range(1000):
        (tmp_path / str(i)).touch()
    assert soak.sample(tmp_path)['objects'] < before + 100
    kept = [[i] for i in range(1000)]
    assert len(kept) <= soak.sample(tmp_path)['objects'] - before < len(kept) + 100


def test_files_and_logs_of_a_work_dir(soak, tmp_path):
    for name in ('epoch_1.pth', 'parts_cache/a.png', '20261121_150139/vis_data/scalars.json'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('1')
    files, logs = soak.work_dir_files(tmp_path)
    assert [path.name for path in files] == ['epoch_1.pth', 'a.png']
    assert [path.name for path in logs] == ['scalars.json']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--minutes', '0'], '--minutes must be positive'),
        (['--warm-up', '1'], 'below 1'),
        (['--config', 'nowhere.py'], 'no such file'),
        ([], 'is not empty: remove it'),
    ],
)
def test_command_lines_that_cannot_work(soak, tmp_path, capsys, arguments, message):
    (tmp_path / 'old').touch()
    with pytest.raises(SystemExit):
        soak.parse_args(['--work-dir', str(tmp_path), *arguments])
    assert message in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- run
LEAK = """
import os
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

@HOOKS.register_module()
class LeakHook(Hook):
    kept = []

    def after_val_epoch(self, runner, metrics=None):
        self.kept.append(open(os.devnull))
"""


@linux
@pytest.mark.integration
def test_a_leak_is_found(repo, tmp_path):
    """The real config, with a hook that keeps a file open in each epoch."""
    (tmp_path / 'leak.py').write_text(LEAK)
    config = tmp_path / 'config.py'
    config.write_text(
        f"""
_base_ = [{str(repo / 'configs/polyhistor_lite/swin-pico_mini-pascal.py')!r}]
custom_imports = dict(imports=['mmseg_polyhistor', 'leak'], allow_failed_imports=False)
custom_hooks = [*_base_.custom_hooks, dict(type='LeakHook')]
"""
    )
    sizes = [
        '--train',
        '4',
        '--val',
        '1',
        '--size',
        '32',
        '--workers',
        '1',
        '--epochs',
        '12',
        '--warm-up',
        '0.1',
    ]
    sizes += ['--cfg-options', 'model.decode_heads.channels=16']
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', str(repo / 'tools' / 'soak.py'), '--config', str(config), *sizes],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    verdicts = {line.split('  ')[0]: line.split()[-1] for line in lines}
    assert verdicts['open files, main process'] == 'GROWS'
    for key in ('checkpoints', 'child processes', 'files in the work dir but logs'):
        assert verdicts[key] == 'steady'
    assert lines[-1].startswith('GROWS: ') and 'open files, main process' in lines[-1]
    assert 'epoch 12: ' in done.stderr

    with (tmp_path / 'work_dirs' / 'soak' / 'soak.csv').open() as f:
        rows = list(csv.DictReader(f))
    assert [row['epoch'] for row in rows] == [str(i) for i in range(1, 13)]
    steps = np.diff([int(row['open_files']) for row in rows])
    assert np.median(steps) == 1
    assert {row['checkpoints'] for row in rows[1:]} == {'2'}
    assert all(float(row['main_mib']) > 100 and float(row['workers_mib']) > 100 for row in rows)
