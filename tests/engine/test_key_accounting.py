"""A state dict that does not fit is refused with every difference listed, whichever loader brings it."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.registry import MODELS
from torch import nn

from mmseg_polyhistor.engine.key_accounting import key_differences

TASKS = ('semseg', 'saliency')
ARCH = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])


def segmentor(tasks=TASKS, adapter=None, arch=ARCH, channels=8, **kwargs):
    widths = [arch['embed_dims'] * 2**i for i in range(4)]
    backbone = dict(type='AdaptedSwin', arch=arch, tasks=tasks, adapter=adapter or dict(type='LoRA', rank=2))
    heads = dict(type='AllMLPHead', in_channels=widths, channels=channels)
    return MODELS.build(
        dict(type='MultiTaskSegmentor', backbone=backbone, decode_heads=heads, tasks=tasks, **kwargs)
    )


@pytest.fixture(scope='module')
def trained():
    torch.manual_seed(0)
    return segmentor()


def test_differences_are_those_of_the_keys():
    """Against sets of keys by hand, on a plain module."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = model.state_dict()
    assert not key_differences(model, state) and str(key_differences(model, state)) == ''
    del state['1.num_batches_tracked']  # a counter that old checkpoints lack
    assert not key_differences(model, state)
    del state['1.weight'], state['0.bias']
    state['0.weight'] = torch.zeros(3, 4)
    state['2.weight'] = state['2.bias'] = state['0.extra'] = torch.zeros(1)
    found = key_differences(model, state)
    assert found.missing == ['0.bias', '1.weight']
    assert found.unexpected == ['2.weight', '2.bias', '0.extra']
    assert found.shapes == {'0.weight': ((3, 4), (3, 2))}
    # a module that the other side lacks wholly is one line, single keys are told one by one
    assert str(found).splitlines() == [
        'in the model, not in the checkpoint (2):',
        '  0.bias',
        '  1.weight',
        'in the checkpoint, not in the model (3):',
        '  2.* (2 keys)',
        '  0.extra',
        'of other shapes (1):',
        '  0.weight: (3, 4) in the checkpoint, (3, 2) in the model',
    ]
    assert not key_differences(
        model[0], {'m.weight': torch.zeros(3, 2), 'm.bias': torch.zeros(3), 'n': 0}, 'm.'
    )


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (dict(adapter=dict(type='BitFit')), r'not in the model \(\d+\):\n  backbone\.adapters\.'),
        (
            dict(adapter=dict(type='LoRA', rank=4)),
            r'backbone\.adapters\.[\w.]+: \((2, 8|8, 2|2, 2, 8|\d[\d, ]+)\) in the checkpoint, \([\d, ]+\) in the model',
        ),
        (
            dict(tasks=('semseg', 'saliency', 'normals')),
            r'in the model, not in the checkpoint \(\d+\):(\n  .*)*\n  decode_heads\.normals\.\* \(\d+ keys\)',
        ),
        (dict(tasks=('semseg',)), r'in the checkpoint, not in the model \(\d+\):(\n  .*)*\n  decode_heads\.saliency\.\*'),
        (dict(arch=dict(ARCH, embed_dims=16)), r'patch_embed\.projection\.weight: \(8, 3, 4, 4\) in the checkpoint, \(16,'),
        (dict(arch=dict(ARCH, depths=[1, 1, 2, 1])), r'backbone\.stages\.2\.blocks\.1\.\* \(\d+ keys\)'),
        (dict(channels=4), r'decode_heads\.semseg\.[\w.]+: \(\d.*\) in the checkpoint, \(\d.*\) in the model'),
    ],
    ids=['method', 'rank', 'task more', 'task less', 'width', 'depth', 'decoder'],
)  # fmt: skip
def test_other_models_checkpoints_are_refused(trained, other, message, tmp_path):
    """mmengine's loader only warns; here nothing is loaded, and nothing changes."""
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'x.pth')
    model = segmentor(**other)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match=message) as caught:
        load_checkpoint(model, str(tmp_path / 'x.pth'))
    assert 'partial_loading=True' in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    # every difference of the two lists of keys stands in the message
    text = str(caught.value)
    theirs, own = trained.state_dict(), model.state_dict()
    for key in theirs.keys() ^ own.keys():
        if key.endswith(('num_batches_tracked', 'relative_position_index')):
            continue
        starts = [re.escape(key[: i + 1]) + r'\*' for i, c in enumerate(key) if c == '.']
        assert re.search(rf'^  ({"|".join([re.escape(key) + "$", *starts])})', text, re.M), key
    for key in theirs.keys() & own.keys():
        assert (theirs[key].shape != own[key].shape) == (f'  {key}: ' in text), key


def test_partial_loading_takes_what_fits_and_tells_the_rest(trained, caplog, monkeypatch):
    """By the config: backbone and the shared task's decoder arrive, the rest stays, and is told."""
    told = []
    module = 'mmseg_polyhistor.engine.key_accounting.print_log'
    monkeypatch.setattr(module, lambda text, **kwargs: told.append((text, kwargs['level'])))
    model = segmentor(tasks=('semseg', 'normals'), partial_loading=True)
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    _load_checkpoint_to_model(model, dict(state_dict=trained.state_dict()))
    theirs, own = trained.state_dict(), model.state_dict()
    shared = {k for k in own.keys() & theirs.keys() if own[k].shape == theirs[k].shape}
    assert any(k.startswith('decode_heads.semseg') for k in shared)
    for key, value in own.items():
        assert torch.equal(value, theirs[key] if key in shared else kept[key]), key
    assert any('decode_heads.normals.*' in text and level >= 30 for text, level in told)

    explicit = segmentor(tasks=('semseg', 'normals'))
    keys = explicit.load_state_dict(
        {k: v for k, v in trained.state_dict().items() if 'adapters' not in k}, strict=False
    )
    assert any('normals' in k for k in keys.missing_keys)
    assert any('saliency' in k for k in keys.unexpected_keys)
    with pytest.raises(RuntimeError, match='do not fit'):  # and that once only
        _load_checkpoint_to_model(explicit, dict(state_dict=trained.state_dict()))


def test_backbone_in_a_stock_segmentor_accounts_for_its_keys(trained):
    """mmseg's EncoderDecoder knows no accounting; its backbone does for its own part."""
    cfg = dict(
        type='EncoderDecoder',
        backbone=dict(type='AdaptedSwin', arch=ARCH, adapter=dict(type='LoRA', rank=2)),
        decode_head=dict(
            type='FCNHead', in_channels=64, in_index=3, channels=4, num_classes=3, num_convs=1, norm_cfg=None
        ),
    )
    model = MODELS.build(cfg)
    state = model.state_dict()
    _load_checkpoint_to_model(model, dict(state_dict=state))
    lacking = {k: v for k, v in state.items() if 'stages.0' not in k}
    with pytest.raises(RuntimeError, match=r'do not fit this AdaptedSwin.*\n.*\n  stages\.0\.\*'):
        _load_checkpoint_to_model(model, dict(state_dict=lacking))
