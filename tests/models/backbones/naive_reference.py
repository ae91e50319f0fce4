"""A Swin and every method once more, from the formulas and as plain as possible: the network of one task.

Nothing in here calls the package: `Network` reads parameters by their names in a state dict, computes windows one by one
and heads one by one, and knows one task only. What a method does at a place stands in a function of its own below, written
from sections 3 to 5 of the method's description and from the papers that the methods cite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

WINDOW = 7
SHIFT = 3  # of every second block
STOCK_LINEARS = {
    'qkv': 'attn.w_msa.qkv',
    'proj': 'attn.w_msa.proj',
    'fc1': 'ffn.layers.0.0',
    'fc2': 'ffn.layers.1',
    'reduction': 'downsample.reduction',
}

#: What the methods' descriptions say of settings that a config leaves out.
ADAPTER = dict(positions=('ffn',), insertion='serial', activation='silu', scale=1.0)
DEFAULTS: dict[str, dict] = {
    'BitFit': dict(tuned=('bias', 'norm_bias', 'relative_position_bias')),
    'RelativeBias': dict(tuned=('relative_position_bias',)),
    'VisualPrompt': dict(deep=False, norm=True),
    'LoRA': dict(targets=('qkv',), scale=1.0, pre_norm=True),
    'MTLoRA': dict(
        targets=('qkv', 'proj', 'fc1', 'fc2'),
        task_targets=('proj', 'fc1', 'fc2'),
        scale=4.0,
        per_task=False,
        tuned=('norm', 'relative_position_bias', 'patch_embed', 'patch_merging'),
    ),
    'BottleneckAdapter': ADAPTER,
    'LowRankAdapter': ADAPTER,
    'PHMAdapter': ADAPTER,
    'Compacter': ADAPTER | dict(positions=('attn', 'ffn')),
    'AdaptFormer': ADAPTER | dict(insertion='parallel', activation='relu', scale=0.1),
    'HyperAdapter': ADAPTER | dict(shared=False, scaling_kernels=False),
    'HyperFormer': ADAPTER | dict(shared=False, scaling_kernels=False, positions=('attn', 'ffn')),
    'Polyhistor': ADAPTER | dict(shared=False, scaling_kernels=False),
    'PolyhistorLite': ADAPTER | dict(shared=True, scaling_kernels=True),
}


def naive_maps(
    parameters: Mapping[str, Tensor],
    *,
    heads: Sequence[int],
    depths: Sequence[int],
    adapter: Mapping | None,
    task: str,
    images: Tensor,
) -> list[Tensor]:
    """The maps (B, C_i, h_i, w_i) of one task.

    Args:
        parameters: The model's, by name.
        heads: Attention heads of each stage.
        depths: Blocks of each stage.
        adapter: Config of the method, None for none.
        task: Whose maps.
        images: (B, 3, H, W).
    """
    return Network(parameters, heads, depths, adapter, task).maps(images)


class Network:
    """One task's network; a method's own numbers come from the functions below the class."""

    def __init__(self, parameters, heads, depths, adapter, task) -> None:
        self.parameters = parameters
        self.heads = heads
        self.depths = depths
        adapter = adapter or {}
        self.kind = adapter.get('type')
        self.settings = DEFAULTS.get(self.kind, {}) | dict(adapter)
        self.task = task
        self.owner = task if self.settings.get('per_task', True) else 'all'

    # ------------------------------------------------------------------------------------- what the network is made of
    def own(self, name: str) -> Tensor:
        return self.parameters[f'adapters.{name}']

    def stock(self, name: str) -> Tensor | None:
        """A stock parameter as the task sees it: its value, plus a difference where the method tunes it."""
        value = self.parameters.get(name)
        if value is None or not belongs_to(name, self.settings.get('tuned', ())):
            return value
        return value + self.own(f'tuned.differences.{self.owner}.{site_key(name)}')

    def scale(self, stage: int) -> int:
        """The stage's width as a multiple of the first one's."""
        return 2**stage

    def linear(self, prefix: str, role: str, x: Tensor, own: bool) -> Tensor:
        name = f'{prefix}.{STOCK_LINEARS[role]}'
        y = x @ self.stock(f'{name}.weight').T
        bias = self.stock(f'{name}.bias')
        if bias is not None:
            y = y + bias
        for change in low_rank_changes(self, role, site_key(name), own):
            y = y + change(x)
        return y

    def norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, self.stock(f'{name}.weight'), self.stock(f'{name}.bias'))

    # ------------------------------------------------------------------------------------------------------- the layers
    def maps(self, images: Tensor) -> list[Tensor]:
        x = self.patch_embed(images)  # (B, H, W, C)
        maps = []
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                if self.kind == 'MTLoRA' and block == depth - 1:
                    # The task's features leave the shared ones in the stage's last block, and end with the stage.
                    read = self.block(stage, block, x, own=True)
                    x = self.block(stage, block, x, own=False)
                else:
                    x = read = self.block(stage, block, x, own=True)
            norm = f'output_norms.{self.task}.{stage}'
            out = layer_norm(read, self.parameters[f'{norm}.weight'], self.parameters[f'{norm}.bias'])
            maps.append(out.permute(0, 3, 1, 2))
            if stage + 1 < len(self.depths):
                x = self.patch_merging(stage, x)
        return maps

    def patch_embed(self, images: Tensor) -> Tensor:
        x = pad(images.permute(0, 2, 3, 1), 4).permute(0, 3, 1, 2)  # (B, 3, H, W)
        weight, bias = self.stock('patch_embed.projection.weight'), self.stock('patch_embed.projection.bias')
        rows = []
        for top in range(0, x.shape[2], 4):
            patches = [x[:, :, top : top + 4, left : left + 4].flatten(1) for left in range(0, x.shape[3], 4)]
            rows.append(torch.stack(patches, dim=1))
        x = torch.stack(rows, dim=1)  # (B, H / 4, W / 4, 48)
        return self.norm('patch_embed.norm', x @ weight.flatten(1).T + bias)

    def patch_merging(self, stage: int, x: Tensor) -> Tensor:
        x = pad(x, 2)
        x = torch.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=-1)  # (B, H / 2, W / 2, C, 4)
        x = self.norm(f'stages.{stage}.downsample.norm', x.flatten(3))
        return self.linear(f'stages.{stage}', 'reduction', x, own=True)

    def block(self, stage: int, block: int, x: Tensor, own: bool) -> Tensor:
        prefix = f'stages.{stage}.blocks.{block}'
        h = self.attention(stage, block, self.norm(f'{prefix}.norm1', x), own)
        x = self.join(stage, block, 'attn', x, h)
        h = self.norm(f'{prefix}.norm2', x)
        h = self.linear(prefix, 'fc2', gelu(self.linear(prefix, 'fc1', h, own)), own)
        return self.join(stage, block, 'ffn', x, h)

    def join(self, stage: int, block: int, position: str, x: Tensor, h: Tensor) -> Tensor:
        adapter = adapter_at(self, stage, block, position)
        if adapter is None:
            return x + h
        return x + adapter(h) if self.settings['insertion'] == 'serial' else adapter(x) + h

    def attention(self, stage: int, block: int, x: Tensor, own: bool) -> Tensor:
        prefix = f'stages.{stage}.blocks.{block}'
        height, width = x.shape[1:3]
        x = pad(x, WINDOW)
        rows, columns = x.shape[1:3]
        shift = SHIFT if block % 2 else 0
        table = self.stock(f'{prefix}.attn.w_msa.relative_position_bias_table')
        bias = table[relative_index()]  # (49, 49, heads)
        prompts = prompts_at(self, stage, block)
        if prompts is not None:
            prompts = self.linear(prefix, 'qkv', prompts, own)  # (P, 3 C)
        grid = []
        for top in range(0, rows, WINDOW):
            windows = []
            for left in range(0, columns, WINDOW):
                # Rows and columns of the image that this window sees.
                ys = tuple((top + i + shift) % rows for i in range(WINDOW))
                xs = tuple((left + j + shift) % columns for j in range(WINDOW))
                tokens = x[:, ys][:, :, xs].flatten(1, 2)  # (B, 49, C)
                qkv = self.linear(prefix, 'qkv', tokens, own)
                hidden = far_apart(ys, xs).to(x.dtype) * -100.0
                out = self.heads_of(stage, qkv, bias, hidden, prompts)
                windows.append(self.linear(prefix, 'proj', out, own).unflatten(1, (WINDOW, WINDOW)))
            grid.append(torch.cat(windows, dim=2))
        x = torch.cat(grid, dim=1)
        return x[:, [(y - shift) % rows for y in range(height)]][
            :, :, [(c - shift) % columns for c in range(width)]
        ]

    def heads_of(
        self, stage: int, qkv: Tensor, bias: Tensor, hidden: Tensor, prompts: Tensor | None
    ) -> Tensor:
        """Attention within one window, from (B, 49, 3 C); prompts are seen by all, and see nobody."""
        channels = qkv.shape[-1] // 3
        size = channels // self.heads[stage]
        outs = []
        for head in range(self.heads[stage]):
            q, k, v = (
                qkv[..., i * channels + head * size : i * channels + (head + 1) * size] for i in range(3)
            )
            logits = q @ k.transpose(1, 2) / math.sqrt(size) + bias[..., head] + hidden
            if prompts is not None:
                prompt_k, prompt_v = (
                    prompts[:, i * channels + head * size : i * channels + (head + 1) * size] for i in (1, 2)
                )
                logits = torch.cat([logits, q @ prompt_k.T / math.sqrt(size)], dim=-1)
                v = torch.cat([v, prompt_v.expand(len(v), -1, -1)], dim=1)
            weights = torch.exp(logits - logits.detach().amax(-1, keepdim=True))
            outs.append(weights / weights.sum(-1, keepdim=True) @ v)
        return torch.cat(outs, dim=-1)


# --------------------------------------------------------------------------------------------------------- small formulas
def layer_norm(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * gain + shift


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'silu': lambda x: x / (1 + torch.exp(-x)),
    'relu': lambda x: x * (x > 0),
    'gelu': gelu,
    'tanh': torch.tanh,
    'identity': lambda x: x,
}


def pad(x: Tensor, multiple: int) -> Tensor:
    """Zeros behind the rows and columns of (B, H, W, C), up to the next multiple."""
    b, h, w, c = x.shape
    x = torch.cat([x, x.new_zeros(b, -h % multiple, w, c)], dim=1)
    return torch.cat([x, x.new_zeros(b, x.shape[1], -w % multiple, c)], dim=2)


@lru_cache
def relative_index() -> Tensor:
    """The table's row for query i and key j: one for each distance in rows and columns, (49, 49)."""
    index = torch.empty(WINDOW**2, WINDOW**2, dtype=torch.long)
    for i in range(WINDOW**2):
        for j in range(WINDOW**2):
            rows = i // WINDOW - j // WINDOW
            columns = i % WINDOW - j % WINDOW
            index[i, j] = (rows + WINDOW - 1) * (2 * WINDOW - 1) + columns + WINDOW - 1
    return index


@lru_cache
def far_apart(ys: tuple[int, ...], xs: tuple[int, ...]) -> Tensor:
    """Which tokens of a window are no neighbours in the image, as the shift has put its two ends together, (49, 49)."""
    far = torch.zeros(WINDOW**2, WINDOW**2, dtype=torch.bool)
    for i in range(WINDOW**2):
        for j in range(WINDOW**2):
            rows = ys[i // WINDOW] - ys[j // WINDOW] == i // WINDOW - j // WINDOW
            columns = xs[i % WINDOW] - xs[j % WINDOW] == i % WINDOW - j % WINDOW
            far[i, j] = not (rows and columns)
    return far


# -------------------------------------------------------------------------------------------------------------- names
def site_key(name: str) -> str:
    """'stages.1.blocks.0.norm1.bias' -> 'stage1_block0_norm1_bias', the name under which a method keeps what it has there."""
    parts = name.split('.')
    if parts[0] == 'stages':
        parts = [f'stage{parts[1]}', *parts[2:]]
        if parts[1] == 'blocks':
            parts[1:3] = [f'block{parts[2]}']
    else:
        parts = ['stage0', *parts]
    return '_'.join(parts)


def belongs_to(name: str, groups: Sequence[str]) -> bool:
    """Whether a stock parameter is in one of the groups, by its name."""
    in_a_norm = 'norm' in name
    table = name.endswith('relative_position_bias_table')
    kind = name.rsplit('.', 1)[-1]
    members = {
        'bias': kind == 'bias' and not in_a_norm,
        'weight': kind == 'weight' and not in_a_norm,
        'norm': in_a_norm,
        'norm_weight': in_a_norm and kind == 'weight',
        'norm_bias': in_a_norm and kind == 'bias',
        'relative_position_bias': table,
        'patch_embed': name.startswith('patch_embed.projection'),
        'patch_merging': 'downsample.reduction' in name,
    }
    return any(members[group] for group in groups)


# ------------------------------------------------------------------------------------------------------------- prompts
def prompts_at(net: Network, stage: int, block: int) -> Tensor | None:
    """VPT: tokens (P, C) beside those of every window, of the first block or of every one."""
    if net.kind != 'VisualPrompt' or not (net.settings['deep'] or (stage, block) == (0, 0)):
        return None
    tokens = net.own(f'sets.{net.owner}.stage{stage}_block{block}_prompts')
    return net.norm(f'stages.{stage}.blocks.{block}.norm1', tokens) if net.settings['norm'] else tokens


# ---------------------------------------------------------------------------------------------------- low-rank changes
def low_rank_changes(net: Network, role: str, key: str, own: bool) -> list[Callable[[Tensor], Tensor]]:
    """What is added to a linear map's output, as functions of its input."""
    if net.kind not in ('LoRA', 'MTLoRA') or role not in net.settings['targets']:
        return []
    sets = [f'sets.{net.owner}.{key}']
    if net.kind == 'MTLoRA' and own and role in net.settings['task_targets']:
        stage, block = (int(part.lstrip('stageblock')) for part in key.split('_')[:2])
        if block == net.depths[stage] - 1:
            sets.append(f'task_sets.{net.task}.{key}')

    def change(name: str) -> Callable[[Tensor], Tensor]:
        def apply(x: Tensor) -> Tensor:
            if net.kind == 'LoRA' and net.settings['pre_norm']:
                x = layer_norm(x, net.own(f'{name}.pre_gain'), net.own(f'{name}.pre_shift'))
            return net.settings['scale'] * (x @ net.own(f'{name}.down').T) @ net.own(f'{name}.up').T

        return apply

    return [change(name) for name in sets]


# ------------------------------------------------------------------------------------------------------------ adapters
def adapter_at(net: Network, stage: int, block: int, position: str) -> Callable[[Tensor], Tensor] | None:
    """scale * (x + LN_post(W_up sigma(W_down LN_pre(x) + b_down) + b_up)), where there is an adapter."""
    if position not in net.settings.get('positions', ()):
        return None
    if net.kind in ('HyperAdapter', 'HyperFormer', 'Polyhistor', 'PolyhistorLite'):
        w = generated_weights(net, stage, block, position)
    else:
        w = static_weights(net, f'stage{stage}_block{block}_{position}')

    def adapter(x: Tensor) -> Tensor:
        h = x
        if 'pre_gain' in w:
            h = layer_norm(h, w['pre_gain'], w['pre_shift'])
        h = ACTIVATIONS[net.settings['activation']](h @ w['down'].T + w['down_bias'])
        h = h @ w['up'].T + w['up_bias']
        if 'post_gain' in w:
            h = layer_norm(h, w['post_gain'], w['post_shift'])
        scale = net.settings['scale']
        return x + scale * h if net.kind == 'AdaptFormer' else scale * (x + h)

    return adapter


def norms_of(net: Network) -> list[str]:
    post = net.settings.get('post_norm', net.kind != 'AdaptFormer')
    norms = ['post'] * post + ['pre'] * net.settings.get('pre_norm', False)
    return [f'{norm}_{part}' for norm in norms for part in ('gain', 'shift')]


def static_weights(net: Network, key: str) -> dict[str, Tensor]:
    at = f'sets.{net.owner}.{key}'
    w = {name: net.own(f'{at}.{name}') for name in ('down_bias', 'up_bias', *norms_of(net))}
    for name in ('down', 'up'):
        if net.kind in ('BottleneckAdapter', 'AdaptFormer'):
            w[name] = net.own(f'{at}.{name}.weight')
        elif net.kind == 'LowRankAdapter':
            w[name] = net.own(f'{at}.{name}.left') @ net.own(f'{at}.{name}.right')
        elif net.kind == 'PHMAdapter':
            rules, blocks = net.own(f'{at}.{name}.rule'), net.own(f'{at}.{name}.blocks')
            w[name] = sum(torch.kron(a, b) for a, b in zip(rules, blocks, strict=True))
        elif net.kind == 'Compacter':
            rules = net.own(f'rules.{net.owner}')  # of the task, for all layers
            left, right = net.own(f'{at}.{name}.left'), net.own(f'{at}.{name}.right')
            w[name] = sum(
                torch.kron(rules[i], torch.outer(left[i, :, 0], right[i, 0])) for i in range(len(rules))
            )
    return w  # fmt: skip


def generated_weights(net: Network, stage: int, block: int, position: str) -> dict[str, Tensor]:
    """Weights from a hyper-network, for one block (section 4)."""
    s = net.settings
    place = [p for p in ('attn', 'ffn') if p in s['positions']].index(position)
    positions = len(s['positions'])
    scale = net.scale(stage) if s['scaling_kernels'] else 1
    # One hyper-network for the backbone, or one per block with heads for each position.
    code_net, code_group = ('code_nets.0', 0) if s['shared'] else (f'code_nets.{stage}', block)
    heads = 'heads.0' if s['shared'] and s['scaling_kernels'] else f'heads.{stage}'
    head_group = 0 if s['shared'] else block * positions + place

    templates = []
    for i in range(scale):
        embeddings = [net.own(f'task_embeddings.{net.task}')]
        if s['shared'] or s['scaling_kernels']:
            embeddings.append(net.own(f'layer_embeddings.{stage}')[block, i])
        if s['shared'] and positions > 1:
            embeddings.append(net.own('position_embeddings')[place])
        code = torch.cat(embeddings)
        code = (
            net.own(f'{code_net}.fc1.weight')[code_group] @ code + net.own(f'{code_net}.fc1.bias')[code_group]
        )
        code = ACTIVATIONS['relu'](code)
        code = (
            net.own(f'{code_net}.fc2.weight')[code_group] @ code + net.own(f'{code_net}.fc2.bias')[code_group]
        )
        code = layer_norm(
            code, net.own(f'{code_net}.norm_weight')[code_group], net.own(f'{code_net}.norm_bias')[code_group]
        )

        def emit(name: str, code: Tensor = code) -> Tensor:
            at = f'{heads}.maps.{name}'
            return net.own(f'{at}.weight')[head_group] @ code + net.own(f'{at}.bias')[head_group]

        template = {name: emit(name) for name in ('down_bias', 'up_bias', *norms_of(net))}
        d, n = len(template['up_bias']), len(template['down_bias'])
        for name, rows, columns in (('down', n, d), ('up', d, n)):
            if s.get('rank', -4 if net.kind in ('Polyhistor', 'PolyhistorLite') else None) is None:
                template[name] = emit(name).reshape(rows, columns)
            else:
                template[name] = emit(f'{name}_p').reshape(rows, -1) @ emit(f'{name}_q').reshape(-1, columns)
        templates.append(template)
    if scale == 1:
        return templates[0]

    def lift(name: str) -> Tensor:
        kind = 'weight' if name in ('down', 'up') else 'bias' if name.endswith('bias') else 'norm'
        owner = net.task if s.get('kernels_per_task', False) else 'all'
        kernels = net.own(f'kernels.{stage}.sets.{owner}.{kind}')[block, place]  # (s, s, s), or (s, s, 1)
        total = 0
        for kernel, template in zip(kernels, templates, strict=True):
            t = template[name] if kind == 'weight' else template[name][:, None]
            first = s.get('kron_order', 'kernel_first') == 'kernel_first'
            total = total + (torch.kron(kernel, t) if first else torch.kron(t, kernel))
        return total if kind == 'weight' else total[:, 0]

    return {name: lift(name) for name in templates[0]}
