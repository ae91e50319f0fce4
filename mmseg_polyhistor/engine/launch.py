"""mmseg's own `tools/train.py` and `tools/test.py`, with what machines without GPU need done before them."""

from __future__ import annotations

import gc
import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import mmseg
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device

__all__ = ['run_mmseg_tool']


def run_mmseg_tool(name: str) -> None:
    """Run one of mmseg's tools with the command line of this process.

    On a machine without GPU, `--launcher pytorch` starts processes that talk by gloo (mmengine alone calls CUDA
    there), and `--amp` is refused.

    Args:
        name: 'train.py' or 'test.py'.

    Raises:
        FileNotFoundError: if the installed mmseg lacks the tool.
        SystemExit: for a command line that cannot work; the message says why.
    """
    tool = _load_tool(name)
    args = tool.parse_args()
    if get_device() == 'cpu':
        if getattr(args, 'amp', False):
            raise SystemExit(f'{name}: --amp needs a GPU, and none is available; train without it on a CPU')
        if args.launcher != 'none':
            _prepare_cpu_processes(name, args)
    tool.main()
    if dist.is_initialized():
        # The runner is cyclic garbage that keeps gloo's threads alive; one of them may still let go of a Python object
        # while the interpreter shuts down, which aborts the process after all work is done.
        gc.collect()
        dist.destroy_process_group()


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


def _prepare_cpu_processes(name: str, args: Namespace) -> None:
    """Start gloo, and have the runner wrap the model without a device id, as DDP demands on a CPU."""
    if args.launcher != 'pytorch':
        raise SystemExit(f'{name}: --launcher {args.launcher} needs GPUs; on CPUs use --launcher pytorch')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
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
