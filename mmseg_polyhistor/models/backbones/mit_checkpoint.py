"""Published checkpoints of SegFormer's encoder under the names and in the layout of mmseg's Mix Transformer."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .encoder_checkpoint import encoder_state_dict

__all__ = ['mit_state_dict']


def mit_state_dict(checkpoint: Mapping, prefix: str = '') -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's weights under mmseg's names, from any of the published forms.

    Understands checkpoints of OpenMMLab (with or without `backbone.`) and the release of SegFormer's authors
    (`block1.0.attn.q...`), which holds the projection of queries beside that of keys and values, and linear maps where
    mmseg has convolutions of 1 x 1 pixels. The result is that of mmseg's `tools/model_converters/mit2mmseg.py`.

    Args:
        checkpoint: The loaded file; weights are looked for under 'state_dict', 'model', or at the top.
        prefix: Prefix of the encoder's keys; without one, `backbone.` is stripped where keys have it.

    Returns:
        The weights, and the keys that belong to no encoder and were left out.

    Raises:
        ValueError: if no key has the prefix.
    """
    weights, foreign = encoder_state_dict(checkpoint, prefix)
    if any(k.startswith('patch_embed1.') for k in weights):
        weights = dict(_from_official(k, v) for k, v in _packed(weights).items())
    return weights, foreign


_OFFICIAL_NAMES = (
    (r'^patch_embed(\d+)\.proj\.', r'patch_embed\1.projection.'),
    (r'\.attn\.proj\.', '.attn.attn.out_proj.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.'),
    (r'\.mlp\.dwconv\.dwconv\.', '.ffn.layers.1.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.4.'),
)
_OF_A_STAGE = re.compile(r'^(patch_embed|block|norm)(\d+)\.')


def _packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the projections of queries, keys and values in one; a half without its other half stays."""
    out = dict(weights)
    for key in weights:
        other = key.replace('.attn.q.', '.attn.kv.')
        if other != key and other in weights:
            out[key.replace('.attn.q.', '.attn.attn.in_proj_')] = torch.cat([out.pop(key), out.pop(other)])
    return out


def _from_official(key: str, value: Tensor) -> tuple[str, Tensor]:
    for pattern, replacement in _OFFICIAL_NAMES:
        key = re.sub(pattern, replacement, key)
    if key.endswith(('.ffn.layers.0.weight', '.ffn.layers.4.weight')):
        value = value[..., None, None]
    part = {'patch_embed': 0, 'block': 1, 'norm': 2}
    return _OF_A_STAGE.sub(lambda m: f'layers.{int(m[2]) - 1}.{part[m[1]]}.', key), value
