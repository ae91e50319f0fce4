"""Measure methods side by side with plain references, with full fine-tuning, and with the floor, in one run.

For every method: the time of a training step (with the optimiser's) and of an inference (logits, at the size that the
decoders give), the peak memory of both, and trainable parameters; then the ratios to what it is measured against. Before
anything is timed, every method that has a plain reference must give the same logits with the same weights.

All cases run in turns, round after round, so that what else the machine does hits all alike; times are medians, by the
clock and of the processor (CPU time: all threads together). Memory is measured in a fresh process per case: on CUDA what
torch allocates, model included; else the resident memory above what the built model takes. Images and labels are random.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401  (repairs the stack, and registers)
from mmseg_polyhistor.profiling.cases import PARTS, REFERENCES, Case, Setting, plan_cases
from mmseg_polyhistor.profiling.equality import Comparison, UnequalModelsError, compare_with_plain
from mmseg_polyhistor.profiling.machine import describe_machine
from mmseg_polyhistor.profiling.measure import Memory, Times, measure_memory, measure_times, summarise
from mmseg_polyhistor.profiling.text_table import text_table
from mmseg_polyhistor.profiling.workload import DTYPES, build_workload

ROOT = Path(__file__).resolve().parents[1]
STEPS = {'train': 'train_step', 'inference': 'infer'}
ROUNDED = 3  # digits of printed ratios

EXAMPLES = """examples:
  python tools/benchmark.py polyhistor polyhistor_lite --execution stacked sequential --size 448 --batch 2
  python tools/benchmark.py decoder_only shared_adapter --against full --parts
  python tools/benchmark.py polyhistor --arch tiny base --device cuda --precision bf16 --batch 8 --json result.json
  python tools/benchmark.py my_configs/mine.py --against full floor own-floor --repeats 9 --markdown
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    listed = [f'  {name:<12}{what}' for name, what in {**REFERENCES, **PARTS}.items()]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='\n'.join([EXAMPLES, 'references and parts:', *listed]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'method', nargs='+', help='configs, or folders under configs/ (mtlora/r16 for a variant), on Swin-T'
    )
    parser.add_argument(
        '--arch',
        nargs='+',
        choices=('tiny', 'small', 'base', 'large'),
        default=[None],
        help="sizes of the Swin (default: the config's own)",
    )
    parser.add_argument(
        '--execution',
        nargs='+',
        choices=('auto', 'stacked', 'sequential'),
        default=[None],
        help="how the methods run their tasks (default: the config's own)",
    )
    parser.add_argument(
        '--size', nargs='+', type=int, default=[448], help='side of the images, or H W (default: 448)'
    )
    parser.add_argument('--batch', type=int, default=2, help='images of a training step (default: 2)')
    parser.add_argument('--inference-batch', type=int, default=1, help='images of an inference (default: 1)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='default: cpu')
    parser.add_argument(
        '--precision', choices=tuple(DTYPES), default='fp32', help='bf16 and fp16 need CUDA (default: fp32)'
    )
    parser.add_argument('--threads', type=int, default=1, help='threads of torch (default: 1)')
    parser.add_argument(
        '--against',
        nargs='*',
        choices=tuple(REFERENCES),
        default=['plain', 'full', 'floor'],
        help='references (default: plain full floor)',
    )
    parser.add_argument(
        '--parts',
        nargs='*',
        choices=tuple(PARTS),
        default=list(PARTS),
        help='parts measured apart (default: all)',
    )
    parser.add_argument(
        '--measure',
        nargs='+',
        choices=('train', 'inference', 'memory'),
        default=['train', 'inference', 'memory'],
        help='default: all three',
    )
    parser.add_argument('--with-cp', action='store_true', help='methods recompute their blocks')
    parser.add_argument('--compile', action='store_true', help='methods compile their backbone')
    parser.add_argument(
        '--channels-last', action='store_true', help='channels-last weights and images, all cases'
    )
    parser.add_argument(
        '--warmup', type=int, help='rounds in front of the measured ones (default: 1, CUDA: 5)'
    )
    parser.add_argument('--repeats', type=int, help='measured rounds (default: 5, CUDA: 20)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write everything measured to a file')
    parser.add_argument('--markdown', action='store_true', help='print tables in Markdown')
    args = parser.parse_args(arguments)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no CUDA device here')
    if args.device == 'cpu' and args.precision != 'fp32':
        parser.error(f'--precision {args.precision} needs --device cuda')
    if len(args.size) > 2:
        parser.error(f'--size takes a side or H W, got {args.size}')
    cuda = args.device == 'cuda'
    args.warmup = (5 if cuda else 1) if args.warmup is None else args.warmup
    args.repeats = (20 if cuda else 5) if args.repeats is None else args.repeats
    counts = [*args.size, args.batch, args.inference_batch, args.threads, args.repeats]
    if min(counts) < 1 or args.warmup < 0:
        parser.error('sizes, batches, threads and repeats must be positive numbers')
    return args


# ---------------------------------------------------------------------------------------------------- measuring
def say(text: str) -> None:
    """A line about the progress."""
    print(text, file=sys.stderr, flush=True)


def measure(cases: list[Case], setting: Setting, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Measure all cases: name -> counts, times and memory, as plain data."""
    found: dict[str, dict[str, Any]] = {case.name: dict(name=case.name, role=case.role) for case in cases}
    steps = {kind: step for kind, step in STEPS.items() if kind in args.measure}
    if 'memory' in args.measure:
        for case in cases:
            for kind, step in (steps or STEPS).items():
                if case.role not in PARTS:
                    say(f'memory: {case.name}, {kind}')
                    found[case.name][f'{kind}_memory'] = _memory(measure_memory(case, setting, step))
    say('building all cases')
    workloads = {case.name: build_workload(case, setting) for case in cases}
    for name, workload in workloads.items():
        counts = workload.counts
        if found[name]['role'] not in PARTS:
            found[name]['trainable'] = dict(
                encoder=counts.encoder, decoders=counts.decoder, total=counts.total
            )
    for kind, step in steps.items():
        # What is generated is kept between inferences.
        run = {n: w for n, w in workloads.items() if (kind, found[n]['role']) != ('inference', 'generation')}
        taken = measure_times(run, step, warmup=args.warmup, repeats=args.repeats, report=say)
        for name, times in taken.items():
            found[name][kind] = _times(times)
    return found


def _times(times: Times) -> dict[str, Any]:
    return {
        clock: {**summarise(values), 'all': list(values)}
        for clock, values in (('wall', times.wall), ('cpu', times.cpu))
    }


def _memory(memory: Memory) -> dict[str, Any]:
    return {**asdict(memory), 'above_base': memory.above_base}


def compared_memory(memory: dict[str, Any], setting: Setting) -> float:
    """The figure that ratios are made of: with the model on CUDA, without it (and the libraries) else."""
    return memory['peak'] if setting.device == 'cuda' else memory['above_base']


def ratios(cases: list[Case], found: dict[str, dict[str, Any]], setting: Setting) -> list[dict[str, Any]]:
    """Every method over its references, its parts over the method, and its references over full fine-tuning."""
    lines: list[dict[str, Any]] = []
    of_references: dict[tuple[str, str], dict[str, Any]] = {}
    for case in cases:
        full = case.against.get('full')
        for role, other in case.against.items():
            line = dict(case=case.name, against=role, of=other)
            lines.append(line)
            if other is None:
                continue
            over, under = (other, case.name) if role in PARTS else (case.name, other)
            line.update(_ratios(found[over], found[under], setting))
            if full is not None and role in REFERENCES and role != 'full':
                line = dict(case=other, against='full', of=full)
                of_references[other, full] = {**line, **_ratios(found[other], found[full], setting)}
    return [*lines, *of_references.values()]


def _ratios(over: dict[str, Any], under: dict[str, Any], setting: Setting) -> dict[str, float]:
    """The ratios of all medians and memories that both have."""
    found = {}
    for kind in STEPS:
        for clock in ('wall', 'cpu'):
            if kind in over and kind in under:
                found[f'{kind}_{clock}'] = over[kind][clock]['median'] / under[kind][clock]['median']
        key = f'{kind}_memory'
        if key in over and key in under:
            found[key] = compared_memory(over[key], setting) / compared_memory(under[key], setting)
    return found


# ----------------------------------------------------------------------------------------------------- printing
def times_rows(found: dict[str, dict[str, Any]], kind: str) -> Iterator[list[str]]:
    """The rows of the table of times of one kind of step."""
    yield [f'{kind}: seconds', 'wall median', 'min', 'max', 'CPU median', 'min', 'max']
    for entry in found.values():
        if clocks := entry.get(kind):
            keys = [(clock, key) for clock in ('wall', 'cpu') for key in ('median', 'min', 'max')]
            yield [entry['name'], *(f'{clocks[clock][key]:.4g}' for clock, key in keys)]


def memory_rows(found: dict[str, dict[str, Any]]) -> Iterator[list[str]]:
    """The rows of the table of memory and parameters."""
    kinds = [kind for kind in STEPS if any(f'{kind}_memory' in entry for entry in found.values())]
    columns = [f'{kind} {what}' for kind in kinds for what in ('base', 'peak', 'above')]
    yield ['MiB; trainable parameters', *columns, 'encoder', 'decoders', 'total']
    for entry in found.values():
        if 'trainable' in entry:
            memory = [
                f'{entry[f"{kind}_memory"][key]:.0f}'
                for kind in kinds
                for key in ('base', 'peak', 'above_base')
            ]
            yield [entry['name'], *memory, *(f'{n:,}' for n in entry['trainable'].values())]


def ratio_rows(lines: list[dict[str, Any]]) -> Iterator[list[str]]:
    """The rows of the table of ratios."""
    keys = [
        f'{kind}_{what}'
        for kind in STEPS
        for what in ('wall', 'cpu', 'memory')
        if any(f'{kind}_{what}' in line for line in lines)
    ]
    yield ['ratio of medians', *(key.replace('_', ' ').replace('cpu', 'CPU') for key in keys)]
    for line in lines:
        if any(key in line for key in keys):
            what = f': {line["against"]} / step' if line['against'] in PARTS else f' / {line["against"]}'
            yield [line['case'] + what, *(f'{line[key]:.{ROUNDED}f}' if key in line else '-' for key in keys)]


def print_result(result: dict[str, Any], markdown: bool) -> None:
    """Print the machine, the checks and all tables."""
    machine, setting = result['machine'], result['setting']
    print(', '.join(f'{key}: {value}' for key, value in machine.items() if value is not None))
    print(', '.join(f'{key}: {value}' for key, value in setting.items()))
    for check in result['checks']:
        print(
            f'{check["case"]}: logits equal to the plain reference, difference {check["difference"]:.1e}, '
            f'tolerance {check["tolerance"]:.1e}'
        )
    found = {entry['name']: entry for entry in result['cases']}
    tables = [times_rows(found, kind) for kind in STEPS if any(kind in entry for entry in found.values())]
    tables += [memory_rows(found), ratio_rows(result['ratios'])]
    for head, *rows in tables:
        if rows:
            print('', text_table([head, *rows], markdown=markdown), sep='\n')
    methods = {e[k]['method'] for e in found.values() for k in ('train_memory', 'inference_memory') if k in e}
    print('')
    for method in sorted(methods):
        print(f'memory: {method}')
    for line in result['ratios']:
        if line['of'] is None:
            print(f'{line["case"]} has no {line["against"]}')


def main(arguments: list[str] | None = None) -> int:
    """Check, measure and print; returns the exit status."""
    args = parse_args(arguments)
    init_default_scope('mmseg')
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    setting = Setting(
        size=(args.size[0], args.size[-1]),
        batch=args.batch,
        inference_batch=args.inference_batch,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
        compile=args.compile,
        channels_last=args.channels_last,
    )
    try:
        cases = plan_cases(
            args.method,
            ROOT,
            archs=args.arch,
            executions=args.execution,
            against=args.against,
            parts=args.parts,
            with_cp=args.with_cp,
        )
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'benchmark.py: {error}') from error
    checks: list[Comparison] = []
    for case in cases:
        if case.role == 'method' and case.against.get('plain'):
            say(f'comparing {case.name} with its plain reference')
            try:
                checks.append(compare_with_plain(case, setting))
            except UnequalModelsError as error:
                print(f'benchmark.py: {error}', file=sys.stderr)
                return 1
    found = measure(cases, setting, args)
    result = dict(
        machine=describe_machine(),
        setting={**asdict(setting), 'with_cp': args.with_cp, 'warmup': args.warmup, 'repeats': args.repeats},
        checks=[asdict(check) for check in checks],
        cases=list(found.values()),
        ratios=ratios(cases, found, setting),
    )
    print_result(result, args.markdown)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
