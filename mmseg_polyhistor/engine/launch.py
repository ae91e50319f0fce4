"""mmseg's own `tools/train.py` and `tools/test.py`, with what machines without GPU need done before them."""

from __future__ import annotations

import gc
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mmseg
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device

from .disk import disk_error
from .dry_run import dry_run

__all__ = ['default_work_dir', 'run_mmseg_tool']

CHECK = '--check'

#: What a tool's `--help` says beside mmseg's own text.
HELP = {
    'train.py': f"""
  {CHECK}               validate config, data and pretrained checkpoint by a training in small, and write nothing

examples:
  python tools/train.py configs/polyhistor/swin-t_pascal.py {CHECK}
  python tools/train.py configs/polyhistor/swin-t_pascal.py                # into work_dirs/polyhistor/swin-t_pascal
  python tools/train.py configs/polyhistor/swin-t_pascal.py --resume --amp
  python tools/train.py CONFIG --work-dir runs/1 --cfg-options train_dataloader.batch_size=6 randomness.seed=1
  bash tools/dist_train.sh CONFIG 4                                       # four GPUs (or CPU processes)""",
    'test.py': """
examples:
  python tools/test.py configs/polyhistor/swin-t_pascal.py work_dirs/polyhistor/swin-t_pascal/epoch_60.pth
  python tools/test.py CONFIG CHECKPOINT --show-dir sheets                # truth and prediction of every image
  python tools/test.py CONFIG CHECKPOINT --out predictions                # a PNG per image and task
  bash tools/dist_test.sh CONFIG CHECKPOINT 4""",
}


def run_mmseg_tool(name: str) -> None:
    """Run one of mmseg's tools with the command line of this process.

    On a machine without GPU, `--launcher pytorch` starts processes that talk by gloo (mmengine alone calls CUDA
    there), and `--amp` is refused. Where neither command line nor config names a work dir, it is
    `default_work_dir(config)`: mmseg's own default is named after the config's file alone, and files of different methods
    share names. `train.py --check` trains in small instead, see `dry_run`.

    Args:
        name: 'train.py' or 'test.py'.

    Raises:
        FileNotFoundError: if the installed mmseg lacks the tool.
        SystemExit: for a command line that cannot work, or a work dir that cannot be made; the message says why.
        OSError: if a disk is full, with the state of the work dir's disk where Python names no file.
    """
    tool = _load_tool(name)
    check = name == 'train.py' and CHECK in sys.argv
    if check:
        sys.argv.remove(CHECK)
    try:
        args = tool.parse_args()
    except SystemExit as stop:
        if stop.code == 0:  # --help
            print(HELP[name])
        raise
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    given = args.work_dir or cfg.get('work_dir')
    work_dir = str(Path(given or default_work_dir(args.config)).expanduser())
    if work_dir != given:
        sys.argv += ['--work-dir', work_dir]
    if get_device() == 'cpu':
        if getattr(args, 'amp', False):
            raise SystemExit(f'{name}: --amp needs a GPU, and none is available; train without it on a CPU')
        if args.launcher != 'none':
            _prepare_cpu_processes(name, args.launcher, cfg)
    if check:
        _check_training(cfg, args, work_dir)
        return
    try:
        tool.main()
    except OSError as e:
        if not Path(work_dir).is_dir():
            raise SystemExit(
                f'{name}: the work dir {work_dir!r} cannot be made ({e.strerror}): {_in_the_way(work_dir)}; name another '
                'one by --work-dir'
            ) from e
        if e.filename is None:
            raise disk_error(e, work_dir, 'a file') from e
        raise
    if dist.is_initialized():
        # The runner is cyclic garbage that keeps gloo's threads alive; one of them may still let go of a Python object
        # while the interpreter shuts down, which aborts the process after all work is done.
        gc.collect()
        dist.destroy_process_group()


def _check_training(cfg: Config, args: Any, work_dir: str) -> None:
    """`--check`: a training in small, told line by line; what is wrong ends it with the error in one line."""
    if args.launcher != 'none':
        raise SystemExit(f'train.py: {CHECK} runs in one process; leave --launcher out')
    cfg.resume = args.resume
    if args.amp:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    try:
        dry_run(cfg, work_dir)
    except Exception as e:  # whatever a training may raise
        raise SystemExit(f'train.py: {CHECK} failed: {type(e).__name__}: {e}') from e
    print(f'{CHECK}: everything fits; nothing was written to {work_dir}')


def default_work_dir(config: str) -> str:
    """Where a config's runs go: configs/polyhistor/swin-t_pascal.py -> work_dirs/polyhistor/swin-t_pascal.

    A config that is not in a folder `configs` goes to work_dirs/<its file's name>, as in mmseg.
    """
    parts = Path(config).absolute().with_suffix('').parts
    folders = [i for i, part in enumerate(parts[:-1]) if part == 'configs']
    return str(Path('work_dirs', *parts[(folders[-1] + 1 if folders else -1) :]))


def _in_the_way(folder: str) -> str:
    """What keeps a folder from being made."""
    paths = (Path(folder), *Path(folder).absolute().parents)
    there = next(path for path in paths if path.exists() or path.is_symlink())
    if there.is_dir():
        return f'nothing can be written to {str(there)!r}'
    return f'{str(there)!r} is {"a file" if there.exists() else "a symbolic link to nothing"}'


def _load_tool(name: str) -> ModuleType:
    package = Path(mmseg.__file__).parent
    installed, checkout = package / '.mim' / 'tools' / name, package.parent / 'tools' / name
    for path in (installed, checkout):
        if path.is_file():
            spec = importlib.util.spec_from_file_location(f'mmseg_tool_{path.stem}', path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise FileNotFoundError(f'mmseg has no tools/{name}: it is neither {installed} nor {checkout}')


def _prepare_cpu_processes(name: str, launcher: str, cfg: Config) -> None:
    """Start gloo, and have the runner wrap the model without a device id, as DDP demands on a CPU."""
    if launcher != 'pytorch':
        raise SystemExit(f'{name}: --launcher {launcher} needs GPUs; on CPUs use --launcher pytorch')
    wanted = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,  # mmengine's own two settings
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    given = cfg.get('model_wrapper_cfg') or {}
    options = [f'model_wrapper_cfg.{k}={v}' for k, v in wanted.items() if k not in given]
    sys.argv += ['--cfg-options', *options]
    dist.init_process_group('gloo')
