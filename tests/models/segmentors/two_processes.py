"""Two processes of a distributed training, started by test_execution.py.

Usage: two_processes.py FOLDER, where FOLDER holds case.pkl and receives gradients_0.pt and gradients_1.pt.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from torch.nn.parallel import DistributedDataParallel

import mmseg_polyhistor  # noqa: F401  (before anything of mmseg: its repairs let the stack import)


def main(rank: int, folder: Path) -> None:
    """Gradients of two iterations, with either execution, on this process's share of the batches."""
    from mmseg.registry import MODELS

    torch.distributed.init_process_group(
        'gloo', init_method=(folder / 'meeting').as_uri(), rank=rank, world_size=2
    )
    init_default_scope('mmseg')
    cfg, weights, batches = pickle.loads((folder / 'case.pkl').read_bytes())
    gradients: dict[str, list[dict[str, torch.Tensor]]] = {}
    for execution in ('sequential', 'stacked'):
        model = MODELS.build(dict(cfg, execution=execution)).double().train()
        model.load_state_dict(weights)
        distributed = DistributedDataParallel(model)
        for batch in batches[rank]:
            model.zero_grad()
            losses = distributed(batch['inputs'].double(), batch['data_samples'], mode='loss')
            model.parse_losses(losses)[0].backward()
            of_batch = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
            gradients.setdefault(execution, []).append(of_batch)
    torch.save(gradients, folder / f'gradients_{rank}.pt')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    # Forked, so that what takes longest, the imports, happens once.
    torch.multiprocessing.start_processes(main, (Path(sys.argv[1]),), nprocs=2, start_method='fork')
