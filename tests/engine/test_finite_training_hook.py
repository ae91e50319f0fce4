"""Losses and gradients that are not finite: the run stops with all it takes to find out why, or the step is left out.

What a skipped step leaves behind is compared with a training by hand that never saw the batch.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import faulty_training
import pytest
import torch
from faulty_training import faulty_config, train_by_hand
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from mmseg_polyhistor.engine import FiniteTrainingHook, NonFiniteError

REPO = Path(__file__).resolve().parents[2]
RUNS = itertools.count()
BATCHES = [[0, 1], [2, 3], [4, 5], [6, 7]]
SPOILT = {4: 'loss'}  # the third iteration of each epoch


@pytest.fixture
def build(tmp_path):
    def make(faults=None, on_nonfinite='stop', name='run', **changes):
        changes = {
            'train_dataloader.dataset.faults': faults or {},
            'custom_hooks.0.on_nonfinite': on_nonfinite,
            **changes,
        }
        return Runner.from_cfg(
            faulty_config(tmp_path / name, f'{tmp_path.name}_{name}_{next(RUNS)}', **changes)
        )

    return make


def assert_state(state, expected):
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


def warnings(runner):
    """The warnings about values that are not finite in the run's log."""
    (log,) = Path(runner.work_dir).glob('*/*.log')
    entries = re.split(r'(?m)^(?=\d{4}/\d\d/\d\d )', log.read_text())
    return [entry for entry in entries if 'WARNING' in entry and 'finite' in entry]


# ----------------------------------------------------------------------------------------------------------- stop
@pytest.mark.parametrize(('fault', 'value'), [('loss', 'nan'), ('value', 'inf')])
def test_stops_before_the_backward_pass_and_says_where(build, fault, value):
    runner = build({4: fault})
    with pytest.raises(NonFiniteError) as e:
        runner.train()
    message = str(e.value)
    assert message.startswith('iteration 3 (epoch 1): a loss is not finite\n')
    assert f"loss_b = {value} (task 'b')" in message and 'loss_a' not in message
    assert 'images since the last update: 4.jpg, 5.jpg\n' in message
    assert 'no parameter has changed' in message and "on_nonfinite='skip'" in message
    expected = train_by_hand([[b] for b in BATCHES[:2]])
    for name, parameter in runner.model.named_parameters():
        assert torch.equal(parameter, expected[name]) and parameter.grad is None
    assert not list(Path(runner.work_dir).glob('*.pth'))


def test_stops_at_gradients_that_are_not_finite_though_the_losses_are(build):
    runner = build({4: 'gradient'}, **{'train_cfg.max_epochs': 2})
    with pytest.raises(NonFiniteError) as e:
        runner.train()
    message = str(e.value)
    # the gradient is NaN on its way through head a and the encoder; head b has nothing to do with it
    assert 'the losses are finite, but the gradients of 6 parameters are not: encoder.0.weight, ' in message
    assert 'heads.b' not in message and 'images since the last update: 4.jpg, 5.jpg\n' in message
    expected = train_by_hand([[b] for b in BATCHES[:2]])
    assert all(torch.equal(p, expected[n]) for n, p in runner.model.named_parameters())


def test_weights_that_are_broken_already_are_told(build):
    runner = build()
    runner.model.heads.a.weight.data[0, 3] = torch.nan
    with pytest.raises(
        NonFiniteError, match=r'1 parameters of the model are themselves not finite, heads\.a\.weight'
    ):
        runner.train()


def test_says_nothing_of_a_training_without_faults(build):
    """Whose result is that of a training without the hook; an 'acc' of NaN is no loss."""
    for on_nonfinite in ('stop', 'skip'):
        runner = build(on_nonfinite=on_nonfinite, name=on_nonfinite)
        runner.train()
        assert_state(runner.model.state_dict(), train_by_hand([[b] for b in BATCHES]))
        assert runner.message_hub.get_info('finite_training/skipped_steps') is None
        assert not warnings(runner)
        assert (
            not runner.model._forward_hooks and not runner.optim_wrapper.optimizer._optimizer_step_pre_hooks
        )


# ----------------------------------------------------------------------------------------------------------- skip
@pytest.mark.parametrize('optimizer', ['Adam', 'SGD'])
@pytest.mark.parametrize('fault', ['image', 'loss', 'value', 'gradient'])
def test_a_skipped_step_leaves_no_trace(build, fault, optimizer):
    """No weight decay, no momentum, no statistics: as if the batch had never been there."""
    changes = {'train_cfg.max_epochs': 2}
    if optimizer == 'SGD':
        sgd = dict(type='SGD', lr=0.01, weight_decay=0.1, momentum=0.9, _delete_=True)
        changes['optim_wrapper.optimizer'] = sgd
    runner = build({4: fault}, 'skip', **changes)
    runner.train()
    if optimizer == 'Adam':
        assert_state(runner.model.state_dict(), train_by_hand([[b] for b in BATCHES if 4 not in b], epochs=2))
    else:
        clean = build(name='clean', **changes, **{'train_cfg.type': 'WithoutThirdBatchLoop'})
        clean.train()
        assert_state(runner.model.state_dict(), clean.model.state_dict())
    assert runner.message_hub.get_info('finite_training/skipped_steps') == 2

    told = warnings(runner)
    assert len(told) == 2 and all('images since the last update: 4.jpg, 5.jpg' in text for text in told)
    assert 'iteration 3 (epoch 1)' in told[0] and 'iteration 7 (epoch 2)' in told[1]
    assert ('the gradients of' if fault == 'gradient' else "(task 'b')") in told[0]
    assert '(2 in the whole training, 1 in a row)' in told[1]


@pytest.mark.parametrize('fault', ['image', 'loss', 'gradient'])
def test_gradient_accumulation_is_one_step(build, fault):
    """The update over batches 3 and 4 falls away as a whole, with the statistics of both; its images are all named."""
    changes = {'optim_wrapper.accumulative_counts': 2, 'train_cfg.max_epochs': 2}
    runner = build({4: fault}, 'skip', **changes)
    runner.train()
    expected = train_by_hand([BATCHES[:2]], epochs=2, accumulate=2)
    assert_state(runner.model.state_dict(), expected)
    assert runner.message_hub.get_info('finite_training/skipped_steps') == 2
    told = warnings(runner)
    assert len(told) == 2 and 'images since the last update: 4.jpg, 5.jpg, 6.jpg, 7.jpg' in told[0]


def test_statistics_are_put_back_before_the_update_is_complete(build):
    """An epoch that ends between the iterations of an update is validated, and saved, with whole statistics."""
    runner = build(
        {6: 'image'}, 'skip', **{'optim_wrapper.accumulative_counts': 3, 'train_cfg.max_epochs': 2}
    )
    runner.train()
    saved = torch.load(Path(runner.work_dir) / 'epoch_1.pth', weights_only=True)['state_dict']
    # Three iterations make the first update; the fourth, spoilt, has begun the second, which is skipped as a whole.
    assert_state(saved, train_by_hand([BATCHES[:3]], accumulate=3))
    assert runner.message_hub.get_info('finite_training/skipped_steps') == 2


def test_the_count_goes_on_after_a_resume(build):
    changes = {'train_cfg.max_epochs': 3}
    whole = build(SPOILT, 'skip', **changes)
    whole.train()
    checkpoint = str(Path(whole.work_dir) / 'epoch_2.pth')
    resumed = build(SPOILT, 'skip', name='resumed', **changes, load_from=checkpoint, resume=True)
    resumed.train()
    assert resumed.message_hub.get_info('finite_training/skipped_steps') == 3
    assert '(3 in the whole training, 1 in a row)' in warnings(resumed)[-1]
    assert_state(resumed.model.state_dict(), whole.model.state_dict())


def test_too_many_skipped_steps_in_a_row_are_an_error(build):
    faults = {0: 'loss', 4: 'loss', 6: 'gradient'}  # of batches 0 to 3, the second alone is whole
    changes = {'custom_hooks.0.max_consecutive': 3, 'train_cfg.max_epochs': 3}
    with pytest.raises(
        NonFiniteError, match=r'(?s)^iteration 5 \(epoch 2\).*after 3 skipped steps in a row.*max_consec'
    ):
        build(faults, 'skip', **changes).train()


def test_the_total_is_logged_at_the_end(build):
    runner = build(SPOILT, 'skip', log_level='INFO')
    runner.train()
    (log,) = Path(runner.work_dir).glob('*/*.log')
    assert 'FiniteTrainingHook: 1 steps skipped in the whole training' in log.read_text()


# -------------------------------------------------------------------------------------------- clipping, loss scalers
@pytest.mark.parametrize('fault', ['loss', 'gradient'])
def test_clipping_does_not_hide_it(build, fault):
    """A norm that is not finite would turn all gradients into NaN, or into 0."""
    clip = {'optim_wrapper.clip_grad': dict(max_norm=1e3)}
    runner = build({4: fault}, 'skip', **clip)
    runner.train()
    for name, value in train_by_hand([[b] for b in BATCHES if 4 not in b]).items():
        torch.testing.assert_close(runner.model.state_dict()[name], value)
    with pytest.raises(NonFiniteError, match='clipping has spread it' if fault == 'gradient' else 'loss_b'):
        build({4: fault}, **clip).train()


SCALER = {
    'optim_wrapper.type': 'CpuScalerOptimWrapper',
    'optim_wrapper.init_scale': 1024.0,
    'model.weight': 16.0,
}


@pytest.mark.parametrize('clip', [False, True])
@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('on_nonfinite', ['stop', 'skip'])
def test_a_loss_scaler_may_search_for_its_scale(build, fused, clip, on_nonfinite):
    """Overflows that the scaler meets are no fault: counted apart, and followed by steps."""
    changes = dict(SCALER, **{'train_cfg.max_epochs': 2, 'optim_wrapper.optimizer.fused': fused})
    changes['optim_wrapper.init_scale'] = 2.0**127
    if clip:
        changes['optim_wrapper.clip_grad'] = dict(max_norm=1e3)
    runner = build(on_nonfinite=on_nonfinite, **changes)
    runner.train()
    by_scaler = runner.message_hub.get_info('finite_training/scaler_skips')
    halved = -torch.tensor(runner.optim_wrapper.loss_scaler.get_scale() / 2.0**127).log2().item()
    assert 0 < by_scaler < 8 and by_scaler == halved
    assert runner.message_hub.get_info('finite_training/skipped_steps') is None
    steps = runner.optim_wrapper.optimizer.state[runner.model.heads.a.weight]['step']
    assert steps == 8 - by_scaler


def test_a_loss_scaler_does_not_hide_a_loss(build):
    changes = {'optim_wrapper.type': 'CpuScalerOptimWrapper', 'optim_wrapper.init_scale': 1024.0}
    with pytest.raises(NonFiniteError, match=r"loss_b = nan \(task 'b'\)"):
        build(SPOILT, **changes).train()
    runner = build(SPOILT, 'skip', **changes)
    runner.train()
    assert runner.message_hub.get_info('finite_training/skipped_steps') == 1
    assert runner.message_hub.get_info('finite_training/scaler_skips') is None
    for name, value in train_by_hand([[b] for b in BATCHES if 4 not in b]).items():
        torch.testing.assert_close(runner.model.state_dict()[name], value)


def test_a_loss_scaler_that_finds_no_scale_is_an_error(build):
    faults = dict.fromkeys(range(8), 'gradient')
    changes = dict(SCALER, **{'custom_hooks.0.max_consecutive': 4})
    with pytest.raises(NonFiniteError, match=r'left out 4 steps in a row .* at a scale of 64 by now'):
        build(faults, **changes).train()


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason='float16 autocast with a loss scaler needs a CUDA device'
)
def test_float16_on_a_gpu(build):
    """mmengine's own wrapper: the search for a scale passes, a loss that is NaN is skipped."""
    amp = {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.loss_scale': dict(init_scale=2.0**40)}
    runner = build(SPOILT, 'skip', **amp, **{'train_cfg.max_epochs': 10})
    runner.train()
    assert runner.message_hub.get_info('finite_training/scaler_skips') > 0
    assert runner.message_hub.get_info('finite_training/skipped_steps') == 10
    assert all(v.isfinite().all() for v in runner.model.state_dict().values())


# ------------------------------------------------------------------------------------------------ the real segmentor
ARCH = dict(embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
SEGMENTOR = dict(
    _delete_=True,
    type='MultiTaskSegmentor',
    tasks=faulty_training.TASKS,
    data_preprocessor=dict(type='MultiTaskDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3),
    backbone=dict(
        type='AdaptedSwin',
        arch=ARCH,
        tasks=faulty_training.TASKS,
        adapter=dict(type='Polyhistor', ratio=8, rank=-2, embed_dims=16, hidden_dims=8, code_dims=8),
    ),
    decode_heads=dict(type='AllMLPHead', in_channels=[32, 64, 128, 256], channels=16, dropout_ratio=0.0),
)


@pytest.fixture
def build_segmentor(build):
    def make(execution, faults=(), on_nonfinite='stop', **changes):
        model = {'model': SEGMENTOR | dict(execution=execution)}
        model['train_dataloader.dataset'] = dict(_delete_=True, type='FaultyPictures', faults=list(faults))
        changes = {'custom_hooks.0.on_nonfinite': on_nonfinite, **model, **changes}
        changes['train_dataloader.dataset.faults'] = list(faults)
        return build(faults, on_nonfinite, name=f'run{next(RUNS)}', **changes)

    return make


@pytest.mark.parametrize('execution', ['stacked', 'sequential'])
def test_a_broken_label_of_one_task(build_segmentor, execution):
    """Stopped with the task named; skipped without a trace, in the running statistics of the decoders either."""
    with pytest.raises(NonFiniteError) as e:
        build_segmentor(execution, [0]).train()
    assert "loss_normals = inf (task 'normals')" in str(e.value) and 'loss_semseg' not in str(e.value)
    assert 'images since the last update: 0.jpg, 1.jpg' in str(e.value)

    runner = build_segmentor(execution, [0, 2], 'skip')
    before = {}
    runner.register_hook(_BeforeTraining(before))
    runner.train()
    assert any(name.endswith('running_var') for name in before)
    assert_state(runner.model.state_dict(), before)
    assert runner.message_hub.get_info('finite_training/skipped_steps') == 2


class _BeforeTraining(Hook):
    def __init__(self, state):
        self.state = state

    def before_train(self, runner):
        self.state.update({name: value.clone() for name, value in runner.model.state_dict().items()})


@pytest.mark.parametrize('execution', ['stacked', 'sequential'])
def test_gradients_are_clipped_and_their_norm_is_logged(build_segmentor, execution):
    """optim_wrapper.clip_grad=dict(max_norm=...), with our constructor: the norm is that of all gradients."""
    runner = build_segmentor(execution, **{'optim_wrapper.clip_grad': dict(max_norm=0.01)})
    recorder = HOOKS.build(dict(type='GradientRecorder'))
    runner.register_hook(recorder)
    runner.train()
    logged, _ = runner.message_hub.get_scalar('train/grad_norm').data
    assert len(logged) == 2 and logged.tolist() == pytest.approx(recorder.norms, rel=1e-5)
    assert all(norm > 0.1 for norm in recorder.norms) and recorder.clipped == pytest.approx(0.01, rel=1e-3)


# ----------------------------------------------------------------------------------------------------- the hook itself
def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"on_nonfinite must be one of \('stop', 'skip'\), got 'ignore'"):
        FiniteTrainingHook(on_nonfinite='ignore')
    with pytest.raises(ValueError, match='max_consecutive must be a positive int, got 0'):
        FiniteTrainingHook(max_consecutive=0)


def test_several_optimisers_are_refused(build):
    runner = build()
    parts = dict(runner.model.named_children())
    runner.optim_wrapper = OptimWrapperDict(
        **{
            n: OptimWrapper(torch.optim.SGD(m.parameters(), lr=0.1))
            for n, m in parts.items()
            if n != 'data_preprocessor'
        }
    )
    with pytest.raises(
        TypeError, match=r"watches the steps of one optimiser; optim_wrapper has \['encoder', 'heads'\]"
    ):
        FiniteTrainingHook().before_train(runner)


def test_every_config_has_it():
    """From the runtime that all share, also where a config has hooks of its own."""
    own = [path for path in (REPO / 'configs').rglob('*.py') if 'custom_hooks' in path.read_text()]
    assert len(own) > 1
    for path in own:
        hooks = [hook.type for hook in Config.fromfile(path).custom_hooks]
        assert 'FiniteTrainingHook' in hooks and 'TaskCheckHook' in hooks, path


# ------------------------------------------------------------------------------------------------------- processes
@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """What two processes report, see finite_two_processes.py."""
    folder = tmp_path_factory.mktemp('two')
    script = Path(__file__).with_name('finite_two_processes.py')
    command = [sys.executable, '-W', 'ignore', str(script), str(folder)]
    env = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1')
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [torch.load(folder / f'rank_{rank}.pt', weights_only=True) for rank in (0, 1)]


@pytest.mark.integration
@pytest.mark.stack
@pytest.mark.parametrize('fault', ['loss', 'value', 'gradient', 'accumulated', 'scaler'])
def test_two_processes_skip_the_same_steps(two, fault):
    """Process 1 alone has a broken sample; both skip, with equal weights, and say whose images they were."""
    reports = [rank['skip'][fault] for rank in two]
    assert [r['skipped'] for r in reports] == [1, 1]
    a, b = (r['parameters'] for r in reports)
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) and a[n].isfinite().all() for n in a)
    assert all(r['statistics_finite'] for r in reports)
    # DefaultSampler deals the samples out in turn: the odd ones are process 1's
    images = '1.jpg, 3.jpg, 5.jpg, 7.jpg' if fault == 'accumulated' else '5.jpg, 7.jpg'
    assert f'process 1: images since the last update: {images}\n' in reports[0]['log']
    assert ('of 6 parameters' if fault == 'gradient' else 'process 1: loss_b') in reports[0]['log']


@pytest.mark.integration
@pytest.mark.stack
@pytest.mark.parametrize('fault', ['loss', 'value', 'gradient', 'scaler'])
def test_two_processes_stop_together_with_one_message(two, fault):
    messages = [rank['stop'][fault] for rank in two]
    assert (
        messages[0] == messages[1] and 'process 1: images since the last update: 5.jpg, 7.jpg' in messages[0]
    )
    assert 'no parameter has changed' in messages[0]
