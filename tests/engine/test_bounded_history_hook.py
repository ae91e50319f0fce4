"""What the log prints stays the same, and what is kept for it no longer grows with the training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.runner import LogProcessor

from mmseg_polyhistor.engine.hooks.bounded_history_hook import longest_window

pytestmark = pytest.mark.stack

HOOKS = [dict(type='ToyLossLog'), dict(type='BoundedHistoryHook')]
WINDOWS = [
    dict(data_src='loss', log_name='epochs_loss', window_size='epoch', method_name='mean'),
    dict(data_src='loss', log_name='least_loss', window_size=6, method_name='min'),
]


def logged(runner):
    """Every line of the log as data, without the times."""
    (path,) = Path(runner.work_dir).glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if 'time' not in key} for line in lines]


def changes(**more):
    return {
        'log_processor': dict(window_size=3, custom_cfg=WINDOWS),
        'vis_backends': [dict(type='LocalVisBackend')],
        'visualizer': dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        'train_cfg.max_epochs': 6,
        **more,
    }


def test_the_log_is_the_same_and_the_history_is_short(train_toy):
    """Six epochs of four iterations, windows of 3, 6 and an epoch: 6 values are kept, where mmengine keeps all 24."""
    _, bounded = train_toy('bounded', **changes(custom_hooks=HOOKS))
    _, stock = train_toy('stock', **changes(custom_hooks=HOOKS[:1]))
    assert logged(bounded) == logged(stock) and len(logged(stock)) == 24 + 6
    assert {'epochs_loss', 'least_loss'} <= logged(stock)[0].keys()

    def lengths(runner):
        scalars = runner.message_hub.log_scalars
        return {key: len(buffer.data[0]) for key, buffer in scalars.items() if key.startswith('train/')}

    assert set(lengths(stock).values()) == {24}
    assert lengths(bounded) == dict.fromkeys(lengths(stock), 6)
    sizes = {
        name: {p.name: p.stat().st_size for p in Path(runner.work_dir).glob('*.pth')}
        for name, runner in dict(bounded=bounded, stock=stock).items()
    }
    assert sizes['stock']['epoch_6.pth'] - sizes['stock']['epoch_3.pth'] > 3 * 4 * 16
    assert abs(sizes['bounded']['epoch_6.pth'] - sizes['bounded']['epoch_3.pth']) < 3 * 4 * 16


def test_a_resumed_run_is_bounded_too(train_toy):
    """Also one that a checkpoint with a long history begins."""
    _, stock = train_toy('stock', **changes(custom_hooks=HOOKS[:1]))
    checkpoint = str(Path(stock.work_dir) / 'epoch_5.pth')
    resumed = dict(load_from=checkpoint, resume=True)
    _, runner = train_toy('resumed', **changes(custom_hooks=HOOKS, **resumed))
    last_epoch = [line for line in logged(stock) if line.get('epoch') == 6]
    assert [line for line in logged(runner) if 'epoch' in line] == last_epoch and len(last_epoch) == 4
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 6


@pytest.mark.parametrize(
    ('window', 'custom', 'epochs', 'longest'),
    [
        (10, [], [4, 2], 10),
        (10, [], [400, 500], 500),
        (10, [dict(data_src='loss', window_size=20)], [4], 20),
        (10, [dict(data_src='loss', window_size='epoch')], [4], 10),
        (10, [dict(data_src='loss', window_size='global')], [4], None),
        (10, [dict(data_src='loss', method_name='max')], [4], None),  # without a window: over everything
    ],
)
def test_the_longest_window(window, custom, epochs, longest):
    processor = LogProcessor(window_size=window, custom_cfg=[dict(log_name='a', **cfg) for cfg in custom])
    assert longest_window(processor, epochs) == longest


def test_a_window_over_the_whole_history_is_left_alone(train_toy):
    whole = [dict(data_src='loss', log_name='mean', window_size='global', method_name='mean')]
    options = changes(custom_hooks=HOOKS, log_processor=dict(window_size=3, custom_cfg=whole))
    losses, runner = train_toy('whole', **options)
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 24
    last = next(line for line in reversed(logged(runner)) if 'mean' in line)
    assert last['mean'] == pytest.approx(sum(losses.values()) / 24)
