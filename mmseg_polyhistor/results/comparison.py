"""What a study answers: how far one method is before another, and whether methods rank as in the Polyhistor paper."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from scipy.stats import rankdata, spearmanr

from ..benchmark import BenchmarkRow
from ..profiling.text_table import text_table
from .rows import Row, digits
from .study import Study
from .study_runs import StudyPart
from .table import EMPTY, metric_name, metrics_of

__all__ = ['differences_table', 'paper_table']

LEAST = 3  # methods that a rank correlation is told of


# ----------------------------------------------------------------------------------------------------- differences
def differences_table(study: Study, found: Mapping[str, StudyPart], *, markdown: bool = False) -> str:
    """Row minus other row, for each of the study's comparisons and each encoder: mean and standard deviation over seeds.

    The difference is taken between runs of the same seed, in the unit of each metric; the deviation is that of the sample (n - 1).
    A comparison without a seed that both rows have is left out.

    Args:
        study: The study.
        found: What `collect_study` gives.
        markdown: Write a Markdown table. Defaults to False.

    Returns:
        The table, or nothing where the study has no comparison that can be made.
    """
    made = {
        (row, other, encoder): pairs
        for row, other in study.comparisons
        for encoder, part in found.items()
        if (pairs := _same_seeds(part, row, other))
    }
    if not made:
        return ''
    rows = [row for pairs in made.values() for row, _ in pairs]
    metrics = metrics_of(rows, ['gain'])
    head = ['method', 'minus', 'encoder', *(metric_name(metric, rows[0].known) for metric in metrics), 'runs']
    cells = [
        [
            study.rows[row].label,
            study.rows[other].label,
            encoder,
            *(_difference(pairs, metric) for metric in metrics),
            str(len(pairs)),
        ]
        for (row, other, encoder), pairs in made.items()
    ]
    return text_table([head, *cells], markdown=markdown, left=(0, 1, 2))


def _same_seeds(part: StudyPart, row: str, other: str) -> list[tuple[Row, Row]]:
    ours, others = (
        {job.seed: found for job, found in part.each.items() if job.row == name} for name in (row, other)
    )
    return [(found, others[seed]) for seed, found in ours.items() if seed in others]


def _difference(pairs: Sequence[tuple[Row, Row]], metric: str) -> str:
    if any(metric not in row.values for pair in pairs for row in pair):
        return EMPTY
    differences = [row.values[metric] - other.values[metric] for row, other in pairs]
    places = digits(metric, pairs[0][0].known)
    text = f'{statistics.fmean(differences):+.{places}f}'
    return f'{text} ± {statistics.stdev(differences):.{places}f}' if len(differences) > 1 else text


# ------------------------------------------------------------------------------------------------------- the paper
def paper_table(
    study: Study, found: Mapping[str, StudyPart], benchmark: Sequence[BenchmarkRow], *, markdown: bool = False
) -> str:
    """Gains and ranks of the study's rows beside those of the same methods in the Polyhistor paper, and the rank correlation.

    A row has the paper's figures where its config is one that a metafile gives them for. They are of PASCAL-Context and Swin-T.

    Args:
        study: The study.
        found: What `collect_study` gives.
        benchmark: Its rows hold the paper's figures.
        markdown: Write a Markdown table. Defaults to False.

    Returns:
        The table, and for each encoder Spearman's rank correlation of its gains and the paper's; nothing where the study
        does not want it, or fewer than three rows have both with some encoder.
    """
    if not study.paper:
        return ''
    printed = {row.config.resolve(): row.paper for row in benchmark if row.paper is not None}
    paper = {name: printed.get(row.config.resolve()) for name, row in study.rows.items()}
    gains = {}
    for encoder, part in found.items():
        own = {name: gain for name, gain in _mean_gains(part).items() if paper[name] is not None}
        if len(own) >= LEAST:
            gains[encoder] = own
    if not gains:
        return ''
    names = [name for name in study.rows if any(name in own for own in gains.values())]
    theirs = {name: paper[name].results['gain'] for name in names}
    columns = [_ranked(own) for own in (*gains.values(), theirs)]
    head = [
        'method',
        *(cell for who in (*gains, 'paper') for cell in (f'gain %, {who}', 'rank')),
        'encoder, paper',
    ]
    lines = [
        [
            study.rows[name].label,
            *(cell for column in columns for cell in column.get(name, (EMPTY, EMPTY))),
            f'{paper[name].encoder:.2f} M',
        ]
        for name in names
    ]
    notes = [
        f"Spearman's rank correlation with the paper's gains, {encoder}: "
        f'{spearmanr(list(own.values()), [theirs[name] for name in own]).statistic:.2f} over {len(own)} methods'
        for encoder, own in gains.items()
    ]
    return '\n\n'.join([text_table([head, *lines], markdown=markdown), '\n\n'.join(notes)])


def _mean_gains(part: StudyPart) -> dict[str, float]:
    """Row -> gain, the mean over its seeds; rows without one are left out."""
    found: dict[str, list[float]] = {}
    for job, row in part.each.items():
        if 'gain' in row.values:
            found.setdefault(job.row, []).append(row.values['gain'])
    return {name: statistics.fmean(gains) for name, gains in found.items()}


def _ranked(gains: Mapping[str, float]) -> dict[str, tuple[str, str]]:
    """Gain and rank of each row in print; the largest gain has rank 1, equal ones share the better rank."""
    ranks = rankdata([-gain for gain in gains.values()], method='min')
    return {
        name: (f'{gain:+.2f}', str(int(rank)))
        for (name, gain), rank in zip(gains.items(), ranks, strict=True)
    }
