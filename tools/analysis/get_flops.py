"""Count the multiply-adds of a forward pass, by task and by part, for one image.

Counted are matrix products, convolutions and attention; not element-wise operations, norms and resizing. What is printed
are multiply-adds, which most papers call FLOPs; FLOPs in the strict sense are twice as many. The model is built without
values, so that large ones take seconds; configs of mmseg with one head work too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401  (registers the models, also for configs that do not import the package)
from mmseg_polyhistor.profiling.flops import MultiplyAdds, count_config_multiply_adds
from mmseg_polyhistor.profiling.text_table import text_table

DEFAULT_SHAPE = (512, 512)

EXAMPLES = """examples:
  python tools/analysis/get_flops.py configs/polyhistor/swin-t_pascal.py
  python tools/analysis/get_flops.py configs/*/swin-t_pascal.py --shape 448 448 --markdown
  python tools/analysis/get_flops.py my_configs/upernet_swin-t.py --json
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='+', type=Path, help='configs with a model')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help="the image that the network gets (default: the config's crop_size, else 512 512)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--json', action='store_true', help='print a list of records instead of tables')
    form.add_argument('--markdown', action='store_true', help='print tables in Markdown')
    args = parser.parse_args(arguments)
    absent = [str(path) for path in args.config if not path.is_file()]
    if absent:
        parser.error(
            f'{", ".join(absent)}: no such file; give paths such as configs/polyhistor/swin-t_pascal.py'
        )
    if args.shape and min(args.shape) < 1:
        parser.error(f'--shape must be two positive numbers, got {args.shape}')
    return args


def count(path: Path, shape: list[int] | None) -> tuple[tuple[int, int], MultiplyAdds]:
    """Count what the config at `path` describes, at the shape given or the config's own."""
    cfg = Config.fromfile(path)
    if 'model' not in cfg:
        raise SystemExit(f'get_flops.py: {path} has no model; give configs that can be trained')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    size = tuple(shape or cfg.get('crop_size') or DEFAULT_SHAPE)
    try:
        return size, count_config_multiply_adds(cfg.model, size)
    except TypeError as error:
        raise SystemExit(f'get_flops.py: {path}: {error}') from error


def record(path: Path, shape: tuple[int, int], counts: MultiplyAdds) -> dict:
    """A config's counts as plain data."""
    return dict(
        config=str(path),
        shape=list(shape),
        unit='multiply-adds',
        encoder_shared=counts.encoder_shared,
        encoder_tasks=dict(counts.encoder_tasks),
        encoder=counts.encoder,
        generation_shared=counts.generation_shared,
        generation_tasks=dict(counts.generation_tasks),
        generation=counts.generation,
        decoders=dict(counts.decoders),
        total=counts.total,
        one_task={name: counts.of_task(name) for name in counts.decoders},
    )


def table(counts: MultiplyAdds, *, markdown: bool) -> str:
    """A config's counts as a table: parts in rows, tasks in columns."""
    names = list(counts.decoders)

    def row(part: str, everything: int, once: int | None, of_task: dict[str, int]) -> list[str]:
        return [part, _giga(everything), _giga(once), *(_giga(of_task.get(name)) for name in names)]

    rows = [
        ['G multiply-adds', 'all', 'once for all', *names],
        row('encoder', counts.encoder, counts.encoder_shared, counts.encoder_tasks),
        row('generated weights', counts.generation, counts.generation_shared, counts.generation_tasks),
        row('decoders', sum(counts.decoders.values()), None, counts.decoders),
        row('total', counts.total, None, {}),
        ['one task alone', '', '', *(_giga(counts.of_task(name)) for name in names)],
    ]
    return text_table(rows, markdown=markdown)


def _giga(number: int | None) -> str:
    return '-' if number is None else f'{number / 1e9:.3f}'


def main(arguments: list[str] | None = None) -> None:
    """Count and print."""
    args = parse_args(arguments)
    counted = [(path, *count(path, args.shape)) for path in args.config]
    if args.json:
        print(json.dumps([record(*item) for item in counted], indent=2))
        return
    for path, shape, counts in counted:
        heading = f'{path}, one image of {shape[0]} x {shape[1]} pixels'
        print(f'### {heading}\n' if args.markdown else heading)
        print(table(counts, markdown=args.markdown), end='\n\n')
    print(
        'Multiply-adds; FLOPs are twice as many. Weights are generated once a step, whatever the batch.',
        file=sys.stderr,
    )


if __name__ == '__main__':
    main()
