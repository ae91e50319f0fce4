"""Check a data set before training on it: a PASCAL_MT (or PASCALContext) tree, or what a config names, such as NYUD-v2 or your own.

Looks for every file of the tasks and splits, decodes all of them, and prints what is missing, what is broken
and what the labels hold. Nothing is written. The exit status is 1 if a file is missing or broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mmengine
import numpy as np
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

from mmseg_polyhistor.datasets import MultiTaskDataset, PascalContextMTDataset
from mmseg_polyhistor.datasets.file_scan import first_names
from mmseg_polyhistor.datasets.inspection import (
    DECADES,
    SplitSummary,
    TaskSummary,
    inspect_sample,
    summarise,
)
from mmseg_polyhistor.engine.dry_run import inner_datasets

PASCAL_IMAGES = {'train': 4998, 'val': 5105}

EXAMPLES = """examples:
  python tools/check_dataset.py data/PASCAL_MT --workers 8
  python tools/check_dataset.py data/PASCAL_MT --expect-pascal
  python tools/check_dataset.py data/PASCAL_MT --tasks semseg human_parts --split val
  python tools/check_dataset.py configs/polyhistor/swin-t_nyud.py       # train, val and test set of a config
  python tools/check_dataset.py data/mine --tasks semseg saliency --data-prefix saliency=masks semseg=voc,context
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'source',
        help='the tree, with JPEGImages/, ImageSets/Context/ and the label folders, or a config (.py) that names data sets',
    )
    parser.add_argument(
        '--tasks',
        nargs='+',
        choices=list(PascalContextMTDataset.SOURCES),
        help=f'tasks of a tree whose files are checked (default: {" ".join(PascalContextMTDataset.TASKS)})',
    )
    parser.add_argument(
        '--split',
        nargs='+',
        help='lists in ImageSets/Context (default: train val), or loaders of the config (default: all that it has)',
    )
    parser.add_argument(
        '--data-prefix',
        nargs='+',
        action=DictAction,
        metavar='KIND=FOLDER',
        help=f'other folders of a tree than the standard ones, for {", ".join(PascalContextMTDataset.DATA_PREFIX)}; '
        'several folders, separated by commas, are looked through in order',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='changes of a config, key=value')
    parser.add_argument('--workers', type=int, default=1, help='processes that decode files (default: 1)')
    parser.add_argument(
        '--allow-missing',
        action='store_true',
        help='report missing labels, but do not count them as an error (a config may say so itself)',
    )
    parser.add_argument(
        '--expect-pascal',
        action='store_true',
        help='a number of images other than PASCAL-Context has (4,998 train, 5,105 val) is an error',
    )
    parser.add_argument('--show', type=int, default=5, help='problems to print per split (default: 5)')
    args = parser.parse_args(arguments)
    if args.source.endswith('.py'):
        of_a_tree = dict(tasks=args.tasks, data_prefix=args.data_prefix, expect_pascal=args.expect_pascal)
        if given := [name for name, value in of_a_tree.items() if value]:
            options = ', '.join('--' + name.replace('_', '-') for name in given)
            parser.error(f'{options} is for a tree; {args.source} says itself what is read')
    elif args.cfg_options:
        parser.error(f'--cfg-options is for a config (.py), and {args.source} is a tree')
    return args


def datasets_of_tree(args: argparse.Namespace) -> dict[str, Callable[[], MultiTaskDataset]]:
    """By the name of the list, what builds the data set."""

    def build(split: str) -> MultiTaskDataset:
        return PascalContextMTDataset(
            f'ImageSets/Context/{split}.txt',
            args.tasks or PascalContextMTDataset.TASKS,
            data_root=args.source,
            data_prefix=args.data_prefix or {},
            lazy_init=True,
        )

    return {split: partial(build, split) for split in args.split or ('train', 'val')}


def datasets_of_config(args: argparse.Namespace) -> dict[str, Callable[[], MultiTaskDataset]]:
    """By the name of the loader, what builds its data set; loaders that read the same files share an entry.

    Raises:
        ValueError: for a loader that the config lacks, or a data set of another class.
    """
    cfg = Config.fromfile(args.source)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    loaders = {split: cfg.get(f'{split}_dataloader') for split in args.split or ('train', 'val', 'test')}
    absent = [split for split, loader in loaders.items() if not loader]
    if len(absent) == len(loaders) or (absent and args.split):
        raise ValueError(f'{args.source} has no {"_dataloader, ".join(absent)}_dataloader')
    inner = [
        (f'{split} {number}' if len(parts) > 1 else split, dataset)
        for split, loader in loaders.items()
        if loader
        for parts in [list(inner_datasets(loader.dataset))]
        for number, dataset in enumerate(parts, start=1)
    ]
    builders: dict[str, dict] = {}
    for split, config in inner:
        left_out = (
            'pipeline',
            'test_mode',
            'indices',
            'parts_cache_dir',
        )  # all files are decoded, and none is written
        dataset = {key: value for key, value in config.items() if key not in left_out}
        kind = DATASETS.get(dataset['type'])
        if not (isinstance(kind, type) and issubclass(kind, MultiTaskDataset)):
            raise ValueError(
                f'{args.source}: the data set of {split} is a {dataset["type"]}; only MultiTaskDataset and what derives from it '
                'is checked'
            )
        same = next((name for name, other in builders.items() if other == dataset), None)
        if same is None:
            builders[split] = dataset
        else:
            builders[f'{same}, {split}'] = builders.pop(same)
    return {
        name: partial(DATASETS.build, dict(dataset, pipeline=[], lazy_init=True))
        for name, dataset in builders.items()
    }


def inspect_split(args: argparse.Namespace, dataset: MultiTaskDataset) -> SplitSummary:
    """Find and decode all files of one split."""
    scan = dataset.scan_files()
    if args.workers > 1 and scan.samples:
        reports = mmengine.track_parallel_progress(
            inspect_sample, scan.samples, args.workers, file=sys.stderr
        )
    else:
        reports = mmengine.track_progress(inspect_sample, scan.samples, file=sys.stderr)
    return summarise(scan, reports, dataset.specs)


def files_table(splits: dict[str, SplitSummary]) -> Table:
    """Found, missing and broken files, per split and kind of file."""
    table = Table(title='Files')
    for column in ('split', 'file'):
        table.add_column(column)
    for column in ('sound', 'missing', 'broken', 'without label'):
        table.add_column(column, justify='right')
    for name, split in splits.items():
        missing, broken = len(split.missing_images), len(split.broken_images)
        table.add_row(name, 'image', str(split.number - missing - broken), str(missing), str(broken), '')
        for task in split.tasks:
            share = f' ({task.unlabelled / task.sound:.1%})' if task.sound else ''
            numbers = (task.sound, len(task.missing), len(task.broken))
            table.add_row(name, task.spec.name, *map(str, numbers), f'{task.unlabelled}{share}')
        table.add_section()
    return table


def _class_rows(task: TaskSummary) -> list[tuple[str, str, float, int]]:
    """(id, name, share of the labelled pixels, images) per class."""
    ignore = task.spec.ignore_value
    labelled = task.pixels.sum() - task.pixels[ignore]
    rows = [
        (str(i), name, task.pixels[i] / labelled if labelled else np.nan, int(task.images[i]))
        for i, name in enumerate(task.spec.classes)
    ]
    share = task.pixels[ignore] / task.pixels.sum() if task.pixels.any() else np.nan
    return [*rows, (str(ignore), 'ignore (of all pixels)', share, int(task.images[ignore]))]


def _vector_rows(task: TaskSummary) -> list[tuple[str, str, float, int]]:
    """Ground and table tops face up: should more pixels face down, the vectors have another y axis."""
    valid, ignored = task.pixels[0], task.pixels[4]
    everything = valid + ignored
    names = ('z < 0, away from the viewer', 'y > 1/2, up', 'y < -1/2, down')
    rows = [('', 'valid (of all pixels)', valid / everything if everything else np.nan, int(task.images[0]))]
    for number, name in enumerate(names, start=1):
        share = task.pixels[number] / valid if valid else np.nan
        rows.append(('', f'{name} (of valid)', share, int(task.images[number])))
    return rows


def _quantity_rows(task: TaskSummary) -> list[tuple[str, str, float, int]]:
    """Shares of the values below powers of ten: they tell metres from millimetres."""
    valid, everything = task.pixels[0], task.pixels[0] + task.pixels[-1]
    rows = [('', 'valid (of all pixels)', valid / everything if everything else np.nan, int(task.images[0]))]
    for number, limit in enumerate(DECADES, start=1):
        share = task.pixels[number] / valid if valid else np.nan
        rows.append(('', f'below {limit:g} (of valid)', share, int(task.images[number])))
    return rows


ROWS = {
    'semantic': _class_rows,
    'binary': _class_rows,
    'unit_vector': _vector_rows,
    'scalar': _quantity_rows,
}


def labels_table(splits: dict[str, SplitSummary], task_name: str) -> Table:
    """What the labels of a task hold: share of pixels, and images with the class, per split that has it."""
    columns = {
        split: task
        for split, summary in splits.items()
        for task in summary.tasks
        if task.spec.name == task_name
    }
    spec = next(iter(columns.values())).spec
    rows = {name: ROWS[spec.kind](task) for name, task in columns.items()}
    table = Table(title=spec.name)
    table.add_column('id', justify='right')
    table.add_column('class')
    for name in columns:
        table.add_column(f'{name}: pixels', justify='right')
        table.add_column('images', justify='right')
    for line in zip(*rows.values(), strict=True):
        cells = [cell for _, _, share, images in line for cell in (f'{share:.2%}', str(images))]
        table.add_row(*line[0][:2], *cells)
    return table


def main(arguments: list[str] | None = None) -> int:
    """Check the tree; returns the exit status."""
    args = parse_args(arguments)
    console = Console(highlight=False, markup=False)
    splits: dict[str, SplitSummary] = {}
    problems: dict[str, list[str]] = {}
    tree = not args.source.endswith('.py')
    try:
        datasets = datasets_of_tree(args) if tree else datasets_of_config(args)
    except (OSError, KeyError, TypeError, ValueError) as e:
        raise SystemExit(f'check_dataset.py: {e}') from e
    for name, build in datasets.items():
        console.print(f'{args.source}, {name}: decoding all files')
        try:
            dataset = build()
            splits[name] = inspect_split(args, dataset)
        except (OSError, ValueError) as e:  # the list of images is absent or unfit
            problems[name] = [str(e)]
            continue
        problems[name] = splits[name].problems(allow_missing=args.allow_missing or dataset.allow_missing)
        expected = PASCAL_IMAGES.get(name) if tree else None
        if expected is not None and splits[name].number != expected:
            difference = f'{splits[name].number} images in the list, PASCAL-Context has {expected}'
            if args.expect_pascal:
                problems[name].append(difference)
            else:
                console.print(f'note: {name}: {difference}')
        turned = splits[name].turned_images
        if turned:
            console.print(
                f'note: {name}: {len(turned)} images have an EXIF orientation and are turned when they are loaded; their '
                f'labels must be drawn on the turned images: {first_names(turned)}',
                soft_wrap=True,
            )

    if splits:
        console.print(files_table(splits))
        for task in dict.fromkeys(task.spec.name for split in splits.values() for task in split.tasks):
            console.print(labels_table(splits, task))
    total = sum(map(len, problems.values()))
    for name, lines in problems.items():
        for line in lines[: args.show]:
            console.print(f'{name}: {line}', soft_wrap=True)
        if len(lines) > args.show:
            console.print(f'{name}: ... and {len(lines) - args.show} more (--show {len(lines)})')
    console.print(f'{total} problems' if total else 'no problems')
    return 1 if total else 0


if __name__ == '__main__':
    sys.exit(main())
