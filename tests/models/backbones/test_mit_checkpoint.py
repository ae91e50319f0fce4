"""The release of SegFormer's authors against a network that wrote it, and against mmseg's own converter."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mmseg
import pytest
import torch
from mmseg.models.backbones import MixVisionTransformer
from torch import Tensor, nn

from mmseg_polyhistor.models.backbones import AdaptedMiT
from mmseg_polyhistor.models.backbones.mit_checkpoint import mit_state_dict

ARCH = dict(embed_dims=8, num_layers=[1, 2], num_heads=[1, 2])
TASKS = ('semseg', 'normals')
NAMES = {
    'attn.attn.out_proj.': 'attn.proj.',
    'ffn.layers.0.': 'mlp.fc1.',
    'ffn.layers.1.': 'mlp.dwconv.dwconv.',
    'ffn.layers.4.': 'mlp.fc2.',
}


@pytest.fixture
def stock() -> MixVisionTransformer:
    torch.manual_seed(0)
    more = dict(num_stages=2, patch_sizes=[7, 3], strides=[4, 2], sr_ratios=[8, 4], out_indices=(0, 1))
    model = MixVisionTransformer(**ARCH, **more).eval().requires_grad_(False)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model


@pytest.fixture
def authors(stock) -> dict[str, Tensor]:
    """Weights as the authors' release holds them, with the classifier of the pretraining."""
    out = {'head.weight': torch.ones(7, 16), 'head.bias': torch.ones(7)}
    for key, value in stock.state_dict().items():
        _, stage, part, rest = key.split('.', 3)
        number = int(stage) + 1
        if part == '0':
            out[f'patch_embed{number}.{rest.replace("projection", "proj")}'] = value
        elif part == '2':
            out[f'norm{number}.{rest}'] = value
        elif 'in_proj_' in rest:
            block, kind = rest.split('.')[0], rest.rpartition('_')[2]
            q, k, v = value.chunk(3)
            out[f'block{number}.{block}.attn.q.{kind}'] = q
            out[f'block{number}.{block}.attn.kv.{kind}'] = torch.cat([k, v])
        else:
            for new, old in NAMES.items():
                rest = rest.replace(new, old)
            linear = rest.endswith(('fc1.weight', 'fc2.weight'))
            out[f'block{number}.{rest}'] = value.flatten(1) if linear else value
    return out


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'net.encoder.'])
def test_the_authors_release_loads(stock, authors, prefix, tmp_path):
    expected = (
        'patch_embed1.proj.bias', 'patch_embed2.norm.weight', 'block1.0.attn.q.weight', 'block1.0.attn.kv.bias',
        'block1.0.attn.proj.bias', 'block2.1.attn.sr.weight', 'block2.1.attn.norm.bias', 'block2.0.norm1.weight',
        'block2.1.mlp.dwconv.dwconv.weight', 'block1.0.mlp.fc1.weight', 'block1.0.mlp.fc2.bias', 'norm2.bias',
    )  # fmt: skip
    assert authors.keys() >= set(expected)
    torch.save({prefix + k: v for k, v in authors.items()}, tmp_path / 'mit.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'mit.pth'))
    init |= dict(prefix='net.encoder') if prefix == 'net.encoder.' else {}
    x = torch.randn(1, 3, 40, 50)
    model = AdaptedMiT(ARCH, tasks=TASKS, adapter=dict(type='LoRA'), fused=False, init_cfg=init)
    model.init_weights()
    for maps in model.eval()(x).values():  # LoRA starts at the frozen network
        for a, b in zip(maps, stock(x), strict=True):
            torch.testing.assert_close(a, b)
    weights = model.read_encoder(*model.pretrained_source())
    for key, value in weights.items():
        assert torch.equal(value, stock.state_dict()[key]), key


def test_the_authors_release_is_converted_as_by_mmsegs_tool(authors):
    file = Path(mmseg.__file__).parent / '.mim/tools/model_converters/mit2mmseg.py'
    if not file.is_file():
        pytest.skip('mmseg is installed without its tools')
    spec = importlib.util.spec_from_file_location('mit2mmseg', file)
    converter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(converter)
    got, want = mit_state_dict(authors)[0], converter.convert_mit(authors)
    assert got.keys() == want.keys()
    assert all(torch.equal(v, want[k]) for k, v in got.items())


def test_weights_under_mmsegs_names_stay_as_they_are(stock, authors):
    got, foreign = mit_state_dict(stock.state_dict())
    assert not foreign and list(got) == list(stock.state_dict())
    assert all(torch.equal(v, stock.state_dict()[k]) for k, v in got.items())
    assert mit_state_dict(authors)[1] == ['head.weight', 'head.bias']


@pytest.mark.parametrize('lost', ['q', 'kv'])
def test_half_a_projection_is_refused_by_name(authors, lost):
    del authors[f'block1.0.attn.{lost}.weight']
    message = (
        r"1 missing, 1 unexpected.*\['layers.0.1.0.attn.attn.in_proj_weight'\].*\['layers.0.1.0.attn.k?[qv]"
    )
    with pytest.raises(RuntimeError, match=message):
        AdaptedMiT(ARCH).load_encoder(mit_state_dict(authors)[0])
