"""Training in bfloat16 on CPUs and GPUs alike; mmengine's `AmpOptimWrapper` refuses CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmpretrain.models import LinearClsHead
from mmpretrain.registry import MODELS
from torch import Tensor, nn

__all__ = ['Bf16OptimWrapper', 'Fp32LinearClsHead']


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """mmengine's `OptimWrapper`, with the forward pass under autocast to bfloat16.

    Weights, gradients and the optimiser's state stay float32, and bfloat16 has the range of float32, so that no scaling of
    the loss is needed.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass."""
        with super().optim_context(model), torch.autocast(get_device(), torch.bfloat16):
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
