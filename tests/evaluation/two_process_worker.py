"""One process of a distributed evaluation, started by test_multi_task_metric.py.

Usage: two_process_worker.py RANK WORLD_SIZE FOLDER, where FOLDER holds samples.pt and receives metrics_RANK.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from mmengine.dataset import DefaultSampler

from mmseg_polyhistor.evaluation import MultiTaskMetric


def main(rank: int, world_size: int, folder: Path) -> None:
    """Evaluate the share of the samples that mmengine's sampler gives this process, duplicates included."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=(folder / 'meeting').as_uri(), rank=rank, world_size=world_size
    )
    samples = torch.load(folder / 'samples.pt', weights_only=True)
    metric = MultiTaskMetric(
        reference='paper_pascal_context_swin_t', collect_dir=str(folder / 'collect'), collect_device='cpu'
    )
    metric.dataset_meta = dict(tasks=('semseg', 'human_parts', 'saliency', 'normals'))
    share = list(DefaultSampler(samples, shuffle=False))
    for index in share:
        metric.process(None, [samples[index]])
    metrics = metric.evaluate(len(samples))
    (folder / f'metrics_{rank}.json').write_text(json.dumps({'share': share, 'metrics': metrics}))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
