"""Models frozen for inference against the ones that they were made from."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_polyhistor.adapters import BottleneckAdapter, Change, LowRankWeights, Site
from mmseg_polyhistor.models.backbones import AdaptedSwin, bake

ARCH = dict(embed_dims=24, depths=[1, 2, 1], num_heads=[2, 3, 4])
TASKS = ('semseg', 'normals', 'saliency')
LINEAR = dict(activation='identity', post_norm=False)
LITE = dict(type='PolyhistorLite', ratio=2)


def build(adapter: dict | None, tasks: tuple[str, ...] | None = TASKS, **options) -> AdaptedSwin:
    torch.manual_seed(0)
    model = AdaptedSwin(ARCH, tasks=tasks, adapter=adapter, **options).double()
    randomise(model)
    return model.eval()


def randomise(model: nn.Module) -> None:
    """No zeros and ones by chance: everything that a method can learn must matter."""
    gains = {id(norm.weight) for norm in model.modules() if isinstance(norm, nn.LayerNorm)}
    for name, p in model.named_parameters():
        if p.dim() == 1 or 'adapters' in name or 'relative_position' in name:
            nn.init.normal_(p, mean=float(id(p) in gains or name.endswith('gain')), std=0.2)


def images() -> Tensor:
    return torch.randn(1, 3, 40, 36, dtype=torch.float64, generator=torch.manual_seed(1))


@torch.no_grad()
def maps_of(model: nn.Module, *args) -> dict[str, list[Tensor]]:
    out = model(images(), *args)
    if isinstance(out, tuple):
        return {'': list(out)}
    return {task: list(maps) for task, maps in out.items()}


def assert_equal(baked: nn.Module, model: nn.Module, *args) -> None:
    got, want = maps_of(baked, *args), maps_of(model, *args)
    assert list(got) == list(want)
    for task, maps in want.items():
        for a, b in zip(got[task], maps, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def assert_nothing_is_left_to_train(baked: nn.Module, model: nn.Module) -> None:
    """No parameter of the method, whatever it was called; all others are there and fixed."""
    names = {name for name, _ in model.named_parameters() if '.adapters.' not in f'.{name}'}
    assert {name for name, _ in baked.named_parameters()} == names
    assert not any(p.requires_grad for p in baked.parameters())
    assert [name for name, module in baked.named_modules() if module.training] == []


@pytest.mark.parametrize('tasks', [TASKS, ('normals',), None], ids=['three', 'one', 'stock'])
def test_baked_models_have_equal_features(every_method, tasks):
    model = build(every_method, tasks)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wanted = maps_of(model)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    baked = bake(model)
    assert_equal(baked, model)
    assert_nothing_is_left_to_train(baked, model)
    # The original is as it was.
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    for task, maps in maps_of(model).items():
        assert all(torch.equal(a, b) for a, b in zip(maps, wanted[task], strict=True))
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {t.data_ptr() for t in baked.state_dict().values()}


def test_some_of_the_tasks_and_one_after_another(every_method):
    model = build(every_method)
    baked = bake(model)
    assert_equal(baked, model, ('saliency', 'semseg'))
    assert_equal(baked, model, ('normals',))
    if baked.parts_streams:
        with torch.no_grad():
            one_by_one = dict(baked.task_by_task(images(), TASKS[::-1]))
        for task, maps in maps_of(model).items():
            for a, b in zip(one_by_one[task], maps, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


MERGED = {  # of which nothing is left
    'bitfit-shared': (dict(type='BitFit', per_task=False), TASKS),
    'all-parameters-shared': (
        dict(type='BitFit', per_task=False, tuned=('weight', 'bias', 'norm', 'relative_position_bias')),
        TASKS,
    ),
    'lora-shared': (dict(type='LoRA', pre_norm=False, per_task=False, rank=3), TASKS),
    'adapter-shared': (
        dict(type='BottleneckAdapter', ratio=4, positions=('attn', 'ffn'), per_task=False, scale=0.7, tuned=('norm',), **LINEAR),
        TASKS,
    ),
    'lora-of-one-task': (dict(type='LoRA', pre_norm=False, targets=('qkv', 'fc2', 'reduction')), ('normals',)),
    'relative-bias-without-tasks': (dict(type='RelativeBias'), None),
    'polyhistor-of-one-task': (dict(type='Polyhistor', ratio=4, rank=-2, **LINEAR), None),
    'lite-of-one-task': (dict(type='PolyhistorLite', ratio=2, positions=('attn', 'ffn'), **LINEAR), ('normals',)),
}  # fmt: skip


@pytest.mark.parametrize('name', MERGED)
def test_what_is_linear_and_shared_becomes_part_of_the_encoder(name):
    adapter, tasks = MERGED[name]
    model = build(adapter, tasks)
    baked = bake(model)
    assert baked.adapters is None
    assert_equal(baked, model)
    plain = build(None, tasks)
    assert set(baked.state_dict()) == set(plain.state_dict())
    assert not torch.allclose(next(iter(maps_of(plain).values()))[-1], next(iter(maps_of(model).values()))[-1])  # fmt: skip


def test_linear_changes_of_several_tasks_stay_beside_the_encoder():
    model = build(dict(type='LoRA', pre_norm=False))
    baked = bake(model)
    assert baked.adapters is not None
    weight = 'stages.0.blocks.0.attn.w_msa.qkv.weight'
    assert torch.equal(baked.state_dict()[weight], model.state_dict()[weight])
    assert_equal(baked, model)


def test_a_layer_scale_in_front_of_an_adapter_keeps_it():
    scaled = dict(stage_cfgs=dict(block_cfgs=dict(ffn_cfgs=dict(layer_scale_init_value=0.5))))
    adapter = dict(type='BottleneckAdapter', ratio=4, positions=('attn', 'ffn'), per_task=False, **LINEAR)
    model = build(adapter, **scaled)
    baked = bake(model)
    assert_equal(baked, model)
    kept = {site.position for site in baked.adapters.generate(TASKS)}
    assert kept == {'ffn'}  # behind the attention there is no scale


class Mixed(BottleneckAdapter):
    """Linear adapters that all tasks share, behind linear maps with a change that cannot be merged, in stage 1.

    By `means` the change is a weight or a bias of each task's own, a low-rank change of each task's own, or a low-rank
    change of all tasks behind a LayerNorm.
    """

    def __init__(self, *, means: str, **kwargs) -> None:
        super().__init__(ratio=4, positions=('attn', 'ffn'), per_task=False, **LINEAR, **kwargs)
        self.means = means
        rows = 1 if means == 'shared low rank' else len(self.tasks)
        self.linears = [x for x in self.layout.select_linears(('proj', 'fc2')) if x.site.stage == 1]
        self.ups = nn.ParameterList(torch.empty(rows, x.out_features, 2) for x in self.linears)
        self.downs = nn.ParameterList(torch.empty(rows, 2, x.in_features) for x in self.linears)

    def generate(self, tasks) -> dict[Site, Change]:
        changes = super().generate(tasks)
        rows = [0] if self.means == 'shared low rank' else [self.tasks.index(task) for task in tasks]
        for linear, up, down in zip(self.linears, self.ups, self.downs, strict=True):
            site, up, down = linear.site, up[rows], down[rows]
            if self.means == 'weight':
                changes[site._replace(position=f'{site.position}.weight')] = up @ down
            elif self.means == 'bias':
                changes[site._replace(position=f'{site.position}.bias')] = up.sum(-1)
            elif self.means == 'low rank':
                changes[site] = LowRankWeights(down, up)
            else:
                gain = down.new_ones(1, linear.in_features)
                changes[site] = LowRankWeights(down, up, gain, 0.1 * gain)
        return changes


@pytest.fixture
def custom_methods():
    """The methods of this file, by name, for as long as a test runs."""
    for cls in (Mixed, Gate):
        MODELS.register_module(module=cls)
    yield
    for cls in (Mixed, Gate):
        del MODELS._module_dict[cls.__name__]


@pytest.mark.parametrize('means', ['weight', 'bias', 'low rank', 'shared low rank'])
def test_a_shared_linear_adapter_is_not_merged_across_a_change_that_stays(custom_methods, means):
    """adapter(W x + change_t(x)) is not (A W) x + change_t(x): where one stays, so does the other."""
    model = build(dict(type='Mixed', means=means))
    baked = bake(model)
    assert_equal(baked, model)
    assert_equal(baked, model, ('saliency', 'normals'))
    kept = {site for site in baked.adapters.generate(TASKS) if site.position in ('attn', 'ffn')}
    assert kept == {Site(1, j, position) for j in range(2) for position in ('attn', 'ffn')}


class Gate(BottleneckAdapter):
    """A method of a user's own: adapters with another formula, which depends on its arguments and a setting."""

    def __init__(self, *, power: int, **kwargs) -> None:
        super().__init__(ratio=4, post_norm=False, **kwargs)
        self.power = power

    def adapt(self, x: Tensor, weights: Any) -> Tensor:
        gate = (x @ weights.down_weight.mT[:, None]).tanh() ** self.power
        return x + gate @ weights.up_weight.mT[:, None]


@pytest.mark.parametrize('tasks', [TASKS, None], ids=['three', 'stock'])
def test_a_method_with_a_formula_of_its_own(custom_methods, tasks):
    model = build(dict(type='Gate', power=3), tasks)
    baked = bake(model)
    assert_equal(baked, model)
    assert_nothing_is_left_to_train(baked, model)


def test_what_is_kept_is_smaller_than_a_hyper_network():
    """Polyhistor's 64 numbers of a code, per number that a head emits, are gone."""
    model = build(dict(type='Polyhistor', ratio=4, rank=-2))
    generated = sum(
        t.numel()
        for weights in model.adapters.generate(TASKS).values()
        for t in weights
        if isinstance(t, Tensor)
    )
    kept = sum(t.numel() for t in bake(model).adapters.state_dict().values())
    assert kept == generated < sum(p.numel() for p in model.adapters.parameters()) / 10


def test_a_baked_model_generates_nothing_and_keeps_nothing_of_the_method():
    model = build(LITE)

    def refuse(*args):
        raise AssertionError('the hyper-network runs')

    baked = bake(model)
    model.adapters._code = refuse
    before = maps_of(baked)
    with pytest.raises(AssertionError, match='the hyper-network runs'):
        model(images())
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    for task, maps in maps_of(baked).items():
        assert all(torch.equal(a, b) for a, b in zip(maps, before[task], strict=True))


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize('adapter', [LITE, dict(type='MTLoRA', rank=2, task_rank=1)], ids=lambda a: a['type'])
def test_copies(adapter, duplicate):
    model = build(adapter)
    assert_equal(duplicate(bake(model)), model)


def test_a_state_dict_moves_between_baked_models():
    one, other = build(LITE), build(LITE)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.9)
    baked = bake(one)
    maps_of(baked)
    baked.load_state_dict(bake(other).state_dict())
    assert_equal(baked, other)


@pytest.mark.parametrize(
    'adapter', [None, LITE, dict(type='AdaptFormer', bottleneck=3), dict(type='MTLoRA', rank=2, task_rank=1)]
)
def test_baking_twice_changes_nothing(adapter):
    model = build(adapter)
    assert_equal(bake(bake(model)), model)


def test_half_precision(every_method):
    """Everything is converted, and the result is that of the full precision, roughly."""
    model = build(every_method)
    baked = bake(model).to(torch.bfloat16)
    assert {t.dtype for t in baked.state_dict().values() if t.is_floating_point()} == {torch.bfloat16}
    with torch.no_grad():
        out = baked(images().to(torch.bfloat16))
    for task, maps in maps_of(model).items():
        for a, b in zip(out[task], maps, strict=True):
            assert a.dtype == torch.bfloat16
            assert (a.double() - b).square().mean() < 0.1 * b.square().mean()


def test_a_training_model_is_baked_in_evaluation_mode():
    model = build(LITE, drop_path_rate=0.5).train()
    baked = bake(model)
    assert model.training and not baked.training
    assert_equal(baked, model.eval())


def test_a_fully_trained_encoder():
    model = build(LITE, frozen=False)
    baked = bake(model)
    assert_equal(baked, model)
    assert_nothing_is_left_to_train(baked, model)


@pytest.mark.parametrize(
    'adapter', [None, LITE, MERGED['lora-shared'][0]], ids=['none', 'lite', 'lora-shared']
)
def test_a_segmentor(adapter):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='MultiTaskSegmentor',
            tasks=TASKS,
            data_preprocessor=dict(type='MultiTaskDataPreProcessor'),
            backbone=dict(type='AdaptedSwin', arch=ARCH, tasks=TASKS, adapter=adapter),
            decode_heads=dict(type='AllMLPHead', in_channels=[24, 48, 96], channels=8),
        )
    ).double()
    randomise(model)
    with torch.no_grad():  # statistics of the heads' BatchNorms
        model.train()(images())
        baked = bake(model)
        model.eval()
        assert_nothing_is_left_to_train(baked, model)
        got, want = baked(images()), model(images())
        assert list(got) == list(want)
        for task in want:
            torch.testing.assert_close(got[task], want[task], rtol=1e-9, atol=1e-9)
        for a, b in zip(baked(images(), mode='predict'), model(images(), mode='predict'), strict=True):
            assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)
            torch.testing.assert_close(a.pred_normals.data, b.pred_normals.data, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('model', [nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1))])
def test_other_models_are_refused(model):
    with pytest.raises(TypeError, match='has no AdaptedSwin as backbone'):
        bake(model)
