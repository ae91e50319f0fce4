"""How the table of tasks completes the configs of the heads, and what is refused."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from mmseg.registry import MODELS

import mmseg_polyhistor.models  # noqa: F401  (registers)
from mmseg_polyhistor.models.segmentors.heads import build_head, head_configs
from mmseg_polyhistor.tasks import get_task, get_tasks

TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
WIDTHS = (4, 6, 8, 10)
INDICES = (0, 1, 2, 3)
TEMPLATE = dict(type='AllMLPHead', in_channels=WIDTHS, channels=8)
BN = dict(type='BN')

HEADS = [
    TEMPLATE,
    dict(type='SegformerHead', in_channels=WIDTHS, in_index=INDICES, channels=8, norm_cfg=BN),
    dict(type='FCNHead', in_channels=8, in_index=2, channels=8, num_convs=1, norm_cfg=BN),
    dict(type='UPerHead', in_channels=WIDTHS, in_index=INDICES, channels=8, pool_scales=(1, 2), norm_cfg=BN),
    dict(type='ASPPHead', in_channels=10, in_index=3, channels=8, dilations=(1, 2), norm_cfg=BN),
]


def names(cfg):
    return cfg['type']


def maps():
    torch.manual_seed(0)
    return [torch.randn(2, c, 16 >> i, 16 >> i) for i, c in enumerate(WIDTHS)]


def test_a_template_serves_every_task():
    template = copy.deepcopy(TEMPLATE)
    cfgs = head_configs(template, get_tasks(TASKS))
    assert template == TEMPLATE
    assert tuple(cfgs) == TASKS
    for task, cfg in cfgs.items():
        spec = get_task(task)
        assert cfg['out_channels'] == spec.channels
        assert cfg['ignore_index'] == spec.ignore_value
        assert cfg['loss_decode'] == spec.loss
        assert cfg['loss_decode'] is not spec.loss
        assert {k: cfg[k] for k in TEMPLATE} == TEMPLATE


def test_heads_come_in_the_order_of_the_tasks_and_keep_what_they_say():
    heads = {task: dict(TEMPLATE, channels=i + 3) for i, task in enumerate(reversed(TASKS))}
    heads['saliency'] |= dict(num_classes=2, threshold=0.4)  # mmseg's other way to say: binary
    dice = dict(type='DiceLoss', loss_weight=0.5)
    heads['semseg'] |= dict(loss_decode=dice, num_classes=21)
    cfgs = head_configs(heads, get_tasks(TASKS))
    assert tuple(cfgs) == TASKS
    assert [cfgs[t]['channels'] for t in TASKS] == [6, 5, 4, 3]
    assert cfgs['semseg']['loss_decode'] == dice
    assert (cfgs['saliency']['num_classes'], cfgs['saliency']['threshold']) == (2, 0.4)
    assert build_head(cfgs['saliency'], get_task('saliency')).conv_seg.out_channels == 1


@pytest.mark.parametrize('cfg', HEADS, ids=names)
@pytest.mark.parametrize('task', TASKS)
def test_heads_of_mmseg_serve_every_kind_and_use_all_their_parameters(task, cfg):
    """An unused parameter, such as a forgotten `conv_seg`, would break distributed training."""
    spec = get_task(task)
    (complete,) = head_configs(cfg, [spec]).values()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        head = build_head(complete, spec)
    assert [w.message for w in caught if 'threshold' in str(w.message)] == []
    logits = head(maps())
    assert logits.shape[:2] == (2, spec.channels)
    logits.square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ('heads', 'message'),
    [
        ({'semseg': TEMPLATE}, r"no head for the tasks \['saliency'\]; it names \['semseg'\]"),
        ({}, r"no head for the tasks \['semseg', 'saliency'\]"),
        (
            {'semseg': TEMPLATE, 'saliency': TEMPLATE, 'depth': TEMPLATE},
            r"heads for \['depth'\], which tasks=\['semseg', 'saliency'\] does not name",
        ),
        (
            {'semseg': dict(TEMPLATE, num_classes=19), 'saliency': TEMPLATE},
            r'decode_heads.semseg: num_classes=19 contradicts .*allowed: 21',
        ),
        (
            {'semseg': TEMPLATE, 'saliency': dict(TEMPLATE, num_classes=3)},
            r'decode_heads.saliency: num_classes=3 contradicts .*allowed: 1 or 2',
        ),
        (
            {'semseg': TEMPLATE, 'saliency': dict(TEMPLATE, num_classes=2, out_channels=2)},
            r'decode_heads.saliency: out_channels=2 contradicts .*allowed: 1,',
        ),
        (dict(TEMPLATE, ignore_index=0), r'decode_heads.semseg: ignore_index=0 contradicts .*allowed: 255'),
    ],
)
def test_contradictions_are_named(heads, message):
    with pytest.raises(ValueError, match=message):
        head_configs(heads, get_tasks(('semseg', 'saliency')))


def test_heads_that_cannot_serve_are_refused():
    cascade = dict(
        type='PointHead', in_channels=[10], in_index=[3], channels=8, num_classes=21, out_channels=21
    )
    with pytest.raises(ValueError, match=r'decode_heads.semseg \(PointHead\).*not of BaseCascadeDecodeHead'):
        build_head(cascade, get_task('semseg'))
    with pytest.raises(ValueError, match=r'decode_heads.semseg \(ReLU\).*subclass of'):
        build_head(dict(type='ReLU'), get_task('semseg'))
    spec = get_task('normals')
    (own_loss,) = head_configs(
        dict(type='DAHead', in_channels=10, in_index=3, channels=8, pam_channels=4), [spec]
    ).values()
    with pytest.raises(ValueError, match=r'normals \(DAHead\).*a loss of its own, made for classes'):
        build_head(own_loss, spec)
    (sampler,) = head_configs(dict(HEADS[2], sampler=dict(type='OHEMPixelSampler')), [spec]).values()
    with pytest.raises(ValueError, match=r'normals \(FCNHead\).*sampler'):
        build_head(sampler, spec)


def test_wrong_channels_are_refused():
    cfg = dict(TEMPLATE, num_classes=21)
    with pytest.raises(ValueError, match=r'human_parts \(AllMLPHead\): out_channels is 21, .*: 7'):
        build_head(cfg, get_task('human_parts'))


def test_building_leaves_the_config_alone():
    (cfg,) = head_configs(TEMPLATE, get_tasks(('normals',))).values()
    before = copy.deepcopy(cfg)
    MODELS.build(cfg)
    assert cfg == before
