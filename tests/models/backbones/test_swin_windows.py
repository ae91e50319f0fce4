"""Windows by one gather, and the constants kept for them, against stock `ShiftWindowMSA` and a loop over token pairs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmpretrain.models.utils import ShiftWindowMSA
from mmpretrain.models.utils.attention import WindowMSA
from torch import Tensor, nn

from mmseg_polyhistor.models.backbones import swin_windows
from mmseg_polyhistor.models.backbones.swin_windows import (
    WindowCache,
    to_tokens,
    to_windows,
    window_geometry,
)

CPU = torch.device('cpu')
SIZES = [(14, 21), (8, 12), (15, 9), (7, 30), (3, 5), (1, 1), (13, 1)]
WINDOWS = [(7, 0), (7, 3), (4, 0), (4, 3)]  # size, shift


class Attention(nn.Module):
    """In the place of a stock `WindowMSA`: remembers what it gets, and answers `answer`, or what it gets."""

    answer: Tensor | None = None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        self.windows, self.mask = x, mask
        return x if self.answer is None else self.answer


def stock(size: int, shift: int) -> ShiftWindowMSA:
    module = ShiftWindowMSA(4, 2, window_size=size, shift_size=shift, pad_small_map=True)
    module.w_msa = Attention()
    return module


@pytest.mark.parametrize(('size', 'shift'), WINDOWS)
@pytest.mark.parametrize('hw', SIZES, ids=str)
def test_windows_mask_and_way_back_are_the_stock_ones_to_the_bit(hw, size, shift):
    torch.manual_seed(0)
    theirs = stock(size, shift)
    x = torch.randn(2, hw[0] * hw[1], 4)
    assert torch.equal(theirs(x, hw), x)  # where attention changes nothing
    geometry = window_geometry(hw, size, shift, CPU)
    windows = to_windows(x, geometry)
    assert torch.equal(windows.reshape(-1, size**2, 4), theirs.w_msa.windows)
    if shift:
        assert torch.equal(geometry.mask, theirs.w_msa.mask)
    else:
        assert geometry.mask is None and theirs.w_msa.mask is None
    theirs.w_msa.answer = torch.randn_like(theirs.w_msa.windows)  # also at places that are padding
    want = theirs(x, hw)
    assert torch.equal(to_tokens(theirs.w_msa.answer.view_as(windows), geometry), want)
    assert torch.equal(x, to_tokens(windows, geometry))
    assert (geometry.padding is None) == (hw[0] % size == 0 == hw[1] % size)


@pytest.mark.parametrize(('size', 'shift'), WINDOWS)
@pytest.mark.parametrize('hw', [(8, 12), (5, 9), (2, 3)], ids=str)
def test_gradients_and_their_gradients_equal_those_of_the_stock_operations(hw, size, shift):
    """Of a function that is not linear in the windows, so that the second ones are not zero."""
    torch.manual_seed(0)
    theirs = stock(size, shift)
    x = torch.randn(2, hw[0] * hw[1], 4, dtype=torch.float64, requires_grad=True)
    geometry = window_geometry(hw, size, shift, CPU)
    shape = to_windows(x, geometry).shape
    probes = [torch.randn(shape, dtype=torch.float64) for _ in range(2)]
    back_probe, second_probe = torch.randn_like(x), torch.randn_like(x)

    def both_ways(windows_of, tokens_of):
        windows = windows_of(x)
        value = (probes[0] * windows**3).sum() + (back_probe * tokens_of(probes[1] * windows**2) ** 3).sum()
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        (second,) = torch.autograd.grad((second_probe * first).sum(), x)
        return first, second

    def stock_windows(tokens):
        theirs.w_msa.answer = None
        theirs(tokens, hw)
        return theirs.w_msa.windows.view(shape)

    def stock_tokens(windows):
        theirs.w_msa.answer = windows.reshape(-1, size**2, 4)
        return theirs(torch.zeros_like(x), hw)

    ours = both_ways(lambda t: to_windows(t, geometry), lambda w: to_tokens(w, geometry))
    for got, want in zip(ours, both_ways(stock_windows, stock_tokens), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
        assert want.abs().min() > 0


@pytest.mark.parametrize('shift', [0, 1])
def test_gathers_pass_gradcheck(shift):
    geometry = window_geometry((4, 5), 3, shift, CPU)
    tokens = torch.randn(1, 20, 2, dtype=torch.float64, requires_grad=True)
    windows = torch.randn(1, 36, 2, dtype=torch.float64, requires_grad=True)
    for function, x in ((to_windows, tokens), (to_tokens, windows)):
        assert torch.autograd.gradcheck(lambda t, f=function: f(t, geometry), x)
        assert torch.autograd.gradgradcheck(lambda t, f=function: (f(t, geometry) + 1) ** 2, x)


# --------------------------------------------------------------------------------------------------- biases
def attention(size: int = 3, heads: int = 2, trained: bool = False) -> WindowMSA:
    msa = WindowMSA(embed_dims=4, window_size=(size, size), num_heads=heads)
    torch.manual_seed(0)
    nn.init.normal_(msa.relative_position_bias_table)
    return msa.requires_grad_(trained)


def fold(
    cache: WindowCache, msa: WindowMSA, name: tuple = (0, 0), hw: tuple[int, int] = (5, 4), shift: int = 1
) -> Tensor:
    windows = cache.geometry(hw, msa.window_size[0], shift, CPU)
    return cache.folded_bias(name, msa, windows, hw)


@pytest.mark.parametrize('shift', [0, 1])
@pytest.mark.parametrize('hw', [(5, 4), (2, 7), (3, 3)], ids=str)
def test_folded_bias_equals_a_loop_over_pairs_of_tokens(hw, shift):
    """Bias by the distance of the pair; -100 where the roll has brought one of the two, and not the other, around."""
    size, heads = 3, 2
    msa = attention(size, heads)
    got = fold(WindowCache(), msa, hw=hw, shift=shift)
    rows, cols = (-(-n // size) for n in hw)  # of windows
    places = [(y, x) for y in range(size) for x in range(size)]
    want = torch.empty(rows * cols, heads, size**2, size**2)
    for window in range(rows * cols):
        top, left = window // cols * size, window % cols * size
        for i, (y, x) in enumerate(places):
            for j, (v, u) in enumerate(places):
                row = (y - v + size - 1) * (2 * size - 1) + x - u + size - 1
                want[window, :, i, j] = msa.relative_position_bias_table[row]
                around = [
                    (top + a + shift >= rows * size, left + b + shift >= cols * size)
                    for a, b in ((y, x), (v, u))
                ]
                if around[0] != around[1]:
                    want[window, :, i, j] -= 100
    if shift == 0:  # one for all windows
        assert all(torch.equal(one, want[0]) for one in want)
        want = want[:1]
    torch.testing.assert_close(got, want.flatten(0, 1)[None], rtol=0, atol=1e-5)
    assert shift == 0 or got.min() < -90


def replaced(msa: WindowMSA) -> None:
    state = msa.state_dict()
    state['relative_position_bias_table'] = state['relative_position_bias_table'] * 2
    msa.load_state_dict(state)


def changed_in_place(msa: WindowMSA) -> None:
    with torch.no_grad():
        msa.relative_position_bias_table.mul_(2)


def of_another_precision(msa: WindowMSA) -> None:
    msa.to(torch.float64)


def assigned(msa: WindowMSA) -> None:
    table = msa.relative_position_bias_table
    msa.relative_position_bias_table = nn.Parameter(table.detach() * 2, requires_grad=False)


@pytest.mark.parametrize('shift', [0, 1])
@pytest.mark.parametrize(
    'change', [replaced, changed_in_place, of_another_precision, assigned], ids=lambda f: f.__name__
)
def test_a_frozen_bias_is_kept_until_its_table_changes(change, shift):
    cache, msa = WindowCache(), attention()
    assigned(msa)  # a fresh table, like the one that one of the changes assigns
    first = fold(cache, msa, shift=shift)
    assert fold(cache, msa, shift=shift) is first
    change(msa)
    second = fold(cache, msa, shift=shift)
    assert second is not first
    assert torch.equal(second, fold(WindowCache(), msa, shift=shift))
    assert second.dtype == msa.relative_position_bias_table.dtype
    assert fold(cache, msa, shift=shift) is second


def test_biases_of_blocks_and_sizes_do_not_mix():
    cache, one, other = WindowCache(), attention(), attention()
    changed_in_place(other)
    cases = [
        (msa, name, hw, shift)
        for msa, name in ((one, (0, 0)), (other, (0, 1)))
        for hw in ((5, 4), (4, 5), (7, 7))
        for shift in (0, 1)
    ]
    for _ in range(2):
        for msa, name, hw, shift in cases:
            got = fold(cache, msa, name, hw, shift)
            assert torch.equal(got, fold(WindowCache(), msa, name, hw, shift))


def test_clear_helps_against_changes_that_torch_does_not_count():
    cache, msa = WindowCache(), attention()
    first = fold(cache, msa)
    geometry = cache.geometry((5, 4), 3, 1, CPU)
    msa.relative_position_bias_table.data.mul_(2)
    cache.clear()
    second = fold(cache, msa)
    assert not torch.equal(second, first) and torch.equal(second, fold(WindowCache(), msa))
    assert cache.geometry((5, 4), 3, 1, CPU) is geometry  # which depends on nothing that changes


@pytest.mark.parametrize('shift', [0, 1])
def test_a_trained_table_is_not_kept_and_gets_its_gradient(shift):
    cache, msa = WindowCache(), attention(trained=True)
    first, second = (fold(cache, msa, shift=shift) for _ in range(2))
    assert first is not second
    (first.sum() + second.sum()).backward()
    n = msa.window_size[0] ** 2
    uses = torch.bincount(msa.relative_position_index.flatten(), minlength=25)
    windows = first.shape[1] // 2  # 2 heads
    assert uses.sum() == n * n
    torch.testing.assert_close(
        msa.relative_position_bias_table.grad, (2 * windows * uses)[:, None].expand(-1, 2).float()
    )
    msa.requires_grad_(False)  # frozen after a training of its own
    kept = fold(cache, msa, shift=shift)
    assert torch.equal(kept, first) and not kept.requires_grad
    assert fold(cache, msa, shift=shift) is kept


def test_beyond_its_bytes_the_bias_used_least_recently_is_forgotten():
    msa = attention()  # 2 heads, 9 tokens: 648 bytes per bias without a shift
    cache = WindowCache(max_bytes=2 * 648)
    a, b = (fold(cache, msa, (0, i), shift=0) for i in range(2))
    assert a.nbytes == 648
    assert fold(cache, msa, (0, 0), shift=0) is a  # used again: now b is the oldest
    c = fold(cache, msa, (0, 2), shift=0)
    assert fold(cache, msa, (0, 0), shift=0) is a
    assert fold(cache, msa, (0, 2), shift=0) is c
    assert fold(cache, msa, (0, 1), shift=0) is not b
    tight = WindowCache(max_bytes=1)  # what does not fit is still kept for the next call
    assert fold(tight, msa) is fold(tight, msa)


def test_geometry_is_kept_per_size_and_only_for_so_many(monkeypatch):
    cache = WindowCache()
    monkeypatch.setattr(swin_windows, 'MAX_GEOMETRIES', 2)
    a = cache.geometry((5, 4), 3, 1, CPU)
    b = cache.geometry((4, 5), 3, 1, CPU)
    assert cache.geometry((5, 4), 3, 1, CPU) is a
    c = cache.geometry((5, 4), 3, 0, CPU)
    assert a is not c and a.mask is not None and c.mask is None
    assert cache.geometry((5, 4), 3, 1, CPU) is a
    assert cache.geometry((4, 5), 3, 1, CPU) is not b


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_are_empty(duplicate):
    msa = attention()
    cache = WindowCache(max_bytes=12_345)
    for i in range(3):
        fold(cache, msa, (0, i))
    size = len(pickle.dumps(WindowCache(max_bytes=12_345)))
    assert len(pickle.dumps(cache)) == size
    other = duplicate(cache)
    assert other.max_bytes == 12_345
    assert fold(other, msa) is not fold(cache, msa)
    assert torch.equal(fold(other, msa), fold(cache, msa))


def test_what_inference_mode_has_seen_serves_training_too():
    """Tensors made in inference mode cannot be saved for a backward pass."""
    cache, msa = WindowCache(), attention()
    with torch.inference_mode():
        fold(cache, msa)
    q = torch.randn(4, 2, 9, 2, requires_grad=True)  # (windows, heads, N, C / heads)
    bias = fold(cache, msa).unflatten(1, (4, 2))[0]
    nn.functional.scaled_dot_product_attention(q, q, q, bias).sum().backward()
    assert q.grad.abs().sum() > 0


def test_a_table_made_in_inference_mode_is_read_anew_each_time():
    with torch.inference_mode():
        msa, cache = attention(), WindowCache()
        first = fold(cache, msa)
        assert torch.equal(fold(cache, msa), first)
        msa.relative_position_bias_table.mul_(2)
        assert not torch.equal(fold(cache, msa), first)
