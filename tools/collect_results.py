"""Make a table of what runs have reached: methods, tasks, gain, trainable parameters, time and memory.

A work dir holds whatever a run left there, all its starts together: what a later start logged replaces what an earlier one
had logged of the same and later iterations. Parameters are counted by the configs in the work dirs, without weights. What is
missing, broken or unfinished is told on stderr.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401  (repairs the stack, and registers)
from mmseg_polyhistor.results.command_line import add_arguments, collect
from mmseg_polyhistor.results.table import FORMATS, results_table

INDEX = Path(__file__).resolve().parents[1] / 'model-index.yml'

EXAMPLES = """examples:
  python tools/collect_results.py work_dirs
  python tools/collect_results.py work_dirs/polyhistor work_dirs/lora --reference work_dirs/single_task/swin-t_pascal
  python tools/collect_results.py work_dirs --reference paper_pascal_context_swin_t --paper --format markdown
  python tools/collect_results.py work_dirs --reference single_task.json --select best --spread --format latex --out table.tex
  python tools/collect_results.py work_dirs --select best --best-by semseg.mIoU --metrics normals.rmse saliency.maxF --format csv
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        '--metrics',
        nargs='+',
        default=[],
        metavar='METRIC',
        help="further columns than the tasks' own metrics, such as normals.rmse saliency.maxF",
    )
    parser.add_argument(
        '--format', choices=FORMATS, default='text', help='default: text; csv has all digits, for programs'
    )
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='write the table to a file (default: print it)'
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Read, and print or write."""
    args = parse_args(arguments)
    try:
        found = collect(args, INDEX)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'collect_results.py: {error}') from error
    for remark in found.remarks:
        print(f'note: {remark}', file=sys.stderr)
    unknown = [m for m in args.metrics if not any(m in row.values for row in found.rows)]
    if unknown:
        known = sorted({key for row in found.rows for key in row.values})
        raise SystemExit(f'collect_results.py: no run has {", ".join(unknown)}; there are {known}')
    table = results_table(
        found.rows,
        args.format,
        gain=found.reference is not None,
        spread=args.spread,
        metrics=args.metrics,
        notes=found.notes,
    )
    if args.format == 'csv':
        for note in found.notes:
            print(f'note: {note}', file=sys.stderr)
    if args.out is None:
        print(table)
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(table + '\n', encoding='utf-8')
    print(f'written: {args.out}', file=sys.stderr)


if __name__ == '__main__':
    main()
