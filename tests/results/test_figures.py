"""Figures, looked at through matplotlib's objects: the points and lines where the numbers say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mmseg_polyhistor.results.figures import (
    COLOURS,
    draw_encoders,
    draw_losses,
    draw_tradeoff,
    draw_validations,
    running_mean,
    unique_names,
)
from mmseg_polyhistor.results.rows import Row
from mmseg_polyhistor.results.runs import read_run, read_runs

START = '20260101_000000'


def row(method, encoder, gain, **more):
    values = {'gain': gain, 'semseg.mIoU': 50 + gain, 'normals.mean': 20 - gain}
    return Row(
        method=method, name=method, values=values, source='', encoder=encoder, total=encoder + 2_000_000, **more
    )  # fmt: skip


OURS = [row('a', 400_000, 1.5), row('b_$x$', 6_000_000, -2.0)]
THEIRS = [row('a', 410_000, 1.74, paper=True)]


def points(figure, kind):
    """The markers of 'ours' or 'paper' as (x, y), and one of them."""
    found = [line for line in figure.axes[0].lines if line.get_gid() == kind]
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in found], found


# ---------------------------------------------------------------------------------------------------------- trade-off
def test_points_stand_at_parameters_and_gain():
    remarks = []
    figure = draw_tradeoff(OURS + THEIRS, remarks=remarks)
    (axes,) = figure.axes
    ours, full = points(figure, 'ours')
    theirs, hollow = points(figure, 'paper')
    assert ours == [(0.4, 1.5), (6.0, -2.0)] and theirs == [(0.41, 1.74)] and remarks == []
    assert axes.get_xscale() == 'log'
    assert to_hex(full[0].get_markerfacecolor()) == to_hex(full[0].get_color())
    assert to_hex(hollow[0].get_markerfacecolor()) == '#ffffff' != to_hex(hollow[0].get_color())
    assert sorted(filter(None, (text.get_text() for text in axes.texts))) == ['a', 'a', 'b_$x$']
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ['runs', "the Polyhistor paper's, PASCAL-Context, Swin-T, as printed"]
    assert axes.get_xlabel() == 'trainable parameters of the encoder (millions)'
    assert axes.get_ylabel() == 'gain over single-task models (%)'


def test_without_the_paper_it_is_not_named():
    legend = draw_tradeoff(OURS, remarks=[]).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ['runs']


def test_another_metric_and_all_parameters():
    figure = draw_tradeoff(OURS, metric='normals.mean', parameters='total', remarks=[])
    assert points(figure, 'ours')[0] == [(2.4, 18.5), (8.0, 22.0)]
    assert figure.axes[0].get_ylabel() == 'normals mean (lower is better)'
    assert figure.axes[0].get_xlabel() == 'trainable parameters (millions)'


def test_no_parameters_stand_at_zero():
    figure = draw_tradeoff([row('none', 0, -11.0), *OURS], remarks=[])
    (axes,) = figure.axes
    assert axes.get_xscale() == 'symlog' and axes.get_xlim()[0] < 0
    assert (0.0, -11.0) in points(figure, 'ours')[0]
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert '0' in ticks
    assert draw_tradeoff([row('none', 0, -11.0)], remarks=[]).axes[0].get_xlim()[1] > 0


def test_standard_deviations_are_bars():
    figure = draw_tradeoff([row('a', 400_000, 1.5, spread={'gain': 0.5}, runs=3)], remarks=[])
    (bars,) = figure.axes[0].collections
    (segment,) = bars.get_segments()
    assert segment.tolist() == [[0.4, 1.0], [0.4, 2.0]]
    assert 'standard deviation' in figure.axes[0].get_legend().get_texts()[0].get_text()


def test_what_has_no_place_is_told():
    remarks = []
    lost = [replace(OURS[0], method='p', encoder=None), row('nan', 5, math.nan), replace(OURS[0], values={})]
    figure = draw_tradeoff([*lost, OURS[1]], remarks=remarks)
    assert points(figure, 'ours')[0] == [(6.0, -2.0)]
    assert remarks == [
        'p (a) is not drawn: its parameters are not known',
        'nan (nan) is not drawn: it has no gain',
        'a (a) is not drawn: it has no gain',
    ]
    with pytest.raises(
        ValueError, match="no row has both 'gain' and encoder parameters; the gain needs --ref"
    ):
        draw_tradeoff(lost, remarks=[])


# ------------------------------------------------------------------------------------------------------------- curves
@pytest.fixture
def runs(make_run, lines, tmp_path):
    """Two runs with losses of two tasks; the second one is a single-task run."""
    rows = [
        lines.train(i, 1 + (i > 10), loss_semseg=float(i), loss_normals=1.0 / i, loss=float(i) + 1.0 / i)
        for i in (5, 10, 15, 20)
    ]
    make_run('r/one', {START: [*rows[:2], lines.val(1, 40.0, 20.0), *rows[2:], lines.val(2, 50.0, 25.0)]})
    alone = [lines.train(5, loss_semseg=3.0), {'semseg.mIoU': 10.0, 'step': 1}]
    make_run('r/_two', {START: alone}, tasks=('semseg',))
    return {run.name: run for run in read_runs([tmp_path])}


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}


def data(axes, gid='line'):
    return [
        list(zip(*(d.tolist() for d in map(np.asarray, line.get_data())), strict=True))
        for line in axes.lines
        if line.get_gid() == gid
    ]


def test_losses_by_task_raw_and_smooth(runs):
    figure = draw_losses(runs, smooth=3)
    found = panels(figure)
    assert list(found) == ['loss_semseg', 'loss_normals', 'sum of the losses']
    alone, raw = data(found['loss_semseg'], 'raw')
    assert raw == [(5, 5.0), (10, 10.0), (15, 15.0), (20, 20.0)] and alone == [(5, 3.0)]
    assert data(found['loss_semseg'])[1] == [(5, 7.5), (10, 10.0), (15, 15.0), (20, 17.5)]
    assert len(data(found['loss_normals'])) == 1
    line = found['loss_normals'].lines[0]
    assert line.get_color() == COLOURS[1] and found['loss_semseg'].lines[0].get_color() == COLOURS[0]
    assert found['loss_semseg'].get_xlabel() == 'iteration'


def test_losses_as_they_are(runs):
    axes = panels(draw_losses(runs, smooth=1))['loss_semseg']
    assert data(axes, 'raw') == [] and data(axes)[1][0] == (5, 5.0)


def test_the_legend_names_the_runs(runs):
    """Also one whose name begins with an underscore, which matplotlib would leave out; names are no mathematics."""
    (legend,) = draw_losses({**runs, '_$three': runs['r/one']}).legends
    assert [text.get_text() for text in legend.get_texts()] == ['r/_two', 'r/one', './_$three']
    assert not any(text.get_parse_math() for text in legend.get_texts())


def test_validations_by_task_with_the_gain(runs):
    found = panels(draw_validations(runs, dict(semseg=40.0, normals=20.0)))
    assert set(found) == {'semseg mIoU', 'normals mean (lower is better)', 'gain over single-task models (%)'}
    assert data(found['semseg mIoU']) == [[(1, 10.0)], [(1, 40.0), (2, 50.0)]]
    assert data(found['normals mean (lower is better)']) == [[(1, 20.0), (2, 25.0)]]
    # 25 % better and 25 % worse; the run of one task has the gain of that task, -75 %
    assert data(found['gain over single-task models (%)']) == [[(1, -75.0)], [(1, 0.0), (2, 0.0)]]
    assert found['semseg mIoU'].get_xlabel() == 'epoch'
    assert 'gain over single-task models (%)' not in panels(draw_validations(runs))


def test_validations_of_a_task_that_the_config_defines(make_own_run):
    folder = make_own_run('a', dict(name='deep', kind='scalar', metric='delta1'), dict(rmse=0.5, delta1=80.0))
    found = panels(draw_validations({'a': read_run(folder)}, dict(deep=64.0)))
    assert data(found['deep delta1']) == [[(2, 80.0)]]
    assert data(found['gain over single-task models (%)']) == [[(2, 25.0)]]


def test_validations_over_iterations_if_one_run_counts_these(runs, make_run, lines):
    more = 'train_cfg = dict(max_iters=9)\ndefault_hooks = dict(logger=dict(log_metric_by_epoch=False))\n'
    other = make_run('other', {START: [lines.train(5), lines.val(8, 1.0, 1.0)]}, more=more)
    axes = panels(draw_validations({**runs, 'other': read_run(other)}))['semseg mIoU']
    assert axes.get_xlabel() == 'iteration'
    assert data(axes) == [[(5, 10.0)], [(10, 40.0), (20, 50.0)], [(8, 1.0)]]


def test_more_runs_than_colours_differ_in_style(runs):
    many = {f'run {i}': runs['r/one'] for i in range(len(COLOURS) + 2)}
    drawn = panels(draw_validations(many))['semseg mIoU'].lines
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn}
    assert len(drawn) == len(looks) == len(COLOURS) + 2


def test_lines_over_encoders():
    """Each method's, in the order of the encoders; a method that one encoder lacks has a gap."""
    found = dict(random=[row('a', 1, -4.0), row('_b', 2, -8.0)], old=[row('a', 1, -1.0)])
    figure = draw_encoders({**found, 'new': [row('_b', 2, 2.0), row('a', 1, 3.0)]})
    drawn = panels(figure)
    assert list(drawn) == [
        'semseg mIoU',
        'normals mean (lower is better)',
        'gain over single-task models (%)',
    ]
    a, b = data(drawn['gain over single-task models (%)'])
    assert a == [(0, -4.0), (1, -1.0), (2, 3.0)]
    assert [b[0], b[2]] == [(0, -8.0), (2, 2.0)] and math.isnan(b[1][1])
    assert data(drawn['semseg mIoU'])[0] == [(0, 46.0), (1, 49.0), (2, 53.0)]
    assert data(drawn['normals mean (lower is better)'])[0] == [(0, 24.0), (1, 21.0), (2, 17.0)]
    assert [text.get_text() for text in drawn['semseg mIoU'].get_xticklabels()] == ['random', 'old', 'new']
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['a', './_b']


def test_without_a_reference_there_is_no_gain_over_encoders():
    plain = replace(row('a', 1, 0.0), values={'semseg.mIoU': 40.0})
    assert list(panels(draw_encoders(dict(x=[plain], y=[plain])))) == ['semseg mIoU']
    with pytest.raises(ValueError, match='no row has a metric'):
        draw_encoders({key: [replace(plain, values={})] for key in 'xy'})
    with pytest.raises(ValueError, match=r"at least two, got \['x'\]"):
        draw_encoders(dict(x=[plain]))


def test_nothing_to_draw(make_run, lines):
    silent = {'silent': read_run(make_run(starts={START: []}))}
    with pytest.raises(ValueError, match='no run logged a loss'):
        draw_losses(silent)
    with pytest.raises(ValueError, match='no run has a validation'):
        draw_validations(silent)


def test_runs_of_one_name_go_by_their_folders(make_run):
    one, other = (replace(read_run(make_run(f'{x}/run')), name='run') for x in 'ab')
    assert list(unique_names([one, other])) == [str(one.folder), str(other.folder)]
    assert list(unique_names([one])) == ['run']


@pytest.mark.parametrize('width', [1, 2, 3, 4, 9])
def test_running_mean_by_brute_force(width):
    values = np.random.default_rng(0).normal(size=7)
    values[3] = math.nan
    expected = []
    for i in range(7):
        window = [
            v
            for j, v in enumerate(values)
            if -((width - 1) // 2) <= j - i <= width // 2 and not math.isnan(v)
        ]
        expected.append(sum(window) / len(window) if window else math.nan)
    np.testing.assert_allclose(running_mean(values, width), expected, rtol=1e-12)


def test_running_mean_of_nothing():
    with pytest.raises(ValueError, match='width of at least 1, got 0'):
        running_mean([1.0], 0)


def test_colours_differ_for_all_kinds_of_colour_vision():
    """Brettel's and Vienot's linear models of dichromats (Vienot 1999), on linear RGB: colours stay apart."""
    srgb = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for matrix in (np.eye(3), protan, deutan):
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        distances = np.linalg.norm(seen[:, None] - seen, axis=-1)[np.triu_indices(len(COLOURS), 1)]
        assert distances.min() > 0.12
