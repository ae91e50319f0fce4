"""Pretrain a Swin backbone as a classifier of labelled images, with mmpretrain's models, losses and augmentations.

The images are 32-pixel JPEGs in one .npz file (see jpeg_arrays.py). Every epoch leaves a checkpoint, from which --resume goes on
with the same random numbers; the accuracy on the val split is printed after each (of the averaged weights, which are the
ones that a checkpoint holds as 'state_dict'). export_backbone.py makes a file of the backbone alone.

Runs on a GPU where there is one. On a CPU that other programs use too, set OMP_WAIT_POLICY=passive: torch's threads
otherwise wait for each other in busy loops. mmpretrain's own tools/train.py runs the configs as well, with the folders
. and tools in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# A checkout works without installation; the configs import modules of this folder as `pretrain.<name>`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmseg_polyhistor  # noqa: F401, I001  (first: it repairs the stack)
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from pretrain.jpeg_arrays import DataFileError, set_data_file

EXAMPLES = """examples:
  python tools/pretrain/train.py tools/pretrain/configs/swin-nano_10e.py --data-file tinyimagenet32_jpeg.npz
  OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive \\
  python tools/pretrain/train.py tools/pretrain/configs/swin-nano_10e.py --work-dir work_dirs/nano --resume   # goes on
  python tools/pretrain/train.py tools/pretrain/configs/swin-t_100e.py --cfg-options train_cfg.max_epochs=30   # a GPU
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='a config such as those in tools/pretrain/configs')
    parser.add_argument('--data-file', help="the .npz of images, instead of the config's data_file")
    parser.add_argument(
        '--work-dir', help='for logs and checkpoints (default: work_dirs/pretrain/<name of the config>)'
    )
    parser.add_argument(
        '--resume', action='store_true', help='go on from the last checkpoint of the work dir'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='key=value: settings of the config'
    )
    return parser.parse_args(arguments)


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    if args.data_file:
        set_data_file(cfg, args.data_file)
    cfg.work_dir = args.work_dir or f'work_dirs/pretrain/{Path(args.config).stem}'
    cfg.resume = args.resume
    try:
        Runner.from_cfg(cfg).train()
    except (DataFileError, FileNotFoundError) as e:
        raise SystemExit(f'train.py: {e}') from e


if __name__ == '__main__':
    main()
