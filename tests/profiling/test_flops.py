"""Multiply-adds against counts by hand and by formula."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmseg_polyhistor.benchmark import build_without_weights
from mmseg_polyhistor.profiling.flops import count_config_multiply_adds, count_multiply_adds

DIMS, DEPTHS, WINDOW = (96, 192, 384, 768), (2, 2, 6, 2), 7


def swin_block(tokens: int, width: int) -> int:
    """Swin (Liu et al., ICCV 2021), equation 2, and the feed-forward net: 4 hw C^2 + 2 M^2 hw C + 8 hw C^2."""
    return 12 * tokens * width**2 + 2 * WINDOW**2 * tokens * width


def swin_tiny(side: int) -> int:
    """Swin-T on a square image whose maps are whole windows: patch embedding, blocks, patch merging."""
    total = (side // 4) ** 2 * 48 * DIMS[0]
    for i, (width, depth) in enumerate(zip(DIMS, DEPTHS, strict=True)):
        tokens = (side // 4 >> i) ** 2
        total += depth * swin_block(tokens, width)
        if i < 3:
            total += tokens // 4 * 4 * width * 2 * width
    return total


@MODELS.register_module()
class OneConv(nn.Module):
    """3 x 3, stride 2, 3 -> 8 channels, padded."""

    def __init__(self, tasks=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, images):
        return (self.conv(images),)


@MODELS.register_module()
class ReadsValues(OneConv):
    """Its code asks for a value, which there is none of on the meta device."""

    def forward(self, images):
        if images.sum().item() > 1:
            raise AssertionError
        return super().forward(images)


@pytest.mark.parametrize('backbone', ['OneConv', 'ReadsValues'])
def test_a_model_counted_by_hand(backbone):
    """An image of 10 x 12: 5 x 6 outputs with 27 x 8 products each; the head has 8 -> 4 -> 2 channels."""
    head = dict(
        type='FCNHead',
        in_channels=8,
        channels=4,
        num_classes=2,
        num_convs=1,
        kernel_size=1,
        concat_input=False,
    )
    counts = count_config_multiply_adds(
        dict(type='EncoderDecoder', backbone=dict(type=backbone), decode_head=head), (10, 12)
    )
    assert counts.encoder == counts.encoder_shared == 30 * 27 * 8
    assert counts.decoders == {'decode_head': 30 * (8 * 4 + 4 * 2)}
    assert counts.total == counts.of_task('decode_head') == 30 * (27 * 8 + 40)
    assert counts.generation == 0


@pytest.fixture(scope='module')
def bare_swin_tiny(repo):
    """The counts of the frozen Swin-T and its decoders at 224 pixels."""
    init_default_scope('mmseg')  # made before the fixture of every test that sets it
    cfg = Config.fromfile(repo / 'configs/decoder_only/swin-t_pascal.py')
    return count_config_multiply_adds(cfg.model, (224, 224))


def test_swin_tiny_against_its_papers_formula_and_figure(bare_swin_tiny):
    """The paper's 4.5 G of the classifier at 224 pixels are the encoder; its last layer has 768 x 1000."""
    counts = bare_swin_tiny
    assert counts.encoder == counts.encoder_shared == swin_tiny(224)
    assert abs((counts.encoder + 768 * 1000) / 1e9 - 4.5) < 0.05
    assert set(counts.encoder_tasks.values()) == {0}


def test_a_decoder_against_its_formula(bare_swin_tiny):
    """Maps of 56, 28, 14 and 7; per map E x E x (C + 1) for the product with its matrix and bias, E x C a pixel; E x channels."""
    counts = bare_swin_tiny
    e = 256
    fused = sum(e * e * (c + 1) + (56 >> i) ** 2 * e * c for i, c in enumerate(DIMS))
    for task, channels in dict(semseg=21, human_parts=7, saliency=1, normals=3).items():
        assert counts.decoders[task] == fused + 56 * 56 * e * channels


def test_polyhistor_against_its_formula(repo):
    """Paper, section 4.1: per block and task, codes of 64 from 512 over 128, heads, factors; adapters at every token."""
    cfg = Config.fromfile(repo / 'configs/polyhistor/swin-t_pascal.py')
    counts = count_config_multiply_adds(cfg.model, (224, 224))
    generation = adapters = 0
    for i, (d, depth) in enumerate(zip(DIMS, DEPTHS, strict=True)):
        n = d // 16
        r = max(n // 4, 1)
        heads = 64 * (2 * r * (d + n) + d + n + 2 * d)
        generation += depth * (512 * 128 + 128 * 64 + heads + 2 * d * n * r)
        adapters += depth * (56 >> i) ** 2 * 2 * d * n
    # The first adapter stands behind the first block, which therefore runs once.
    shared = 56 * 56 * 48 * 96 + swin_block(56 * 56, 96)
    assert counts.encoder_shared == shared
    assert set(counts.encoder_tasks.values()) == {swin_tiny(224) - shared + adapters}
    assert counts.generation_shared == 0
    assert set(counts.generation_tasks.values()) == {generation}
    assert counts.of_task('normals') == swin_tiny(224) + adapters + generation + counts.decoders['normals']


PER_TASK = {
    'Polyhistor-Lite': dict(type='PolyhistorLite', positions=('attn', 'ffn')),
    'LoRA': dict(type='LoRA', rank=2),
    'MTLoRA, a shared stream beside': dict(type='MTLoRA', rank=4, task_rank=2),
    'one adapter for all': dict(type='BottleneckAdapter', per_task=False),
    'prompts from the first block on': dict(type='VisualPrompt', prompts=3),
}


@pytest.mark.parametrize('adapter', PER_TASK.values(), ids=PER_TASK.keys())
def test_the_parts_add_up_to_the_whole_model(model_cfg, adapter):
    cfg = model_cfg(**adapter)
    counts = count_config_multiply_adds(cfg, (64, 96))
    with FlopCounterMode(display=False) as counter:
        build_without_weights(cfg).eval()(torch.zeros(1, 3, 64, 96, device='meta'))
    vectors = len(counts.decoders) * 3 * 8 * 8  # torch's counter leaves out products with a vector
    assert counts.total == counter.get_total_flops() // 2 + vectors
    assert (set(counts.encoder_tasks.values()) == {0}) == (adapter.get('per_task') is False)


def test_tasks_with_encoders_of_their_own_share_nothing(model_cfg):
    bare = model_cfg()['backbone']
    encoder = {key: value for key, value in bare.items() if key not in ('tasks', 'adapter')}
    cfg = model_cfg()
    cfg['backbone'] = dict(type='TaskEncoders', tasks=cfg['tasks'], encoder=encoder)
    counts = count_config_multiply_adds(cfg, (64, 64))
    one_pass = count_config_multiply_adds({**cfg, 'backbone': encoder}, (64, 64))
    assert counts.encoder_shared == 0
    assert set(counts.encoder_tasks.values()) == {one_pass.encoder}
    assert one_pass.encoder == one_pass.encoder_shared


def test_fused_attention_of_the_cpu_is_counted(model_cfg):
    cfg = model_cfg()
    real = count_multiply_adds(MODELS.build(cfg), (64, 64))
    assert real == count_config_multiply_adds(cfg, (64, 64))


def test_what_is_no_segmentor_is_refused():
    with pytest.raises(TypeError, match='Linear has no backbone'):
        count_multiply_adds(nn.Linear(2, 2), (8, 8))
