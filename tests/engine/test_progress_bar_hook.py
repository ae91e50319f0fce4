"""The bar counts iterations, shows the loss, and stays short where nobody watches."""

from __future__ import annotations

import io
from types import SimpleNamespace

import torch

from mmseg_polyhistor.engine.hooks.progress_bar_hook import ProgressBarHook


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def train(stream, total=100, start=0):
    hook = ProgressBarHook(width=10, stream=stream)
    runner = SimpleNamespace(iter=start, max_iters=total)
    hook.before_train(runner)
    for runner.iter in range(start, total):
        hook.after_train_iter(runner, 0, outputs={'loss': torch.tensor(2.5)})
    return stream.getvalue()


def test_a_log_file_gets_ten_lines():
    lines = train(io.StringIO()).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith('train [=         ] 10/100  loss 2.500')
    assert lines[-1] == 'train [==========] 100/100  loss 2.500  0:00:00 left'


def test_a_resumed_run_starts_where_it_stopped():
    counts = [line.split('] ')[1].split('/')[0] for line in train(io.StringIO(), start=50).splitlines()]
    assert counts == ['60', '70', '80', '90', '100']


def test_a_terminal_gets_one_line_that_is_drawn_over():
    text = train(Terminal())
    assert text.count('\n') == 1 and text.endswith('\n')
    assert '\rtrain [==========] 100/100' in text


def test_every_evaluation_has_a_bar_of_its_own():
    stream = io.StringIO()
    hook = ProgressBarHook(width=10, stream=stream)
    runner = SimpleNamespace(val_dataloader=range(3), test_dataloader=range(2))
    for _ in range(2):
        hook.before_val_epoch(runner)
        for i in range(3):
            hook.after_val_iter(runner, i)
    hook.before_test_epoch(runner)
    for i in range(2):
        hook.after_test_iter(runner, i)
    assert stream.getvalue().count('val [==========] 3/3') == 2
    assert stream.getvalue().count('test [==========] 2/2') == 1
