"""Equal weights must give equal logits before times are worth comparing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .cases import Case, Setting
from .workload import build_model, plain_model

__all__ = ['Comparison', 'UnequalModelsError', 'compare_with_plain']

SIZE = (64, 96)  # pads windows, and has a shorter and a longer side
TOLERANCE = 1e-4  # of the largest logit; float32 rounding through the 24 blocks of a Swin-L stays far below


class UnequalModelsError(RuntimeError):
    """A model and its plain reference give different logits."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a model and its plain reference gave.

    Args:
        case: Name of the model's case.
        difference: Largest difference of two logits.
        largest: Largest logit.
        tolerance: What the difference may be at most.
    """

    case: str
    difference: float
    largest: float
    tolerance: float


def compare_with_plain(case: Case, setting: Setting) -> Comparison:
    """Hold a method's model against the plain reference with the same weights, in float32 on a small batch.

    Everything trained is moved away from its initial value, so that the adapters count.

    Args:
        case: A method with a `HyperAdapter`.
        setting: The device counts.

    Raises:
        UnequalModelsError: if a logit differs by more than the tolerance.
    """
    generator = torch.Generator().manual_seed(0)
    model = build_model(case)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    plain = plain_model(case.model, model)
    images = torch.randn(2, 3, *SIZE, generator=generator).to(setting.device)
    ours, theirs = (_logits(m, images, setting.device) for m in (model, plain))
    difference = max(float((ours[task] - theirs[task]).abs().max()) for task in model.tasks)
    largest = max(float(logits.abs().max()) for logits in theirs.values())
    tolerance = TOLERANCE * largest
    if not difference <= tolerance:
        raise UnequalModelsError(
            f'{case.name}: the logits differ from those of the plain reference with the same weights by {difference:.3g}, '
            f'at most {tolerance:.3g} is allowed ({TOLERANCE:g} of the largest logit); times of unequal models say nothing'
        )
    return Comparison(case=case.name, difference=difference, largest=largest, tolerance=tolerance)


def _logits(model: nn.Module, images: torch.Tensor, device: str) -> dict[str, torch.Tensor]:
    exact = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.no_grad():
            return model.to(device).eval()(images, mode='tensor')
    finally:
        torch.backends.cudnn.allow_tf32 = exact
