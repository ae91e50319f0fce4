"""Count trainable parameters: the benchmark's table, or those of any config.

Without a config it prints every row of the benchmark (the metafiles that model-index.yml imports): what the config's
model has, built without its weights, beside what the Polyhistor paper prints for it. The exit status is 1 if a number
differs from the paper's by more than its printed digits allow, or from what the metafile records.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmengine
from mmengine.config import Config
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

from mmseg_polyhistor.benchmark import BenchmarkRow, count_config, read_benchmark
from mmseg_polyhistor.engine import ParameterCounts
from mmseg_polyhistor.profiling.text_table import text_table

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / 'model-index.yml'
COLUMNS = ('method', 'encoder', 'decoders', 'total', 'paper: encoder', 'paper: total', 'config')
NUMBERS = range(1, 6)  # columns that stand to the right

EXAMPLES = """examples:
  python tools/count_params.py
  python tools/count_params.py configs/polyhistor/swin-t_pascal.py configs/lora/*.py
  python tools/count_params.py --markdown > table.md
  python tools/count_params.py --json my_configs/upernet_swin-t.py
"""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A config with the counts of its model, and its row of the benchmark if it has one."""

    config: Path
    counts: ParameterCounts
    row: BenchmarkRow | None

    @property
    def group(self) -> str:
        """The table that it belongs to."""
        if self.row is None:
            return 'Not in the benchmark'
        return f'{self.row.backbone}, pretraining: {self.row.pretraining}'

    def problems(self) -> list[str]:
        """Where the counts differ from the metafile's or from the paper's."""
        if self.row is None:
            return []
        found = []
        for part in ('encoder', 'total'):
            ours, recorded = getattr(self.counts, part), getattr(self.row, part)
            if ours != recorded:
                found.append(f'{part}: {ours:,} parameters, but the metafile records {recorded:,}')
            if self.row.paper is not None:
                printed = getattr(self.row.paper, part)
                if printed not in two_digits(ours):
                    found.append(f'{part}: {ours:,} parameters, but the paper prints {printed:.2f} M')
        return found


def two_digits(count: int) -> tuple[float, float]:
    """A number in millions with two digits, rounded and cut off: the paper rounds, but in one row it cuts off."""
    return round(count / 1e6, 2), count // 10_000 / 100


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'config',
        nargs='*',
        type=Path,
        help="configs whose model has a backbone, mmseg's included (default: all of the benchmark)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--json', action='store_true', help='print a list of records instead of tables')
    form.add_argument('--markdown', action='store_true', help='print tables in Markdown')
    args = parser.parse_args(arguments)
    absent = [str(path) for path in args.config if not path.is_file()]
    if absent:
        parser.error(
            f'{", ".join(absent)}: no such file. Give paths of configs, such as '
            'configs/polyhistor/swin-t_pascal.py, or none for the whole benchmark'
        )
    return args


def count(configs: Sequence[Path], rows: Iterable[BenchmarkRow]) -> list[Counted]:
    """Build and count the models, with a progress bar on stderr."""
    by_path = {row.config.resolve(): row for row in rows}
    counted = []
    for path in mmengine.track_iter_progress(list(configs), file=sys.stderr):
        cfg = Config.fromfile(path)
        if 'model' not in cfg:
            raise SystemExit(f'count_params.py: {path} has no model; give configs that can be trained')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        counted.append(Counted(config=path, counts=count_config(cfg), row=by_path.get(path.resolve())))
    return counted


def record(item: Counted) -> dict:
    """A config as plain data; the paper's numbers are in millions."""
    row = item.row
    paper = row and row.paper
    return dict(
        config=_short(item.config),
        name=row and row.name,
        method=row and row.method,
        backbone=row and row.backbone,
        pretraining=row and row.pretraining,
        encoder=item.counts.encoder,
        decoders=item.counts.decoder,
        total=item.counts.total,
        paper_encoder=paper and paper.encoder,
        paper_total=paper and paper.total,
        problems=item.problems(),
    )


def cells(item: Counted) -> tuple[str, ...]:
    """A config as the cells of `COLUMNS`."""
    counts, row = item.counts, item.row
    printed = (
        [f'{n:.2f} M' for n in (row.paper.encoder, row.paper.total)] if row and row.paper else ['-', '-']
    )
    return (
        row.method if row else '-',
        *(f'{n:,}' for n in (counts.encoder, counts.decoder, counts.total)),
        *printed,
        _short(item.config),
    )


def table(items: Sequence[Counted], *, markdown: bool) -> str:
    """A table of one group."""
    left = [i for i in range(len(COLUMNS)) if i not in NUMBERS]
    return text_table([COLUMNS, *map(cells, items)], markdown=markdown, left=left)


def main(arguments: list[str] | None = None) -> int:
    """Count and print; returns the exit status."""
    args = parse_args(arguments)
    rows = read_benchmark(INDEX)
    items = count(args.config or [row.config for row in rows], rows)
    if args.json:
        print(json.dumps([record(item) for item in items], indent=2))
    else:
        for group in dict.fromkeys(item.group for item in items):
            heading = f'### {group}\n' if args.markdown else group
            members = [item for item in items if item.group == group]
            print(heading, table(members, markdown=args.markdown), sep='\n', end='\n\n')
    problems = [f'{_short(item.config)}: {line}' for item in items for line in item.problems()]
    for line in problems:
        print(line, file=sys.stderr)
    known = [item.row for item in items if item.row]
    of_paper = sum(row.paper is not None for row in known)
    print(
        f'{len(known)} configs compared with their metafiles, {of_paper} with the paper: {len(problems)} differences',
        file=sys.stderr,
    )
    return 1 if problems else 0


def _short(path: Path) -> str:
    """The path below the repository, or as it was given."""
    resolved = path.resolve()
    return resolved.relative_to(ROOT).as_posix() if resolved.is_relative_to(ROOT) else str(path)


if __name__ == '__main__':
    sys.exit(main())
