"""L1 distance between predicted and true quantities, the loss of depth."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor, nn

from .common import check_shapes, full_precision


@MODELS.register_module()
class ScalarL1Loss(nn.Module):
    """Mean absolute difference between the prediction and the target, over the valid pixels.

    The mean is that of the *local* batch: in distributed training every process averages over its own valid pixels. A
    batch without one valid pixel gives zero, with a graph and zero gradients.

    Args:
        loss_weight: Factor of the loss. Defaults to 1.0.
        loss_name: Name of the loss in the logs. Defaults to 'loss_l1'.

    Reference:
        The depth loss of ASTMT (Maninis et al., CVPR 2019) and MTI-Net (Vandenhende et al., ECCV 2020).
    """

    def __init__(self, *, loss_weight: float = 1.0, loss_name: str = 'loss_l1') -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: float = 0
    ) -> Tensor:
        """The loss of a batch.

        Args:
            pred: Quantities (B, 1, H, W); negative ones are compared as they are, so that they have a gradient.
            target: Quantities (B, 1, H, W); `ignore_index` where there is no truth.
            weight: Further factor per pixel, (B, H, W); it leaves the mean's divisor alone. Defaults to None.
            ignore_index: The value of a pixel without truth. Defaults to 0.

        Returns:
            The loss, a scalar, in float32 (float64 for float64 predictions).

        Raises:
            ValueError: if the shapes do not fit.
        """
        fits = pred.dim() == 4 and pred.shape[1] == 1 and target.shape == pred.shape
        check_shapes(type(self).__name__, 'pred and target (B, 1, H, W)', pred=pred, target=target, fits=fits)
        invalid = target == ignore_index
        # Filled, not multiplied by zero: what the network says at an ignored pixel stays out of the graph.
        distance = (full_precision(pred).masked_fill(invalid, 0) - target.masked_fill(invalid, 0)).abs()
        if weight is not None:
            distance = distance * weight.unsqueeze(1)
        return self.loss_weight * distance.sum() / (~invalid).sum().clamp(min=1)

    def extra_repr(self) -> str:
        return f'loss_weight={self.loss_weight}'
