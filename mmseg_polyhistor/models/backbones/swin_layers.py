"""mmpretrain's Swin layer by layer, as functions of the stock modules and of what a method changes in them.

Features are (S, B, ..., C) with S task streams in front; see `mmseg_polyhistor.adapters.functional` for how streams part.
On the plain path, without a `WindowCache`, the operations are the stock ones in the stock order, so that results are equal
to the bit where nothing is changed. With one, windows are gathered, attention is fused and its constants are kept.
Changes come as {stock name within the block (or patch embedding, patch merging): change}.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import PatchEmbed, PatchMerging
from mmpretrain.models.backbones.swin_transformer import SwinBlock, SwinTransformer
from mmpretrain.models.utils import ShiftWindowMSA
from mmpretrain.models.utils.attention import WindowMSA
from torch import Tensor, nn

from ...adapters import BackboneLayout, LinearSite, ParameterSite, Site
from .leaves import Changes, changed_linear, changed_norm, tuned
from .swin_windows import Windows, to_tokens, to_windows

__all__ = [
    'FusedWindows',
    'attention_branch',
    'ffn_branch',
    'patch_embed_forward',
    'patch_merging_forward',
    'swin_layout',
]


# --------------------------------------------------------------------------------------------------- layout
def swin_layout(swin: SwinTransformer) -> BackboneLayout:
    """Widths, depths, linear maps and tunable parameters of a Swin, under its stock names.

    The output norms `norm{i}`, an absolute position embedding and layer scales are not among the parameters.

    Raises:
        ValueError: if a stage's width is no multiple of its number of heads.
    """
    for i, (width, stage) in enumerate(zip(swin.num_features, swin.stages, strict=True)):
        if width % (heads := stage.blocks[0].attn.w_msa.num_heads):
            raise ValueError(
                f'arch: the {width} channels of stage {i} (embed_dims={swin.embed_dims}) are no multiple of its {heads} heads '
                '(num_heads)'
            )
    linears: list[LinearSite] = []
    parameters: list[ParameterSite] = []
    for owner, stage, block in _owners(swin):
        roles = _linear_roles(owner)
        prefix = (
            'patch_embed.' if isinstance(owner, PatchEmbed) else '' if block is not None else 'downsample.'
        )
        for name, module in owner.named_modules():
            site = Site(stage, block, f'{prefix}{name}')
            if module in roles:
                linears.append(LinearSite(site, roles[module], module.in_features, module.out_features))
            for key, parameter in module.named_parameters(recurse=False):
                if groups := _groups(owner, module, key):
                    at = site._replace(position=f'{site.position}.{key}')
                    parameters.append(ParameterSite(at, tuple(parameter.shape), groups))
    return BackboneLayout(
        tuple(swin.num_features), tuple(swin.depths), linears=tuple(linears), parameters=tuple(parameters)
    )


def _owners(swin: SwinTransformer) -> list[tuple[nn.Module, int, int | None]]:
    """The modules that changes are sorted by, with their stage and block."""
    owners: list[tuple[nn.Module, int, int | None]] = [(swin.patch_embed, 0, None)]
    for i, stage in enumerate(swin.stages):
        owners += [(block, i, j) for j, block in enumerate(stage.blocks)]
        if stage.downsample is not None:
            owners.append((stage.downsample, i, None))
    return owners


def _linear_roles(owner: nn.Module) -> dict[nn.Module, str]:
    if isinstance(owner, PatchMerging):
        return {owner.reduction: 'reduction'}
    if isinstance(owner, SwinBlock):
        msa = owner.attn.w_msa
        fcs = [m for m in owner.ffn.layers.modules() if isinstance(m, nn.Linear)]
        return {msa.qkv: 'qkv', msa.proj: 'proj', **{fc: f'fc{i}' for i, fc in enumerate(fcs, 1)}}
    return {}


def _groups(owner: nn.Module, module: nn.Module, name: str) -> tuple[str, ...]:
    """The groups of a parameter, () where it cannot be tuned beside the network."""
    if isinstance(module, nn.LayerNorm):
        return ('norm', f'norm_{name}')
    if isinstance(module, WindowMSA):
        return ('relative_position_bias',)
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        part = {PatchEmbed: ('patch_embed',), PatchMerging: ('patch_merging',)}.get(type(owner), ())
        return (name, *part)
    return ()


# ------------------------------------------------------------------------------------------------ embedding
def patch_embed_forward(
    module: PatchEmbed, images: Tensor, changes: Changes
) -> tuple[Tensor, tuple[int, int]]:
    """Images (B, 3, H, W) -> features (S, B, L, C) and their height and width."""
    if module.adaptive_padding:
        images = module.adaptive_padding(images)
    conv = module.projection
    weight_change = changes.get('patch_embed.projection.weight')
    bias_change = changes.get('patch_embed.projection.bias')
    if weight_change is None and bias_change is None:
        x = conv(images)[None]
    else:
        weight = tuned(conv.weight, weight_change)
        weight = weight if weight.dim() == 5 else weight[None]  # (T, C, 3, p, p)
        x = conv._conv_forward(images, weight.flatten(0, 1), None)
        x = x.unflatten(1, weight.shape[:2]).transpose(0, 1)  # (T, B, C, h, w)
        if conv.bias is not None:
            bias = tuned(conv.bias, bias_change)
            x = x + bias.view(-1, 1, bias.shape[-1], 1, 1).to(x.dtype)
    hw = (x.shape[3], x.shape[4])
    x = x.flatten(3).transpose(2, 3)  # (S, B, L, C)
    if module.norm is not None:
        x = changed_norm(module.norm, 'patch_embed.norm', x, changes)
    return x, hw


def patch_merging_forward(
    module: PatchMerging, x: Tensor, hw: tuple[int, int], changes: Changes
) -> tuple[Tensor, tuple[int, int]]:
    """Features (S, B, H * W, C) -> (S, B, ceil(H / 2) * ceil(W / 2), 2 C) and their height and width."""
    lead = x.shape[:2]
    x = x.flatten(0, 1).unflatten(1, hw).permute(0, 3, 1, 2)  # (S * B, C, H, W)
    if module.adaptive_padding:
        x = module.adaptive_padding(x)
    sampler = module.sampler
    hw = tuple(
        (size + 2 * sampler.padding[i] - sampler.dilation[i] * (sampler.kernel_size[i] - 1) - 1)
        // sampler.stride[i]
        + 1
        for i, size in enumerate(x.shape[-2:])
    )
    x = sampler(x).transpose(1, 2).unflatten(0, lead)  # (S, B, L / 4, 4 C)
    if module.norm is not None:
        x = changed_norm(module.norm, 'downsample.norm', x, changes)
    return changed_linear(module.reduction, 'downsample.reduction', x, changes), hw


# ---------------------------------------------------------------------------------------------------- block
class FusedWindows(NamedTuple):
    """What the fused path of a block needs beside its features."""

    windows: Windows
    bias: (
        Tensor | None
    )  # (1, heads, N, N), or (1, n heads, N, N) with a shift; None where the method changes it


def attention_branch(
    block: SwinBlock, x: Tensor, hw: tuple[int, int], changes: Changes, fused: FusedWindows | None
) -> Tensor:
    """attention(norm1(x)) of features (S, B, L, C); by the stock operations where `fused` is None."""
    h = changed_norm(block.norm1, 'norm1', x, changes)
    return (
        _window_attention(block, h, hw, changes)
        if fused is None
        else _fused_attention(block, h, changes, fused)
    )


def ffn_branch(block: SwinBlock, x: Tensor, changes: Changes) -> Tensor:
    """ffn(norm2(x)) of features (S, B, L, C)."""
    h = changed_norm(block.norm2, 'norm2', x, changes)
    return block.ffn.gamma2(_feed_forward(block.ffn.layers, 'ffn.layers', h, changes))


def _feed_forward(layers: nn.Sequential, name: str, x: Tensor, changes: Changes) -> Tensor:
    for key, layer in layers.named_children():
        at = f'{name}.{key}'
        if isinstance(layer, nn.Sequential):
            x = _feed_forward(layer, at, x, changes)
        elif isinstance(layer, nn.Linear):
            x = changed_linear(layer, at, x, changes)
        else:
            x = layer(x)
    return x


def _window_attention(block: SwinBlock, x: Tensor, hw: tuple[int, int], changes: Changes) -> Tensor:
    """Shifted-window attention of features (S, B, H * W, C), padded to whole windows."""
    attn: ShiftWindowMSA = block.attn
    size, shift = attn.window_size, attn.shift_size
    lead, (height, width) = x.shape[:2], hw
    x = x.reshape(-1, height, width, x.shape[-1])  # (S * B, H, W, C)
    x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    padded = (x.shape[1], x.shape[2])
    if shift > 0:
        x = torch.roll(x, shifts=(-shift, -shift), dims=(1, 2))
    mask = attn.get_attn_mask(padded, window_size=size, shift_size=shift, device=x.device)
    windows = attn.window_partition(x, size).view(lead[0], -1, size**2, x.shape[-1])  # (S, B * nW, N, C)
    windows = _attention(block, windows, mask, changes)
    x = attn.window_reverse(windows.reshape(-1, size, size, x.shape[-1]), *padded, size)
    if shift > 0:
        x = torch.roll(x, shifts=(shift, shift), dims=(1, 2))
    x = x[:, :height, :width].contiguous()
    return x.view(-1, lead[1], height * width, x.shape[-1])


def _fused_attention(block: SwinBlock, x: Tensor, changes: Changes, fused: FusedWindows) -> Tensor:
    """Shifted-window attention of features (S, B, L, C) through `scaled_dot_product_attention`."""
    msa: WindowMSA = block.attn.w_msa
    batch, tokens = x.shape[1], msa.window_size[0] * msa.window_size[1]
    x = to_windows(x.flatten(0, 1), fused.windows)  # (S * B, n N, C)
    x = x.view(-1, batch * (x.shape[1] // tokens), tokens, x.shape[-1])  # (S, B * n, N, C)
    if fused.bias is None:
        x = _attention(block, x, fused.windows.mask, changes)
    else:
        qkv = _qkv(msa, x, changes)  # each (S, B * n, heads, N, C / heads)
        lead = qkv[0].shape[:2]
        # Heads of all windows of an image are heads of one attention where the mask differs between windows.
        heads = fused.bias.shape[1]
        q, k, v = (t.reshape(-1, heads, tokens, t.shape[-1]) for t in qkv)
        dropout = msa.attn_drop.p if msa.attn_drop.training else 0.0
        x = F.scaled_dot_product_attention(
            q, k, v, fused.bias.to(q.dtype), dropout_p=dropout, scale=msa.scale
        )
        x = x.reshape(*lead, msa.num_heads, tokens, -1).transpose(2, 3).flatten(3)  # (S, B * n, N, C)
        x = msa.proj_drop(changed_linear(msa.proj, 'attn.w_msa.proj', x, changes))
    x = to_tokens(x.reshape(-1, fused.windows.order.numel(), x.shape[-1]), fused.windows)
    return x.unflatten(0, (-1, batch))


def _attention(block: SwinBlock, x: Tensor, mask: Tensor | None, changes: Changes) -> Tensor:
    """Attention within windows (S, B * nW, N, C), and to the prompts where there are any."""
    msa: WindowMSA = block.attn.w_msa
    q, k, v = _qkv(msa, x, changes)  # each (S, B * nW, heads, N, C / heads)
    q = q * msa.scale
    logits = q @ k.mT
    logits = logits + _position_bias(msa, changes.get('attn.w_msa.relative_position_bias_table'))
    if mask is not None:
        n = logits.shape[-1]
        logits = (
            logits.view(logits.shape[0], -1, mask.shape[0], msa.num_heads, n, n)
            + mask.to(logits.dtype)[:, None]
        )
        logits = logits.flatten(1, 2)
    prompts = changes.get('prompts')
    if prompts is None:
        x = msa.attn_drop(msa.softmax(logits)) @ v
    else:
        tokens = prompts.tokens[:, None]  # (T, 1, P, C)
        if prompts.norm:
            tokens = changed_norm(block.norm1, 'norm1', tokens, changes)
        _, prompt_k, prompt_v = _qkv(msa, tokens, changes)  # each (T, 1, heads, P, C / heads)
        prompt_logits = q @ prompt_k.mT  # (T, B * nW, heads, N, P)
        logits = logits.expand(prompt_logits.shape[0], *logits.shape[1:])
        attention = msa.attn_drop(msa.softmax(torch.cat([logits, prompt_logits], dim=-1)))
        n = logits.shape[-1]
        x = attention[..., :n] @ v + attention[..., n:] @ prompt_v
    x = x.transpose(2, 3).flatten(3)  # (S, B * nW, N, C)
    return msa.proj_drop(changed_linear(msa.proj, 'attn.w_msa.proj', x, changes))


def _qkv(msa: WindowMSA, x: Tensor, changes: Changes) -> tuple[Tensor, Tensor, Tensor]:
    qkv = changed_linear(msa.qkv, 'attn.w_msa.qkv', x, changes)  # (S, W, N, 3 C)
    return qkv.unflatten(-1, (3, msa.num_heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)


def _position_bias(msa: WindowMSA, difference: Tensor | None) -> Tensor:
    """The relative-position bias of every pair of a window's tokens, (T or 1, 1, heads, N, N)."""
    table = tuned(msa.relative_position_bias_table, difference)
    table = table if table.dim() == 3 else table[None]  # (T, (2 h - 1) (2 w - 1), heads)
    n = msa.window_size[0] * msa.window_size[1]
    bias = table[:, msa.relative_position_index.view(-1)].unflatten(1, (n, n))
    return bias.permute(0, 3, 1, 2)[:, None]
