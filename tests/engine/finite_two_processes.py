"""Two processes of a training with broken samples, started by test_finite_training_hook.py.

Usage: finite_two_processes.py FOLDER, which receives rank_0.pt and rank_1.pt.

Every case is a training by the Runner, wrapped in DDP, in which process 1 alone has a broken sample, 5.jpg.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

import mmseg_polyhistor  # noqa: F401  (before anything of mmseg: its repairs let the stack import)

SCALER = {'optim_wrapper.type': 'CpuScalerOptimWrapper', 'optim_wrapper.init_scale': 1024.0}
ACCUMULATE = {'optim_wrapper.accumulative_counts': 2, 'train_dataloader.dataset.size': 16}
CASES = dict(
    loss=('loss', {}),
    value=('value', {}),
    gradient=('gradient', {}),
    accumulated=('value', ACCUMULATE),
    scaler=('loss', SCALER),
)


def main(rank: int, folder: Path) -> None:
    """Train every case with either setting."""
    from faulty_training import faulty_config
    from mmengine.runner import Runner

    from mmseg_polyhistor.engine import NonFiniteError

    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank))
    torch.distributed.init_process_group(
        'gloo', init_method=(folder / 'meeting').as_uri(), rank=rank, world_size=2
    )
    init_default_scope('mmseg')
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    report: dict[str, dict] = {'stop': {}, 'skip': {}}
    for on_nonfinite, of_cases in report.items():
        for name, (fault, changes) in CASES.items():
            work_dir = folder / on_nonfinite / name
            changes = {
                'train_dataloader.dataset.faults': {5: fault},
                'custom_hooks.0.on_nonfinite': on_nonfinite,
                'launcher': 'pytorch',
                'model_wrapper_cfg': wrapper,
                **changes,
            }
            runner = Runner.from_cfg(faulty_config(work_dir, f'{on_nonfinite}_{name}', **changes))
            try:
                runner.train()
            except NonFiniteError as e:
                of_cases[name] = str(e)
                continue
            model = runner.model.module
            logs = [path.read_text() for path in work_dir.glob('*/*.log')]
            of_cases[name] = dict(
                skipped=runner.message_hub.get_info('finite_training/skipped_steps', 0),
                parameters={n: p.detach() for n, p in model.named_parameters()},
                statistics_finite=all(bool(b.isfinite().all()) for b in model.buffers()),
                log=''.join(logs),
            )
    torch.save(report, folder / f'rank_{rank}.pt')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    # Forked, so that what takes longest, the imports, happens once.
    torch.multiprocessing.start_processes(main, (Path(sys.argv[1]),), nprocs=2, start_method='fork')
