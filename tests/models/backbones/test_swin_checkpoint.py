"""Published checkpoints: every form that is in use, every key accounted for, no code run."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmseg.registry import MODELS
from torch import nn

from mmseg_polyhistor.models.backbones import AdaptedSwin
from mmseg_polyhistor.models.backbones.encoder_checkpoint import load_weights_file
from mmseg_polyhistor.models.backbones.swin_checkpoint import swin_state_dict

ARCH = dict(embed_dims=24, depths=[1, 2], num_heads=[2, 3])
TASKS = ('semseg', 'normals')


class AuthorsMerging(nn.Module):
    """Patch merging in the order of the Swin authors' release: concatenate four strided views."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x, hw):
        x = x.view(x.shape[0], *hw, -1)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.reduction(self.norm(x.flatten(1, 2)))


@pytest.fixture
def source():
    torch.manual_seed(0)
    model = AdaptedSwin(ARCH)
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    return model


def authors_names(state: dict, merging: AuthorsMerging) -> dict:
    """Write the weights under the names of the authors' release."""
    out = {}
    for key, value in state.items():
        if key.startswith('norm0'):
            continue  # only the last output norm exists there
        key = key.replace('stages.', 'layers.').replace('patch_embed.projection', 'patch_embed.proj')
        key = key.replace('.ffn.layers.0.0.', '.mlp.fc1.').replace('.ffn.layers.1.', '.mlp.fc2.')
        key = (
            key.replace('.w_msa.', '.').replace('norm1.', 'norm.')
            if key.startswith('norm1.')
            else key.replace('.w_msa.', '.')
        )
        out[key] = value
    for name, value in merging.state_dict().items():
        out[f'layers.0.downsample.{name}'] = value
    out['layers.1.blocks.1.attn_mask'] = torch.zeros(1)
    out['head.weight'] = torch.zeros(10, 48)
    return out


def test_the_authors_release_is_converted_with_its_patch_merging(source, tmp_path):
    merging = AuthorsMerging(24)
    for p in merging.parameters():
        nn.init.normal_(p)
    torch.save({'model': authors_names(source.state_dict(), merging)}, tmp_path / 'swin.pth')
    model = AdaptedSwin(ARCH, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'swin.pth')))
    model.init_weights()
    x = torch.randn(2, 8 * 6, 24)
    torch.testing.assert_close(model.stages[0].downsample(x, (8, 6))[0], merging(x, (8, 6)))
    ours, theirs = model.state_dict(), source.state_dict()
    for key in theirs:
        if 'downsample' not in key and not key.startswith('norm0'):
            assert torch.equal(ours[key], theirs[key]), key


@pytest.mark.parametrize('as_list', [False, True])
def test_init_cfg_in_a_list_accounts_for_keys_as_well(source, as_list, tmp_path):
    """mmengine's own loading of a list would leave out, without an error, whatever does not fit."""
    weights = source.state_dict()
    del weights['stages.0.blocks.0.norm1.weight']
    torch.save(weights, tmp_path / 'swin.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'swin.pth'))
    with pytest.raises(RuntimeError, match=r'missing .*stages.0.blocks.0.norm1.weight'):
        AdaptedSwin(ARCH, init_cfg=[init] if as_list else init).init_weights()


@pytest.mark.parametrize('form', ['backbone.', 'bare', 'prefix'])
def test_openmmlab_forms(source, form, tmp_path):
    prefix = {'backbone.': 'backbone.', 'bare': '', 'prefix': 'model.encoder.'}[form]
    state = {prefix + k: v for k, v in source.state_dict().items() if not k.startswith('norm0')}
    state['head.fc.weight'] = torch.zeros(10, 48)
    torch.save({'meta': {'epoch': 3}, 'state_dict': state}, tmp_path / 'a b.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'a b.pth'))
    if form == 'prefix':
        init['prefix'] = 'model.encoder'
    model = AdaptedSwin(ARCH, tasks=TASKS, adapter=dict(type='PolyhistorLite', ratio=2), init_cfg=init)
    model.init_weights()
    assert all(
        torch.equal(v, model.state_dict()[k])
        for k, v in source.state_dict().items()
        if 'norm0' not in k and 'norm1.' not in k[:6]
    )


def test_report_accounts_for_every_key(source):
    state = {k: v for k, v in source.state_dict().items() if not k.startswith('norm0')}
    state['head.fc.weight'] = torch.zeros(1)
    weights, foreign = swin_state_dict({'state_dict': state})
    report = AdaptedSwin(ARCH, tasks=TASKS).load_encoder(weights)
    assert foreign == ['head.fc.weight']
    assert report.final_norm == ['norm1.weight', 'norm1.bias']
    assert len(report.loaded) + len(report.final_norm) + len(foreign) == len(state)
    assert '0 missing, 0 unexpected' in str(report)


def test_missing_and_unexpected_keys_are_refused_by_name(source):
    weights, _ = swin_state_dict(source.state_dict())
    del weights['stages.0.blocks.0.norm1.weight']
    weights['stages.7.extra'] = torch.zeros(1)
    with pytest.raises(
        RuntimeError, match=r'missing .*stages.0.blocks.0.norm1.weight.*unexpected .*stages.7.extra'
    ):
        AdaptedSwin(ARCH).load_encoder(weights)


def test_checkpoint_of_another_size_is_refused(source, tmp_path):
    torch.save(source.state_dict(), tmp_path / 'x.pth')
    model = AdaptedSwin(
        dict(ARCH, embed_dims=36), init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    )
    with pytest.raises(RuntimeError, match=r'of other shapes .*\(24, 3, 4, 4\), here \(36, 3, 4, 4\)'):
        model.init_weights()


def test_tables_of_another_window_are_resized(source):
    big = AdaptedSwin(ARCH, window_size=12)
    report = big.load_encoder(source.state_dict())
    table = big.stages[0].blocks[0].attn.w_msa.relative_position_bias_table
    assert table.shape == (23 * 23, 2)
    assert not report.missing
    old = source.stages[0].blocks[0].attn.w_msa.relative_position_bias_table
    for head in range(2):
        grid = old[:, head].view(1, 1, 13, 13)
        want = nn.functional.interpolate(grid, size=(23, 23), mode='bicubic')[0, 0]
        torch.testing.assert_close(table[:, head].view(23, 23), want)
    # the offset 0 stays at the centre, with its value
    torch.testing.assert_close(table[11 * 23 + 11], old[6 * 13 + 6])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_table_of_another_precision_is_resized_at_least_in_float32(source, dtype, tmp_path):
    torch.save({k: v.to(dtype) for k, v in source.state_dict().items()}, tmp_path / 'swin.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'swin.pth'))
    big = AdaptedSwin(ARCH, window_size=12, init_cfg=init).double()
    big.init_weights()
    table = big.stages[0].blocks[0].attn.w_msa.relative_position_bias_table
    stored = source.stages[0].blocks[0].attn.w_msa.relative_position_bias_table.to(dtype).double()
    want = nn.functional.interpolate(stored.t().view(1, 2, 13, 13), size=(23, 23), mode='bicubic')
    error = (table.t().view(1, 2, 23, 23) - want).abs().max()
    assert error < (1e-12 if dtype is torch.float64 else 1e-6)  # float16 itself has steps of 1e-4 here


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch "{self.path}"',)


def test_a_file_with_code_is_refused_and_does_not_run(tmp_path):
    torch.save({'state_dict': {}, 'meta': Bomb(tmp_path / 'ran')}, tmp_path / 'bomb.pth')
    (tmp_path / 'plain.pkl').write_bytes(pickle.dumps(Bomb(tmp_path / 'ran')))
    torch.save({'message_hub': HistoryBuffer([1.0], [1])}, tmp_path / 'buffer.pth')
    for name in ('bomb.pth', 'plain.pkl', 'buffer.pth'):
        with pytest.raises(RuntimeError, match=name):
            load_weights_file(str(tmp_path / name))
    assert not (tmp_path / 'ran').exists()


def test_broken_and_absent_files_are_named(source, tmp_path):
    torch.save(source.state_dict(), tmp_path / 'whole.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'whole.pth').read_bytes()[:5000])
    with pytest.raises(RuntimeError, match=r'cut\.pth'):
        load_weights_file(str(tmp_path / 'cut.pth'))
    with pytest.raises(FileNotFoundError, match=r'absent\.pth'):
        load_weights_file(str(tmp_path / 'absent.pth'))
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(RuntimeError, match='holds a list'):
        load_weights_file(str(tmp_path / 'list.pth'))


def test_an_unreachable_url_is_named_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    url = 'http://127.0.0.1:9/swin.pth'  # the port that discards: nobody listens
    with pytest.raises(RuntimeError, match=rf"'{url}' cannot be downloaded: .*give its path"):
        load_weights_file(url)


def test_a_segmentor_s_init_weights_loads_the_file_and_draws_the_heads(source, tmp_path):
    """What `Runner.train` calls, with mmengine's record of every parameter's origin."""
    torch.save({'state_dict': source.state_dict()}, tmp_path / 'swin.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'swin.pth'))
    model = MODELS.build(
        dict(
            type='MultiTaskSegmentor',
            tasks=TASKS,
            backbone=dict(
                type='AdaptedSwin', arch=ARCH, tasks=TASKS, adapter=dict(type='PolyhistorLite'), init_cfg=init
            ),
            decode_heads=dict(type='AllMLPHead', in_channels=[24, 48], channels=64),
        )
    )
    adapters = {k: v.clone() for k, v in model.backbone.adapters.state_dict().items()}
    model.init_weights()
    for key, value in source.state_dict().items():
        if not key.startswith(('norm0', 'norm1')):
            assert torch.equal(model.backbone.state_dict()[key], value), key
    assert all(torch.equal(v, adapters[k]) for k, v in model.backbone.adapters.state_dict().items())
    assert model.decode_heads['semseg'].conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert not any(hasattr(m, '_params_init_info') for m in model.modules())


def test_a_prefix_that_no_key_has_is_an_error(source):
    with pytest.raises(ValueError, match=r"starts with 'encoder\.'"):
        swin_state_dict(source.state_dict(), 'encoder')
