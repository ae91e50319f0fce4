"""Generated weights in evaluation: made once, and anew whenever a parameter has changed."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn

from mmseg_polyhistor.models.backbones import AdaptedSwin, generated_cache

ARCH = dict(embed_dims=24, depths=[1, 1], num_heads=[2, 3])
TASKS = ('semseg', 'normals', 'saliency')
LITE = dict(type='PolyhistorLite', ratio=2)
IMAGES = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Counted:
    """A model in evaluation mode that tells for which tasks it generates weights."""

    def __init__(self, adapter: dict = LITE, tasks: tuple[str, ...] | None = TASKS) -> None:
        torch.manual_seed(0)
        self.made_of = dict(adapter=adapter, tasks=tasks)
        self.model = AdaptedSwin(ARCH, **self.made_of).eval()
        self.calls: list[tuple[str, ...]] = []
        with torch.no_grad():
            for p in self.model.adapters.parameters():
                p.normal_(std=0.3)
        generate = self.model.adapters.generate
        self.model.adapters.generate = lambda names: self.calls.append(tuple(names)) or generate(names)

    def __call__(self, *args, **kwargs) -> list[Tensor]:
        out = self.model(IMAGES, *args, **kwargs)
        return [m for maps in out.values() for m in maps] if isinstance(out, dict) else list(out)

    def fresh(self) -> list[Tensor]:
        """What a model that has kept nothing computes."""
        other = Counted(**self.made_of)
        other.model.load_state_dict(self.model.state_dict())
        with torch.no_grad():
            return other()


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize('tasks', [TASKS, None], ids=['tasks', 'stock'])
@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_weights_are_generated_once_for_all_passes(mode, tasks):
    counted = Counted(tasks=tasks)
    with mode():
        outs = [counted() for _ in range(3)]
    assert len(counted.calls) == 1
    assert same(outs[0], outs[1]) and same(outs[0], outs[2])
    assert same(outs[0], counted.fresh())


def step(model: AdaptedSwin) -> None:
    optimiser = torch.optim.Adam(model.adapters.parameters(), lr=0.1)
    sum(m.square().sum() for maps in model(IMAGES).values() for m in maps).backward()
    optimiser.step()


def load(model: AdaptedSwin) -> None:
    state = model.adapters.state_dict()
    model.adapters.load_state_dict({key: 0.5 * value for key, value in state.items()})


def load_by_assignment(model: AdaptedSwin) -> None:
    state = {key: 0.5 * value for key, value in model.adapters.state_dict().items()}
    model.adapters.load_state_dict(state, assign=True)


def in_place(model: AdaptedSwin) -> None:
    """One number of one parameter, the last."""
    with torch.no_grad():
        list(model.adapters.parameters())[-1].view(-1)[-1] += 1.0


def reset(model: AdaptedSwin) -> None:
    model.adapters.reset_parameters()


def swap_as_the_ema_hook_does(model: AdaptedSwin) -> None:
    """mmengine's EMAHook writes through `.data`, which torch does not count; the loops then call `eval`."""
    average = ExponentialMovingAverage(model, momentum=0.5)
    with torch.no_grad():
        for p in average.module.adapters.parameters():
            p.mul_(0.5)
    for p, other in zip(model.parameters(), average.module.parameters(), strict=True):
        p.data.copy_(other.data)
    nn.Sequential(model).eval()  # of the whole segmentor, wherever the backbone is in it


@pytest.mark.parametrize(
    'change',
    [step, load, load_by_assignment, in_place, reset, swap_as_the_ema_hook_does],
    ids=lambda f: f.__name__,
)
def test_they_are_generated_anew_after(change):
    counted = Counted()
    with torch.no_grad():
        before = counted()
    change(counted.model)
    counted.calls.clear()
    with torch.no_grad():
        after, again = counted(), counted()
    assert counted.calls == [TASKS]
    assert same(after, again) and not same(before, after)
    assert same(after, counted.fresh())


def test_buffers_of_a_method_count_as_well():
    counted = Counted(dict(type='LoRA'))
    counted.model.adapters.register_buffer('strength', torch.ones(()))
    with torch.no_grad():
        counted()
        counted.model.adapters.strength.mul_(2)
        counted()
    assert len(counted.calls) == 2


@pytest.mark.parametrize('change', [lambda m: m.train().eval(), lambda m: m.double().float()])
def test_a_change_of_the_mode_or_the_precision_starts_afresh(change):
    counted = Counted()
    with torch.no_grad():
        before = counted()
        change(counted.model)
        after = counted()
    assert len(counted.calls) == 2
    assert same(before, after)


def test_not_in_training_and_not_with_gradients():
    counted = Counted()
    with torch.no_grad():
        before = counted()  # there is something that could be used
    gradients = []
    for _ in range(2):
        out = counted()
        assert same(out, before)
        parameters = list(counted.model.adapters.parameters())
        gradients.append(torch.autograd.grad(sum(m.sum() for m in out), parameters))
    assert all(g.abs().sum() > 0 for g in gradients[0])
    assert same(list(gradients[0]), list(gradients[1]))
    assert len(counted.calls) == 3
    counted.model.train()
    with torch.no_grad():
        for _ in range(2):
            counted()
    assert len(counted.calls) == 5


def test_what_was_kept_under_no_grad_does_not_reach_a_training_step():
    counted = Counted()
    with torch.no_grad():
        counted()
    counted.model.train()
    sum(m.square().sum() for m in counted()).backward()
    assert all(p.grad is not None for p in counted.model.adapters.parameters())


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_share_nothing(duplicate):
    counted = Counted()
    count = counted.model.adapters.__dict__.pop('generate')  # it would go into the copy
    with torch.no_grad():
        before = counted()
        other = duplicate(counted.model)
        for p in other.adapters.parameters():
            p.mul_(0.5)
        assert not same([m for maps in other(IMAGES).values() for m in maps], before)
        counted.model.adapters.generate = count
        assert same(counted(), before)
    assert counted.calls == []  # what the original had kept is still there


def test_sets_of_tasks_do_not_mix():
    counted = Counted()
    sets = [TASKS, ('normals',), ('saliency', 'normals'), ('normals', 'saliency'), TASKS[::-1]]
    with torch.no_grad():
        all_maps = counted.model(IMAGES)
        for _ in range(2):
            for names in sets:
                out = counted.model(IMAGES, names)
                assert list(out) == list(names)
                for name in names:
                    for a, b in zip(out[name], all_maps[name], strict=True):
                        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
            assert counted.calls == sets
        one_by_one = dict(counted.model.task_by_task(IMAGES))
    for name, maps in one_by_one.items():
        for a, b in zip(maps, all_maps[name], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert counted.calls == [*sets, ('semseg',), ('saliency',)]  # 'normals' alone was known


def test_only_so_many_sets_are_kept(monkeypatch):
    monkeypatch.setattr(generated_cache, 'KEPT', 2)
    counted = Counted()
    with torch.no_grad():
        for names in (TASKS, ('normals',), ('saliency',), ('saliency',)):
            counted.model(IMAGES, names)
        assert len(counted.calls) == 3
        counted.model(IMAGES)
    assert counted.calls[3:] == [TASKS]


def test_the_frozen_network_without_its_method_generates_nothing():
    counted = Counted()
    with torch.no_grad():
        adapted = counted()
        frozen = counted(adapted=False)
        assert same(counted(), adapted) and not same(frozen, adapted)
    assert len(counted.calls) == 1


def test_a_model_made_in_inference_mode_generates_each_time():
    """Torch counts no changes of its parameters."""
    with torch.inference_mode():
        counted = Counted()
        before = counted()
        assert same(counted(), before)
        for p in counted.model.adapters.parameters():
            p.mul_(0.5)
        assert not same(counted(), before)
    assert len(counted.calls) == 3


def test_kept_weights_are_those_of_full_precision_under_autocast():
    counted = Counted()
    with torch.no_grad():
        with torch.autocast('cpu', dtype=torch.bfloat16):
            counted()
        assert same(counted(), counted.fresh())
    assert counted.calls == [TASKS]


@pytest.mark.parametrize('how', ['parametrised', 'assigned'])
def test_a_parameter_that_becomes_another_object(how):
    counted = Counted(dict(type='LoRA'))
    with torch.no_grad():
        before = counted()
        change = counted.model.adapters.sets['normals']['stage0_block0_attn_w_msa_qkv']
        if how == 'assigned':
            change.up = nn.Parameter(change.up * 2)
        else:
            nn.utils.parametrize.register_parametrization(change, 'up', nn.Identity())
            change.parametrizations.up.original.mul_(2)
        after = counted()
    assert not same(before, after)
    assert len(counted.calls) == 2
