"""Look at a data set as training sees it: augmented samples with the truths of all tasks, as sheets.

OUT gets a sheet per sample, <index>_<name>.png: the image on the left, a column per task, a legend below. With --times, one
sheet shows several augmentations of the same sample below each other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401, I001  (first: it repairs the stack)
import numpy as np
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.utils import ProgressBar
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_polyhistor.tasks import get_tasks
from mmseg_polyhistor.visualization import draw_sheets

EXAMPLES = """examples:
  python tools/browse_dataset.py configs/polyhistor/swin-t_pascal.py
  python tools/browse_dataset.py configs/polyhistor/swin-t_pascal.py --split val --number 20 --out outputs/val
  python tools/browse_dataset.py my_config.py --number 5 --times 4      # four augmentations of each image
  python tools/browse_dataset.py my_config.py --cfg-options train_dataloader.dataset.data_root=elsewhere
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the config whose data are shown')
    parser.add_argument(
        '--split',
        choices=['train', 'val', 'test'],
        default='train',
        help='whose data set and pipeline (default: train)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('outputs/browse'),
        help='folder of the sheets (default: outputs/browse)',
    )
    parser.add_argument(
        '--number', type=_positive, default=10, help='samples, evenly spread over the data set (default: 10)'
    )
    parser.add_argument(
        '--times', type=_positive, default=1, help='augmentations of each sample, on one sheet (default: 1)'
    )
    parser.add_argument(
        '--cell-size', type=int, default=256, help='longer side of a picture on the sheet (default: 256)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the augmentations (default: 0)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='changes of the config, key=value'
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {number}')
    return number


def build_dataset(args: argparse.Namespace) -> Any:
    """The data set of the split, with its pipeline."""
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    loader = cfg.get(f'{args.split}_dataloader')
    if loader is None:
        raise ValueError(f'{args.config} has no {args.split}_dataloader')
    set_random_seed(args.seed)
    return DATASETS.build(loader.dataset)


def load(dataset: Any, index: int) -> tuple[np.ndarray, Any]:
    """(image as uint8 RGB (H, W, 3), data sample) of a sample, behind the pipeline."""
    item = dataset[index]
    if not isinstance(item, dict) or 'inputs' not in item or 'data_samples' not in item:
        raise ValueError(
            f'sample {index} left the pipeline as {type(item).__name__} {list(item) if isinstance(item, dict) else ""}: '
            'its last transform must pack it, as PackMultiTaskInputs does'
        )
    return item['inputs'].permute(1, 2, 0).numpy()[..., ::-1], item['data_samples']


def spread(length: int, number: int) -> list[int]:
    """At most `number` indices below `length`, evenly spread, the first is 0."""
    number = min(number, length)
    return [i * length // number for i in range(number)]


def write_sheets(dataset: Any, indices: Sequence[int], args: argparse.Namespace) -> None:
    """Draw the samples, with a progress bar on stderr."""
    specs = get_tasks(dataset.metainfo['tasks']) if 'tasks' in dataset.metainfo else None
    args.out.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(dataset) - 1))
    bar = ProgressBar(len(indices), file=sys.stderr)
    for index in indices:
        images, samples = zip(*(load(dataset, index) for _ in range(args.times)), strict=True)
        sheet = draw_sheets(images, samples, specs, draw_pred=False, cell_size=args.cell_size)
        name = Path(samples[0].get('img_path', 'sample')).stem
        Image.fromarray(sheet).save(args.out / f'{index:0{digits}}_{name}.png')
        bar.update()
    print(file=sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    try:
        dataset = build_dataset(args)
        indices = spread(len(dataset), args.number)
        write_sheets(dataset, indices, args)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise SystemExit(f'browse_dataset.py: {error}') from error
    print(f'{len(indices)} of {len(dataset)} samples, {args.split}: {args.out}')


if __name__ == '__main__':
    main()
