"""Renders a small data set in the PASCAL_MT layout, with exact labels for all four tasks, on the CPU in minutes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

from mini_pascal import OutputFolderError, Scene, render_scene, write_dataset

__all__ = ['OutputFolderError', 'Scene', 'main', 'render_scene', 'write_dataset']

EXAMPLES = """\
examples:
  python tools/dataset_converters/make_mini_pascal.py data/mini_pascal
  python tools/dataset_converters/make_mini_pascal.py data/mini_pascal --train 640 --val 160 --size 160x224
  python tools/dataset_converters/make_mini_pascal.py data/mini_pascal --seed 1 --workers 4 --overwrite

The folder gets JPEGImages, pascal-context/trainval, semseg/VOC12, human_parts, normals_distill, sal_distill, and, when
all of it is there, ImageSets/Context. The same arguments give the same files, whatever the number of workers.
"""


def image_size(text: str) -> tuple[int, int]:
    """Reads `192` or `160x224` as (height, width)."""
    sides = text.lower().split('x')
    if len(sides) > 2 or not all(side.isdigit() for side in sides):
        raise argparse.ArgumentTypeError(f'{text!r} is no size: write 192 or, height first, 160x224')
    return int(sides[0]), int(sides[-1])


def progress_bar() -> Callable[[int, int], None]:
    """A function that draws the progress on one line of the standard error; in a log file, a line per tenth."""
    started = time.monotonic()

    def draw(done: int, total: int) -> None:
        spent = time.monotonic() - started
        filled = 30 * done // total
        line = f'[{"#" * filled}{"." * (30 - filled)}] {done}/{total} images, {spent:.0f} s, '
        line += f'{spent / done * (total - done):.0f} s left'
        if sys.stderr.isatty():
            print(f'\r{line} ', end='' if done < total else '\n', file=sys.stderr, flush=True)
        elif 10 * done // total > 10 * (done - 1) // total:
            print(line, file=sys.stderr, flush=True)

    return draw


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'out', help='folder to write to: new, empty, or (with --overwrite) written by this tool'
    )
    parser.add_argument('--train', type=int, default=160, metavar='N', help='training images (default: 160)')
    parser.add_argument('--val', type=int, default=40, metavar='N', help='validation images (default: 40)')
    parser.add_argument(
        '--size', type=image_size, default=(192, 192), help='side, or HEIGHTxWIDTH, in pixels (default: 192)'
    )
    parser.add_argument('--seed', type=int, default=0, help='another seed, other scenes (default: 0)')
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count() or 1,
        metavar='N',
        help='processes; 0 renders in this one (default: one per core)',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace what this tool wrote to OUT before')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the tool; returns the exit status."""
    options = vars(parse_args(argv))
    out = options.pop('out')
    try:
        write_dataset(out, progress=progress_bar(), **options)
    except (OutputFolderError, ValueError) as error:
        print(f'make_mini_pascal: {error}', file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f'make_mini_pascal: {error}; {out} is incomplete: see to its disk, then run again with --overwrite',
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            f'\nmake_mini_pascal: interrupted; {out} is incomplete: run again with --overwrite',
            file=sys.stderr,
        )
        return 130
    print(f'{out}: {options["train"]} training and {options["val"]} validation images')
    return 0


if __name__ == '__main__':
    sys.exit(main())
