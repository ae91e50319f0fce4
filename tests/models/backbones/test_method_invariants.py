"""One matrix of invariants over all methods: what must hold whichever method a config names."""

from __future__ import annotations

import copy
import pickle
import zlib
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from mmpretrain.models import SwinTransformer
from naive_reference import naive_maps
from torch import Tensor, nn

from mmseg_polyhistor.adapters import METHODS
from mmseg_polyhistor.models.backbones import AdaptedSwin

ARCH = dict(embed_dims=24, depths=[1, 2, 1], num_heads=[2, 3, 4])
WIDTHS = (24, 48, 96)
TASKS = ('semseg', 'normals', 'saliency')
BATCH = 2
# Patches are cut off at both borders, patch merging meets odd maps, and a shifted block has windows of both kinds.
SIZE = (34, 61)
EVERY_LINEAR = ('qkv', 'proj', 'fc1', 'fc2', 'reduction')
EVERY_GROUP = ('weight', 'bias', 'norm', 'relative_position_bias', 'patch_embed', 'patch_merging')
SMALL = dict(embed_dims=12, hidden_dims=10, code_dims=8)  # of hyper-networks


@dataclass(frozen=True)
class Case:
    """A method, with what its documentation says of a network that has it.

    `rows` has a character per block: the streams in its feed-forward net are 1, T (one per task), or P (one more, for the
    stream that all tasks share). `start` says what a fresh network equals: the frozen one ('frozen'), it is not far
    from it ('near'), or it is another ('other').
    """

    adapter: dict | None
    rows: str
    start: str


def case(method: str | None, rows: str, start: str, **settings) -> Case:
    return Case(None if method is None else dict(type=method, **settings), rows, start)


CASES = {
    'none': case(None, '1111', 'frozen'),
    # ------------------------------------------------------------------------------------- parameters of the network
    'bitfit': case('BitFit', 'TTTT', 'frozen'),
    'bitfit-shared': case('BitFit', '1111', 'frozen', per_task=False),
    'relative-bias': case('RelativeBias', 'TTTT', 'frozen'),
    'relative-bias-shared': case('RelativeBias', '1111', 'frozen', per_task=False),
    'tuned-weight-and-bias': case('BitFit', 'TTTT', 'frozen', tuned=('weight', 'bias')),
    'tuned-weight': case('BitFit', 'TTTT', 'frozen', tuned=('weight',)),
    'tuned-norm-weight': case('BitFit', 'TTTT', 'frozen', tuned=('norm_weight',)),
    'tuned-patch-merging': case('BitFit', '1TTT', 'frozen', tuned=('patch_merging',)),
    'tuned-everything': case('BitFit', 'TTTT', 'frozen', tuned=EVERY_GROUP),
    'tuned-everything-shared': case('BitFit', '1111', 'frozen', tuned=EVERY_GROUP, per_task=False),
    # ------------------------------------------------------------------------------------------------------- prompts
    'vpt-shallow': case('VisualPrompt', 'TTTT', 'other', prompts=3),
    'vpt-shallow-no-norm': case('VisualPrompt', 'TTTT', 'other', prompts=3, norm=False),
    'vpt-shallow-shared': case('VisualPrompt', '1111', 'other', prompts=3, per_task=False),
    'vpt-deep': case('VisualPrompt', 'TTTT', 'other', prompts=2, deep=True),
    'vpt-deep-no-norm': case('VisualPrompt', 'TTTT', 'other', prompts=2, deep=True, norm=False),
    'vpt-deep-shared': case('VisualPrompt', '1111', 'other', prompts=2, deep=True, per_task=False),
    'vpt-deep-tuned': case(
        'VisualPrompt', 'TTTT', 'other', prompts=2, deep=True, tuned=('norm', 'bias', 'relative_position_bias')
    ),
    # ---------------------------------------------------------------------------------------------- low-rank changes
    'lora': case('LoRA', 'TTTT', 'frozen'),
    'lora-plain': case('LoRA', 'TTTT', 'frozen', pre_norm=False, rank=2, scale=0.5),
    'lora-everywhere': case('LoRA', 'TTTT', 'frozen', targets=EVERY_LINEAR, rank=-8, scale=2.0),
    'lora-everywhere-plain': case('LoRA', 'TTTT', 'frozen', targets=EVERY_LINEAR, pre_norm=False),
    'lora-fc1': case('LoRA', 'TTTT', 'frozen', targets=('fc1',)),
    'lora-fc2': case('LoRA', '1TTT', 'frozen', targets=('fc2',), pre_norm=False),
    'lora-reduction': case('LoRA', '1TTT', 'frozen', targets=('reduction',)),
    'lora-shared': case('LoRA', '1111', 'frozen', per_task=False),
    'lora-shared-tuned': case('LoRA', '1111', 'frozen', per_task=False, tuned=('norm',), pre_norm=False),
    'mtlora': case('MTLoRA', 'P1PT', 'frozen', rank=3, task_rank=2),
    'mtlora-fc2': case('MTLoRA', '1111', 'frozen', rank=3, task_rank=1, task_targets=('fc2',), tuned=()),
    'mtlora-everywhere': case(
        'MTLoRA', 'P1PT', 'frozen', rank=2, task_rank=1, scale=0.5, targets=EVERY_LINEAR,
        task_targets=('qkv', 'proj', 'fc1', 'fc2'), tuned=EVERY_GROUP,
    ),
    # ------------------------------------------------------------------------------------------------------ adapters
    'adapter': case('BottleneckAdapter', '1TTT', 'other', ratio=2),
    'adapter-identity': case('BottleneckAdapter', '1TTT', 'frozen', ratio=4, post_norm_gain=0.0),
    'adapter-attn': case('BottleneckAdapter', 'TTTT', 'other', ratio=4, positions=('attn',)),
    'adapter-both': case('BottleneckAdapter', 'TTTT', 'frozen', positions=('attn', 'ffn'), post_norm_gain=0.0),
    'adapter-parallel': case('BottleneckAdapter', '1TTT', 'frozen', insertion='parallel', post_norm_gain=0.0),
    'adapter-parallel-both': case(
        'BottleneckAdapter', 'TTTT', 'other', ratio=4, positions=('attn', 'ffn'), insertion='parallel', scale=0.5
    ),
    'adapter-pre-norm-scale': case(
        'BottleneckAdapter', 'TTTT', 'other', ratio=4, positions=('attn', 'ffn'), pre_norm=True, scale=1.5
    ),
    'adapter-no-norm': case('BottleneckAdapter', '1TTT', 'other', ratio=4, post_norm=False, activation='gelu'),
    'adapter-tuned': case('BottleneckAdapter', 'TTTT', 'other', ratio=4, tuned=('bias', 'norm')),
    'adapter-shared': case('BottleneckAdapter', '1111', 'other', per_task=False, tuned=('norm',)),
    'adapter-shared-parallel': case('BottleneckAdapter', '1111', 'other', per_task=False, insertion='parallel'),
    'low-rank': case('LowRankAdapter', '1TTT', 'other', ratio=4, rank=-2, activation='tanh'),
    'low-rank-identity': case('LowRankAdapter', '1TTT', 'frozen', ratio=2, rank=3, post_norm_gain=0.0),
    'low-rank-shared': case('LowRankAdapter', '1111', 'other', ratio=4, per_task=False),
    'phm': case('PHMAdapter', '1TTT', 'other', ratio=4),
    'phm-three': case('PHMAdapter', 'TTTT', 'frozen', ratio=4, divisions=3, positions=('attn',), post_norm_gain=0.0),
    'phm-shared': case('PHMAdapter', '1111', 'other', ratio=4, per_task=False),
    'compacter': case('Compacter', 'TTTT', 'other'),
    'compacter++': case('Compacter', '1TTT', 'other', positions=('ffn',)),
    'compacter-identity': case('Compacter', 'TTTT', 'frozen', divisions=4, post_norm_gain=0.0, ratio=6, pre_norm=True),
    'compacter-shared': case('Compacter', '1111', 'other', per_task=False),
    'adaptformer': case('AdaptFormer', '1TTT', 'frozen', bottleneck=5),
    'adaptformer-both': case(
        'AdaptFormer', 'TTTT', 'frozen', bottleneck=5, positions=('attn', 'ffn'), scale=0.7, pre_norm=True
    ),
    'adaptformer-shared': case('AdaptFormer', '1111', 'frozen', bottleneck=5, per_task=False),
    # ------------------------------------------------------------------------------------------------ hyper-networks
    'hyperformer': case('HyperFormer', 'TTTT', 'near', **SMALL),
    'polyhistor': case('Polyhistor', '1TTT', 'near', ratio=4, rank=-2, **SMALL),
    'polyhistor-tuned': case('Polyhistor', 'TTTT', 'near', ratio=4, tuned=('bias', 'relative_position_bias'), **SMALL),
    'polyhistor-lite': case('PolyhistorLite', '1TTT', 'near', **SMALL),
    'polyhistor-lite-gain': case('PolyhistorLite', '1TTT', 'other', post_norm_gain=1.0, **SMALL),
    'polyhistor-lite-both-parallel': case(
        'PolyhistorLite', 'TTTT', 'near', positions=('attn', 'ffn'), insertion='parallel', **SMALL
    ),
    'polyhistor-lite-template-first': case(
        'PolyhistorLite', '1TTT', 'other', kron_order='template_first', pre_norm=True, scale=0.5, **SMALL
    ),
    'polyhistor-lite-kernels-per-task': case(
        'PolyhistorLite', 'TTTT', 'near', kernels_per_task=True, positions=('attn',), **SMALL
    ),
    'hyper-shared': case('HyperAdapter', 'TTTT', 'near', ratio=4, shared=True, positions=('attn', 'ffn'), **SMALL),
    'hyper-kernels': case(
        'HyperAdapter', 'TTTT', 'near', ratio=4, scaling_kernels=True, positions=('attn', 'ffn'), **SMALL
    ),
    'hyper-shared-decomposed': case('HyperAdapter', '1TTT', 'near', ratio=4, rank=1, shared=True, **SMALL),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- helpers
def randomise(module: nn.Module, prefixes: tuple[str, ...] = ('',)) -> None:
    """Give every parameter values that follow from its name, and none is zero or one by chance: all must matter."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if not name.startswith(prefixes):
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            matrix = p.dim() > 1 and 'relative_position' not in name
            std = p.shape[-1] ** -0.5 if matrix else 0.3
            gain = 'tuned' not in name and ('norm' in name or 'gain' in name)
            mean = float(gain and name.endswith(('weight', 'gain')))
            p.copy_(mean + std * torch.randn(p.shape, generator=generator, dtype=torch.float64))


def build(adapter: dict | None, *, tasks=TASKS, random=True, seed=0, **options) -> AdaptedSwin:
    torch.manual_seed(seed)
    options = dict(drop_path_rate=0.0) | options
    model = AdaptedSwin(ARCH, tasks=tasks, adapter=adapter, **options).double().eval()
    if random:
        randomise(model)
    return model


def images_of(size: tuple[int, int]) -> Tensor:
    return torch.randn(
        BATCH, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(size))
    )


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def per_task(out: dict | tuple, tasks=TASKS) -> dict[str, tuple[Tensor, ...]]:
    return out if isinstance(out, dict) else {tasks[0]: out}


def loss_of(out: dict) -> Tensor:
    """A sum in which every value of every map has a weight of its own, by task and stage."""
    total = 0
    for task, maps in out.items():
        generator = torch.Generator().manual_seed(zlib.crc32(task.encode()))
        for m in maps:
            total = total + (m * torch.randn(m.shape, generator=generator, dtype=torch.float64)).sum()
    return total


def gradients(model: nn.Module, out: dict) -> dict[str, Tensor | None]:
    parameters = trained(model)
    grads = torch.autograd.grad(loss_of(out), list(parameters.values()), allow_unused=True)
    return dict(zip(parameters, grads, strict=True))


def assert_same_maps(got: dict, want: dict, what: str, tolerance: float | None = None) -> None:
    """Equal to the bit, or within a tolerance."""
    assert list(got) == list(want), what
    for task, maps in want.items():
        for stage, (a, b) in enumerate(zip(got[task], maps, strict=True)):
            assert a.shape == b.shape, f'{what}: {task}, stage {stage}'
            if tolerance is None:
                assert torch.equal(a, b), f'{what}: {task}, stage {stage}: {(a - b).abs().max():.1e} apart'
            else:
                error = (a - b).abs().max().item()
                assert error <= tolerance * b.abs().max(), f'{what}: {task}, stage {stage}: {error:.1e} apart'


def relative_distance(a: dict, b: dict) -> float:
    """Mean absolute difference over mean absolute value, of the last stage's maps."""
    pairs = [(a[t][-1], b[t][-1]) for t in b]
    return sum((x - y).abs().mean() for x, y in pairs).item() / sum(y.abs().mean() for _, y in pairs).item()


class Study:
    """One method on the toy Swin, with random values in every parameter; tests copy the model before they change it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.model = build(case.adapter)
        self.images = images_of(SIZE)

    @cached_property
    def maps(self) -> dict[str, tuple[Tensor, ...]]:
        return self.model(self.images)

    @cached_property
    def gradients(self) -> dict[str, Tensor | None]:
        return gradients(self.model, self.maps)


@pytest.fixture(scope='module', autouse=True)
def _one_thread():
    """On maps this small, threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module', params=CASES)
def study(request) -> Study:
    return Study(CASES[request.param])


@pytest.fixture(scope='module')
def stock() -> SwinTransformer:
    """mmpretrain's own Swin with the same random values."""
    model = SwinTransformer(ARCH, out_indices=(0, 1, 2), pad_small_map=True, drop_path_rate=0.0).double()
    randomise(model)
    model.eval()
    return model


@pytest.fixture(scope='module')
def frozen_maps(stock):
    """A function (model, images) -> {task: maps} of the stock Swin, followed by the norms of the model's tasks."""
    cache = {}

    def compute(model: AdaptedSwin, images: Tensor) -> dict[str, tuple[Tensor, ...]]:
        # All models of the matrix have the stock weights and output norms by name: one run of each kind serves all.
        own = model.state_dict()
        for key, value in stock.state_dict().items():
            if not key.startswith('norm'):
                assert torch.equal(own[key], value.to(own[key].dtype)), f'the models differ in {key}'
        norms = {k: v for k, v in own.items() if k.startswith('output_norms')}
        key = (images.dtype, tuple(images.shape))
        if key not in cache:
            twin = copy.deepcopy(stock).to(images.dtype)
            maps = {}
            for task in TASKS:
                for i in range(len(WIDTHS)):
                    for part in ('weight', 'bias'):
                        getattr(getattr(twin, f'norm{i}'), part).data = norms[
                            f'output_norms.{task}.{i}.{part}'
                        ]
                with torch.no_grad():
                    maps[task] = twin(images)
            cache[key] = maps, {k: v.clone() for k, v in norms.items()}
        maps, seen = cache[key]
        assert all(torch.equal(value, seen[name]) for name, value in norms.items())
        return maps

    return compute


# ---------------------------------------------------------------------------------------------------------- the matrix
def test_no_method_is_missing_from_the_matrix():
    used = {c.adapter['type'] for c in CASES.values() if c.adapter}
    assert used >= {m.__name__ for m in METHODS}
    shared = {c.adapter['type'] for c in CASES.values() if c.adapter and not c.adapter.get('per_task', True)}
    alone = {'MTLoRA', 'HyperAdapter', 'HyperFormer', 'Polyhistor', 'PolyhistorLite'}
    assert shared == used - alone


@pytest.mark.parametrize('size', [(64, 64), SIZE, (7, 30), (1, 1)], ids=str)
def test_the_naive_reference_is_a_swin(stock, size):
    """The reference without a method, against mmpretrain."""
    x = images_of(size)
    parameters = dict(stock.named_parameters())
    for i in range(len(WIDTHS)):
        for part in ('weight', 'bias'):
            parameters[f'output_norms.a.{i}.{part}'] = parameters[f'norm{i}.{part}']
    maps = naive_maps(
        parameters, heads=ARCH['num_heads'], depths=ARCH['depths'], adapter=None, task='a', images=x
    )
    for a, b in zip(maps, stock(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_maps_and_gradients_equal_the_naive_ones(study):
    """Also with recomputed activations; the reference takes one pass per task and reads the parameters by name."""
    parameters = dict(study.model.named_parameters())
    want = {
        task: naive_maps(
            parameters,
            heads=ARCH['num_heads'],
            depths=ARCH['depths'],
            adapter=study.case.adapter,
            task=task,
            images=study.images,
        )
        for task in TASKS
    }
    want_gradients = gradients(study.model, want)
    recomputed = copy.deepcopy(study.model)
    recomputed.with_cp = True
    recomputed_maps = recomputed(study.images)
    for what, maps, grads in (
        ('stored', study.maps, study.gradients),
        ('recomputed', recomputed_maps, gradients(recomputed, recomputed_maps)),
    ):
        assert_same_maps(maps, want, what, tolerance=1e-10)
        for name, wanted in want_gradients.items():
            assert wanted is not None, f'the reference does not use {name}'
            assert grads[name] is not None, f'{what}: no gradient for {name}'
            error = (grads[name] - wanted).abs().max().item()
            assert error <= 1e-9 * wanted.abs().max(), f'{what}: gradient of {name}: {error:.1e} apart'
            assert wanted.abs().max() > 1e-6, f'the gradient of {name} vanishes'


def test_only_its_own_parameters_are_trained_and_each_of_them(study):
    model = copy.deepcopy(study.model).train()
    for name, p in model.named_parameters():
        assert p.requires_grad == name.startswith(('adapters.', 'output_norms.')), name
    own = set(trained(model))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    # All parameters, so that only the lack of a gradient keeps the stock ones.
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, weight_decay=0.1)
    loss_of(model(study.images)).backward()
    for name, p in model.named_parameters():
        assert (p.grad is not None) == (name in own), name
    optimiser.step()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) != (key in own), key


def test_one_task_alone_uses_every_parameter(study):
    model = build(study.case.adapter, tasks=TASKS[:1])
    out = per_task(model(study.images))
    for name, gradient in gradients(model, out).items():
        assert gradient is not None, name
        assert gradient.abs().max() > 0, name
    assert_same_maps(out, {TASKS[0]: study.maps[TASKS[0]]}, 'one task', tolerance=1e-12)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
def test_without_what_the_method_changes_it_is_the_stock_swin(study, frozen_maps, dtype):
    """To the bit on the plain path, and up to rounding on the fused one."""
    model = copy.deepcopy(study.model).to(dtype)
    x = study.images.to(dtype)
    want = frozen_maps(model, x)
    with torch.no_grad():
        model.fused = False
        assert_same_maps(model(x, adapted=False), want, 'adapted=False, plain')
        model.fused = True
        tolerance = 1e-12 if dtype == torch.float64 else 1e-4
        assert_same_maps(model(x, adapted=False), want, 'adapted=False, fused', tolerance=tolerance)


def test_a_fresh_network_starts_as_documented(study, frozen_maps):
    model = build(study.case.adapter, random=False)
    randomise(model, ('patch_embed', 'stages', 'output_norms'))
    want = frozen_maps(model, study.images)
    with torch.no_grad():
        got = model(study.images)
    if study.case.start == 'frozen':
        assert_same_maps(got, want, 'fresh', tolerance=1e-12)
        return
    # A low-rank adapter's fresh output is so small that the epsilon of LN_post holds it down: it differs, but not by much.
    distance = relative_distance(got, want)
    assert distance > 1e-7
    if study.case.start == 'near':
        # Generated gains and shifts have a standard deviation of 0.01 sqrt(k) for codes of width k, against a gain of 1.
        far = build(study.case.adapter | dict(post_norm_gain=1.0), random=False)
        randomise(far, ('patch_embed', 'stages', 'output_norms'))
        with torch.no_grad():
            assert distance < relative_distance(far(study.images), want) / 4


def test_saved_and_copied_models_compute_the_same(study, tmp_path):
    torch.save(study.model.state_dict(), tmp_path / 'model.pt')
    loaded = build(study.case.adapter, random=False, seed=1)
    with torch.no_grad():
        want = study.model(study.images)  # again, as recording gradients may round otherwise
        assert not torch.equal(loaded(study.images)[TASKS[0]][0], want[TASKS[0]][0])
        loaded.load_state_dict(torch.load(tmp_path / 'model.pt', weights_only=True), strict=True)
        for what, twin in (
            ('loaded', loaded),
            ('deepcopy', copy.deepcopy(study.model)),
            ('pickle', pickle.loads(pickle.dumps(study.model))),
        ):
            assert_same_maps(twin(study.images), want, what)


def test_recomputation_repeats_stochastic_depth(study):
    model = build(study.case.adapter, drop_path_rate=0.5).train()
    results = []
    for with_cp in (False, True):
        model.with_cp = with_cp
        torch.manual_seed(2)
        out = model(study.images)
        torch.manual_seed(3)  # the generator has moved on when the backward pass starts
        results.append((out, gradients(model, out)))
    (maps, grads), (recomputed_maps, recomputed_grads) = results
    assert relative_distance(maps, study.maps) > 0.01  # something was dropped
    assert_same_maps(recomputed_maps, maps, 'recomputed')
    for name, gradient in grads.items():
        assert torch.equal(recomputed_grads[name], gradient), name


def test_half_precision_stays_close(study):
    model = copy.deepcopy(study.model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith('adapters.'):
                p *= 0.5  # random changes of full size make the network amplify any rounding
        want = model(study.images)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            got = model.float()(study.images.float())
    assert 1e-4 < relative_distance(got, want) < 0.05


def test_another_task_changes_nothing_for_the_others(study):
    small = build(study.case.adapter, tasks=('semseg', 'saliency'))
    big = build(study.case.adapter, tasks=('saliency', 'new', 'semseg'), seed=1)
    state = small.state_dict()
    missing = {key for key in big.state_dict() if key not in state}
    assert all('.new.' in key or key.endswith('.new') for key in missing), missing
    keys = big.load_state_dict(state, strict=False)
    assert set(keys.missing_keys) == missing and not keys.unexpected_keys
    with torch.no_grad():
        want, got = small(study.images), big(study.images)
    assert_same_maps({t: got[t] for t in want}, want, 'three tasks', tolerance=1e-12)


def test_some_tasks_in_another_order_have_the_same_maps(study):
    with torch.no_grad():
        for tasks in (('saliency',), ('saliency', 'semseg'), TASKS[::-1]):
            want = {t: study.maps[t] for t in tasks}
            assert_same_maps(study.model(study.images, tasks=tasks), want, str(tasks), tolerance=1e-12)


def test_streams_part_where_they_must(study):
    model = copy.deepcopy(study.model)
    seen = []
    for stage in model.stages:
        for block in stage.blocks:
            block.ffn.layers[0][1].register_forward_hook(
                lambda module, args, out: seen.append(tuple(out.shape[:2]))
            )
    with torch.no_grad():
        model(study.images)
    streams = {'1': 1, 'T': len(TASKS), 'P': 1 + len(TASKS)}
    assert seen == [(streams[row], BATCH) for row in study.case.rows]
    if '1' * len(seen) == study.case.rows and study.case.adapter:
        seen.clear()
        model(study.images, tasks=TASKS[:1])
        assert seen == [(1, BATCH)] * len(study.case.rows)


PHM = dict(type='PHMAdapter', ratio=4)
UNFIT = {
    'rank-0': (dict(type='LowRankAdapter', ratio=4, rank=0), 'rank must be a positive int.* got 0'),
    'rank-above-bottleneck': (dict(type='LowRankAdapter', ratio=4, rank=7), 'rank 7 .* 6 x 24 matrix'),
    'ratio-0': (dict(type='BottleneckAdapter', ratio=0), 'ratio must be a positive int, got 0'),
    'ratio-above-width': (dict(type='BottleneckAdapter', ratio=48), 'ratio 48 .* width 0 on 24 channels'),
    'ratio-indivisible': (dict(type='BottleneckAdapter', ratio=5), r'5 does not divide 24 channels.* = 4\.80'),
    'adapter-position': (dict(type='BottleneckAdapter', positions=('mlp',)), r"unknown \['mlp'\]; a non-empty subset"),
    'adapter-insertion': (dict(type='BottleneckAdapter', insertion='before'), "insertion .*got 'before'"),
    'adapter-activation': (dict(type='BottleneckAdapter', activation='swash'), "activation 'swash'"),
    'phm-indivisible-width': (PHM | dict(divisions=5), r'divisions 5 does not divide 6 channels: 6 / 5 = 1\.20'),
    'phm-indivisible-bottleneck': (PHM | dict(divisions=4), r'divisions 4 does not divide 6 .* = 1\.50'),
    'phm-0': (PHM | dict(divisions=0), 'divisions must be a positive int, got 0'),
    'compacter-indivisible': (dict(type='Compacter', divisions=7), 'divisions 7 does not divide 12'),
    'adaptformer-0': (dict(type='AdaptFormer', bottleneck=0), 'bottleneck must be a positive int, got 0'),
    'adaptformer-float': (dict(type='AdaptFormer', bottleneck=2.5), 'bottleneck .*, got 2.5'),
    'adaptformer-norm': (dict(type='AdaptFormer', post_norm=True), 'post_norm=False by its definition, got True'),
    'adaptformer-serial': (dict(type='AdaptFormer', insertion='serial'), "insertion='parallel' by its definition"),
    'mtlora-per-task': (dict(type='MTLoRA', per_task=True), 'per_task=False by its definition, got True'),
    'tunes-nothing': (dict(type='BitFit', tuned=()), 'non-empty'),
    'other-groups': (dict(type='RelativeBias', tuned=('bias',)), r"tuned=\('relative_position_bias',\) by its definition"),
    'scale-0': (dict(type='LoRA', scale=0), 'scale must be a number other than 0, got 0'),
    'scale-text': (dict(type='BottleneckAdapter', scale='2'), "other than 0, got '2'"),
    'adaptformer-scale-0': (dict(type='AdaptFormer', scale=0.0), 'other than 0, got 0.0'),
    'adaptformer-ratio': (dict(type='AdaptFormer', ratio=16), r"AdaptFormer takes no \['ratio'\]"),
    'adaptformer-gain': (dict(type='AdaptFormer', post_norm_gain=0.0), 'post_norm_gain means nothing'),
    'order-without-kernels': (dict(type='Polyhistor', kron_order='template_first'), 'needs scaling_kernels=True'),
    'flag-text': (dict(type='LoRA', per_task='False'), "per_task must be True or False, got 'False'"),
    'deep-text': (dict(type='VisualPrompt', deep='False'), "deep must be True or False, got 'False'"),
    'code-0': (dict(type='PolyhistorLite', code_dims=0), 'code_dims must be a positive int, got 0'),
    'embed-0': (dict(type='PolyhistorLite', embed_dims=0), 'embed_dims must be a positive int, got 0'),
    'no-task-targets': (dict(type='MTLoRA', task_targets=()), 'task_targets must be a non-empty'),
    'patch-0': (dict(type='VisualPrompt', patch_size=0), 'patch_size must be a positive int, got 0'),
    'prompts-0': (dict(type='VisualPrompt', prompts=0), 'prompts must be a positive int, got 0'),
    'prompts-negative': (dict(type='VisualPrompt', prompts=-1), 'prompts .*, got -1'),
    'lora-rank-0': (dict(type='LoRA', rank=0), 'rank must be a positive int.* got 0'),
    'lora-rank-above-width': (dict(type='LoRA', rank=25), 'rank 25 .* 72 x 24 matrix'),
    'lora-target': (dict(type='LoRA', targets=('kv',)), r"targets: unknown \['kv'\].*'fc1'.*'reduction'"),
    'lora-targets-string': (dict(type='LoRA', targets='qkv'), "targets must be .*sequence.*, got 'qkv'"),
    'lora-no-target': (dict(type='LoRA', targets=()), r'targets must be a non-empty .*, got \(\)'),
    'mtlora-rank': (dict(type='MTLoRA', rank=25), 'rank 25 .* x 24 matrix'),
    'mtlora-task-rank': (dict(type='MTLoRA', rank=2, task_rank=0), 'rank .* got 0'),
    'mtlora-task-target-alone': (dict(type='MTLoRA', rank=2, targets=('qkv',)), r"\['fc1', 'fc2', 'proj'\] must be"),
    'mtlora-task-target-outside': (
        dict(type='MTLoRA', rank=2, targets=EVERY_LINEAR, task_targets=('fc2', 'reduction')),
        r"task_targets \['reduction'\] are no linear maps of a block",
    ),
    'tuned-group': (dict(type='BitFit', tuned=('biases',)), r"tuned: unknown \['biases'\].*'norm_bias'"),
    'tuned-group-string': (dict(type='LoRA', tuned='bias'), "tuned must be .*sequence.*, got 'bias'"),
    'tuned-group-twice': (dict(type='LoRA', tuned=('bias', 'bias')), r"different names, got \('bias', 'bias'\)"),
    'hyper-shared': (dict(type='HyperFormer', per_task=False), 'HyperFormer .*per_task=False'),
    'polyhistor-shared': (dict(type='Polyhistor', ratio=4, per_task=False), 'Polyhistor .*per_task=False'),
    'lite-shared': (dict(type='PolyhistorLite', per_task=False), 'PolyhistorLite .*per_task=False'),
    'hyper-adapter-shared': (dict(type='HyperAdapter', ratio=4, per_task=False), 'HyperAdapter .*per_task=False'),
    'hyper-ratio': (dict(type='Polyhistor'), 'ratio 16 does not divide 24'),
    'hyper-rank': (dict(type='PolyhistorLite', rank=13), 'rank 13 .* 12 x 24 matrix'),
    'hyper-kernels': (dict(type='HyperFormer', kernels_per_task=True), 'needs scaling_kernels=True'),
    'unknown-method': (dict(type='LORA'), "got {'type': 'LORA'}; methods of this package: BitFit"),
}  # fmt: skip


@pytest.mark.parametrize('name', UNFIT)
def test_unfit_settings_raise_an_error_that_prints_the_numbers(name):
    adapter, message = UNFIT[name]
    with pytest.raises(ValueError, match=message):
        AdaptedSwin(ARCH, tasks=TASKS, adapter=adapter)


def test_unfit_tasks_are_refused(study):
    method = study.model.adapters
    if method is not None:
        settings = {k: v for k, v in study.case.adapter.items() if k != 'type'}
        for tasks in ((), ('a', 'a'), 'semseg'):
            with pytest.raises(ValueError, match='different names, got'):
                type(method)(layout=study.model.layout, tasks=tasks, **settings)
    for tasks, message in (
        (('semseg', 'edge'), r"unknown tasks \['edge'\]; this model was built for \('semseg',"),
        ((), 'non-empty'),
        (('semseg', 'semseg'), 'different names'),
    ):
        with pytest.raises(ValueError, match=message):
            study.model(study.images, tasks=tasks)
