"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

__all__ = ['describe_machine', 'processor_name']


def processor_name() -> str:
    """The processor's model, as the operating system tells it."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='ascii', errors='replace').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def describe_machine() -> dict[str, Any]:
    """Processor, cores, threads of torch, load, versions, and the GPU where there is one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    cuda = torch.cuda.is_available()
    return dict(
        processor=processor_name(),
        cores=usable,
        threads=torch.get_num_threads(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, 'getloadavg') else None,
        gpu=torch.cuda.get_device_name() if cuda else None,
        torch=torch.__version__,
        cuda=torch.version.cuda if cuda else None,
        python=platform.python_version(),
        system=f'{platform.system()} {platform.machine()}',
        float32_matmul_precision=torch.get_float32_matmul_precision(),
    )
