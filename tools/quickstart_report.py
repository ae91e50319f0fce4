"""Evaluate a model before and after its training, print the two side by side, and draw a picture.

Examples:
    python tools/quickstart_report.py configs/polyhistor_lite/swin-pico_mini-pascal.py --work-dir work_dirs/quickstart
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mmseg_polyhistor  # noqa: F401, I001  (first: it repairs the stack)
import cv2
import mmcv
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from mmengine.runner.checkpoint import find_latest_checkpoint

from mmseg_polyhistor.tasks import get_tasks
from mmseg_polyhistor.visualization import draw_sheets


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the training')
    parser.add_argument(
        '--work-dir', required=True, help='folder with its checkpoints; the picture goes there'
    )
    parser.add_argument(
        '--images', type=int, default=4, help='how many images the picture shows (default: 4)'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='changes of the config')
    return parser.parse_args()


def print_table(before: dict[str, float], after: dict[str, float], tasks: tuple[str, ...]) -> None:
    """One row per task: its metric without training and with it."""
    print(f'\n{"task":<14}{"metric":<12}{"untrained":>12}{"trained":>12}')
    for spec in get_tasks(tasks):
        key = f'{spec.name}.{spec.metric}'
        direction = 'lower is better' if spec.lower_is_better else ''
        print(
            f'{spec.name:<14}{spec.metric:<12}{before[key]:>12.2f}{after[key]:>12.2f}  {direction}'.rstrip()
        )


@torch.no_grad()
def draw(runner: Runner, count: int, path: Path) -> None:
    """Draw input, truth and prediction of a few images of the test set, spread over all of it."""
    dataset = runner.test_dataloader.dataset
    picked = [round((i + 0.5) * len(dataset) / count - 0.5) for i in range(min(count, len(dataset)))]
    runner.model.eval()
    samples = [runner.model.test_step(pseudo_collate([dataset[i]]))[0] for i in picked]
    images = [mmcv.imread(sample.img_path, channel_order='rgb') for sample in samples]
    sheet = draw_sheets(images, samples, get_tasks(dataset.metainfo['tasks']))
    cv2.imwrite(str(path), sheet[..., ::-1])


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    checkpoint = find_latest_checkpoint(args.work_dir)
    if checkpoint is None:
        sys.exit(f'There is no checkpoint in {args.work_dir}: train first')
    cfg.work_dir = str(Path(args.work_dir) / 'report')
    cfg.log_level = logging.WARNING
    cfg.load_from = None
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    before = runner.test()
    runner.load_checkpoint(checkpoint)
    after = runner.test()
    print_table(before, after, runner.test_dataloader.dataset.metainfo['tasks'])
    picture = Path(args.work_dir).resolve() / 'quickstart.png'
    draw(runner, args.images, picture)
    print(f'\nInput, truth and prediction per task: {picture}')


if __name__ == '__main__':
    main()
