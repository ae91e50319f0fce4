"""A small config of every method, for tests that must hold for all of them; `naive_reference` can be imported by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmseg_polyhistor.adapters import METHODS

sys.path.insert(0, str(Path(__file__).parent))

# Fit for stages of 24, 48 and 96 channels.
OPTIONS = dict(
    BitFit=dict(),
    RelativeBias=dict(),
    VisualPrompt=dict(prompts=3, deep=True),
    LoRA=dict(rank=2, targets=('qkv', 'proj', 'fc1', 'fc2', 'reduction')),
    BottleneckAdapter=dict(ratio=4, positions=('attn', 'ffn'), tuned=('norm',)),
    LowRankAdapter=dict(ratio=4, rank=-2, positions=('attn',)),
    PHMAdapter=dict(ratio=4, pre_norm=True),
    Compacter=dict(ratio=4),
    AdaptFormer=dict(bottleneck=3),
    MTLoRA=dict(rank=2, task_rank=1),
    HyperAdapter=dict(ratio=4, rank=-2, scaling_kernels=True),
    HyperFormer=dict(ratio=4),
    Polyhistor=dict(ratio=4, rank=-2),
    PolyhistorLite=dict(ratio=2),
)


@pytest.fixture(params=[None, *METHODS], ids=lambda cls: cls.__name__ if cls else 'none')
def every_method(request) -> dict | None:
    """Config of one method after another, and None."""
    cls = request.param
    return cls and dict(type=cls.__name__, **OPTIONS[cls.__name__])
