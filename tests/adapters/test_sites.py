"""What a method knows of a backbone: sites and their names, linear maps by role, parameters by group."""

from __future__ import annotations

import pytest

from mmseg_polyhistor.adapters import BackboneLayout, LinearSite, ParameterSite, Site

QKV = LinearSite(Site(0, 0, 'attn.qkv'), 'qkv', 8, 24)
FC = LinearSite(Site(0, 0, 'mlp.fc'), 'fc1', 8, 16)
REDUCTION = LinearSite(Site(0, None, 'downsample.reduction'), 'reduction', 32, 16)
QKV_1 = LinearSite(Site(1, 0, 'attn.qkv'), 'qkv', 16, 48)
BIAS = ParameterSite(Site(0, 0, 'attn.qkv.bias'), (24,), ('bias',))
GAIN = ParameterSite(Site(0, 0, 'norm.weight'), (8,), ('norm', 'norm_weight'))
SHIFT = ParameterSite(Site(0, 0, 'norm.bias'), (8,), ('norm', 'norm_bias'))
MERGING = ParameterSite(Site(0, None, 'downsample.reduction.bias'), (16,), ('bias', 'patch_merging'))
LAYOUT = BackboneLayout(
    (8, 16), (1, 2), linears=(QKV, FC, REDUCTION, QKV_1), parameters=(BIAS, GAIN, SHIFT, MERGING)
)


@pytest.mark.parametrize(
    ('site', 'key'),
    [
        (Site(0, 1, 'attn'), 'stage0_block1_attn'),
        (Site(2, 11, 'attn.w_msa.qkv.bias'), 'stage2_block11_attn_w_msa_qkv_bias'),
        (Site(0, None, 'patch_embed.projection.weight'), 'stage0_patch_embed_projection_weight'),
        (Site(1, None, 'downsample.reduction'), 'stage1_downsample_reduction'),
    ],
)
def test_a_sites_key_is_its_place_without_dots(site, key):
    assert site.key == key


def test_sites_come_in_the_order_of_a_forward_pass():
    assert list(LAYOUT.sites(('ffn', 'attn'))) == [
        Site(0, 0, 'attn'), Site(0, 0, 'ffn'), Site(1, 0, 'attn'), Site(1, 0, 'ffn'),
        Site(1, 1, 'attn'), Site(1, 1, 'ffn'),
    ]  # fmt: skip
    assert list(LAYOUT.sites(('attn',))) == [Site(0, 0, 'attn'), Site(1, 0, 'attn'), Site(1, 1, 'attn')]


@pytest.mark.parametrize(
    ('roles', 'chosen'),
    [
        (('qkv',), (QKV, QKV_1)),
        (('fc1', 'qkv'), (QKV, FC, QKV_1)),  # in the backbone's order
        (['reduction'], (REDUCTION,)),
    ],
    ids=['one', 'two', 'list'],
)
def test_linear_maps_are_selected_by_role(roles, chosen):
    assert LAYOUT.select_linears(roles) == chosen


@pytest.mark.parametrize(
    ('groups', 'chosen'),
    [
        ((), ()),
        (('bias',), (BIAS, MERGING)),
        (('norm_bias',), (SHIFT,)),
        (('patch_merging', 'norm'), (GAIN, SHIFT, MERGING)),
        (('norm', 'norm_weight', 'bias', 'patch_merging'), (BIAS, GAIN, SHIFT, MERGING)),  # each of them once
    ],
    ids=['none', 'bias', 'norm_bias', 'two', 'overlapping'],
)
def test_parameters_are_selected_by_group(groups, chosen):
    assert LAYOUT.select_parameters(groups) == chosen


@pytest.mark.parametrize(
    ('select', 'message'),
    [
        (
            lambda: LAYOUT.select_linears(('qkv', 'kv', 'out')),
            r"targets: unknown \['kv', 'out'\].*\['fc1', 'qkv', 'reduction'\]",
        ),
        (lambda: LAYOUT.select_linears('qkv'), "targets must be a non-empty sequence.*, got 'qkv'"),
        (lambda: LAYOUT.select_linears(()), r'targets must be a non-empty sequence.*, got \(\)'),
        (lambda: LAYOUT.select_linears(('qkv', 'qkv')), 'different names'),
        (lambda: BackboneLayout((8,), (1,)).select_linears(('qkv',)), r"\['qkv'\].*: none"),
        (
            lambda: LAYOUT.select_parameters(('weights',)),
            r"tuned: unknown \['weights'\].*'bias', 'norm', 'norm_bias', 'norm_weight', 'patch_merging'",
        ),
        (lambda: LAYOUT.select_parameters('bias'), "tuned must be a non-empty sequence.*, got 'bias'"),
        (lambda: LAYOUT.select_parameters(''), "tuned must be a non-empty sequence.*, got ''"),
        (lambda: LAYOUT.select_parameters(('bias', 'bias')), 'different names'),
        (lambda: BackboneLayout((8,), (1,)).select_parameters(('bias',)), r"\['bias'\].*: none"),
        (lambda: BackboneLayout((8, 16), (1,)), r'widths \(8, 16\) and depths \(1,\)'),
        (lambda: BackboneLayout((), ()), 'must name the same stages'),
        (lambda: BackboneLayout((8, 16), (1, 0)), r'depths \(1, 0\) must be positive'),
        (lambda: BackboneLayout((8, 20), (1, 1)).scales(), r'multiples of the first one, 8; got \[20\]'),
    ],
)  # fmt: skip
def test_unfit_names_and_sizes_are_refused(select, message):
    with pytest.raises(ValueError, match=message):
        select()


def test_scales_are_multiples_of_the_first_width():
    assert BackboneLayout((96, 192, 384, 768), (2, 2, 6, 2)).scales() == (1, 2, 4, 8)
