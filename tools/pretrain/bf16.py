"""Training in bfloat16 on GPUs and on CPUs that compute in it; mmengine's `AmpOptimWrapper` refuses CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmpretrain.models import LinearClsHead
from mmpretrain.registry import MODELS
from torch import Tensor, nn

__all__ = ['Bf16OptimWrapper', 'Fp32LinearClsHead', 'computes_in_bf16']


def computes_in_bf16(device: str) -> bool:
    """Whether a device is not slower in bfloat16: any but a CPU without instructions for it (AVX-512 BF16, Arm's BF16).

    Such a CPU emulates each product; a step of Swin-nano took more than ten times as long on one with AVX2. Where torch does not
    tell what the CPU has, as older releases do not, the answer is no.
    """
    if device != 'cpu':
        return True
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    return bool(capabilities.get('avx512_bf16') or capabilities.get('bf16'))


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """mmengine's `OptimWrapper`, with the forward pass under autocast to bfloat16.

    Weights, gradients and the optimiser's state stay float32, and bfloat16 has the range of float32, so that no scaling of
    the loss is needed. Where the device would only emulate bfloat16, all is float32, and the log says so.

    Args:
        *args, **kwargs: See `OptimWrapper`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.autocast = computes_in_bf16(get_device())
        if not self.autocast:
            print_log('this CPU would emulate bfloat16: the training is in float32', logger='current')

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass."""
        autocast = torch.autocast(get_device(), torch.bfloat16, enabled=self.autocast)
        with super().optim_context(model), autocast:
            yield


@MODELS.register_module()
class Fp32LinearClsHead(LinearClsHead):
    """mmpretrain's `LinearClsHead`, with logits and loss in float32 under autocast too."""

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Features (B, C) of the last stage -> logits (B, classes)."""
        with torch.autocast(feats[-1].device.type, enabled=False):
            return self.fc(self.pre_logits(feats).float())

    def loss(self, feats: tuple[Tensor, ...], data_samples: list, **kwargs) -> dict[str, Tensor]:
        """As `LinearClsHead.loss`, outside of autocast."""
        with torch.autocast(feats[-1].device.type, enabled=False):
            return super().loss(feats, data_samples, **kwargs)
