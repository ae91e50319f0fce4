"""MiT and PVTv2 with every method once more, from the formulas and as plain as possible: the network of one task.

As in `naive_reference`, whose functions say what a method does at a place: nothing in here calls the package, convolutions
are sums over the places of their kernels, and attention runs head by head.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from naive_reference import Network, gelu, low_rank_changes
from torch import Tensor

MIT = dict(
    patch_embed='layers.{stage}.0',
    block='layers.{stage}.1.{block}',
    norm='layers.{stage}.2',
    projection='projection',
    fc1='ffn.layers.0',
    depthwise='ffn.layers.1',
    fc2='ffn.layers.4',
    proj='attn.attn.out_proj',
)
PVT = dict(
    patch_embed='stages.{stage}.downsample',
    block='stages.{stage}.blocks.{block}',
    norm='stages.{stage}.norm',
    projection='proj',
    fc1='mlp.fc1',
    depthwise='mlp.dwconv',
    fc2='mlp.fc2',
    proj='attn.proj',
)
STRIDES = (4, 2, 2, 2)


class PyramidNetwork(Network):
    """One task's network; `names` are the stock names of its parts."""

    names: Mapping[str, str] = MIT
    eps = 1e-6

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        heads: Sequence[int],
        depths: Sequence[int],
        reductions: Sequence[int],
        adapter: Mapping | None,
        task: str,
    ) -> None:
        super().__init__(parameters, heads, depths, adapter, task)
        self.reductions = reductions

    def scale(self, stage: int) -> int:
        first, here = (
            self.parameters[f'{self.name("patch_embed", i)}.norm.weight'].numel() for i in (0, stage)
        )
        return here // first

    def name(self, part: str, stage: int, block: int | None = None) -> str:
        return self.names[part].format(stage=stage, block=block)

    # ------------------------------------------------------------------------------------- what the network is made of
    def key(self, name: str) -> str:
        """'layers.1.1.0.norm1.bias' -> 'stage1_block0_norm1_bias', under which a method keeps what it has there."""
        for stage, depth in enumerate(self.depths):
            for part in ('patch_embed', 'norm'):
                start = self.name(part, stage) + '.'
                if name.startswith(start):
                    return f'stage{stage}_{part}_{name.removeprefix(start)}'.replace('.', '_')
            for block in range(depth):
                start = self.name('block', stage, block) + '.'
                if name.startswith(start):
                    return f'stage{stage}_block{block}_{name.removeprefix(start)}'.replace('.', '_')
        raise KeyError(name)

    def stock(self, name: str) -> Tensor | None:
        value = self.parameters.get(name)
        if value is None or not self.belongs(name):
            return value
        return value + self.own(f'tuned.differences.{self.owner}.{self.key(name)}')

    def belongs(self, name: str) -> bool:
        in_a_norm = bool(re.search(r'norm\d?\.\w+$', name)) or any(
            name.startswith(f'{self.name("norm", stage)}.') for stage in range(len(self.depths))
        )
        bias = name.endswith('bias')
        embedding = [
            stage
            for stage in range(len(self.depths))
            if name.startswith(f'{self.name("patch_embed", stage)}.{self.names["projection"]}')
        ]
        members = dict(
            bias=bias and not in_a_norm,
            weight=not bias and not in_a_norm,
            norm=in_a_norm,
            norm_weight=in_a_norm and not bias,
            norm_bias=in_a_norm and bias,
            patch_embed=embedding == [0],
            patch_merging=bool(embedding) and embedding != [0],
        )
        return any(members[group] for group in self.settings.get('tuned', ()))

    def linear(self, prefix: str, role: str, x: Tensor, own: bool) -> Tensor:
        name = f'{prefix}.{self.names[role]}'
        y = x @ self.stock(f'{name}.weight').flatten(1).T
        bias = self.stock(f'{name}.bias')
        y = y if bias is None else y + bias
        for change in low_rank_changes(self, role, self.key(name), own):
            y = y + change(x)
        return y

    def norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, self.stock(f'{name}.weight'), self.stock(f'{name}.bias'), self.eps)

    # ------------------------------------------------------------------------------------------------------- the layers
    def maps(self, images: Tensor) -> list[Tensor]:
        x = images.permute(0, 2, 3, 1)
        maps = []
        for stage, depth in enumerate(self.depths):
            x = self.patches(stage, x)
            for block in range(depth):
                if self.kind == 'MTLoRA' and block == depth - 1:
                    read = self.block(stage, block, x, own=True)
                    x = self.block(stage, block, x, own=False)
                else:
                    x = read = self.block(stage, block, x, own=True)
            norm = f'output_norms.{self.task}.{stage}'
            if f'{norm}.weight' in self.parameters:
                gain, shift = (self.parameters[f'{norm}.{part}'] for part in ('weight', 'bias'))
                maps.append(layer_norm(read, gain, shift, self.eps))
            else:
                maps.append(self.norm(self.name('norm', stage), read))
            if stage + 1 < len(self.depths):
                x = self.norm(self.name('norm', stage), x)
        return [m.permute(0, 3, 1, 2) for m in maps]

    def patches(self, stage: int, x: Tensor) -> Tensor:
        name = self.name('patch_embed', stage)
        conv = f'{name}.{self.names["projection"]}'
        weight, bias = self.stock(f'{conv}.weight'), self.stock(f'{conv}.bias')
        return self.norm(f'{name}.norm', convolve(x, weight, STRIDES[stage], weight.shape[-1] // 2) + bias)

    def block(self, stage: int, block: int, x: Tensor, own: bool) -> Tensor:
        prefix = self.name('block', stage, block)
        h = self.attention(stage, block, self.norm(f'{prefix}.norm1', x), own)
        x = self.join(stage, block, 'attn', x, h)
        h = self.linear(prefix, 'fc1', self.norm(f'{prefix}.norm2', x), own)
        conv = f'{prefix}.{self.names["depthwise"]}'
        h = convolve(h, self.stock(f'{conv}.weight'), 1, 1) + self.stock(f'{conv}.bias')
        return self.join(stage, block, 'ffn', x, self.linear(prefix, 'fc2', gelu(h), own))

    def attention(self, stage: int, block: int, x: Tensor, own: bool) -> Tensor:
        prefix = self.name('block', stage, block)
        source, reduction = x, self.reductions[stage]
        if reduction > 1:
            weight, bias = (self.stock(f'{prefix}.attn.sr.{part}') for part in ('weight', 'bias'))
            source = self.norm(f'{prefix}.attn.norm', convolve(x, weight, reduction, 0) + bias)
        q, k, v = self.queries_keys_values(prefix, x.flatten(1, 2), source.flatten(1, 2), own)
        size = q.shape[-1] // self.heads[stage]
        outs = []
        for head in range(self.heads[stage]):
            at = slice(head * size, (head + 1) * size)
            logits = q[..., at] @ k[..., at].transpose(1, 2) / math.sqrt(size)
            weights = torch.exp(logits - logits.detach().amax(-1, keepdim=True))
            outs.append(weights / weights.sum(-1, keepdim=True) @ v[..., at])
        return self.linear(prefix, 'proj', torch.cat(outs, dim=-1), own).unflatten(1, x.shape[1:3])

    def queries_keys_values(self, prefix: str, x: Tensor, source: Tensor, own: bool) -> list[Tensor]:
        """MiT's packed projection: its rows are those of queries, keys and values."""
        name = f'{prefix}.attn.attn.in_proj'
        weight, bias = self.stock(f'{name}_weight'), self.stock(f'{name}_bias')
        changes = low_rank_changes(self, 'qkv', self.key(name), own)
        out = []
        for part, features in enumerate((x, source, source)):
            rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
            y = features @ weight[rows].T
            y = y if bias is None else y + bias[rows]
            for change in changes:
                y = y + change(features)[..., rows]
            out.append(y)
        return out


class PVTNetwork(PyramidNetwork):
    """PVTv2: queries have a projection of their own, and so have keys and values together."""

    names = PVT

    def name(self, part: str, stage: int, block: int | None = None) -> str:
        return 'patch_embed' if (part, stage) == ('patch_embed', 0) else super().name(part, stage, block)

    def norm(self, name: str, x: Tensor) -> Tensor:
        eps = 1e-5 if re.search(r'^patch_embed|downsample|attn', name) else 1e-6
        return layer_norm(x, self.stock(f'{name}.weight'), self.stock(f'{name}.bias'), eps)

    def queries_keys_values(self, prefix: str, x: Tensor, source: Tensor, own: bool) -> list[Tensor]:
        out = []
        for name, features in ((f'{prefix}.attn.q', x), (f'{prefix}.attn.kv', source)):
            y = features @ self.stock(f'{name}.weight').T + self.stock(f'{name}.bias')
            for change in low_rank_changes(self, 'qkv', self.key(name), own):
                y = y + change(features)
            out.append(y)
        return [out[0], out[1][..., : x.shape[-1]], out[1][..., x.shape[-1] :]]


def layer_norm(x: Tensor, gain: Tensor, shift: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + eps) * gain + shift


def convolve(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Maps (B, H, W, C) by a kernel (C', C, k, k), or (C, 1, k, k) that sees each channel alone."""
    b, h, w, c = x.shape
    size = weight.shape[-1]
    padded = x.new_zeros(b, h + 2 * padding, w + 2 * padding, c)
    padded[:, padding : padding + h, padding : padding + w] = x
    rows, columns = ((n + 2 * padding - size) // stride + 1 for n in (h, w))
    total = 0
    for i in range(size):
        for j in range(size):
            seen = padded[
                :, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride
            ]
            alone = weight.shape[1] == 1 and c > 1
            total = total + (seen * weight[:, 0, i, j] if alone else seen @ weight[:, :, i, j].T)
    return total
