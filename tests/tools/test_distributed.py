"""Several processes (gloo, on the CPU): odd numbers of images, labels that one process lacks, and processes that fail.

What can be seen in forks of the test is tested there, since they start in no time; what the scripts have to do, such as
ending a job that lost a process, by the scripts.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from scipy.io import loadmat, savemat

from tests.tool_runner import user_environment

REPO = Path(__file__).resolve().parents[2]
TOYS = REPO / 'tests' / 'engine'
PICO = REPO / 'configs' / 'polyhistor_lite' / 'swin-pico_mini-pascal.py'
PYTHON = [sys.executable, '-W', 'ignore']
TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
RUNS = itertools.count()
IMAGES = 7


# ------------------------------------------------------------------------------------------------- fixtures
@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Seven images for training and validation each, of two sizes; `val3.txt` and `val1.txt` name fewer."""
    folder = tmp_path_factory.mktemp('data')
    sys.path.insert(0, str(REPO / 'tools' / 'dataset_converters'))
    try:
        from mini_pascal import write_dataset
    finally:
        sys.path.pop(0)
    for name, size, seed in (('mini', (48, 64), 0), ('other', (72, 56), 1)):
        write_dataset(folder / name, train=IMAGES, val=IMAGES, size=size, seed=seed)
    for path in (folder / 'other').rglob('*'):
        if path.stem.endswith(('3', '4', '5')):
            shutil.copy(path, folder / 'mini' / path.relative_to(folder / 'other'))
    lists = folder / 'mini' / 'ImageSets' / 'Context'
    ids = (lists / 'val.txt').read_text().split()
    for number in (1, 3):
        (lists / f'val{number}.txt').write_text('\n'.join(ids[-number:]) + '\n')
    return folder / 'mini'


@pytest.fixture
def env():
    return user_environment(PYTHONWARNINGS='ignore')


def pico_config(data: Path, **changes: object) -> Config:
    """One epoch of Polyhistor-Lite with a validation, batch 1, without workers."""
    cfg = Config.fromfile(PICO)
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': 1,
            'train_cfg.val_interval': 1,
            'default_hooks.checkpoint.interval': 1,
            'env_cfg.dist_cfg.backend': 'gloo',
            'log_level': 'ERROR',
            'model.decode_heads.channels': 16,
        }
    )
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        own = dict(batch_size=1, num_workers=0, persistent_workers=False)
        cfg.merge_from_dict({f'{name}.{key}': value for key, value in own.items()})
        cfg.merge_from_dict({f'{name}.dataset.data_root': str(data)})
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        for transform in loader.dataset.pipeline:
            if 'scale' in transform:
                transform.scale = (64, 64)
    cfg.merge_from_dict(changes)
    return cfg


def make_runner(cfg: Config, work_dir: Path) -> Runner:
    """A runner for this process, alone or one of several, as `tools/train.py` has it on a CPU."""
    cv2.setNumThreads(0)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.name}_{next(RUNS)}'
    if torch.distributed.is_initialized():
        cfg.launcher = 'pytorch'
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=False,
        )
    return Runner.from_cfg(cfg)


def digits(metrics: dict) -> dict:
    """Metrics as the log prints them."""
    return {key: f'{value:.4f}' for key, value in metrics.items() if key.split('.')[0] in TASKS}


class Watch(Hook):
    """Notes losses, buffers before and after `SyncBuffersHook`, and the metrics of the validation."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.first: dict[str, torch.Tensor] = {}
        self.losses: list[dict[str, float]] = []
        self.metrics: dict[str, str] = {}
        self.before: dict[str, torch.Tensor] = {}
        self.after: dict[str, torch.Tensor] = {}

    def before_train(self, runner):
        self.first = {key: value.detach().clone() for key, value in runner.model.module.named_parameters()}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({key: value.item() for key, value in outputs.items()})
        self.before = {key: value.clone() for key, value in runner.model.module.named_buffers()}

    def before_val_epoch(self, runner):
        self.after = {key: value.clone() for key, value in runner.model.module.named_buffers()}

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = digits(metrics)


# -------------------------------------------------------------------------------------- forks of this process
def _train(cfg: Config, work_dir: Path) -> dict:
    runner, watch = make_runner(cfg, work_dir), Watch()
    runner.register_hook(watch)
    runner.train()
    last = {key: value.detach() for key, value in runner.model.module.named_parameters()}
    trained = [key for key, value in runner.model.module.named_parameters() if value.requires_grad]
    return dict(last=last, trained=trained, **vars(watch))


def _test(cfg: Config, checkpoint: str, work_dir: Path) -> dict[str, str]:
    cfg.load_from = checkpoint
    return digits(make_runner(cfg, work_dir).test())


@pytest.mark.parametrize(
    ('processes', 'batch', 'execution'),
    [(2, 1, 'stacked'), (2, 2, 'sequential'), (4, 1, 'sequential'), (4, 2, 'stacked')],
)
def test_seven_images(data, tmp_path, run_ranks, processes, batch, execution):
    """All processes take as many steps, end with the same weights and buffers, and validate as one process does."""
    changes = {'train_dataloader.batch_size': batch, 'model.execution': execution}
    cfg = pico_config(data, **changes)
    ranks = run_ranks(processes, _train, cfg, tmp_path / 'train')

    steps = math.ceil(IMAGES / processes) // batch
    assert [len(rank['losses']) for rank in ranks] == [steps] * processes
    assert all(math.isfinite(value) for rank in ranks for step in rank['losses'] for value in step.values())
    assert len({rank['losses'][0]['loss'] for rank in ranks}) == processes, 'they trained on the same images'
    first, last = ranks[0]['first'], ranks[0]['last']
    for rank in ranks:
        for key, value in rank['last'].items():
            assert torch.equal(value, last[key]), key
            assert torch.equal(value, first[key]) == (key not in rank['trained']), key
        for key, value in rank['after'].items():
            mean = torch.stack([other['before'][key].double() for other in ranks]).mean(0)
            torch.testing.assert_close(value.double(), mean.to(value.dtype).double(), rtol=1e-6, atol=1e-7)
    assert any(
        not torch.equal(ranks[0]['before'][key], ranks[1]['before'][key]) for key in ranks[0]['before']
    )

    alone = _test(pico_config(data), str(tmp_path / 'train' / 'epoch_1.pth'), tmp_path / 'alone')
    assert len({key.split('.')[0] for key in alone}) == len(TASKS)
    assert all(rank['metrics'] == alone for rank in ranks)


@pytest.mark.parametrize(('processes', 'images'), [(4, 3), (2, 1)])
def test_evaluation_with_more_processes_than_images(data, tmp_path, run_ranks, processes, images):
    """The duplicates that fill up the shares do not count."""
    cfg = pico_config(data, **{'test_dataloader.dataset.ann_file': f'ImageSets/Context/val{images}.txt'})
    runner = make_runner(cfg.copy(), tmp_path / 'made')
    runner.model.init_weights()
    torch.save(dict(state_dict=runner.model.state_dict(), meta={}), tmp_path / 'made.pth')
    arguments = cfg, str(tmp_path / 'made.pth'), tmp_path / 'test'
    alone = _test(*arguments)
    assert run_ranks(processes, _test, *arguments) == [alone] * processes
    whole = _test(pico_config(data), *arguments[1:])
    assert whole.keys() == alone.keys() and whole != alone


def without_truth(data: Path, name: str) -> None:
    """Take from an image all that the four losses could count, in files that are valid."""
    with_people = loadmat(data / 'human_parts' / f'{name}.mat')
    for thing in with_people['anno'][0][0][1].ravel():
        thing[1] = np.array([[7]], np.uint8)  # a car; in place it would overwrite a byte that Python shares
    savemat(data / 'human_parts' / f'{name}.mat', dict(anno=with_people['anno']))
    context = data / 'pascal-context' / 'trainval' / f'{name}.mat'
    savemat(context, dict(LabelMap=np.zeros_like(loadmat(context)['LabelMap'])))
    for folder, value in (('semseg/VOC12', 255), ('sal_distill', 0)):
        path = data / folder / f'{name}.png'
        shape = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).shape
        cv2.imwrite(str(path), np.full(shape, value, np.uint8))


@pytest.mark.parametrize('execution', ['stacked', 'sequential'])
def test_a_process_without_valid_pixels(data, tmp_path, run_ranks, execution):
    """One step of two processes is that with the mean of their gradients, and one has nothing to learn from."""
    own = Path(shutil.copytree(data, tmp_path / 'data'))
    names = ['train_000001', 'train_000002']  # the first image shows an empty room
    (own / 'ImageSets' / 'Context' / 'train.txt').write_text('\n'.join(names) + '\n')
    without_truth(own, names[1])
    cfg = pico_config(own, **{'model.execution': execution, 'model.decode_heads.dropout_ratio': 0.0})
    loading = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [t for t in loading if 'Random' not in t['type']]
    cfg.train_dataloader.sampler.shuffle = False
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=1.0)
    cfg.optim_wrapper.paramwise_cfg = None  # one rate for all
    cfg.param_scheduler = None
    ranks = run_ranks(2, _train, cfg, tmp_path / 'two')

    losses = [rank['losses'][0] for rank in ranks]
    assert len(ranks[0]['losses']) == 1 and all(losses[0][f'loss_{task}'] > 0 for task in TASKS)
    assert [losses[1][f'loss_{task}'] for task in TASKS] == [0, 0, 0, 0]

    runner = make_runner(cfg, tmp_path / 'one')
    model = runner.model.train()
    expected = {key: ranks[0]['first'][key] for key in ranks[0]['trained']}
    for index, of_rank in enumerate(losses):
        model.load_state_dict(ranks[0]['first'], strict=False)
        model.zero_grad()
        samples = runner.train_dataloader.collate_fn([runner.train_dataloader.dataset[index]])
        total, named = model.parse_losses(model(**model.data_preprocessor(samples, True), mode='loss'))
        assert {k: v.item() for k, v in named.items()} == pytest.approx(of_rank, rel=1e-5)
        total.backward()
        for key, parameter in model.named_parameters():
            if key in expected:
                expected[key] = expected[key] - parameter.grad / 2
    for rank in ranks:
        for key, value in expected.items():
            torch.testing.assert_close(rank['last'][key], value, rtol=1e-4, atol=1e-5, msg=key)
    moved = (ranks[0]['last'][key] - ranks[0]['first'][key] for key in expected)
    assert max(change.abs().max() for change in moved) > 0.1


# ----------------------------------------------------------------------------------------------- the scripts
SLOW = """
import os, time
from pathlib import Path
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

@HOOKS.register_module()
class SlowValidation(Hook):
    def before_run(self, runner):
        (Path(runner.work_dir) / f'pid_{get_rank()}').write_text(str(os.getpid()))

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        (Path(runner.work_dir) / f'validates_{get_rank()}').touch()
        time.sleep(0.5)
"""


def _train_toy(config: Path, work_dir: Path) -> list[float]:
    sys.path[:0] = [str(config.parent), str(TOYS)]
    cfg = Config.fromfile(config)
    make_runner(cfg, work_dir).train()
    return read_losses(work_dir, torch.distributed.get_rank())


def read_losses(work_dir: Path, rank: int) -> list[float]:
    lines = (work_dir / f'losses_rank{rank}.txt').read_text().splitlines()
    losses = {int(i): float.fromhex(loss) for i, loss in (line.split() for line in lines)}
    return [losses[i] for i in range(len(losses))]


def processes_of(folder: Path) -> list[int]:
    """Processes with the folder in their command line."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            command = path.read_bytes()
        except OSError:  # it has ended
            continue
        if str(folder).encode() in command:
            found.append(int(path.parent.name))
    return found


@pytest.mark.integration
@pytest.mark.skipif(not Path('/proc/self/cmdline').exists(), reason='looks for processes in /proc')
def test_a_killed_process_ends_the_job(tmp_path, env, run_ranks):
    """SIGKILL of one of two processes, in training and in validation; resumed each time, the losses are as ever."""
    (tmp_path / 'slow_validation.py').write_text(SLOW)
    config = tmp_path / 'config.py'
    config.write_text(
        f"""
_base_ = {str(TOYS / 'toy_config.py')!r}
custom_imports = dict(
    imports=['mmseg_polyhistor', 'mmseg_polyhistor.engine', 'toy_training', 'slow_validation'], allow_failed_imports=False)
train_dataloader = dict(batch_size=2, num_workers=1)
train_cfg = dict(val_begin=3)
custom_hooks = [dict(type='ToyLossLog', pause=0.05), dict(type='SlowValidation')]
"""
    )
    work_dir = tmp_path / 'work'
    path = f'{tmp_path}{os.pathsep}{TOYS}'
    train = ['bash', REPO / 'tools' / 'dist_train.sh', config, 2, '--work-dir', work_dir]

    def start(*arguments):
        for old in work_dir.glob('validates_*'):
            old.unlink()
        command = [str(c) for c in (*train, *arguments)]
        own = dict(env, PYTHONPATH=path)
        return subprocess.Popen(
            command, cwd=tmp_path, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def kill(job, rank, ready):
        """SIGKILL a rank when the job is `ready`; returns what the job said, which must have ended with an error."""
        deadline = time.monotonic() + 120
        while not ready():
            assert job.poll() is None and time.monotonic() < deadline, job.communicate()[0].decode()[-3000:]
            time.sleep(0.02)
        os.kill(int((work_dir / f'pid_{rank}').read_text()), signal.SIGKILL)
        try:
            text = job.communicate(timeout=60)[0].decode()  # torchrun gives the others 30 s to end
        finally:
            job.kill()
        assert job.returncode != 0
        assert 'SIGKILL' in text, text[-3000:]
        while processes_of(
            work_dir
        ):  # workers of a data loader look every five seconds whether their parent lives
            assert time.monotonic() < deadline, 'processes are left behind'
            time.sleep(0.1)
        return text

    def in_second_epoch():
        log = work_dir / 'losses_rank1.txt'
        return (work_dir / 'last_checkpoint').exists() and len(log.read_text().splitlines()) >= 6

    try:
        kill(start(), 1, in_second_epoch)
        assert sorted(p.name for p in work_dir.glob('*.pth')) == ['epoch_1.pth']
        kill(start('--resume'), 0, lambda: (work_dir / 'validates_0').exists())
        assert (work_dir / 'epoch_3.pth').exists() and not (work_dir / 'epoch_4.pth').exists()
        last = start('--resume')
        assert last.wait(timeout=120) == 0, last.stdout.read().decode()[-3000:]
    finally:
        for pid in processes_of(work_dir):
            os.kill(pid, signal.SIGKILL)
    uninterrupted = run_ranks(2, _train_toy, config, tmp_path / 'whole')
    assert [read_losses(work_dir, rank) for rank in (0, 1)] == uninterrupted
    assert len(uninterrupted[0]) == 16


def write_config(folder: Path, data: Path, **changes: object) -> Path:
    path = folder / 'config.py'
    pico_config(data, **changes).dump(path)
    return path


@pytest.mark.integration
def test_a_label_that_one_process_cannot_read(data, tmp_path, env):
    """The job ends, and says which file is broken, though only one process has met it."""
    own = Path(shutil.copytree(data, tmp_path / 'data'))
    broken = own / 'sal_distill' / 'train_000003.png'
    broken.write_bytes(broken.read_bytes()[:40])
    config = write_config(tmp_path, own, **{'train_dataloader.num_workers': 1})
    command = ['bash', REPO / 'tools' / 'dist_train.sh', config, '2', '--work-dir', tmp_path / 'work']
    done = subprocess.run(
        [*map(str, command)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert 'LabelError' in done.stderr and str(broken) in done.stderr, done.stderr[-3000:]
    assert not list((tmp_path / 'work').glob('*.pth'))


@pytest.mark.integration
@pytest.mark.stack
def test_four_processes_train_and_two_test(data, tmp_path, env):
    """The scripts, on seven images of two sizes; both evaluations are those of one process."""
    config = write_config(tmp_path, data, log_level='INFO')

    def run(script, *arguments):
        command = ['bash', REPO / 'tools' / script, config, *arguments, '--work-dir', tmp_path / script]
        done = subprocess.run(
            [*map(str, command)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=150
        )
        assert done.returncode == 0, done.stderr[-3000:]
        lines = max((tmp_path / script).glob('*/**/*.json'), key=os.path.getmtime).read_text().splitlines()
        return digits(json.loads(lines[-1]))

    trained = run('dist_train.sh', 4)
    checkpoint = tmp_path / 'dist_train.sh' / 'epoch_1.pth'
    tested = run('dist_test.sh', checkpoint, 2)
    assert trained == tested == _test(pico_config(data), str(checkpoint), tmp_path / 'alone')
