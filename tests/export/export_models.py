"""A tiny model of every method under export, and what it computes, written out by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

TASKS = ('semseg', 'saliency', 'normals')
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
METHODS = dict(
    polyhistor_lite=dict(type='PolyhistorLite', ratio=2),
    polyhistor=dict(type='Polyhistor', ratio=2, rank=-2),
    lora=dict(type='LoRA', rank=2, pre_norm=False),
    bitfit=dict(type='BitFit'),
    vpt_deep=dict(type='VisualPrompt', prompts=3, deep=True),
    decoder_only=None,
    shared_adapter=dict(type='BottleneckAdapter', ratio=2, per_task=False, tuned=('norm',)),
    mtlora=dict(type='MTLoRA', rank=2, task_rank=1),
)

# Maps of 1/4 and 1/8: images that are padded to multiples of 8 have single pixels there.
SMALLEST = dict(
    smallest_mit=('AdaptedMiT', dict(embed_dims=8, num_layers=[1, 1])),
    smallest_pvt=('AdaptedPVTv2', dict(embed_dims=[8, 16], depths=[1, 1], mlp_ratios=[2, 2])),
    smallest_pvt_pooled=(
        'AdaptedPVTv2',
        dict(embed_dims=[8, 16], depths=[1, 1], mlp_ratios=[2, 2], linear=True),
    ),
)


def build(method: str = 'polyhistor_lite', *, depths=(2, 1, 1), heads=(1, 2, 2), **preprocessor) -> nn.Module:
    """A segmentor with values at random.

    'single_task' has a whole encoder per task; 'mit', 'mit_lora', and those of `SMALLEST` are of other families.
    """
    init_default_scope('mmseg')
    torch.manual_seed(0)
    encoder = dict(
        type='AdaptedSwin', arch=dict(embed_dims=8, depths=list(depths), num_heads=list(heads)[: len(depths)])
    )
    widths = [8 * 2**i for i in range(len(depths))]
    if method == 'single_task':
        backbone = dict(type='TaskEncoders', tasks=TASKS, encoder=dict(encoder, frozen=False))
    elif method in ('mit', 'mit_lora'):
        arch = dict(embed_dims=8, num_layers=[1, 1, 1], num_heads=[1, 2, 4])
        adapter = METHODS['lora' if method == 'mit_lora' else 'polyhistor_lite']
        backbone = dict(type='AdaptedMiT', arch=arch, tasks=TASKS, adapter=adapter)
        widths = [8, 16, 32]
    elif method in SMALLEST:
        family, arch = SMALLEST[method]
        backbone = dict(type=family, arch=dict(num_heads=[1, 2], sr_ratios=[2, 1]) | arch, tasks=TASKS)
        widths = [8, 16]
    else:
        backbone = dict(encoder, tasks=TASKS, adapter=METHODS[method])
    options = dict(mean=MEAN, std=STD, bgr_to_rgb=True, test_cfg=dict(size_divisor=32))
    model = MODELS.build(
        dict(
            type='MultiTaskSegmentor',
            tasks=TASKS,
            data_preprocessor=dict(type='MultiTaskDataPreProcessor', **(options | preprocessor)),
            backbone=backbone,
            decode_heads=dict(type='AllMLPHead', in_channels=widths, channels=8),
        )
    )
    for name, parameter in model.named_parameters():
        gain = (('norm' in name or '.bn.' in name) and name.endswith('weight')) or name.endswith('gain')
        nn.init.normal_(parameter, float(gain), 0.2)
    return model.eval()


def photographs(batch: int, height: int, width: int) -> Tensor:
    """Images as a user has them: float32 (B, 3, H, W), RGB, whole numbers from 0 to 255."""
    return torch.randint(0, 256, (batch, 3, height, width), generator=torch.manual_seed(1)).float()


@torch.no_grad()
def expected_logits(model: nn.Module, rgb: Tensor, divisor: int = 32) -> dict[str, Tensor]:
    """Normalise, pad, run the trained model, resize each head's logits to the padded image, cut the padding off."""
    height, width = rgb.shape[2:]
    x = (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    x = F.pad(x, (0, -width % divisor, 0, -height % divisor))
    logits = model(x)
    resized = {t: F.interpolate(y, x.shape[2:], mode='bilinear') for t, y in logits.items()}
    return {t: y[..., :height, :width] for t, y in resized.items()}
