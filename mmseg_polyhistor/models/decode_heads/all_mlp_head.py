"""The all-MLP decoder of SegFormer (Xie et al., NeurIPS 2021, section 3.2): one plain Linear per feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_polyhistor.adapters.checks import check_keywords


@MODELS.register_module()
class AllMLPHead(BaseDecodeHead):
    """SegFormer's decoder as published: Linear per map, upsample, concat, 1x1 conv, norm, ReLU, dropout, 1x1 conv.

    mmseg's `SegformerHead` is a variant of it, with norm and ReLU behind every map's projection.

    The maps stand in the concat in the order of `in_index`, finest first; the original stacks the coarsest first,
    which permutes the columns of the fusion's weight and nothing else.

    How it is computed: up to the norm everything is linear, and bilinear upsampling, whose weights sum to one,
    commutes with a per-pixel linear map. So each map passes its projection and its slice of the fusion at its own
    resolution, and the results are upsampled and summed. Parameters and state-dict keys are those of the plain form.

    Args:
        in_channels: Width of each map.
        channels: Width E of the decoder. Defaults to 256.
        in_index: Which of the backbone's maps are used; the output has the size of the first. Defaults to None,
            the first `len(in_channels)` maps.
        norm_cfg: Config of the fusion's norm layer. Defaults to `dict(type='BN')`.
        act_cfg: Config of the fusion's activation. Defaults to `dict(type='ReLU')`.
        **kwargs: Arguments of mmseg's `BaseDecodeHead`: `num_classes`, `dropout_ratio` (0.1), `loss_decode`, ...

    Raises:
        ValueError: if `norm_cfg` or `act_cfg` is None, `in_channels` is no sequence, or `in_channels` and `in_index` differ
            in length; `TypeError` for unknown arguments.

    Shape:
        Maps (B, C_i, H_i, W_i) of any sizes; logits (B, out_channels, H_1, W_1).
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        channels: int = 256,
        in_index: Sequence[int] | None = None,
        norm_cfg: dict[str, Any] | None = dict(type='BN'),  # noqa: B006 (a config, only read)
        act_cfg: dict[str, Any] | None = dict(type='ReLU'),  # noqa: B006
        **kwargs: Any,
    ) -> None:
        check_keywords(type(self), kwargs)
        for name, cfg in (('norm_cfg', norm_cfg), ('act_cfg', act_cfg)):
            if cfg is None:
                raise ValueError(f'AllMLPHead: {name} must be a config such as dict(type=...), got None')
        if not isinstance(in_channels, Sequence):
            raise ValueError(
                f'AllMLPHead: in_channels must be the width of each map, (C_1, ...), got {in_channels!r}'
            )
        in_index = tuple(range(len(in_channels))) if in_index is None else in_index
        if len(in_index) != len(in_channels):
            raise ValueError(
                f'AllMLPHead: in_channels={in_channels} and in_index={in_index} must have the same length'
            )
        super().__init__(
            in_channels=in_channels,
            channels=channels,
            in_index=in_index,
            input_transform='multiple_select',
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            **kwargs,
        )
        self.projections = nn.ModuleList(nn.Linear(width, channels) for width in self.in_channels)
        self.fusion = ConvModule(
            len(self.in_channels) * channels, channels, 1, bias=False, norm_cfg=norm_cfg, act_cfg=act_cfg
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The logits of one task.

        Args:
            inputs: The backbone's maps, (B, C_i, H_i, W_i).

        Returns:
            Logits (B, out_channels, H_1, W_1), at the size of the first selected map.

        Raises:
            ValueError: if the maps are too few, or have other channels than `in_channels`.
        """
        widths = [x.shape[1] for x in inputs]
        if max(self.in_index) >= len(widths) or [widths[i] for i in self.in_index] != list(self.in_channels):
            raise ValueError(
                f'AllMLPHead: in_channels={list(self.in_channels)} at in_index={list(self.in_index)} does not fit the '
                f"backbone's maps, which have {widths} channels"
            )
        maps = self._transform_inputs(inputs)
        size = maps[0].shape[2:]
        slices = self.fusion.conv.weight.flatten(1).split(self.channels, dim=1)  # (E, E) per map
        fused = 0
        for x, projection, fusion in zip(maps, self.projections, slices, strict=True):
            # The two matrices are multiplied first. That costs E * E * C_i multiplications per step, whatever the
            # batch, and twice as many backward. It saves E * E at every pixel of the map, twice as many backward,
            # and the projected map that the backward pass would keep. So it pays once the batch's maps have more
            # than sum(C_i) pixels in all: on Swin-T 1440, four to five images of 64 x 64.
            weight = fusion @ projection.weight  # (E, C_i)
            bias = fusion @ projection.bias
            y = F.linear(x.movedim(1, -1), weight, bias).movedim(-1, 1)  # (B, E, H_i, W_i)
            if y.shape[2:] != size:
                y = resize(y, size, mode='bilinear', align_corners=self.align_corners)
            fused = fused + y
        return self.cls_seg(self.fusion.activate(self.fusion.norm(fused)))
