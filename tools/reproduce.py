"""Run a study: many methods on one data set, with one encoder and one recipe, and make its table and plot.

Every run that is not finished is trained, in work dirs below --work-dir; one that was interrupted goes on where it stopped, and
one that is finished stays. Then OUT gets the table of means over seeds, STUDY.txt, STUDY.md and STUDY.csv; the single runs,
STUDY_runs.csv; differences of the rows that the study compares, STUDY_differences.md; gains and ranks beside the Polyhistor
paper's where the study wants them, STUDY_paper.md; per encoder the plot of gain against trainable parameters, STUDY_ENCODER.png; and,
of several encoders, the plot of metrics and gain over them, STUDY_over_encoders.png.
With --search it trains and tables the search for learning rates instead: STUDY_search.txt.
A study is a config: see configs/studies.
"""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

import mmseg_polyhistor  # noqa: F401, I001  (first: it repairs the stack)
from mmengine.config import DictAction

from mmseg_polyhistor.benchmark import read_benchmark
from mmseg_polyhistor.results.comparison import differences_table, paper_table
from mmseg_polyhistor.results.figures import draw_encoders, draw_tradeoff
from mmseg_polyhistor.results.study import Study
from mmseg_polyhistor.results.study_runs import collect_study, run_jobs, search_table, state
from mmseg_polyhistor.results.table import results_table

TRAIN = Path(__file__).resolve().with_name('train.py')
INDEX = TRAIN.parents[1] / 'model-index.yml'  # the metafiles with the paper's figures

EXAMPLES = """examples:
  python tools/reproduce.py configs/studies/scenes_reduced.py --list
  python tools/reproduce.py configs/studies/scenes_reduced.py                                      # everything, then the table
  python tools/reproduce.py configs/studies/scenes_reduced.py --rows polyhistor --seeds 0          # one row of it
  python tools/reproduce.py configs/studies/scenes_reduced.py --jobs 2 --threads 1                 # on two CPU cores
  python tools/reproduce.py configs/studies/scenes_reduced.py --search                             # learning rates
  python tools/reproduce.py configs/studies/scenes_reduced.py --table --cfg-options data_root=elsewhere
"""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('study', type=Path, help='the config of the study')
    parser.add_argument(
        '--work-dir', type=Path, help="folder of the runs (default: work_dirs/studies/<the study's name>)"
    )
    parser.add_argument('--out', type=Path, help='folder of tables and plot (default: the work dir)')
    parser.add_argument('--rows', nargs='+', help='rows to train (default: all)')
    parser.add_argument('--encoders', nargs='+', help='encoders to train with (default: all)')
    parser.add_argument('--seeds', nargs='+', type=int, help='seeds to train with (default: all)')
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time (default: 1)')
    parser.add_argument('--threads', type=int, help="CPU threads of each training (default: torch's choice)")
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, help='changes of the study, key=value'
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        '--list', action='store_true', help='list the runs and their states; nothing is trained'
    )
    what.add_argument(
        '--table', action='store_true', help='make table and plot of what is finished; nothing is trained'
    )
    what.add_argument(
        '--search', action='store_true', help="run the study's search for learning rates instead of its table"
    )
    args = parser.parse_args(arguments)
    if args.jobs < 1 or (args.threads is not None and args.threads < 1):
        parser.error('--jobs and --threads must be at least 1')
    if args.table and (args.rows or args.encoders or args.seeds):
        parser.error('--table shows all that is finished: no --rows, --encoders or --seeds with it')
    if args.search and (args.encoders or args.seeds):
        parser.error('--search has one encoder and one seed: no --encoders or --seeds with it')
    args.work_dir = args.work_dir or Path('work_dirs/studies', args.study.stem)
    args.out = args.out or args.work_dir
    return args


def write_results(study: Study, work_dir: Path, out: Path) -> int:
    """Write the tables and the plot, and print the table; returns 1 if the plot could not be drawn."""
    found = collect_study(study, work_dir)
    rows = [row for part in found.values() for row in part.rows]
    notes = [note for part in found.values() for note in part.notes]
    gain = any(part.reference is not None for part in found.values())
    spread = any(row.runs > 1 for row in rows)
    out.mkdir(parents=True, exist_ok=True)
    for form, suffix in (('text', 'txt'), ('markdown', 'md'), ('csv', 'csv')):
        table = results_table(rows, form, gain=gain, spread=spread, notes=notes)
        _write(study, out, f'.{suffix}', table)
        if form == 'text':
            print(table)
    each = [row for part in found.values() for row in part.each.values()]
    _write(study, out, '_runs.csv', results_table(each, 'csv', gain=gain))
    benchmark = read_benchmark(INDEX)
    for name, make in (
        ('differences', partial(differences_table, study, found)),
        ('paper', partial(paper_table, study, found, benchmark)),
    ):
        if text := make():
            print(f'\n{text}')
            _write(study, out, f'_{name}.md', make(markdown=True))
        else:  # one of an earlier call would be of other rows
            _path(study, out, f'_{name}.md').unlink(missing_ok=True)
    over_encoders = _path(study, out, '_over_encoders.png')
    if len(found) > 1:
        draw_encoders({encoder: part.rows for encoder, part in found.items()}).savefig(over_encoders, dpi=150)
    else:
        over_encoders.unlink(missing_ok=True)
    status = 0
    for encoder, part in found.items():
        try:
            figure = draw_tradeoff(part.rows, remarks=part.remarks, title=f'{study.title}: {encoder}')
        except ValueError as error:
            print(f'reproduce.py: no plot of {encoder}: {error}', file=sys.stderr)
            status = 1
        else:
            figure.savefig(_path(study, out, f'_{encoder}.png'), dpi=150)
        for remark in part.remarks:
            print(f'note: {remark}', file=sys.stderr)
    return status


def _path(study: Study, out: Path, name: str) -> Path:
    return out / f'{study.path.stem}{name}'


def _write(study: Study, out: Path, name: str, text: str) -> None:
    _path(study, out, name).write_text(text + '\n', encoding='utf-8')


def _end(*_: object) -> None:
    """Of SIGTERM: it ends what was started, as Ctrl-C does."""
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; returns the exit status, 1 if a training failed or the plot could not be drawn."""
    args = parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    problems: list[str] = []
    try:
        study = Study(args.study, args.cfg_options)
        if args.search:
            jobs = study.search_jobs(args.rows)
        else:
            jobs = study.jobs(args.rows, args.encoders, args.seeds)
        if args.list:
            for job in jobs:
                print(f'{state(study, job, args.work_dir):<12}{job.name}  lr {job.rate:g}')
            return 0
        if not args.table:
            problems = run_jobs(
                study, jobs, args.work_dir, train=TRAIN, parallel=args.jobs, threads=args.threads
            )
        if args.search:
            table = search_table(study, study.search_jobs(), args.work_dir)  # all, as the other tables
            print(table)
            args.out.mkdir(parents=True, exist_ok=True)
            _write(study, args.out, '_search.txt', table)
            status = 0
        else:
            status = write_results(study, args.work_dir, args.out)
    except KeyboardInterrupt:
        raise SystemExit('reproduce.py: interrupted; the same command goes on') from None
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit('\n'.join([*problems, f'reproduce.py: {error}'])) from error
    for problem in problems:
        print(f'reproduce.py: {problem}', file=sys.stderr)
    return 1 if problems else status


if __name__ == '__main__':
    sys.exit(main())
