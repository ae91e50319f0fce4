"""Tasks side by side ('stacked') and one after another ('sequential'): the same results, and the memory of one task."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_polyhistor.models.segmentors import execution as rule
from mmseg_polyhistor.models.segmentors.execution import largest_bytes, should_stack, stacked_bytes
from mmseg_polyhistor.tasks import get_task

WORKER = Path(__file__).with_name('two_processes.py')
TASKS = ('semseg', 'human_parts', 'saliency', 'normals')
WIDTHS = (24, 48, 96)
ARCH = dict(embed_dims=24, depths=[2, 1, 1], num_heads=[2, 3, 4])
LITE = dict(type='PolyhistorLite', ratio=2)
LORA = dict(type='LoRA', rank=2)
METHODS = {
    'bitfit': dict(type='BitFit'),
    'relative-bias': dict(type='RelativeBias'),
    'vpt-shallow': dict(type='VisualPrompt', prompts=3),
    'vpt-deep': dict(type='VisualPrompt', prompts=3, deep=True),
    'lora': LORA,
    'lora-ffn': dict(LORA, targets=('fc1', 'fc2')),
    'merging-only': dict(LORA, targets=('reduction',)),
    'adapter-attn': dict(type='BottleneckAdapter', ratio=4, positions=('attn',)),
    'adapter-both': dict(type='BottleneckAdapter', ratio=4, positions=('attn', 'ffn')),
    'adapter-parallel': dict(
        type='BottleneckAdapter', ratio=4, positions=('attn', 'ffn'), insertion='parallel'
    ),
    'adaptformer': dict(type='AdaptFormer', bottleneck=3),
    'compacter': dict(type='Compacter', ratio=4),
    'polyhistor': dict(type='Polyhistor', ratio=4, rank=-2),
    'lite-and-norms': dict(LITE, tuned=('norm',)),
}
SHARED = {
    'none': dict(adapter=None),
    'one-copy': dict(adapter=dict(LORA, per_task=False)),
    'mtlora': dict(adapter=dict(type='MTLoRA', rank=2, task_rank=1)),
    'trained-encoder': dict(adapter=LITE, frozen=False),
}


def swin(adapter: dict | None = LITE, **options) -> dict:
    return dict(type='AdaptedSwin', arch=ARCH, adapter=adapter) | dict(tasks=TASKS, drop_path_rate=0.0) | options  # fmt: skip


def heads(**options) -> dict:
    return dict(type='AllMLPHead', in_channels=WIDTHS, channels=8, dropout_ratio=0.0) | options


@pytest.fixture
def make(build):
    """A segmentor on a small Swin, in double precision, where every weight of the method matters."""

    def make(adapter: dict | None = LITE, *, backbone: dict | None = None, **options) -> nn.Module:
        options.setdefault('decode_heads', heads())
        model = build(backbone=swin(adapter, **(backbone or {})), **options).double()
        torch.manual_seed(1)
        for name, p in model.named_parameters():
            if 'adapters' in name or 'conv_seg' in name:
                nn.init.normal_(p, mean=float(name.endswith('gain')), std=0.2)
        return model

    return make


@pytest.fixture
def twins(make):
    """The same model in both modes, sequential and stacked."""

    def twins(*args, **options) -> tuple[nn.Module, nn.Module]:
        stacked = make(*args, execution='stacked', **options)
        sequential = copy.deepcopy(stacked)
        sequential.execution = 'sequential'
        return sequential, stacked

    return twins


@pytest.fixture
def batch(make_batch):
    """A batch as the model gets it, in double precision."""

    def batch(model: nn.Module, **kwargs) -> dict:
        data = model.data_preprocessor(make_batch(((40, 64), (40, 64)), **kwargs), True)
        return dict(data, inputs=data['inputs'].double())

    return batch


def gradients(model: nn.Module, data: dict, total=None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses, and the gradients of their sum or of what `total` makes of them."""
    model.zero_grad()
    losses = model(**data, mode='loss')
    (model.parse_losses(losses)[0] if total is None else total(losses)).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def assert_same(got: dict[str, Tensor | None], want: dict[str, Tensor | None], tolerance=1e-9) -> None:
    assert list(got) == list(want)
    for name, value in want.items():
        assert (got[name] is None) == (value is None), name
        if value is not None:
            atol = tolerance * max(value.abs().max().item(), 1e-3)
            torch.testing.assert_close(got[name], value, rtol=1e-6, atol=atol, msg=lambda m, n=name: f'{n}: {m}')  # fmt: skip


def error(got: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    """Over all numbers, relative to them."""
    assert list(got) == list(want)
    difference = sum((got[name].double() - value.double()).square().sum() for name, value in want.items())
    return (difference / sum(value.double().square().sum() for value in want.values())).sqrt().item()


# ------------------------------------------------------------------------------------------------- equality
@pytest.mark.parametrize('method', METHODS)
def test_losses_gradients_and_statistics_are_those_of_stacked_tasks(twins, batch, method):
    sequential, stacked = (m.train() for m in twins(METHODS[method]))
    data = batch(stacked)
    assert sequential.runs_sequentially(data['inputs']) and not stacked.runs_sequentially(data['inputs'])
    (losses, got), (want_losses, want) = gradients(sequential, data), gradients(stacked, data)
    assert list(losses) == [f'loss_{task}' for task in TASKS]
    assert_same(losses, want_losses)
    assert_same(got, want)
    assert all(g is not None and g.abs().sum() > 0 for name, g in want.items() if 'adapters' in name)
    buffers = dict(sequential.named_buffers())
    assert any('running_mean' in name for name in buffers)
    assert_same(buffers, dict(stacked.named_buffers()))


@pytest.mark.parametrize('method', ['lora', 'adapter-attn', 'lite-and-norms', 'merging-only'])
def test_recomputation_in_both_modes(twins, batch, method):
    sequential, stacked = (m.train() for m in twins(METHODS[method]))
    data = batch(stacked)
    _, want = gradients(stacked, data)
    for model in (sequential, stacked):
        model.backbone.with_cp = True
        assert_same(gradients(model, data)[1], want)


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize('method', ['bitfit', 'adapter-parallel', 'polyhistor'])
def test_logits_and_predictions(twins, batch, method, mode):
    sequential, stacked = (m.eval() for m in twins(METHODS[method]))
    data = batch(stacked)
    with mode():
        got, want = sequential(data['inputs']), stacked(data['inputs'])
        assert list(got) == list(TASKS)
        assert_same(got, want)
        samples = [m(**data, mode='predict') for m in (sequential, stacked)]
        for a, b in zip(*samples, strict=True):
            for task in TASKS:
                field = get_task(task).pred_field
                assert_same({task: a.get(field).data}, {task: b.get(field).data}, 1e-6)
        assert_same(sequential(**data, mode='loss'), stacked(**data, mode='loss'))


def test_sliding_windows(twins, batch):
    slide = dict(mode='slide', crop_size=(32, 32), stride=(8, 32))
    sequential, stacked = (m.eval() for m in twins(test_cfg=slide))
    inputs = batch(stacked)['inputs']
    metas = [dict(ori_shape=(40, 64), img_shape=(40, 64))] * 2
    with torch.no_grad():
        got, want = (m.inference(inputs, metas) for m in (sequential, stacked))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    assert got.shape == (2, sum(get_task(task).channels for task in TASKS), 40, 64)


@pytest.mark.parametrize('own_order', [TASKS[::-1], (TASKS[2], TASKS[0], TASKS[3], TASKS[1])])
def test_tasks_in_another_order_than_the_backbone_s(twins, batch, own_order):
    sequential, stacked = (m.train() for m in twins(tasks=own_order))
    assert stacked.backbone.tasks == TASKS
    data = batch(stacked)
    (losses, got), (want_losses, want) = gradients(sequential, data), gradients(stacked, data)
    assert list(losses) == [f'loss_{task}' for task in own_order]
    assert_same(losses, want_losses)
    assert_same(got, want)
    with torch.no_grad():
        assert_same(sequential(data['inputs']), stacked(data['inputs']))
        metas = [dict(ori_shape=(40, 64), img_shape=(40, 64))] * 2
        a, b = (m.inference(data['inputs'], metas) for m in (sequential, stacked))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


NECK = dict(
    neck=dict(type='FPN', in_channels=list(WIDTHS), out_channels=6, num_outs=3),
    decode_heads=heads(in_channels=[6] * 3),
)


def test_a_neck_that_all_tasks_share(twins, batch):
    sequential, stacked = (m.train() for m in twins(**NECK))
    data = batch(stacked)
    (losses, got), (want_losses, want) = gradients(sequential, data), gradients(stacked, data)
    assert_same(losses, want_losses)
    assert_same(got, want)
    assert all(g.abs().sum() > 0 for name, g in got.items() if name.startswith('neck.'))
    with torch.no_grad():
        assert_same(sequential(data['inputs']), stacked(data['inputs']))


def summed(losses: dict[str, Tensor]) -> Tensor:
    return sum(losses.values())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('with_cp', [False, True])
def test_under_autocast_gradients_are_as_good_as_those_of_stacked_tasks(twins, batch, dtype, with_cp):
    """With a neck, whose weights autocast converts once for all tasks."""
    sequential, stacked = (m.float().train() for m in twins(backbone=dict(with_cp=with_cp), **NECK))
    data = batch(stacked)
    data['inputs'] = data['inputs'].float()
    full_losses, full = gradients(stacked, data)
    with torch.autocast('cpu', dtype=dtype):
        losses, got = gradients(sequential, data, summed)
        want_losses, want = gradients(stacked, data, summed)
    assert error(losses, want_losses) < 1e-3 and error(losses, full_losses) < 1e-3
    assert error(got, full) < 2 * error(want, full) < 0.6


def test_small_gradients_survive_float16(twins, batch):
    """The loss scaler of a training comes too late for gradients that are computed with the losses."""
    loss = dict(type='CrossEntropyLoss', loss_weight=1e-3)
    options = dict(tasks=TASKS[:2], backbone=dict(tasks=TASKS[:2]), decode_heads=heads(loss_decode=loss))
    sequential, stacked = (m.float().train() for m in twins(**options))
    data = batch(stacked)
    data['inputs'] = data['inputs'].float()
    _, full = gradients(stacked, data)
    with torch.autocast('cpu', dtype=torch.float16):
        _, got = gradients(sequential, data, summed)
        _, unscaled = gradients(stacked, data, summed)
        _, scaled = gradients(stacked, data, lambda losses: 1024 * summed(losses))
    assert error(unscaled, full) > 0.2
    assert error(got, full) < 0.05
    assert error(got, {name: g / 1024 for name, g in scaled.items()}) < 0.05


# ----------------------------------------------------------------------------------- as trainings go about it
def test_gradients_add_up_over_batches_and_steps_are_equal(twins, make_batch):
    models = [m.float().train() for m in twins()]
    for model in models:
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
        wrapper = OptimWrapper(optimiser, accumulative_counts=2)
        wrapper.initialize_count_status(model, 0, 4)
        model.before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.logs = [
            {k: v.detach() for k, v in model.train_step(make_batch(seed=i), wrapper).items()}
            for i in range(4)
        ]
    sequential, stacked = models
    for got, want in zip(sequential.logs, stacked.logs, strict=True):
        assert list(got) == ['loss', *(f'loss_{task}' for task in TASKS)]
        assert_same(got, want, 1e-4)
    for name, p in stacked.named_parameters():
        moved = (p - stacked.before[name]).abs().max()
        assert moved > 0 if 'adapters' in name else moved == 0 or p.requires_grad, name
        difference = (p - dict(sequential.named_parameters())[name]).abs().max()
        assert difference <= 1e-3 * moved + 1e-7, name


@pytest.mark.parametrize(
    'total',
    [
        lambda losses: 3 * sum(losses.values()),
        lambda losses: sum((i + 1) * value for i, value in enumerate(losses.values())),
        lambda losses: losses['loss_saliency'],
        lambda losses: sum(losses.values()) ** 2,
    ],
    ids=['thrice', 'per-task', 'one-of-them', 'squared'],
)
def test_weights_of_the_losses_from_outside(twins, batch, total):
    sequential, stacked = (m.train() for m in twins())
    data = batch(stacked)
    _, got = gradients(sequential, data, total)
    _, want = gradients(stacked, data, total)
    for name, value in want.items():  # what a task that is left out would touch has None or zeros
        got_value = torch.zeros(()) if got[name] is None else got[name]
        value = torch.zeros_like(got_value) if value is None else value
        torch.testing.assert_close(got_value.expand_as(value), value, rtol=1e-6, atol=1e-9, check_dtype=False)


def test_gradients_come_only_with_the_backward_pass(twins, batch):
    sequential, _ = twins()
    losses = sequential(**batch(sequential), mode='loss')
    assert all(p.grad is None for p in sequential.parameters())
    assert all(value.requires_grad and value.dim() == 0 for value in losses.values())


SEVERAL = heads(
    loss_decode=[
        dict(type='CrossEntropyLoss', loss_name='loss_first'),
        dict(type='CrossEntropyLoss', loss_weight=0.3, loss_name='loss_second'),
    ]
)


def with_several_losses() -> dict:
    return {task: SEVERAL if task == 'semseg' else heads() for task in TASKS}


def test_heads_with_several_losses(twins, batch):
    sequential, stacked = (m.train() for m in twins(decode_heads=with_several_losses()))
    data = batch(stacked)
    (losses, got), (want_losses, want) = gradients(sequential, data), gradients(stacked, data)
    assert list(losses)[:3] == ['loss_semseg_first', 'loss_semseg_second', 'loss_human_parts']
    assert_same(losses, want_losses)
    assert_same(got, want)


@pytest.mark.parametrize('weights', [(1, 2), (1, 0), (0, 1)], ids=str)
def test_losses_of_one_task_must_be_weighted_alike(twins, batch, weights):
    sequential, stacked = (m.train() for m in twins(decode_heads=with_several_losses()))

    def total(losses):
        return sum(w * losses[f'loss_semseg_{n}'] for w, n in zip(weights, ('first', 'second'), strict=True))

    gradients(stacked, batch(stacked), total)
    with pytest.raises(RuntimeError, match=r"different weights in the total loss.*execution='stacked'"):
        gradients(sequential, batch(sequential), total)


@MODELS.register_module()
class LossOfAll(nn.Module):
    """A loss as `value` of the logits, for tests."""

    loss_name = 'loss_of_all'

    def __init__(self, value: str) -> None:
        super().__init__()
        self.value = value

    def forward(self, logits: Tensor, target: Tensor, **kwargs) -> Tensor:
        if self.value == 'constant':  # as of a loss that finds no pixel to count
            return logits.new_zeros(())
        return logits.square().mean(dim=(1, 2, 3))  # 'per image': mmengine takes the mean


@pytest.mark.parametrize('value', ['constant', 'per image'])
def test_losses_that_are_constant_or_have_several_values(twins, batch, value):
    decode_heads = {
        task: heads(**(dict(loss_decode=dict(type='LossOfAll', value=value)) if task == 'normals' else {}))
        for task in TASKS
    }
    sequential, stacked = (m.train() for m in twins(decode_heads=decode_heads))
    data = batch(stacked)
    (losses, got), (want_losses, want) = gradients(sequential, data), gradients(stacked, data)
    assert_same(losses, {name: v.mean() for name, v in want_losses.items()})
    for name, g in want.items():  # nothing comes back from a constant: None, or zeros
        zeros = torch.zeros(())
        torch.testing.assert_close(
            zeros if got[name] is None or not got[name].any() else got[name],
            zeros if g is None or not g.any() else g,
            check_dtype=False,
        )


def test_values_that_are_no_losses_are_carried_along(twins, batch):
    """mmseg's accuracy, from a head that samples pixels."""
    head = heads(type='SegformerHead', sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=10**6), norm_cfg=dict(type='BN'), in_index=[0, 1, 2])  # fmt: skip
    decode_heads = {task: head if task == 'human_parts' else heads() for task in TASKS}
    sequential, stacked = (m.train() for m in twins(decode_heads=decode_heads))
    data = batch(stacked)
    (losses, got), (want_losses, want) = gradients(sequential, data), gradients(stacked, data)
    assert 'human_parts.acc_seg' in losses
    assert not losses['human_parts.acc_seg'].requires_grad
    assert_same(losses, {name: value.mean() for name, value in want_losses.items()})
    assert_same(got, want)


def test_stochastic_depth_and_dropout_train(make, batch):
    model = make(backbone=dict(drop_path_rate=0.5), decode_heads=heads(dropout_ratio=0.5), execution='sequential').train()  # fmt: skip
    torch.manual_seed(0)
    first, got = gradients(model, batch(model))
    torch.manual_seed(0)
    again, same = gradients(model, batch(model))
    other, _ = gradients(model, batch(model))
    assert_same(again, first)
    assert_same(same, got)
    assert all(other[name] != value for name, value in first.items())


# --------------------------------------------------------------------------------------- who runs sequentially
@pytest.mark.parametrize('case', SHARED)
def test_what_shares_one_pass_runs_stacked(make, batch, case):
    options = dict(SHARED[case])
    model = make(options.pop('adapter'), backbone=options, execution='sequential').train()
    data = batch(model)
    passes = calls_of(model.backbone.stages[0].blocks[0].ffn.layers[0][1])
    assert not model.runs_sequentially(data['inputs'])
    losses, got = gradients(model, data)
    assert len(passes) == 1
    model.execution = 'stacked'
    want_losses, want = gradients(model, data)
    assert_same(losses, want_losses)
    assert_same(got, want)


def test_task_by_task_needs_streams_that_part(make):
    model = make(dict(LORA, per_task=False))
    with pytest.raises(ValueError, match='share one pass of the encoder'):
        next(model.backbone.task_by_task(torch.zeros(1, 3, 32, 32, dtype=torch.float64)))


@pytest.mark.parametrize('tasks', [TASKS, ('normals',)], ids=len)
def test_a_backbone_without_tasks_serves_all_heads_in_one_pass(make, batch, tasks):
    """Its method has one set of weights, and its maps are everybody's."""
    models = [
        make(LITE, backbone=dict(tasks=None), tasks=tasks, execution=mode)
        for mode in ('sequential', 'stacked', 'auto')
    ]
    data = batch(models[0])
    results = [gradients(m.train(), data) for m in models]
    for losses, got in results[:2]:
        assert_same(losses, results[2][0])
        assert_same(got, results[2][1])


def test_a_model_with_nothing_to_train_gives_its_losses(twins, batch):
    """Also where gradients are not switched off."""
    sequential, stacked = (m.requires_grad_(False).eval() for m in twins())
    losses = [m(**batch(m), mode='loss') for m in (sequential, stacked)]
    assert_same(*losses)


def test_a_backbone_of_another_kind_runs_as_ever(build, make_batch):
    model = build(execution='sequential')
    losses = model(**model.data_preprocessor(make_batch(), True), mode='loss')
    assert model.backbone.calls == 1 and len(losses) == len(TASKS)


@pytest.mark.parametrize('execution', ['parallel', '', None])
def test_unknown_modes_are_refused(make, execution):
    with pytest.raises(
        ValueError, match=r"execution must be one of \('auto', 'stacked', 'sequential'\), got"
    ):
        make(execution=execution)


# ------------------------------------------------------------------------------- what is computed how often
def calls_of(module: nn.Module) -> list:
    """A list that grows with every call of a module."""
    calls = []
    module.register_forward_hook(lambda *args: calls.append(1))
    return calls


@pytest.mark.parametrize(
    ('method', 'counts'),
    [
        # the patch embedding, then attention and feed-forward net of the three first blocks
        ('bitfit', [4, 4, 4, 4, 4, 4, 4]),
        ('lora', [1, 4, 4, 4, 4, 4, 4]),
        ('lora-ffn', [1, 1, 4, 4, 4, 4, 4]),
        ('vpt-shallow', [1, 4, 4, 4, 4, 4, 4]),
        ('relative-bias', [1, 4, 4, 4, 4, 4, 4]),
        ('adapter-attn', [1, 1, 4, 4, 4, 4, 4]),
        ('adapter-both', [1, 1, 4, 4, 4, 4, 4]),
        ('polyhistor', [1, 1, 1, 4, 4, 4, 4]),
        ('merging-only', [1, 1, 1, 1, 1, 4, 4]),
    ],
)
@pytest.mark.parametrize('training', [True, False])
def test_what_precedes_the_first_change_is_computed_once(make, batch, method, counts, training):
    model = make(METHODS[method], execution='sequential').train(training)
    embed = model.backbone.patch_embed.projection
    convolutions = []
    convolve = embed._conv_forward
    embed._conv_forward = lambda *args: convolutions.append(1) or convolve(*args)
    blocks = [block for stage in model.backbone.stages for block in stage.blocks][:3]
    calls = [convolutions]
    for block in blocks:
        calls += [calls_of(block.attn.w_msa.proj_drop), calls_of(block.ffn.layers[0][1])]
    data = batch(model)
    with torch.set_grad_enabled(training):
        model(**data, mode='loss' if training else 'predict')
    assert [len(c) for c in calls] == counts


def test_the_shared_part_is_computed_anew_for_the_next_images(make):
    model = make(execution='sequential').eval()
    images = torch.randn(2, 1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        one, other = (dict(model.backbone.task_by_task(x)) for x in images)
        for maps, x in ((one, images[0]), (other, images[1])):
            for task, want in model.backbone(x).items():
                for a, b in zip(maps[task], want, strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
            assert not torch.allclose(one['normals'][0], other['normals'][0])


# --------------------------------------------------------------------------------------------------- memory
def test_the_maps_of_a_task_are_gone_when_the_head_of_the_next_one_runs(make, batch):
    model = make(execution='sequential').train()
    seen: list[weakref.ref] = []
    alive: list[int] = []

    def look(head, args):
        alive.append(sum(ref() is not None for ref in seen))
        seen.extend(weakref.ref(m) for m in args[0])

    for head in model.decode_heads.values():
        head.register_forward_pre_hook(look)
    losses = model(**batch(model), mode='loss')
    assert alive == [0] * len(TASKS) and len(seen) == 3 * len(TASKS)
    assert sum(ref() is not None for ref in seen) == 0
    assert len(losses) == len(TASKS)


class Kept:
    """What autograd keeps for backward passes while this context is open: bytes now, and at the highest.

    Storages are counted once, and those of the model not at all.
    """

    class Holder:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def __init__(self, model: nn.Module) -> None:
        self.own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
        self.users: Counter[int] = Counter()
        self.now = self.peak = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda holder: holder.tensor)

    def pack(self, tensor: Tensor) -> Holder:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        holder = self.Holder(tensor)
        if key not in self.own:
            self.now += size * (self.users[key] == 0)
            self.users[key] += 1
            self.peak = max(self.peak, self.now)
            weakref.finalize(holder, self.release, key, size)
        return holder

    def release(self, key: int, size: int) -> None:
        self.users[key] -= 1
        self.now -= size * (self.users[key] == 0)

    def __enter__(self) -> Kept:
        self.hooks.__enter__()
        return self

    def __exit__(self, *args) -> None:
        self.hooks.__exit__(*args)


@pytest.mark.parametrize('method', ['lora', 'polyhistor', 'adapter-both'])
def test_sequential_tasks_never_keep_more_than_one_of_them(make, batch, method):
    def peak(execution: str, tasks=TASKS) -> int:
        model = make(METHODS[method], backbone=dict(tasks=tasks), tasks=tasks, execution=execution).train()
        data = batch(model, tasks=tasks)
        with Kept(model) as kept:
            losses = model(**data, mode='loss')
            if execution == 'sequential':
                assert kept.now == 0  # all graphs are freed before the losses are returned
            sum(losses.values()).backward()
        assert kept.now == 0
        return kept.peak

    alone = max(peak('stacked', (task,)) for task in TASKS)
    assert alone <= peak('sequential') <= 1.02 * alone
    assert peak('stacked') > 3 * alone


# ------------------------------------------------------------------------------------------ the rule of 'auto'
class Images:
    """Images that are nowhere."""

    def __init__(self, device: str, batch: int = 2, size: tuple[int, int] = (64, 96)) -> None:
        self.device = torch.device(device)
        self.shape = (batch, 3, *size)

    def __len__(self) -> int:
        return self.shape[0]

    def element_size(self) -> int:
        return 4


def test_on_a_gpu_tasks_are_stacked_while_half_of_the_free_memory_is_enough(make, monkeypatch):
    model = make(execution='auto')
    images = Images('cuda:1')
    needed = stacked_bytes(model, images)
    assert needed > 0
    asked = []
    for free, stacked in ((2 * needed, True), (2 * needed - 1, False), (0, False), (2**60, True)):
        monkeypatch.setattr(rule, 'free_bytes', lambda device, f=free: asked.append(device) or f)
        assert should_stack(model, images) == stacked
        assert model.runs_sequentially(images) == (not stacked)
    assert set(asked) == {torch.device('cuda:1')}
    with torch.no_grad():  # nothing is kept for a backward pass
        monkeypatch.setattr(rule, 'free_bytes', lambda device: 0)
        assert should_stack(model, images)


def test_on_a_cpu_tasks_are_stacked_while_their_largest_tensor_is_small(make, batch, monkeypatch):
    model = make(execution='auto').float()
    images = batch(model)['inputs'].float()[..., :32, :64]
    largest = largest_bytes(model, images)
    for limit, stacked in ((largest, True), (largest - 1, False)):
        monkeypatch.setattr(rule, 'CPU_BYTES', limit)
        assert should_stack(model, images) == stacked
        assert model.runs_sequentially(images) == (not stacked)

    sizes = []
    for module in model.backbone.modules():
        if isinstance(module, (nn.GELU, nn.LayerNorm, nn.Dropout, nn.Conv2d)):
            module.register_forward_hook(lambda m, args, out: sizes.append(out.nbytes))
    model.execution = 'stacked'
    with torch.no_grad():
        model(images)
    assert max(sizes) == largest


def test_the_estimate_grows_with_what_it_depends_on(make):
    model = make()
    base = stacked_bytes(model, Images('cpu'))
    assert stacked_bytes(model, Images('cpu', batch=6)) == pytest.approx(3 * base, rel=1e-6)
    assert stacked_bytes(model, Images('cpu', size=(128, 96))) == pytest.approx(2 * base, rel=1e-6)
    one = make(backbone=dict(tasks=('normals',)), tasks=('normals',))
    assert stacked_bytes(one, Images('cpu')) == pytest.approx(base / 4, rel=1e-6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert stacked_bytes(model, Images('cpu')) == pytest.approx(base / 2, rel=1e-6)
    model.backbone.with_cp = True
    assert stacked_bytes(model, Images('cpu')) < base


@pytest.mark.parametrize('with_cp', [False, True])
def test_the_estimate_fits_what_swin_tiny_keeps(build, make_batch, with_cp):
    model = build(
        backbone=dict(type='AdaptedSwin', tasks=TASKS, adapter=dict(type='Polyhistor'), with_cp=with_cp),
        decode_heads=dict(type='AllMLPHead', in_channels=[96, 192, 384, 768]),
        execution='stacked',
    ).train()
    data = model.data_preprocessor(make_batch([(224, 224)]), True)
    with Kept(model) as kept:
        losses = model(**data, mode='loss')
        kept_bytes = kept.now
    assert 0.8 * kept_bytes < stacked_bytes(model, data['inputs']) < 1.6 * kept_bytes
    assert len(losses) == len(TASKS)


# ------------------------------------------------------------------------------------------ two processes
def test_two_processes_have_the_gradients_of_stacked_tasks(make, model_cfg, make_batch, tmp_path, repo):
    """Without a search for unused parameters, and over two iterations, of which the second needs the first to be done."""
    cfg = model_cfg(backbone=swin(), decode_heads=heads())
    model = make(execution='stacked').train()
    batches = [
        [model.data_preprocessor(make_batch(((32, 32), (32, 32)), seed=10 * rank + i), True) for i in range(2)]
        for rank in range(2)
    ]  # fmt: skip
    (tmp_path / 'case.pkl').write_bytes(pickle.dumps((cfg, model.state_dict(), batches)))
    environment = {**os.environ, 'PYTHONPATH': str(repo), 'OMP_NUM_THREADS': '1'}
    subprocess.run(
        [sys.executable, str(WORKER), str(tmp_path)], env=environment, cwd=tmp_path, check=True, timeout=120
    )
    ranks = [torch.load(tmp_path / f'gradients_{rank}.pt', weights_only=True) for rank in range(2)]
    for i in range(2):
        want = {}
        for rank in range(2):
            data = dict(batches[rank][i], inputs=batches[rank][i]['inputs'].double())
            for name, g in gradients(model, data)[1].items():
                want[name] = want.get(name, 0) + g / 2
        for rank in range(2):
            for mode in ('sequential', 'stacked'):
                assert_same(ranks[rank][mode][i], want)
