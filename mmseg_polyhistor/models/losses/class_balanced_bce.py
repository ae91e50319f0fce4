"""Binary cross-entropy in which the two classes weigh the same, however rare the positive one is."""

from __future__ import annotations

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from .common import check_shapes, full_precision


@MODELS.register_module()
class ClassBalancedBCELoss(nn.Module):
    """Binary cross-entropy on logits, balanced by the share of the classes in the batch.

    A positive pixel weighs `w`, a negative one `1 - w`, where `w` is the share of negatives among the valid pixels of
    the batch; the loss is the weighted sum divided by the number of valid pixels. Shares and mean are those of the
    *local* batch: in distributed training every process balances and averages its own images.

    A batch without one valid pixel gives zero, with a graph and zero gradients. So does, with the batch's own share, a
    batch of one class alone: the definition gives that class the weight zero.

    Args:
        pos_weight: A fixed `w` in [0, 1] instead of the batch's share of negatives. Defaults to None.
        loss_weight: Factor of the loss. Defaults to 1.0.
        loss_name: Name of the loss in the logs. Defaults to 'loss_bce'.

    Raises:
        ValueError: if `pos_weight` lies outside [0, 1].

    Reference:
        The balanced cross-entropy of ASTMT (Maninis et al., CVPR 2019) and MTI-Net (Vandenhende et al., ECCV 2020),
        after HED (Xie and Tu, ICCV 2015).
    """

    def __init__(
        self,
        *,
        pos_weight: float | None = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_bce',
    ) -> None:
        super().__init__()
        if pos_weight is not None and not 0 <= pos_weight <= 1:
            raise ValueError(f'ClassBalancedBCELoss: pos_weight must lie in [0, 1], got {pos_weight}')
        self.pos_weight = pos_weight
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, pred: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = 255
    ) -> Tensor:
        """The loss of a batch.

        Args:
            pred: Logits (B, 1, H, W).
            target: Labels (B, H, W), integer: 0, 1 or `ignore_index`.
            weight: Further factor per pixel, (B, H, W); it leaves the mean's divisor alone. Defaults to None.
            ignore_index: The label of a pixel without truth. Defaults to 255.

        Returns:
            The loss, a scalar, in float32 (float64 for float64 logits).

        Raises:
            ValueError: if the shapes do not fit.
        """
        fits = pred.dim() == 4 and pred.shape[1] == 1 and target.shape == pred[:, 0].shape
        check_shapes(
            type(self).__name__, 'pred (B, 1, H, W) and target (B, H, W)', pred=pred, target=target, fits=fits
        )
        valid = target != ignore_index
        positive = (target == 1) & valid
        n_valid = valid.sum().clamp(min=1)
        # Filled, not multiplied by zero: a logit that is infinite at an ignored pixel stays out of the graph.
        logits = full_precision(pred[:, 0]).masked_fill(~valid, 0)

        labels = positive.to(logits)
        share = self.pos_weight
        if share is None:
            share = 1 - positive.sum().to(logits.dtype) / n_valid
        weights = (share * labels + (1 - share) * (1 - labels)) * valid
        if weight is not None:
            weights = weights * weight
        summed = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction='sum')
        return self.loss_weight * summed / n_valid

    def extra_repr(self) -> str:
        return f'pos_weight={self.pos_weight}, loss_weight={self.loss_weight}'
