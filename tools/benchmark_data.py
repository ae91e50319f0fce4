"""Measure how fast the training and validation pipelines of a config read and augment images.

Prints, for both, a pass with an empty cache of parsed labels, a pass with the full one, the share of every transform and
of every task's labels in the latter, and images per second for dataloaders with some numbers of workers. The cache
(`parts_cache_dir` of the data set) is a temporary folder. Files that the operating system has read before come from its
memory, as in all epochs but the first.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

from mmseg_polyhistor.datasets import PascalContextMTDataset  # repairs the stack, and registers
from mmseg_polyhistor.profiling.machine import describe_machine
from mmseg_polyhistor.profiling.pipelines import PassProfile, build_dataset, loader_rate, profile_pass
from mmseg_polyhistor.profiling.text_table import text_table

SPLITS = {'train': 'train_dataloader', 'val': 'val_dataloader'}
CACHE = 'parts_cache_dir'

EXAMPLES = """examples:
  python tools/benchmark_data.py configs/polyhistor/swin-t_pascal.py --workers 0 2 4 8 --images 400
  python tools/benchmark_data.py configs/polyhistor/swin-t_pascal.py --data-root data/mini_pascal --split train
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='a config with dataloaders')
    parser.add_argument('--data-root', help="another folder than the config's")
    parser.add_argument(
        '--split', nargs='+', choices=tuple(SPLITS), default=list(SPLITS), help='default: train val'
    )
    parser.add_argument(
        '--workers', nargs='*', type=int, default=[0, 1, 2], help='numbers of workers (default: 0 1 2)'
    )
    parser.add_argument('--images', type=int, default=100, help='images of a pass (default: 100)')
    parser.add_argument('--batch', type=int, help="images of a batch (default: the config's)")
    parser.add_argument('--json', type=Path, metavar='FILE', help='write everything measured to a file')
    parser.add_argument('--markdown', action='store_true', help='print tables in Markdown')
    args = parser.parse_args(arguments)
    if not args.config.is_file():
        parser.error(f'{args.config}: no such file; give a path such as configs/polyhistor/swin-t_pascal.py')
    if min([args.images, args.batch or 1]) < 1 or min([0, *args.workers]) < 0:
        parser.error('images and batch must be positive numbers, workers none negative')
    return args


def measure(cfg: Config, split: str, args: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Measure one split: its passes and its dataloaders, as plain data."""
    dataloader = cfg[SPLITS[split]].to_dict()
    dataset_cfg = dataloader['dataset']
    changes: dict[str, Any] = dict(data_root=args.data_root) if args.data_root else {}
    cached = issubclass(DATASETS.get(dataset_cfg['type']), PascalContextMTDataset)
    if cached:
        changes[CACHE] = str(cache)
    if args.batch:
        dataloader['batch_size'] = args.batch
    dataset = build_dataset(dataset_cfg, **changes)
    images = min(args.images, len(dataset))
    result: dict[str, Any] = dict(cached_labels=cached, images_found=len(dataset))
    for name in ('cold', 'warm'):
        print(f'{split}: {name} pass through {images} images', file=sys.stderr, flush=True)
        result[name] = as_record(profile_pass(dataset, images))
    result['workers'] = []
    for workers in args.workers:
        print(f'{split}: {workers} workers', file=sys.stderr, flush=True)
        rate = loader_rate(dataloader, dataset, workers, args.images)
        per_worker = rate / max(workers, 1)
        result['workers'].append(
            dict(workers=workers, images_per_second=rate, images_per_second_and_worker=per_worker)
        )
    return result


def as_record(profile: PassProfile) -> dict[str, Any]:
    """A pass as plain data; shares are of the processor's time of the pass."""

    def parts(seconds: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
        return {
            name: dict(wall=wall, cpu=cpu, share=cpu / profile.cpu) for name, (wall, cpu) in seconds.items()
        }

    return dict(
        images=profile.images,
        wall=profile.wall,
        cpu=profile.cpu,
        images_per_second=profile.images / profile.wall,
        images_per_cpu_second=profile.images / profile.cpu,
        transforms=parts(profile.transforms),
        labels=parts(profile.readers),
    )


def pass_rows(result: dict[str, Any], split: str) -> Iterator[list[str]]:
    """The rows of the table of a split's passes."""
    cold, warm = result['cold'], result['warm']
    heads = ('cold cache', 'warm cache') if result['cached_labels'] else ('first pass', 'second pass')
    yield [
        f'{split}: ms per image',
        *(f'{head}: {clock}' for head in heads for clock in ('wall', 'CPU')),
        'share',
    ]

    def row(name: str, a: dict[str, float], b: dict[str, float]) -> list[str]:
        times = [f'{1e3 * part[clock] / cold["images"]:.2f}' for part in (a, b) for clock in ('wall', 'cpu')]
        return [name, *times, f'{b["cpu"] / warm["cpu"]:.1%}']

    for name in warm['transforms']:
        yield row(name, *(p['transforms'][name] for p in (cold, warm)))
        if name == 'LoadMultiTaskAnnotations':
            for task in warm['labels']:
                yield row(f'  {task}', *(p['labels'][task] for p in (cold, warm)))
    yield row('in all', cold, warm)
    rates = [f'{p[key]:.1f}' for p in (cold, warm) for key in ('images_per_second', 'images_per_cpu_second')]
    yield ['images per second', *rates, '']


def worker_rows(result: dict[str, Any], split: str) -> Iterator[list[str]]:
    """The rows of the table of a split's dataloaders."""
    yield [f'{split}: workers', 'images per second', 'per worker']
    for line in result['workers']:
        rates = [line['images_per_second'], line['images_per_second_and_worker']]
        yield [str(line['workers']), *(f'{rate:.1f}' for rate in rates)]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    args = parse_args(arguments)
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    absent = [SPLITS[split] for split in args.split if SPLITS[split] not in cfg]
    if absent:
        raise SystemExit(f'benchmark_data.py: {args.config} has no {" and no ".join(absent)}')
    torch.set_num_threads(1)  # as in a worker
    cv2.setNumThreads(cfg.get('env_cfg', {}).get('mp_cfg', {}).get('opencv_num_threads', 0))
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator of the transforms
    found = {}
    for split in args.split:
        with tempfile.TemporaryDirectory() as cache:
            try:
                found[split] = measure(cfg, split, args, Path(cache))
            except (FileNotFoundError, TypeError, ValueError) as error:
                raise SystemExit(f'benchmark_data.py: {error}') from error
    result = dict(machine=describe_machine(), config=str(args.config), splits=found)
    print(', '.join(f'{key}: {value}' for key, value in result['machine'].items() if value is not None))
    for split, of_split in found.items():
        tables = [pass_rows(of_split, split)]
        tables += [worker_rows(of_split, split)] if of_split['workers'] else []
        for rows in tables:
            print('', text_table(list(rows), markdown=args.markdown), sep='\n')
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
