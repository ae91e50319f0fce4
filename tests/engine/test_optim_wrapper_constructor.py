"""The optimiser gets the trainable parameters, with the options that the default constructor gives them."""

from __future__ import annotations

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

OURS = 'TrainableOptimWrapperConstructor'
PARAMWISE = dict(
    norm_decay_mult=0.0,
    bias_decay_mult=0.5,
    bias_lr_mult=2.0,
    dwconv_decay_mult=0.25,
    custom_keys={'head': dict(lr_mult=10.0), 'adapter.0': dict(decay_mult=0.1)},
)


@pytest.fixture
def model():
    """Frozen and trainable parameters within one module (as BitFit has them), norms, depth-wise convolutions."""
    model = nn.Module()
    model.stem = nn.Linear(3, 4)
    model.stem.weight.requires_grad_(False)
    model.norm = nn.LayerNorm(4)
    model.norm.weight.requires_grad_(False)
    model.frozen = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    model.adapter = nn.Sequential(nn.Linear(4, 2), nn.Conv2d(4, 4, 1, groups=4))
    model.head = nn.Linear(4, 1)
    return model


def build(model, constructor, paramwise_cfg=None):
    cfg = dict(
        type='OptimWrapper',
        constructor=constructor,
        optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1),
        **({'paramwise_cfg': paramwise_cfg} if paramwise_cfg else {}),
    )
    return build_optim_wrapper(model, cfg).optimizer


def options(optimizer, model):
    """{parameter name: options of its group}, in the optimiser's order."""
    names = {p: name for name, p in model.named_parameters()}
    return {
        names[p]: {k: v for k, v in group.items() if k != 'params'}
        for group in optimizer.param_groups
        for p in group['params']
    }


def test_plain(model):
    """Without `paramwise_cfg` there is one group, of the trainable parameters in the model's order."""
    optimizer = build(model, OURS)
    assert len(optimizer.param_groups) == 1
    assert list(options(optimizer, model)) == [n for n, p in model.named_parameters() if p.requires_grad]


def test_paramwise_options_are_the_default_ones(model):
    """Group by group, the options equal those of mmengine's constructor."""
    ours, stock = (build(model, c, PARAMWISE) for c in (OURS, 'DefaultOptimWrapperConstructor'))
    expected = options(stock, model)
    assert options(ours, model) == expected
    assert expected['norm.bias']['weight_decay'] == 0.0  # the rules do apply
    assert expected['head.weight']['lr'] == 0.1


def test_no_line_per_frozen_parameter(model, monkeypatch):
    """The default constructor warns for each frozen parameter; ours has nothing to warn of."""
    messages = []
    monkeypatch.setattr(
        'mmengine.optim.optimizer.default_constructor.print_log', lambda text, **kwargs: messages.append(text)
    )
    build(model, OURS, PARAMWISE)
    assert messages and not [m for m in messages if 'requires_grad' in m]
    build(model, 'DefaultOptimWrapperConstructor', PARAMWISE)
    assert len([m for m in messages if 'requires_grad' in m]) == 6


@pytest.mark.parametrize('fails', [False, True])
def test_model_is_left_as_it_was(model, fails):
    """Parameters stay where and in which order they were, also if building fails."""
    before = [(n, id(p)) for n, p in model.named_parameters()]
    if fails:
        with pytest.raises(TypeError, match='nonsense'):
            build_optim_wrapper(
                model,
                dict(constructor=OURS, optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.1, nonsense=1)),
            )
    else:
        build(model, OURS, PARAMWISE)
    assert [(n, id(p)) for n, p in model.named_parameters()] == before


def test_nothing_to_train(model):
    """A wholly frozen model is an error."""
    with pytest.raises(ValueError, match='no trainable parameter'):
        build(model.requires_grad_(False), OURS)
