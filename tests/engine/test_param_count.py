"""Counting by ownership, on toys by hand; `tests/test_configs.py` holds the configs against the paper's table."""

from __future__ import annotations

import logging

import pytest
from torch import nn
from toy_training import ToyModel

from mmseg_polyhistor.engine import ParameterCounts, count_parameters
from mmseg_polyhistor.engine.hooks.parameter_report_hook import parameter_table

TOY = ParameterCounts(
    encoder=(8 * 4 + 4) + (4 * 8 + 8),
    encoder_frozen=6 * 8 + 8,
    decoder=2 * 8 + (8 + 1),  # output norm and head
    decoder_frozen=0,
    adapters={'up': 36, 'down': 40},
)


def test_toy_by_hand():
    """Encoder, decoder with the output norms, and adapters."""
    counts = count_parameters(ToyModel())
    assert counts == TOY
    assert (counts.total, counts.frozen) == (76 + 25, 56)


def test_wrappers_are_looked_through():
    """DDP and test-time augmentation hold the model as `.module`."""
    wrapped = nn.Module()
    wrapped.module = nn.Module()
    wrapped.module.module = ToyModel()
    assert count_parameters(wrapped) == TOY


def test_shared_and_frozen_parameters():
    """A parameter that two modules share counts once; a frozen head counts as frozen decoder."""
    model = ToyModel()
    model.second_head = model.head
    model.backbone.adapters['again'] = model.backbone.adapters['up']
    model.third_head = nn.Linear(8, 2).requires_grad_(False)
    counts = count_parameters(model)
    assert (counts.encoder, counts.decoder, counts.decoder_frozen) == (76, 25, 18)


def test_stock_backbone_has_no_output_norms():
    """Everything in a backbone without the method is encoder."""
    model = nn.Module()
    model.backbone, model.head = nn.Linear(2, 3), nn.Linear(3, 1)
    assert count_parameters(model) == ParameterCounts(
        encoder=9, encoder_frozen=0, decoder=4, decoder_frozen=0, adapters={}
    )


def test_model_without_backbone():
    """There is nothing to tell the encoder by."""
    with pytest.raises(TypeError, match='Linear has no backbone'):
        count_parameters(nn.Linear(1, 1))


def test_report_stands_in_the_log(train_toy, toy_runner, caplog):
    """The hook logs the table when a training and when a test starts."""
    runner = toy_runner(**{'train_cfg.max_epochs': 1}, log_level='INFO')
    seen = []
    runner.logger.addHandler(handler := logging.Handler())
    handler.emit = lambda record: seen.append(record.getMessage())
    runner.train()
    runner.test()
    assert seen.count('Parameters:\n' + parameter_table(TOY)) == 2


def test_table_text():
    """Columns line up, shares are of the frozen weights of the same row."""
    assert parameter_table(TOY).splitlines() == [
        '                                trained        frozen   trained/frozen',
        'encoder                              76            56         135.71 %',
        '  adapters.up                        36             0                -',
        '  adapters.down                      40             0                -',
        'output norms and decoders            25             0                -',
        'total                               101            56         180.36 %',
    ]
