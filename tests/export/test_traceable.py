"""Parts without decisions on sizes, against the parts that they take the place of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import AdaptivePadding, PatchMerging
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_polyhistor.export.traceable import (
    AnySize,
    TracedWindows,
    adaptive_average,
    first_pixels,
    make_traceable,
    pad_to_multiple,
)
from mmseg_polyhistor.models.backbones.swin_windows import window_geometry


@pytest.mark.parametrize('size', [(1, 1), (4, 8), (5, 8), (7, 3)])
def test_padding(size):
    x = torch.randn(2, 3, *size)
    padded = pad_to_multiple(x, (4, 2), 5.0)
    assert torch.equal(padded, F.pad(x, (0, -size[1] % 2, 0, -size[0] % 4), value=5.0))
    assert torch.equal(first_pixels(padded, size), x)


@pytest.mark.parametrize('output', [1, 2, 3, 7, (1, 6), (None, 3), (4, None)])
@pytest.mark.parametrize('size', [(1, 1), (5, 8), (12, 7)])
def test_adaptive_pooling(size, output):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(adaptive_average(x, output), F.adaptive_avg_pool2d(x, output))


class Operations(TorchDispatchMode):
    """Notes the names of the operations that are run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_what_is_exchanged_while_a_network_is_traced():
    """Pooling, as a module or as a function, and the memory of what convolutions get; results stay."""
    x = torch.randn(2, 6, 5, 4).to(memory_format=torch.channels_last)
    conv = nn.Conv2d(6, 6, 3)
    convolutions = (conv, lambda t: F.conv2d(input=t, weight=conv.weight, padding=1))
    poolings = (nn.AdaptiveAvgPool2d(3), lambda t: F.adaptive_avg_pool2d(input=t, output_size=(2, 3)))
    for layer in (*convolutions, *poolings):
        want = layer(x)
        with torch.no_grad(), AnySize(), Operations() as run:
            got = layer(x)
        torch.testing.assert_close(got, want)
        if layer in convolutions:
            assert run.names == ['clone', 'convolution']
        else:
            assert 'arange' in run.names and not any('pool' in name for name in run.names)


@pytest.mark.parametrize('shift', [0, 3])
@pytest.mark.parametrize('hw', [(1, 1), (2, 9), (7, 7), (14, 20), (16, 30)])
def test_windows(hw, shift):
    """At places of padding any token will do: what is gathered there is set to 0."""
    got = TracedWindows().geometry(hw, 7, shift, torch.device('cpu'))
    want = window_geometry(hw, 7, shift, torch.device('cpu'))
    outside = torch.zeros_like(got.padding) if want.padding is None else want.padding
    assert torch.equal(got.padding, outside)
    inside = ~outside[:, 0]
    assert torch.equal(got.order[inside], want.order[inside])
    assert got.order.min() >= 0 and got.order.max() < hw[0] * hw[1]
    assert torch.equal(got.back, want.back)
    if shift:
        assert torch.equal(got.mask, want.mask)
    else:
        assert got.mask is want.mask is None


def test_windows_of_another_size_are_other_windows():
    """What the blocks of a stage share is not what the next stage, or the next image, gets."""
    windows = TracedWindows()
    for hw in ((7, 7), (8, 9), (7, 7)):
        assert len(windows.geometry(hw, 7, 3, torch.device('cpu')).back) == hw[0] * hw[1]


@pytest.mark.parametrize('size', [(8, 6), (7, 5), (1, 2)])
def test_padding_and_patch_merging_of_mmcv_are_exchanged(size):
    stock = nn.ModuleDict(dict(pad=AdaptivePadding(4, 4), merge=PatchMerging(3, 6))).eval()
    x = torch.randn(2, 3, *size)
    tokens = x.flatten(2).transpose(1, 2)
    padded, merged = stock['pad'](x), stock['merge'](tokens, size)
    keys = stock.state_dict().keys()
    make_traceable(stock)
    assert not any(isinstance(m, AdaptivePadding) or type(m) is nn.Unfold for m in stock.modules())
    assert stock.state_dict().keys() == keys
    assert torch.equal(stock['pad'](x), padded)
    assert (
        torch.equal(stock['merge'](tokens, size)[0], merged[0])
        and stock['merge'](tokens, size)[1] == merged[1]
    )


def test_what_does_more_than_to_pad_at_the_right_and_at_the_bottom_stays():
    stock = nn.ModuleDict(
        dict(
            same=AdaptivePadding(4, 4, padding='same'),
            wide=AdaptivePadding(4, 2),
            unfold=nn.Unfold(3, 1, 1, 3),
        )
    )
    kept = dict(stock.items())
    make_traceable(stock)
    assert dict(stock.items()) == kept
