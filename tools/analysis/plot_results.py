"""Draw what runs have reached: gain against trainable parameters, losses and validations over the training.

tradeoff     the gain (or another metric) against trainable parameters, on a logarithmic axis; the paper's points are hollow
losses       the losses of each task over the iterations: as logged, pale, and their running mean
validations  the metric of each task, and the gain, of each validation

What is missing, broken, unfinished or has no place in a figure is told on stderr.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401  (repairs the stack, and registers)
from mmseg_polyhistor.results.command_line import add_arguments, collect
from mmseg_polyhistor.results.figures import make_figures

INDEX = Path(__file__).resolve().parents[2] / 'model-index.yml'
PLOTS = ('tradeoff', 'losses', 'validations')
FORMATS = ('png', 'svg', 'pdf')

EXAMPLES = """examples:
  python tools/analysis/plot_results.py work_dirs --reference work_dirs/single_task/swin-t_pascal --out figures
  python tools/analysis/plot_results.py work_dirs --reference paper_pascal_context_swin_t --paper --plots tradeoff --format pdf
  python tools/analysis/plot_results.py work_dirs --plots tradeoff --metric normals.mean --parameters total
  python tools/analysis/plot_results.py work_dirs/polyhistor work_dirs/lora --plots losses validations --smooth 25
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        '--plots', nargs='+', choices=PLOTS, default=list(PLOTS), help='what to draw (default: all)'
    )
    parser.add_argument(
        '--metric',
        help="of the trade-off: 'gain' or a metric such as semseg.mIoU (default: gain, which needs --reference)",
    )
    parser.add_argument(
        '--parameters',
        choices=('encoder', 'total'),
        default='encoder',
        help="of the trade-off: the encoder's trainable parameters, or all, with output norms and decoders (default: encoder)",
    )
    parser.add_argument(
        '--smooth',
        type=int,
        default=10,
        help='logged values in the running mean of the losses; 1 for none (default: 10)',
    )
    parser.add_argument(
        '--out', type=Path, default=Path('figures'), help='folder for the figures (default: figures)'
    )
    parser.add_argument(
        '--format', nargs='+', choices=FORMATS, default=['png'], help='of the files (default: png)'
    )
    parser.add_argument('--dpi', type=int, default=150, help='of PNG files (default: 150)')
    args = parser.parse_args(arguments)
    if args.smooth < 1 or args.dpi < 1:
        parser.error('--smooth and --dpi must be positive numbers')
    return args


def main(arguments: list[str] | None = None) -> int:
    """Read, draw and write; returns the exit status, 1 if a figure could not be drawn."""
    args = parse_args(arguments)
    try:
        found = collect(args, INDEX)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'plot_results.py: {error}') from error
    figures, failures = make_figures(
        found, args.plots, metric=args.metric or 'gain', parameters=args.parameters, smooth=args.smooth
    )
    for remark in (*found.remarks, *found.notes):
        print(f'note: {remark}', file=sys.stderr)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        for form in args.format:
            path = args.out / f'{name}.{form}'
            figure.savefig(path, dpi=args.dpi)
            print(path)
    for name, reason in failures.items():
        print(f'plot_results.py: no {name}: {reason}', file=sys.stderr)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
