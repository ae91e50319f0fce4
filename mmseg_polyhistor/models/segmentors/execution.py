"""Whether the tasks should run side by side: estimates of the memory of a stacked pass, and the rule of 'auto'."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ['EXECUTIONS', 'free_bytes', 'largest_bytes', 'should_stack', 'stacked_bytes']

EXECUTIONS = ('auto', 'stacked', 'sequential')

# Measured on Swin-T at 224 pixels with torch's hooks for saved tensors. A block keeps 46 (BitFit) to 68 (HyperFormer)
# bytes per task, token and channel in float32; a decoder 266 per task and pixel of the image.
BLOCK_BYTES = 70
DECODER_BYTES = 270
# glibc takes larger allocations from the system and gives them back each time, and every page is faulted in anew.
CPU_BYTES = 32 * 2**20


def should_stack(model: nn.Module, inputs: Tensor) -> bool:
    """The rule of execution='auto'.

    On a CPU, tasks are stacked while the largest tensor that it takes is at most 32 MiB: beyond it, page faults cost more
    than larger operations gain (Polyhistor on Swin-T at 448 pixels, batch 2: a third more time). On a GPU, they are
    stacked while `stacked_bytes` is at most half of `free_bytes`.

    Args:
        model: A segmentor with `tasks`, whose backbone has a `layout`.
        inputs: Images (B, 3, H, W).
    """
    if inputs.device.type == 'cuda':
        return 2 * stacked_bytes(model, inputs) <= free_bytes(inputs.device)
    return largest_bytes(model, inputs) <= CPU_BYTES


def stacked_bytes(model: nn.Module, inputs: Tensor) -> int:
    """Roughly the bytes that a stacked training pass keeps, an upper estimate; 0 without gradients.

    For the arguments see `should_stack`.
    """
    if not torch.is_grad_enabled():
        return 0
    layout = model.backbone.layout
    features = sum(
        depth * width * _tokens(inputs, stage)
        for stage, (width, depth) in enumerate(zip(layout.widths, layout.depths, strict=True))
    )
    if getattr(model.backbone, 'with_cp', False):
        features /= 9  # what lies between blocks, and the weights that adapters keep
    # Under autocast most of what is kept has half the size.
    size = 0.5 if torch.is_autocast_enabled(inputs.device.type) else 1.0
    pixels = inputs.shape[-2] * inputs.shape[-1]
    per_image = BLOCK_BYTES * features + DECODER_BYTES * pixels
    return int(size * len(inputs) * len(model.tasks) * per_image)


def largest_bytes(model: nn.Module, inputs: Tensor) -> int:
    """Bytes of the largest tensor of a stacked pass: the hidden layer of a feed-forward net, for all tasks.

    For the arguments see `should_stack`.
    """
    widest = max(
        linear.out_features * _tokens(inputs, linear.site.stage)
        for linear in model.backbone.layout.linears
        if linear.site.block is not None
    )
    return int(widest * len(inputs) * len(model.tasks) * inputs.element_size())


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU that can still be allocated, with what torch has reserved and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _tokens(inputs: Tensor, stage: int) -> float:
    """Tokens per image in a stage: patches of 4 x 4 pixels, a quarter as many in every further stage."""
    return inputs.shape[-2] * inputs.shape[-1] / 16 / 4**stage
