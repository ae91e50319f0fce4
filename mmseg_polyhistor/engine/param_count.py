"""Count parameters by ownership: the encoder's, and the decoder's with the output norms, as the paper counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

__all__ = ['ParameterCounts', 'count_parameters']


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Numbers of parameters, each counted once however many modules share it.

    Args:
        encoder: Trainable parameters of the backbone without its output norms.
        encoder_frozen: Its other parameters.
        decoder: Trainable parameters of everything else: output norms, heads.
        decoder_frozen: Its other parameters.
        adapters: Trainable parameters under each child of `backbone.adapters`; empty where there is no such module.
    """

    encoder: int
    encoder_frozen: int
    decoder: int
    decoder_frozen: int
    adapters: Mapping[str, int]

    @property
    def total(self) -> int:
        """All trainable parameters."""
        return self.encoder + self.decoder

    @property
    def frozen(self) -> int:
        """All parameters that are not trained."""
        return self.encoder_frozen + self.decoder_frozen


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count the parameters of a segmentor.

    A backbone tells its output norms by a method `output_norm_parameters()`; without one it has none.

    Args:
        model: A segmentor with a `backbone`, or a wrapper around one (`.module`: DDP, test-time augmentation).

    Raises:
        TypeError: if there is no backbone.
    """
    inner = model
    while not hasattr(inner, 'backbone') and isinstance(getattr(inner, 'module', None), nn.Module):
        inner = inner.module
    backbone = getattr(inner, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        raise TypeError(
            f'{type(inner).__name__} has no backbone, whose parameters could be told from the rest'
        )
    norms = set(getattr(backbone, 'output_norm_parameters', tuple)())
    encoder = set(backbone.parameters()) - norms
    decoder = set(inner.parameters()) - encoder
    return ParameterCounts(
        encoder=_size(encoder, trainable=True),
        encoder_frozen=_size(encoder, trainable=False),
        decoder=_size(decoder, trainable=True),
        decoder_frozen=_size(decoder, trainable=False),
        adapters=_by_child(getattr(backbone, 'adapters', None)),
    )


def _size(parameters: Iterable[nn.Parameter], trainable: bool) -> int:
    return sum(p.numel() for p in parameters if p.requires_grad is trainable)


def _by_child(adapters: nn.Module | None) -> dict[str, int]:
    """Trainable parameters under each child of a module; its own ones under their names."""
    if adapters is None:
        return {}
    parts = {name: [p] for name, p in adapters.named_parameters(recurse=False)}
    parts |= {name: list(child.parameters()) for name, child in adapters.named_children()}
    sizes = {name: _size(parameters, trainable=True) for name, parameters in parts.items()}
    return {name: size for name, size in sizes.items() if size}
