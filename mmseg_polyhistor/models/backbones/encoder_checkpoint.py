"""Read published checkpoints of encoders: safe loading, and every key accounted for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ...engine.safe_load import load_from_http, load_from_local

__all__ = ['KeyReport', 'encoder_state_dict', 'load_weights_file']

# Keys of a classifier around the encoder, and buffers that old releases stored: never part of the encoder.
_FOREIGN = re.compile(r'^(head|neck|decode_head|auxiliary_head|data_preprocessor)\.|(^|\.)attn_mask$')


@dataclass
class KeyReport:
    """What became of every key of a checkpoint, and of every weight of the encoder."""

    loaded: list[str] = field(default_factory=list)
    foreign: list[str] = field(
        default_factory=list
    )  # keys of heads and obsolete buffers: left out on purpose
    final_norm: list[str] = field(default_factory=list)  # the checkpoint's norm behind the last stage
    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f'{len(self.loaded)} keys loaded']
        if self.foreign:
            parts.append(f'{len(self.foreign)} of the classifier left out')
        if self.final_norm:
            parts.append(f'{len(self.final_norm)} of the final norm left out (output norms are new)')
        parts.append(f'{len(self.missing)} missing, {len(self.unexpected)} unexpected')
        return ', '.join(parts)


def load_weights_file(source: str, map_location: str = 'cpu') -> dict:
    """Load a checkpoint from a path or an http(s) URL without ever running code from it.

    Args:
        source: A path, or a URL that is downloaded to torch's hub cache (by the first process only).
        map_location: Where the tensors go. Defaults to 'cpu'.

    Raises:
        FileNotFoundError: if the path does not exist.
        RuntimeError: if the file cannot be downloaded, is broken, or holds more than tensors and plain data.
    """
    load = load_from_http if source.startswith(('http://', 'https://')) else load_from_local
    checkpoint = load(source, map_location)
    if not isinstance(checkpoint, Mapping):
        raise RuntimeError(f'{source} holds a {type(checkpoint).__name__}, not a dict of weights')
    return dict(checkpoint)


def encoder_state_dict(checkpoint: Mapping, prefix: str = '') -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's weights in a checkpoint, under the names that the file has behind a prefix.

    Args:
        checkpoint: The loaded file; weights are looked for under 'state_dict', 'model', or at the top.
        prefix: Prefix of the encoder's keys; without one, `backbone.` is stripped where keys have it.

    Returns:
        The weights, and the keys that belong to no encoder and were left out.

    Raises:
        ValueError: if no key has the prefix.
    """
    weights = checkpoint
    for key in ('state_dict', 'model'):
        if isinstance(weights.get(key), Mapping):
            weights = weights[key]
            break
    weights = {k: v for k, v in weights.items() if isinstance(v, Tensor)}
    foreign = []
    if not prefix and any(k.startswith('backbone.') for k in weights):
        prefix = 'backbone.'
    if prefix:
        prefix = prefix.rstrip('.') + '.'
        foreign = [k for k in weights if not k.startswith(prefix)]
        weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if not weights:
            raise ValueError(
                f'no key of the checkpoint starts with {prefix!r}; keys start like {foreign[:3]}'
            )
    foreign += [k for k in weights if _FOREIGN.search(k)]
    return {k: v for k, v in weights.items() if not _FOREIGN.search(k)}, foreign
