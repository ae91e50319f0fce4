"""Merged networks against the adapted ones, through mmpretrain's own Swin."""

from __future__ import annotations

import pytest
import torch
from mmpretrain.models import SwinTransformer
from mmseg.registry import MODELS
from torch import nn

from mmseg_polyhistor.adapters import AdapterMethod, CannotMergeError, Site
from mmseg_polyhistor.models.backbones import AdaptedSwin, TaskEncoders, merged_encoder, merged_segmentor

ARCH = dict(embed_dims=24, depths=[1, 2, 1], num_heads=[2, 3, 4])
TASKS = ('semseg', 'normals', 'saliency')
LINEAR = dict(activation='identity', post_norm=False)

THREE_LAYERS = dict(
    stage_cfgs=dict(block_cfgs=dict(ffn_cfgs=dict(num_fcs=3))), norm_cfg=dict(type='LN', eps=0.01)
)

MERGEABLE = {
    'none': None,
    'bitfit': dict(type='BitFit'),
    'bitfit-shared': dict(type='BitFit', per_task=False),
    'relative-bias': dict(type='RelativeBias'),
    'all-parameters': dict(type='BitFit', tuned=('weight', 'bias', 'norm', 'relative_position_bias')),
    'lora': dict(type='LoRA', pre_norm=False, scale=0.5, rank=3),
    'lora-everywhere': dict(type='LoRA', pre_norm=False, targets=('qkv', 'proj', 'fc1', 'fc2', 'reduction')),
    'lora-shared-and-norms': dict(type='LoRA', pre_norm=False, per_task=False, tuned=('norm',)),
    'linear-adapter': dict(
        type='BottleneckAdapter', ratio=4, positions=('attn', 'ffn'), scale=0.7, tuned=('weight',), **LINEAR
    ),
    'linear-low-rank-adapter': dict(type='LowRankAdapter', ratio=4, rank=-2, per_task=False, **LINEAR),
    'linear-behind-three-layers': dict(type='BottleneckAdapter', ratio=4, **LINEAR),
    'linear-polyhistor': dict(type='Polyhistor', ratio=4, rank=-2, **LINEAR),
}
REFUSED = {
    'adapter': (dict(type='BottleneckAdapter', ratio=4), r"not linear \(the activation 'silu' and a LayerNorm"),
    'adapter-norm': (dict(type='BottleneckAdapter', ratio=4, activation='identity'), r'not linear \(a LayerNorm'),
    'polyhistor': (dict(type='PolyhistorLite'), 'PolyhistorLite is not linear'),
    'parallel': (dict(type='BottleneckAdapter', ratio=4, insertion='parallel', **LINEAR), 'changes the shortcut'),
    'lora-norm': (dict(type='LoRA'), 'Train with pre_norm=False'),
    'vpt': (dict(type='VisualPrompt', prompts=2), 'further tokens'),
    'mtlora': (dict(type='MTLoRA', rank=2, task_rank=1), 'part in the last block of each stage'),
}  # fmt: skip


def randomise(model: nn.Module) -> None:
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        nn.init.normal_(p, mean=float('norm' in name and p.dim() == 1), std=0.2)


def build(adapter, tasks=TASKS, **kwargs) -> AdaptedSwin:
    model = AdaptedSwin(ARCH, tasks=tasks, adapter=adapter, **kwargs).double().eval()
    randomise(model)
    return model


@pytest.mark.parametrize('name', MERGEABLE)
def test_stock_swin_with_merged_weights_computes_the_tasks_features(name):
    options = THREE_LAYERS if name == 'linear-behind-three-layers' else {}
    model = build(MERGEABLE[name], **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(2, 3, 40, 50, dtype=torch.float64)
    out = model(x)
    for task in TASKS:
        stock = SwinTransformer(ARCH, out_indices=(0, 1, 2), pad_small_map=True, **options).double()
        stock.eval()  # which returns None there
        stock.load_state_dict(merged_encoder(model, task))
        for a, b in zip(stock(x), out[task], strict=True):
            torch.testing.assert_close(a, b)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_not_linear_is_refused_with_the_reason(name):
    adapter, message = REFUSED[name]
    with pytest.raises(CannotMergeError, match=message):
        merged_encoder(build(adapter), 'semseg')


def test_a_layer_scale_between_net_and_adapter_is_refused():
    scaled = dict(stage_cfgs=dict(block_cfgs=dict(ffn_cfgs=dict(layer_scale_init_value=0.5))))
    with pytest.raises(CannotMergeError, match='layer scale'):
        merged_encoder(build(MERGEABLE['linear-low-rank-adapter'], **scaled), 'semseg')


class ParallelScale(AdapterMethod):
    """x * w on the shortcut, which says of itself that it is linear; and it is, in a place without a weight."""

    insertion = 'parallel'

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.w = nn.Parameter(torch.rand(24))

    def generate(self, tasks):
        return {Site(0, 0, 'ffn'): self.w.expand(len(tasks), -1)}

    def adapt(self, x, weights):
        return x * weights[:, None, None]

    def adapter_as_linear(self, weights):
        return weights[0].diag(), torch.zeros(24)


def test_a_method_on_the_shortcut_is_refused_whatever_it_says_of_itself():
    model = build(None)
    model.adapters = ParallelScale(layout=model.layout, tasks=TASKS)
    with pytest.raises(CannotMergeError, match='changes the shortcut'):
        merged_encoder(model, 'semseg')


def test_the_task_must_be_named_where_there_are_several():
    with pytest.raises(ValueError, match='name one of the tasks'):
        merged_encoder(build(None))
    with pytest.raises(ValueError, match='unknown task'):
        merged_encoder(build(None), 'depth')
    assert 'norm0.weight' in merged_encoder(build(None, tasks=None))
    assert 'norm0.weight' in merged_encoder(build(MERGEABLE['lora'], tasks=('semseg',)))


def segmentor(adapter, tasks):
    return dict(
        type='MultiTaskSegmentor',
        tasks=tasks,
        data_preprocessor=dict(type='MultiTaskDataPreProcessor'),
        backbone=dict(
            type='AdaptedSwin', arch=ARCH, tasks=tasks, adapter=adapter,
            init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'),
        ),
        decode_heads=dict(type='AllMLPHead', in_channels=[24, 48, 96], channels=16, in_index=[0, 1, 2]),
        test_cfg=dict(mode='whole'),
    )  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'tasks', 'encoder'),
    [
        ('lora', TASKS, TaskEncoders),
        ('lora-shared-and-norms', TASKS, AdaptedSwin),
        ('bitfit', ('saliency',), AdaptedSwin),
    ],
)
def test_merged_segmentor_gives_the_same_logits_without_the_method(name, tasks, encoder):
    cfg = segmentor(MERGEABLE[name], tasks)
    model = MODELS.build({**cfg, 'backbone': {**cfg['backbone'], 'init_cfg': None}}).double().eval()
    randomise(model)
    merged_cfg, weights = merged_segmentor(cfg, model)
    merged = MODELS.build(merged_cfg).double().eval()
    merged.load_state_dict(weights)
    assert type(merged.backbone) is encoder
    assert not any('adapters' in key for key in weights)
    assert 'nowhere.pth' not in str(merged_cfg) and 'nowhere.pth' in str(cfg)
    x = torch.randn(1, 3, 64, 48, dtype=torch.float64)
    for task, logits in model(x).items():
        torch.testing.assert_close(merged(x)[task], logits)


def test_nothing_to_merge():
    cfg = segmentor(None, TASKS)
    with pytest.raises(ValueError, match='nothing to merge: the backbone is AdaptedSwin'):
        merged_segmentor(cfg, MODELS.build(cfg))
