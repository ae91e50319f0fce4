"""Figures of results: gain against trainable parameters, metrics over encoders, losses and validations over the training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from .command_line import Collected
from .labels import place_labels
from .rows import PAPER, Row, Tasks, gain_over, headline, headline_key, lower_is_better, tasks_of
from .runs import Run
from .table import metric_name, metrics_of

__all__ = [
    'COLOURS',
    'draw_encoders',
    'draw_losses',
    'draw_tradeoff',
    'draw_validations',
    'make_figures',
    'running_mean',
    'unique_names',
]

# Okabe and Ito's colours, which all kinds of colour vision tell apart; yellow, too light for lines on white, is left out.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
STYLES = ('-', '--', ':', '-.')
OURS, THEIRS = COLOURS[0], '#606060'
MILLION = 1e6
PANEL = (4.2, 3.2)  # inches


def _figure(width: float, height: float) -> Figure:
    """A figure that needs no display and leaves pyplot alone."""
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


# ------------------------------------------------------------------------------------------------ gain and parameters
def draw_tradeoff(
    rows: Sequence[Row],
    *,
    metric: str = 'gain',
    parameters: str = 'encoder',
    remarks: list[str],
    title: str = '',
) -> Figure:
    """A metric against trainable parameters, on a logarithmic axis; the paper's points are hollow.

    Where a point has none, the axis is linear below the least of the others, so that it has a 0.

    Args:
        rows: The points; those that lack the metric, or whose parameters are not known, are left out with a remark.
        metric: 'gain' or one such as 'semseg.mIoU'. Defaults to 'gain'.
        parameters: 'encoder' or 'total'. Defaults to 'encoder'.
        remarks: Takes what the reader should know.
        title: Above the axes. Defaults to none.

    Raises:
        ValueError: if no row can be drawn; the remarks say what each one lacks.
    """
    drawn = []
    for row in rows:
        lacking = _lacking(row, metric, parameters)
        if lacking:
            remarks.append(f'{row.method} ({row.name}) is not drawn: {lacking}')
        else:
            drawn.append(row)
    if not drawn:
        hint = '; the gain needs --reference, or name another --metric' if metric == 'gain' else ''
        raise ValueError(f'no row has both {metric!r} and {parameters} parameters{hint}')
    figure = _figure(8, 5.6)
    axes = figure.add_subplot()
    for row in drawn:
        x, y = getattr(row, parameters) / MILLION, row.values[metric]
        colour = THEIRS if row.paper else OURS
        if metric in row.spread:
            axes.errorbar([x], [y], yerr=[row.spread[metric]], fmt='none', ecolor=colour, capsize=3)
        axes.plot(
            [x],
            [y],
            marker='o',
            markersize=6,
            linestyle='none',
            color=colour,
            markerfacecolor='white' if row.paper else colour,
            gid='paper' if row.paper else 'ours',
        )
    _label_tradeoff(axes, drawn, metric, parameters)
    axes.set_title(title, parse_math=False)
    place_labels(
        axes,
        [(getattr(row, parameters) / MILLION, row.values[metric]) for row in drawn],
        [row.method for row in drawn],
        colours=[THEIRS if row.paper else OURS for row in drawn],
        bars=[row.spread.get(metric, 0.0) for row in drawn],
    )
    return figure


def _lacking(row: Row, metric: str, parameters: str) -> str:
    value = row.values.get(metric)
    if value is None or math.isnan(value):
        return f'it has no {metric}'
    return 'its parameters are not known' if getattr(row, parameters) is None else ''


def _label_tradeoff(axes: Axes, rows: Sequence[Row], metric: str, parameters: str) -> None:
    _scale([getattr(row, parameters) / MILLION for row in rows], axes)
    axes.margins(y=0.12)
    of = ' of the encoder' if parameters == 'encoder' else ''
    axes.set_xlabel(f'trainable parameters{of} (millions)')
    if metric == 'gain':
        axes.axhline(0, color='#B0B0B0', linewidth=0.8, zorder=0)
    axes.set_ylabel(_axis_name(metric))
    axes.grid(True, color='#EEEEEE', zorder=-1)
    marks = []
    if any(not row.paper for row in rows):
        spread = ', mean and standard deviation' if any(row.spread for row in rows) else ''
        marks.append(_mark(OURS, OURS, f'runs{spread}'))
    if any(row.paper for row in rows):
        marks.append(_mark(THEIRS, 'white', f'{PAPER}, as printed'))
    axes.legend(handles=marks, loc='upper center', bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)


def _scale(numbers: Sequence[float], axes: Axes) -> None:
    """A logarithmic axis with room for the labels beside the points; with a 0 where there is one."""
    positive = [number for number in numbers if number > 0]
    low, high = (min(positive), max(positive)) if positive else (1, 1)
    room = (high / low) ** 0.15 * 1.5
    if len(positive) == len(numbers):
        axes.set_xscale('log')
        axes.set_xlim(low / room, high * room)
    else:
        axes.set_xscale('symlog', linthresh=low / 1.5, linscale=0.5)
        axes.set_xlim(-low / 3, high * room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:g}'))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _mark(colour: str, face: str, label: str) -> Line2D:
    return Line2D([], [], marker='o', linestyle='none', color=colour, markerfacecolor=face, label=label)


def _axis_name(metric: str, tasks: Tasks | None = None) -> str:
    if metric == 'gain':
        return 'gain over single-task models (%)'
    lower = ' (lower is better)' if lower_is_better(metric, tasks) else ''
    return metric_name(metric, tasks).removesuffix(' ↓') + lower


# ------------------------------------------------------------------------------------------------------------ curves
@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line of a panel.

    Args:
        x: Where.
        y: Values; nan leaves a gap.
        name: Of the run.
        index: Number of the run, which its colour follows.
    """

    x: Sequence[float]
    y: Sequence[float]
    name: str
    index: int


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """The mean over `width` values around each (fewer at the ends), those that are not finite left out.

    Args:
        values: (N,).
        width: At least 1; 1 gives the values.

    Returns:
        float64 (N,); nan where no value of the window is finite.

    Raises:
        ValueError: if `width` is below 1.
    """
    if width < 1:
        raise ValueError(f'a running mean needs a width of at least 1, got {width}')
    array = np.asarray(values, float)
    finite = np.isfinite(array)
    sums = np.concatenate([[0], np.cumsum(np.where(finite, array, 0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    index = np.arange(len(array))
    low = np.maximum(index - (width - 1) // 2, 0)
    high = np.minimum(index + width // 2 + 1, len(array))
    number = counts[high] - counts[low]
    return np.divide(sums[high] - sums[low], number, out=np.full(len(array), math.nan), where=number > 0)


def draw_losses(runs: Mapping[str, Run], *, smooth: int = 10) -> Figure:
    """The losses of each task over the iterations, a panel each: as logged, pale, and their running mean.

    Args:
        runs: Name in the legend -> run.
        smooth: Logged values in the running mean; 1 draws the values alone. Defaults to 10.

    Raises:
        ValueError: if no run logged a loss.
    """
    panels: dict[str, list[Curve]] = {}
    for index, (name, run) in enumerate(runs.items()):
        for loss in run.losses:
            rows = [row for row in run.train if loss in row]
            x, y = [row['iter'] for row in rows], [row[loss] for row in rows]
            panels.setdefault(loss, []).append(Curve(x=x, y=y, name=name, index=index))
    if 'loss' in panels:  # the sum comes last, whichever runs have which losses
        panels['loss'] = panels.pop('loss')
    if not panels:
        raise ValueError('no run logged a loss')
    titles = {loss: 'sum of the losses' if loss == 'loss' else loss for loss in panels}
    return _draw_panels(panels, titles, list(runs), 'iteration', smooth=smooth)


def draw_validations(runs: Mapping[str, Run], reference: Mapping[str, float] | None = None) -> Figure:
    """The metric of each task, and the gain, of the validations: a panel each.

    They stand over the epochs, or over the iterations if one of the runs counts these.

    Args:
        runs: Name in the legend -> run; see `tasks_of` for their tasks.
        reference: The row that the gain compares with. Defaults to None: there is no panel of the gain.

    Raises:
        ValueError: if no run has a validation of a known task.
    """
    by_epoch = all(run.counts_epochs for run in runs.values() if run.validations)
    panels: dict[str, list[Curve]] = {}
    for index, (name, run) in enumerate(runs.items()):
        tasks = tasks_of(run)
        found: dict[str, list[tuple[float, float]]] = {}
        for validation in run.validations:
            x = validation.step if by_epoch else validation.iteration
            values = headline(run, validation, tasks)
            for task, value in values.items():
                found.setdefault(headline_key(tasks[task]), []).append((x, value))
            if (gain := gain_over(reference, values, tasks)) is not None:
                found.setdefault('gain', []).append((x, gain))
        for metric, pairs in found.items():
            x, y = zip(*pairs, strict=True)
            panels.setdefault(metric, []).append(Curve(x=x, y=y, name=name, index=index))
    if not panels:
        raise ValueError('no run has a validation of a known task')
    titles = {metric: _axis_name(metric) for metric in panels}
    return _draw_panels(panels, titles, list(runs), 'epoch' if by_epoch else 'iteration', marker='o')


def draw_encoders(rows: Mapping[str, Sequence[Row]]) -> Figure:
    """The headline metric of each task, and the gain where there is one, with each encoder: a panel each, a line per method.

    Args:
        rows: Encoder -> its rows, in the order of the axis; a method that lacks an encoder has a gap there.

    Raises:
        ValueError: if there are less than two encoders, or no row has a metric.
    """
    encoders = list(rows)
    if len(encoders) < 2:
        raise ValueError(f'lines over encoders need at least two, got {encoders}')
    made = {(encoder, row.method): row for encoder, part in rows.items() for row in part}
    methods = list(dict.fromkeys(method for _, method in made))
    tasks = {name: task for row in made.values() for name, task in row.known.items()}
    panels: dict[str, list[Curve]] = {}
    for metric in metrics_of(list(made.values()), ['gain']):
        for index, method in enumerate(methods):
            found = [made.get((encoder, method)) for encoder in encoders]
            values = [row.values.get(metric, math.nan) if row else math.nan for row in found]
            if not all(map(math.isnan, values)):
                curve = Curve(x=range(len(encoders)), y=values, name=method, index=index)
                panels.setdefault(metric, []).append(curve)
    if not panels:
        raise ValueError('no row has a metric of a known task')
    titles = {metric: _axis_name(metric, tasks) for metric in panels}
    figure = _draw_panels(panels, titles, methods, 'encoder', marker='o')
    for axes in figure.axes:
        axes.set_xticks(range(len(encoders)), encoders)
        axes.set_xlim(-0.3, len(encoders) - 0.7)
    return figure


def unique_names(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their names, or by their folders where two have one name."""
    names = [run.name for run in runs]
    return {run.name if names.count(run.name) == 1 else str(run.folder): run for run in runs}


def _draw_panels(
    panels: Mapping[str, Sequence[Curve]],
    titles: Mapping[str, str],
    names: Sequence[str],
    unit: str,
    *,
    smooth: int = 1,
    marker: str | None = None,
) -> Figure:
    """A grid of panels with one legend below them."""
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = _figure(PANEL[0] * columns, PANEL[1] * rows + 0.25 * math.ceil(len(names) / 2))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (key, curves) in itertools.zip_longest(grid.flat, panels.items(), fillvalue=(None, ())):
        if key is None:
            axes.set_visible(False)
            continue
        for curve in curves:
            look = _look(curve.index)
            if smooth > 1:
                axes.plot(curve.x, curve.y, linewidth=0.8, alpha=0.3, gid='raw', **look)
            mean = running_mean(curve.y, smooth) if smooth > 1 else curve.y
            axes.plot(curve.x, mean, linewidth=1.6, marker=marker, markersize=3, gid='line', **look)
        axes.set_title(titles[key], fontsize=10, parse_math=False)
        axes.set_xlabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator('auto', integer=True))
        axes.grid(True, color='#EEEEEE')
    handles = [Line2D([], [], linewidth=1.6, **_look(index)) for index in range(len(names))]
    legend = figure.legend(
        handles, [_legend_name(n) for n in names], loc='outside lower center', ncols=2, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _look(index: int) -> dict[str, str]:
    """Colour and style of a run's lines: styles change where the colours are used up."""
    return dict(color=COLOURS[index % len(COLOURS)], linestyle=STYLES[index // len(COLOURS) % len(STYLES)])


def _legend_name(name: str) -> str:
    """matplotlib leaves names out that begin with an underscore."""
    return f'./{name}' if name.startswith('_') else name


# --------------------------------------------------------------------------------------------------------------- all
def make_figures(
    found: Collected, plots: Sequence[str], *, metric: str, parameters: str, smooth: int
) -> tuple[dict[str, Figure], dict[str, str]]:
    """The figures that a user asked for.

    Args:
        found: What was read; its remarks take more.
        plots: Of 'tradeoff', 'losses' and 'validations'.
        metric: See `draw_tradeoff`.
        parameters: See `draw_tradeoff`.
        smooth: See `draw_losses`.

    Returns:
        Plot -> figure; and plot -> reason, where there is nothing to draw.
    """
    names = unique_names(found.runs)
    drawn = {
        'tradeoff': lambda: draw_tradeoff(
            found.rows, metric=metric, parameters=parameters, remarks=found.remarks
        ),
        'losses': lambda: draw_losses(names, smooth=smooth),
        'validations': lambda: draw_validations(names, found.reference),
    }
    figures, failures = {}, {}
    for plot in plots:
        try:
            figures[plot] = drawn[plot]()
        except ValueError as error:
            failures[plot] = str(error)
    return figures, failures
