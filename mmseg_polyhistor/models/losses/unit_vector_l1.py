"""L1 distance between predicted and true directions, the loss of surface normals."""

from __future__ import annotations

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from .common import check_shapes, full_precision

AVERAGES = ('component', 'pixel')


@MODELS.register_module()
class UnitVectorL1Loss(nn.Module):
    """L1 distance between the L2-normalised prediction and the target, a unit vector per pixel.

    The mean is that of the *local* batch: in distributed training every process averages over its own valid pixels.

    A prediction shorter than `eps` is divided by `eps` instead of its length, so that no gradient exceeds `1 / eps`;
    a longer one is normalised exactly. A batch without one valid pixel gives zero, with a graph and zero gradients.

    Args:
        average: What the mean runs over: 'component' (the three components of the valid pixels, as ASTMT and MTI-Net
            do) or 'pixel' (the valid pixels, as ATRC and InvPT do; three times larger). Defaults to 'component'.
        eps: The length below which a prediction is not stretched to unit length. Defaults to 1e-4.
        loss_weight: Factor of the loss. Defaults to 1.0.
        loss_name: Name of the loss in the logs. Defaults to 'loss_l1'.

    Raises:
        ValueError: if `average` is unknown or `eps` is not positive.
    """

    def __init__(
        self,
        *,
        average: str = 'component',
        eps: float = 1e-4,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_l1',
    ) -> None:
        super().__init__()
        if average not in AVERAGES:
            raise ValueError(f'UnitVectorL1Loss: average must be one of {AVERAGES}, got {average!r}')
        if not eps > 0:
            raise ValueError(f'UnitVectorL1Loss: eps must be positive, got {eps}')
        self.average = average
        self.eps = eps
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: float = 255
    ) -> Tensor:
        """The loss of a batch.

        Args:
            pred: Vectors of any length, (B, 3, H, W).
            target: Unit vectors (B, 3, H, W); `ignore_index` in all components where there is no truth.
            weight: Further factor per pixel, (B, H, W); it leaves the mean's divisor alone. Defaults to None.
            ignore_index: The value of a pixel without truth. Defaults to 255.

        Returns:
            The loss, a scalar, in float32 (float64 for float64 predictions).

        Raises:
            ValueError: if the shapes do not fit.
        """
        fits = pred.dim() == 4 and target.shape == pred.shape
        check_shapes(type(self).__name__, 'pred and target (B, 3, H, W)', pred=pred, target=target, fits=fits)
        invalid = (target == ignore_index).all(dim=1, keepdim=True)
        # Filled, not multiplied by zero: what the network says at an ignored pixel stays out of the graph.
        direction = F.normalize(full_precision(pred).masked_fill(invalid, 0), dim=1, eps=self.eps)
        distance = (direction - target.masked_fill(invalid, 0)).abs()
        if weight is not None:
            distance = distance * weight.unsqueeze(1)
        divisor = (~invalid).sum().clamp(min=1)
        if self.average == 'component':
            divisor = divisor * pred.shape[1]
        return self.loss_weight * distance.sum() / divisor

    def extra_repr(self) -> str:
        return f'average={self.average!r}, eps={self.eps}, loss_weight={self.loss_weight}'
