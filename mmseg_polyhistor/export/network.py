"""A trained segmentor as one plain function of images: what is exported."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from mmengine.model import ModuleDict
from torch import Tensor, nn

from ..models.backbones import TaskEncoders, bake
from ..models.backbones.adapted_backbone import AdaptedBackbone
from ..models.data_preprocessors import MultiTaskDataPreProcessor
from ..models.postprocess import POSTPROCESS
from ..models.segmentors import MultiTaskSegmentor
from .traceable import first_pixels, make_traceable, pad_to_multiple

__all__ = ['CHANNEL_ORDERS', 'OUTPUTS', 'ExportNetwork']

OUTPUTS = ('predictions', 'logits')
CHANNEL_ORDERS = ('rgb', 'bgr')


class ExportNetwork(nn.Module):
    """A copy of a segmentor for inference alone: images in, one output per task, any size, no training left in it.

    The backbone is baked (`mmseg_polyhistor.models.backbones.bake`) for the tasks that are kept. Preprocessing is the
    model's own at test time, and so is the order of what comes behind the heads: logits are resized to the padded image,
    the padding is cut off, and then predictions are made. An image passes as a whole, also where `test_cfg` says 'slide'.

    Args:
        segmentor: The model; it stays as it is.
        tasks: Some of its tasks. Defaults to None, all.
        outputs: 'predictions', what `SegDataSample` holds by the kind of the task (see `mmseg_polyhistor.tasks`), or
            'logits'. Defaults to 'predictions'.
        preprocessing: Whether the order of the channels, normalisation and padding are part of the network. Without,
            images must be what the data preprocessor makes. Defaults to True.
        channel_order: Of the images, 'rgb' or 'bgr', with preprocessing. Defaults to 'rgb'.

    Raises:
        TypeError: if the model is no `MultiTaskSegmentor`.
        ValueError: for an unknown task or option, or a data preprocessor that cannot be part of a network of any size.

    Shape:
        Images float32 (B, 3, H, W), in 0..255 with preprocessing -> {task: (B, 1, H, W) of a 'semantic' task (int64, the
        class), of a 'binary' and a 'scalar' one; (B, 3, H, W) of a 'unit_vector' one}; logits (B, channels, H, W).
    """

    def __init__(
        self,
        segmentor: nn.Module,
        *,
        tasks: Sequence[str] | None = None,
        outputs: str = 'predictions',
        preprocessing: bool = True,
        channel_order: str = 'rgb',
    ) -> None:
        super().__init__()
        if not isinstance(segmentor, MultiTaskSegmentor):
            raise TypeError(
                f'only a MultiTaskSegmentor can be exported, the config has {type(segmentor).__name__}; for other models '
                'of mmseg there is mmdeploy'
            )
        for name, value, allowed in (
            ('outputs', outputs, OUTPUTS),
            ('channel_order', channel_order, CHANNEL_ORDERS),
        ):
            if value not in allowed:
                raise ValueError(f'{name} must be one of {allowed}, got {value!r}')
        preprocessor = segmentor.data_preprocessor
        if preprocessing:
            _check_preprocessor(preprocessor)
        segmentor = copy.deepcopy(segmentor).eval()
        self.specs = segmentor.select_tasks(tasks)
        segmentor.backbone = _baked_backbone(segmentor.backbone, segmentor.tasks)
        segmentor.data_preprocessor = nn.Identity()
        for parameter in segmentor.parameters():
            parameter.requires_grad_(False)
        make_traceable(segmentor)
        self.segmentor = segmentor
        self.outputs = outputs
        self.preprocessing = preprocessing
        self.channel_order = channel_order
        self.divisor, self.pad_value = 1, 0.0
        self.reverse = self.normalise = False
        if preprocessing:
            # The pipelines load images as BGR.
            self.reverse = preprocessor.reverse_channels == (channel_order == 'bgr')
            self.divisor, self.pad_value = preprocessor.test_padding['size_divisor'], preprocessor.pad_val
            self.normalise = preprocessor._enable_normalize
            if self.normalise:
                self.register_buffer('mean', preprocessor.mean.detach().clone())
                self.register_buffer('std', preprocessor.std.detach().clone())
        self.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs per task, see the class."""
        height, width = images.shape[-2:]
        if self.reverse:
            images = images.flip(1)
        if self.normalise:
            images = (images - self.mean) / self.std
        images = pad_to_multiple(images, (self.divisor, self.divisor), self.pad_value)
        metas = [dict(img_shape=images.shape[-2:])]
        maps = self.segmentor.extract_feat(images)
        out = {}
        for spec in self.specs:
            head = self.segmentor.decode_heads[spec.name]
            logits = head.predict(maps[spec.name], metas, self.segmentor.test_cfg)
            if self.divisor > 1:
                logits = first_pixels(logits, (height, width))
            out[spec.name] = POSTPROCESS[spec.kind](logits) if self.outputs == 'predictions' else logits
        return out


def _check_preprocessor(preprocessor: nn.Module) -> None:
    """Refuse a data preprocessor that the network could not do the work of.

    Raises:
        ValueError: says what to do.
    """
    otherwise = 'or export without preprocessing (--no-preprocessing) and do it yourself'
    if not isinstance(preprocessor, MultiTaskDataPreProcessor):
        raise ValueError(
            f'data_preprocessor is {type(preprocessor).__name__}, which the exported network cannot do the work of; take '
            f'MultiTaskDataPreProcessor, {otherwise}'
        )
    if 'size' in preprocessor.test_padding:
        raise ValueError(
            f'data_preprocessor.test_cfg pads images to one size, {preprocessor.test_padding["size"]}; the exported network '
            f'pads by size_divisor alone: change test_cfg, {otherwise}'
        )


@torch.no_grad()
def _baked_backbone(backbone: nn.Module, tasks: tuple[str, ...]) -> nn.Module:
    """The backbone of a copy, for some tasks alone and baked; others as they are."""
    if isinstance(backbone, TaskEncoders):
        backbone.tasks = tasks
        backbone.encoders = ModuleDict({task: _baked_backbone(backbone.encoders[task], ()) for task in tasks})
    elif isinstance(backbone, AdaptedBackbone):
        if backbone.tasks is not None:
            backbone.tasks = tasks
            backbone.output_norms = nn.ModuleDict({task: backbone.output_norms[task] for task in tasks})
        return bake(backbone)
    return backbone
