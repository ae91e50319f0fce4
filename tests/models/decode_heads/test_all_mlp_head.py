"""`AllMLPHead` against the plain formulation of SegFormer's decoder, written out here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

from mmseg_polyhistor.models.decode_heads import AllMLPHead

WIDTHS = (6, 10, 12, 16)


class PlainHead(nn.Module):
    """Linear per map, bilinear upsampling to the first map, concat, 1x1 conv, BN, ReLU, dropout, 1x1 conv."""

    def __init__(self, head: AllMLPHead):
        super().__init__()
        self.head = head

    def forward(self, maps):
        head = self.head
        size = maps[0].shape[2:]
        projected = []
        for x, linear in zip(maps, head.projections, strict=True):
            y = linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
            projected.append(F.interpolate(y, size, mode='bilinear', align_corners=head.align_corners))
        return head.cls_seg(head.fusion(torch.cat(projected, dim=1)))


def build(**kwargs):
    torch.manual_seed(0)
    cfg = dict(type='AllMLPHead', in_channels=WIDTHS, channels=8, num_classes=5) | kwargs
    return MODELS.build(cfg)


def make_maps(sizes, dtype=torch.float64, widths=WIDTHS):
    torch.manual_seed(1)
    return [
        torch.randn(2, c, *size, dtype=dtype, requires_grad=True)
        for c, size in zip(widths, sizes, strict=True)
    ]


EVEN = [(16, 16), (8, 8), (4, 4), (2, 2)]
ODD = [(13, 17), (7, 9), (4, 5), (2, 3)]


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('sizes', [EVEN, ODD], ids=['even', 'odd'])
def test_equals_the_plain_formulation_with_all_gradients(sizes, align_corners):
    head = build(align_corners=align_corners, dropout_ratio=0.5).double().train()
    for parameter in head.parameters():  # none of them at a value that hides a mistake, such as a zero bias
        nn.init.normal_(parameter, std=0.5)
    maps = make_maps(sizes)
    wanted = dict(head.named_parameters()) | {f'map{i}': x for i, x in enumerate(maps)}

    results = []
    for module in (head, PlainHead(head)):
        torch.manual_seed(2)  # one dropout mask for both
        out = module(maps)
        gradients = torch.autograd.grad(out.square().sum(), list(wanted.values()))
        results.append((out, gradients))
    (out, gradients), (plain_out, plain_gradients) = results
    assert out.shape == (2, 5, *sizes[0])
    torch.testing.assert_close(out, plain_out, rtol=1e-10, atol=1e-10)
    for name, ours, plain in zip(wanted, gradients, plain_gradients, strict=True):
        scale = plain.abs().max().item()
        # Train-mode BN is blind to a constant: the projections' biases get no gradient but rounding.
        torch.testing.assert_close(ours, plain, rtol=1e-8, atol=1e-8 * max(scale, 1), msg=name)


def test_equals_the_plain_formulation_in_eval_mode_where_biases_count():
    head = build().double()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    head.train()
    for _ in range(3):
        head(make_maps(EVEN))  # running statistics
    head.eval()
    maps = make_maps(ODD)
    bias = head.projections[3].bias
    ours, plain = head(maps), PlainHead(head)(maps)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)
    (gradient,) = torch.autograd.grad(ours.sum(), [bias])
    (expected,) = torch.autograd.grad(plain.sum(), [bias])
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)


def test_parameters_of_the_paper_s_four_decoders():
    """Polyhistor on PASCAL-Context: decoders of 21, 7, 1 and 3 channels on Swin-T, E = 256."""
    heads = [
        MODELS.build(
            dict(
                type='AllMLPHead',
                in_channels=[96, 192, 384, 768],
                num_classes=channels,
                threshold=0.5,
                loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
            )
        )
        for channels in (21, 7, 1, 3)
    ]
    assert sum(p.numel() for head in heads for p in head.parameters()) == 2_537_504


def test_state_dict_is_that_of_the_plain_form():
    shapes = {k: tuple(v.shape) for k, v in build().state_dict().items() if 'fusion.bn' not in k}
    expected = {'fusion.conv.weight': (8, 32, 1, 1), 'conv_seg.weight': (5, 8, 1, 1), 'conv_seg.bias': (5,)}
    for i, width in enumerate(WIDTHS):
        expected |= {f'projections.{i}.weight': (8, width), f'projections.{i}.bias': (8,)}
    assert shapes == expected


def test_every_parameter_gets_a_gradient():
    head = build()
    head(make_maps(EVEN, torch.float32)).square().sum().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []


def test_selects_maps_by_index():
    head = build(in_channels=(10, 16), in_index=(1, 3)).double().eval()
    maps = make_maps(EVEN)
    assert head(maps).shape == (2, 5, 8, 8)
    torch.testing.assert_close(head(maps), PlainHead(head)([maps[1], maps[3]]))


def test_init_weights_draws_the_classifier_small():
    head = build(channels=64)
    head.init_weights()
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert head.conv_seg.bias.abs().max() == 0


def test_autocast():
    head = build().eval()
    maps = make_maps(EVEN, torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = head(maps)
    torch.testing.assert_close(half.float(), head(maps), rtol=0.1, atol=0.02)


@pytest.mark.parametrize('key', ['norm_cfg', 'act_cfg'])
def test_norm_and_activation_belong_to_the_decoder(key):
    with pytest.raises(ValueError, match=f'AllMLPHead: {key} must be a config'):
        build(**{key: None})


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (
            dict(in_channels=(6, 10, 12, 20)),
            r'in_channels=\[6, 10, 12, 20\] .* have \[6, 10, 12, 16\] channels',
        ),
        (dict(in_channels=(10, 16), in_index=(0, 3)), r'at in_index=\[0, 3\] does not fit'),
        (dict(in_channels=(*WIDTHS, 32)), r'at in_index=\[0, 1, 2, 3, 4\] does not fit'),
    ],
)
def test_maps_that_do_not_fit_are_refused_with_the_numbers(kwargs, message):
    head = build(**kwargs)
    with pytest.raises(ValueError, match=message):
        head(make_maps(EVEN, torch.float32))


def test_in_channels_and_in_index_must_go_together():
    with pytest.raises(ValueError, match=r'in_channels=\(6, 10, 12, 16\) and in_index=\(0, 1\)'):
        build(in_index=(0, 1))
