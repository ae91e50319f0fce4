"""The fused path of `AdaptedSwin` against its stock operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmseg_polyhistor.models.backbones import AdaptedSwin

ARCH = dict(embed_dims=24, depths=[1, 2, 1], num_heads=[2, 3, 4])
TASKS = ('semseg', 'normals', 'saliency')
LITE = dict(type='PolyhistorLite', ratio=2)
CASES = [
    dict(adapter=None, frozen=False),
    dict(adapter=LITE, frozen=False),
    dict(adapter=LITE, tasks=None),
    dict(adapter=dict(type='LoRA', rank=2, per_task=False, tuned=('norm', 'relative_position_bias'))),
    dict(adapter=dict(type='VisualPrompt', prompts=2, norm=False)),
    dict(adapter=dict(type='BottleneckAdapter', ratio=4, positions=('attn', 'ffn'), insertion='parallel')),
    dict(adapter=LITE, window_size=4),
    dict(adapter=LITE, use_abs_pos_embed=True, img_size=64),
    dict(adapter=LITE, stage_cfgs=dict(block_cfgs=dict(ffn_cfgs=dict(layer_scale_init_value=0.5)))),
    dict(adapter=LITE, stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(qk_scale=0.7, qkv_bias=False)))),
]


def pair(**options) -> tuple[AdaptedSwin, AdaptedSwin]:
    """A fused network and a plain one with the same weights, none of which is a zero or a one by chance."""
    options = dict(tasks=TASKS, drop_path_rate=0.0) | options
    models = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = AdaptedSwin(ARCH, fused=fused, **options).double()
        gains = {id(norm.weight) for norm in model.modules() if isinstance(norm, nn.LayerNorm)}
        for name, p in model.named_parameters():
            if p.dim() == 1 or 'adapters' in name or 'relative_position' in name or 'pos_embed' in name:
                nn.init.normal_(p, mean=float(id(p) in gains or name.endswith('gain')), std=0.2)
        models.append(model)
    return models[0], models[1]


def images(height: int = 40, width: int = 33, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=torch.manual_seed(seed))


def maps_of(model: AdaptedSwin, x: Tensor) -> list[Tensor]:
    out = model(x)
    return [m for maps in out.values() for m in maps] if isinstance(out, dict) else list(out)


def value_and_gradients(model: AdaptedSwin, x: Tensor, seed: int = 7) -> tuple[list[Tensor], dict[str, Tensor]]:  # fmt: skip
    """Maps, and gradients of all that is trained, from a random weight on every number of the maps."""
    x = x.clone().requires_grad_()
    torch.manual_seed(seed)
    out = maps_of(model, x)
    generator = torch.Generator().manual_seed(3)
    loss = sum((m * torch.randn(m.shape, generator=generator).to(m)).sum() for m in out)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad} | {'images': x}
    gradients = torch.autograd.grad(loss, list(trained.values()))
    return out, dict(zip(trained, gradients, strict=True))


def assert_equal(fused: AdaptedSwin, plain: AdaptedSwin, x: Tensor) -> dict[str, Tensor]:
    (got, got_gradients), (want, want_gradients) = (value_and_gradients(m, x) for m in (fused, plain))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    for name, gradient in want_gradients.items():
        scale = gradient.abs().max().item()
        assert scale > 0 or fused.training, name  # stochastic depth may leave out all that a parameter does
        torch.testing.assert_close(
            got_gradients[name], gradient, rtol=1e-7, atol=1e-9 * scale, msg=lambda m, n=name: f'{n}: {m}'
        )
    return got_gradients


def test_every_method_has_equal_features_and_gradients(every_method):
    fused, plain = (m.eval() for m in pair(adapter=every_method))
    assert_equal(fused, plain, images())


@pytest.mark.parametrize('options', CASES, ids=lambda o: '-'.join(f'{k}' for k in o))
def test_options_have_equal_features_and_gradients(options):
    fused, plain = (m.eval() for m in pair(**options))
    gradients = assert_equal(fused, plain, images(48, 48))
    tables = [name for name in gradients if 'relative_position_bias_table' in name]
    assert bool(tables) == (options.get('frozen') is False or 'tuned' in (options['adapter'] or {}))


@pytest.mark.parametrize('size', [(64, 64), (65, 97), (7, 30), (1, 1), (56, 112)], ids=str)
def test_any_size(size):
    fused, plain = (m.eval() for m in pair(adapter=LITE))
    for a, b in zip(maps_of(fused, images(*size)), maps_of(plain, images(*size)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_recomputation_gives_equal_gradients(every_method):
    fused, plain = (m.train() for m in pair(adapter=every_method, drop_path_rate=0.4))
    fused.with_cp = True
    assert_equal(fused, plain, images(32, 40, batch=3))


@pytest.mark.parametrize(
    'adapter',
    [
        None,
        LITE,
        dict(type='BottleneckAdapter', ratio=4, positions=('attn', 'ffn'), insertion='parallel'),
        dict(type='MTLoRA', rank=2, task_rank=1),
    ],
    ids=lambda a: a and a['type'],
)
def test_stochastic_depth_draws_the_random_numbers_that_the_stock_layer_draws(adapter):
    fused, plain = (m.train() for m in pair(adapter=adapter, drop_path_rate=0.6))
    x = images(32, 40, batch=3)
    assert_equal(fused, plain, x)
    other_draw, _ = value_and_gradients(fused, x, seed=8)
    first_draw, _ = value_and_gradients(fused, x, seed=7)
    assert not torch.allclose(other_draw[-1], first_draw[-1])


def test_dropout_of_the_attention_is_off_in_evaluation_and_on_in_training():
    attn_drop = dict(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(attn_drop=0.5))))
    fused, plain = pair(adapter=LITE, **attn_drop)
    without, _ = pair(adapter=LITE)
    x = images()
    assert_equal(fused.eval(), plain.eval(), x)
    assert_equal(fused, without.eval(), x)
    fused.train()
    assert not torch.allclose(maps_of(fused, x)[0], maps_of(fused, x)[0])


def test_dropout_of_the_whole_attention_leaves_the_bias_of_its_projection():
    everything = dict(stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(attn_drop=1.0))))
    fused, plain = (m.train() for m in pair(adapter=LITE, **everything))
    for a, b in zip(maps_of(fused, images()), maps_of(plain, images()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def under_autocast(adapter: dict | None, training: bool) -> None:
    """The fused path is no further from full precision than the stock operations, up to the luck of rounding."""
    fused, plain = (m.float().train(training) for m in pair(adapter=adapter, drop_path_rate=0.3))
    x = images().float()
    want, want_gradients = value_and_gradients(plain, x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got, got_gradients = value_and_gradients(fused, x)
        of_stock, of_stock_gradients = value_and_gradients(plain, x)

    def error(got: list[Tensor], want: list[Tensor]) -> float:
        """Relative to the values, over all numbers."""
        difference = sum((a.float() - b).square().sum() for a, b in zip(got, want, strict=True))
        return (difference / sum(b.square().sum() for b in want)).sqrt().item()

    assert error(got, want) < 1.5 * error(of_stock, want) < 0.1
    gradients = [list(g.values()) for g in (got_gradients, of_stock_gradients, want_gradients)]
    assert error(gradients[0], gradients[2]) < 1.5 * error(gradients[1], gradients[2]) < 0.3


def test_autocast_stays_close_in_training(every_method):
    """With stochastic depth: under autocast the branch that it drops has another precision than the shortcut."""
    under_autocast(every_method, training=True)


@pytest.mark.parametrize('adapter', [None, LITE, dict(type='BitFit')], ids=lambda a: a and a['type'])
def test_autocast_stays_close_in_evaluation(adapter):
    under_autocast(adapter, training=False)


def test_weights_replaced_between_two_passes_leave_nothing_behind():
    fused, _ = (m.eval() for m in pair(adapter=LITE))
    _, other = (m.eval() for m in pair(adapter=LITE))
    for p in other.parameters():
        nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(p.numel()))
    x = images()
    with torch.no_grad():
        before = maps_of(fused, x)
        fused.load_state_dict(other.state_dict())
        after, want = maps_of(fused, x), maps_of(other, x)
    for a, b, c in zip(after, want, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(a, c)


def test_a_precision_set_between_two_passes():
    fused, plain = (m.eval() for m in pair(adapter=LITE))
    x = images()
    with torch.no_grad():
        maps_of(fused, x)
        got, want = maps_of(fused.float(), x.float()), maps_of(plain.float(), x.float())
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_image_sizes_one_after_another_and_back():
    fused, plain = (m.eval() for m in pair(adapter=LITE))
    for height, width in [(64, 64), (33, 47), (47, 33), (64, 64), (28, 28), (33, 47)]:
        x = images(height, width)
        with torch.no_grad():
            for a, b in zip(maps_of(fused, x), maps_of(plain, x), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_training_a_frozen_encoder_later_updates_its_biases():
    """Unfrozen by hand, stepped, frozen again: no constant of the first pass survives."""
    fused, plain = (m.eval() for m in pair(adapter=LITE))
    x = images()
    maps_of(fused, x)
    tables = [p for name, p in fused.named_parameters() if 'relative_position_bias_table' in name]
    for table in tables:
        table.requires_grad_()
    optimiser = torch.optim.SGD(tables, lr=0.5)
    sum(m.square().mean() for m in maps_of(fused, x)).backward()
    assert all(table.grad.abs().sum() > 0 for table in tables)
    optimiser.step()
    for table in tables:
        table.requires_grad_(False)
    plain.load_state_dict(fused.state_dict())
    for a, b in zip(maps_of(fused, x), maps_of(plain, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('adapter', [LITE, dict(type='RelativeBias')], ids=lambda a: a['type'])
def test_evaluation_in_inference_mode_leaves_gradients_possible(adapter):
    """Still in evaluation mode, as for attribution maps: what was kept must be no tensor of inference mode."""
    fused, plain = (m.eval() for m in pair(adapter=adapter))
    x = images()
    with torch.inference_mode():
        for a, b in zip(maps_of(fused, x), maps_of(plain, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert_equal(fused, plain, x)
