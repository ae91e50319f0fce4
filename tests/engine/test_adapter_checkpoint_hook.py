"""Checkpoints without the frozen backbone: small, complete again wherever they are loaded, or refused."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner, load_checkpoint
from mmseg.apis import MMSegInferencer, init_model
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from tiny_segmentor import ARCH, stock_file, tiny_config
from toy_training import assert_identical

from mmseg_polyhistor.engine.frozen_backbone import FrozenRecord, weights_hash

RUNS = itertools.count()


def run(cfg):
    cfg = Config(copy.deepcopy(cfg))
    cfg.experiment_name = f'adapter_checkpoint_{os.getpid()}_{next(RUNS)}'
    return Runner.from_cfg(cfg)


def full_state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


@pytest.fixture(params=['file', 'random'])
def trained(request, tmp_path):
    """A trained runner, whose backbone came from a file or from nowhere, its config, and its last checkpoint."""
    pretrained = stock_file(tmp_path / 'swin.pth') if request.param == 'file' else None
    cfg = tiny_config(tmp_path / 'work', pretrained)
    runner = run(cfg)
    runner.train()
    return cfg, runner, tmp_path / 'work' / 'epoch_2.pth'


def other_weights(model):
    """A fresh model whose weights are all different."""
    with torch.no_grad():
        for p in model.parameters():
            p.uniform_(-1, 1)
    return model


def test_content_and_record(trained, tmp_path):
    """Exactly the trained weights, the decoders' statistics and the record; the hash is that of the bytes."""
    cfg, runner, path = trained
    checkpoint = torch.load(path, weights_only=True)
    model = runner.model
    state = dict(checkpoint['state_dict'])
    record = FrozenRecord.from_tensor(state.pop('backbone.frozen_record'))
    trained_keys = {k for k, p in model.named_parameters() if p.requires_grad}
    statistics = {k for k in model.state_dict() if 'running_' in k or 'num_batches' in k}
    assert state.keys() == trained_keys | statistics
    assert_identical({k: state[k] for k in sorted(state)}, {k: model.state_dict()[k] for k in sorted(state)})

    frozen = {k: p for k, p in model.backbone.named_parameters() if not p.requires_grad}
    sha = hashlib.sha256()
    for key in sorted(frozen):
        sha.update(f'{key} {tuple(frozen[key].shape)}\n'.encode() + frozen[key].numpy().tobytes())
    assert record.sha256 == sha.hexdigest()
    assert record.arch['embed_dims'] == 8 and record.arch['depths'] == [1, 1, 1, 1]
    given = cfg['model']['backbone'].get('init_cfg')
    written = tmp_path / 'work' / f'frozen_backbone_{record.sha256[:16]}.pth'
    assert record.source == (given['checkpoint'] if given else str(written))
    assert written.exists() is (given is None)
    assert checkpoint['meta']['frozen_backbones']['backbone']['source'] == record.source
    assert json.loads(bytes(checkpoint['state_dict']['backbone.frozen_record'].tolist())) == record.__dict__


def test_size_is_about_that_of_the_trained_weights(tmp_path):
    """On a Swin of 2 M frozen weights: at most 1.1 times the bytes that are trained, plus 100 kB of log and names."""
    cfg = tiny_config(tmp_path / 'work', None)
    cfg['model']['backbone']['arch'] = dict(embed_dims=48, depths=[1, 1, 2, 1], num_heads=[3, 6, 12, 24])
    cfg['model']['decode_heads']['in_channels'] = [48, 96, 192, 384]
    cfg['train_cfg']['max_epochs'] = 1
    cfg['default_hooks']['checkpoint']['save_optimizer'] = False
    runner = run(cfg)
    runner.train()
    size = (tmp_path / 'work' / 'epoch_1.pth').stat().st_size
    sizes = {
        t: sum(p.numel() for p in runner.model.parameters() if p.requires_grad is t) for t in (True, False)
    }
    assert 4 * sizes[True] < size < 1.1 * 4 * sizes[True] + 1e5
    assert size < 0.2 * 4 * sizes[False]


def test_every_way_of_loading_restores_the_backbone(trained, tmp_path):
    """init_model, MMSegInferencer, load_checkpoint, load_from under a test run: all weights equal those trained."""
    cfg, runner, path = trained
    wanted = full_state(runner.model)
    Config(cfg).dump(tmp_path / 'config.py')

    built = other_weights(MODELS.build(copy.deepcopy(cfg['model'])))
    load_checkpoint(built, str(path))
    assert_identical(full_state(built), wanted)

    model = init_model(str(tmp_path / 'config.py'), str(path), device='cpu')
    assert_identical(full_state(model), wanted)

    cfg['visualizer'] = dict(type='MultiTaskVisualizer', name='visualizer')
    cfg['test_pipeline'] = [dict(type='LoadImageFromFile'), dict(type='PackMultiTaskInputs')]
    cfg['test_dataloader']['dataset']['pipeline'] = cfg['test_pipeline']
    Config(cfg).dump(tmp_path / 'config_of_inferencer.py')
    inferencer = MMSegInferencer(str(tmp_path / 'config_of_inferencer.py'), weights=str(path), device='cpu')
    assert_identical(full_state(inferencer.model), wanted)

    # mmseg's init_model takes the init_cfg out of the backbone of an EncoderDecoder: the record alone must do
    without = copy.deepcopy(cfg['model'])
    without['backbone']['init_cfg'] = None
    built = other_weights(MODELS.build(without))
    load_checkpoint(built, str(path))
    assert_identical(full_state(built), wanted)


def test_test_runs_and_load_from(trained, tmp_path):
    """The metric of a test run on the small checkpoint is that of the trained model; load_from starts where it ended."""
    cfg, runner, path = trained
    expected = runner.test()
    test = run({**cfg, 'work_dir': str(tmp_path / 'test'), 'load_from': str(path)})
    assert test.test() == expected
    averaged = dict(work_dir=str(tmp_path / 'ema'), load_from=str(path), custom_hooks=[dict(type='EMAHook')])
    assert run({**cfg, **averaged}).test() == expected  # the hook fills its own model from the checkpoint
    wanted = full_state(runner.model)

    start = tiny_config(
        tmp_path / 'second', None, load_from=str(path), model=cfg['model'], train_cfg=dict(by_epoch=True, max_epochs=0)
    )  # fmt: skip
    second = run(start)
    second.train()
    assert_identical(full_state(second.model), wanted)


@pytest.mark.parametrize('ema', [False, True], ids=['plain', 'ema'])
def test_resume_equals_an_uninterrupted_run(tmp_path, ema):
    """Weights, averaged weights and optimiser end the same to the bit, as with full checkpoints."""
    pretrained = stock_file(tmp_path / 'swin.pth')
    hooks = [dict(type='EMAHook', momentum=0.1)] if ema else []
    ends = {}
    for kind in ('AdapterCheckpointHook', 'SafeCheckpointHook'):
        cfg = tiny_config(tmp_path / kind, pretrained, custom_hooks=hooks)
        cfg['default_hooks']['checkpoint']['type'] = kind
        run(cfg).train()
        resumed = {**cfg, 'work_dir': str(tmp_path / f'{kind} resumed'), 'resume': True}
        resumed['load_from'] = str(tmp_path / kind / 'epoch_1.pth')
        run(resumed).train()
        for name in (kind, f'{kind} resumed'):
            ends[name] = torch.load(tmp_path / name / 'epoch_2.pth', weights_only=True)
    whole, resumed = ends['AdapterCheckpointHook'], ends['AdapterCheckpointHook resumed']
    states = ['state_dict', 'ema_state_dict'] if ema else ['state_dict']
    for key in [*states, 'optimizer', 'param_schedulers']:
        assert_identical(whole[key], resumed[key], key)
    full = ends['SafeCheckpointHook']
    assert full['state_dict'].keys() == ends['SafeCheckpointHook resumed']['state_dict'].keys()
    for key, prefix in zip(states, ('', 'module.'), strict=False):
        frozen = {k for k in full[key] if k not in whole[key]}
        assert frozen and all(k.startswith(prefix + 'backbone.') for k in frozen)
        for k, v in whole[key].items():
            assert k == prefix + 'backbone.frozen_record' or torch.equal(v, full[key][k]), k
    if ema:  # averaged and current weights differ, and both are in the file
        a, b = whole['state_dict'], whole['ema_state_dict']
        assert any(not torch.equal(v, b[f'module.{k}']) for k, v in a.items())
        model = other_weights(MODELS.build(copy.deepcopy(cfg['model'])))
        load_checkpoint(model, str(tmp_path / 'AdapterCheckpointHook' / 'epoch_2.pth'))
        assert_identical(full_state(model), {k: full['state_dict'][k] for k in model.state_dict()})


def test_a_moved_file_is_found_by_the_config_or_refused(trained, tmp_path):
    """Elsewhere: refused with source and hash; found where the config names it; another file's weights are refused."""
    cfg, runner, path = trained
    record = FrozenRecord.from_tensor(
        torch.load(path, weights_only=True)['state_dict']['backbone.frozen_record']
    )
    moved = tmp_path / 'elsewhere.pth'
    os.rename(record.source, moved)
    model = other_weights(MODELS.build(copy.deepcopy(cfg['model'])))
    before = full_state(model)
    with pytest.raises(RuntimeError, match='holds no frozen weights, only their record') as caught:
        load_checkpoint(model, str(path))
    for part in (record.source, record.sha256, 'does not exist', 'init_cfg', 'adapter_checkpoint.py'):
        assert part in str(caught.value)
    frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if k in frozen)

    wrong = stock_file(tmp_path / 'wrong.pth', seed=2)
    for file, fits in ((wrong, False), (moved, True)):
        elsewhere = copy.deepcopy(cfg['model'])
        elsewhere['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=str(file))
        model = other_weights(MODELS.build(elsewhere))
        if fits:
            load_checkpoint(model, str(path))
            assert_identical(full_state(model), full_state(runner.model))
        else:
            with pytest.raises(RuntimeError, match=r'wrong\.pth: other weights, of sha256 [0-9a-f]{64}\n'):
                load_checkpoint(model, str(path))


def test_another_backbone_is_refused(trained):
    """The record's architecture is compared first: the message says what differs."""
    cfg, _, path = trained
    other = copy.deepcopy(cfg['model'])
    other['backbone']['window_size'] = 4  # no weight's key tells it
    with pytest.raises(
        RuntimeError, match=r'another backbone: window_size: \[7, 7, 7, 7\], here \[4, 4, 4, 4\]|do not fit'
    ):
        load_checkpoint(MODELS.build(other), str(path))


def test_overwritten_backbone_is_saved(tmp_path):
    """load_from replaces the pretrained weights: the file of init_cfg would restore others, so they are written out."""
    first = tiny_config(tmp_path / 'first', stock_file(tmp_path / 'a.pth', seed=1))
    first['default_hooks']['checkpoint']['type'] = 'SafeCheckpointHook'
    run(first).train()
    second = tiny_config(tmp_path / 'second', stock_file(tmp_path / 'b.pth', seed=2))
    second['load_from'] = str(tmp_path / 'first' / 'epoch_2.pth')
    runner = run(second)
    runner.train()
    (written,) = (tmp_path / 'second').glob('frozen_backbone_*.pth')
    model = other_weights(MODELS.build(copy.deepcopy(second['model'])))
    load_checkpoint(model, str(tmp_path / 'second' / 'epoch_2.pth'))
    assert_identical(full_state(model), full_state(runner.model))
    assert weights_hash(model.backbone.frozen_weights()).startswith(written.stem.split('_')[-1])


def test_full_fine_tuning_keeps_everything(tmp_path):
    """Without a frozen backbone the checkpoints are full."""
    cfg = tiny_config(tmp_path / 'work', None)
    cfg['model']['backbone'].update(frozen=False, adapter=None)
    runner = run(cfg)
    runner.train()
    state = torch.load(tmp_path / 'work' / 'epoch_2.pth', weights_only=True)['state_dict']
    assert_identical(dict(state), full_state(runner.model))


def test_what_would_be_lost_is_refused(tmp_path):
    """A frozen weight that somebody trains all the same."""
    cfg = tiny_config(tmp_path / 'work', None)
    runner = run(cfg)
    runner.model.backbone.stages[0].blocks[0].norm1.requires_grad_(True)
    with pytest.raises(
        ValueError, match=r"2 weights of the frozen backbone 'backbone' are trained \(stages\.0"
    ):
        runner.train()


# ------------------------------------------------------------------------------- a random backbone, silently
def test_a_silently_random_backbone_is_impossible(tmp_path):
    """However a checkpoint lacks the backbone, a model whose config names weights ends with them, or with an error."""
    pretrained = stock_file(tmp_path / 'swin.pth')
    cfg = tiny_config(tmp_path / 'work', pretrained)['model']
    image = torch.zeros(1, 3, 32, 32)
    # neither initialised nor loaded
    for execution in ('stacked', 'sequential'):
        model = MODELS.build(dict(copy.deepcopy(cfg), execution=execution))
        with pytest.raises(RuntimeError, match=r'random weights: its init_cfg names .*swin\.pth'):
            model(image)
    # a checkpoint that somebody stripped of the backbone, without a record
    model.init_weights()
    wanted = full_state(model)
    stripped = {
        k: v for k, v in wanted.items() if not k.startswith(('backbone.stages', 'backbone.patch_embed'))
    }
    torch.save(dict(state_dict=stripped), tmp_path / 'stripped.pth')
    with pytest.raises(
        RuntimeError, match=r'do not fit this MultiTaskSegmentor(.*\n)+  backbone\.stages\.\*'
    ):
        load_checkpoint(MODELS.build(copy.deepcopy(cfg)), str(tmp_path / 'stripped.pth'))
    # asked for partial loading, it comes from init_cfg ...
    partial = MODELS.build(dict(copy.deepcopy(cfg), partial_loading=True))
    load_checkpoint(partial, str(tmp_path / 'stripped.pth'))
    assert_identical(full_state(partial), wanted)
    # ... and where that names nothing, it is refused
    nowhere = dict(copy.deepcopy(cfg), partial_loading=True)
    del nowhere['backbone']['init_cfg']
    with pytest.raises(RuntimeError, match=r'lacks .* frozen weights of AdaptedSwin .* would stay at random'):
        load_checkpoint(MODELS.build(nowhere), str(tmp_path / 'stripped.pth'))
    # a record that is no record
    broken = dict(stripped, **{'backbone.frozen_record': torch.tensor([1, 2, 3], dtype=torch.uint8)})
    torch.save(dict(state_dict=broken), tmp_path / 'broken.pth')
    with pytest.raises(RuntimeError, match='record of the frozen weights in the checkpoint is broken'):
        load_checkpoint(MODELS.build(copy.deepcopy(cfg)), str(tmp_path / 'broken.pth'))


def test_random_on_purpose_is_told(tmp_path, monkeypatch):
    """A frozen encoder without weights from anywhere is a warning in the log, not a secret."""
    told = []
    monkeypatch.setattr(
        'mmseg_polyhistor.models.backbones.adapted_backbone.print_log',
        lambda text, **kwargs: told.append((text, kwargs)),
    )
    cfg = tiny_config(tmp_path, None)['model']['backbone']
    MODELS.build(cfg).init_weights()
    assert len(told) == 1 and 'frozen encoder is a random one' in told[0][0] and told[0][1]['level'] >= 30
    MODELS.build(dict(cfg, frozen=False)).init_weights()
    assert len(told) == 1


def test_a_records_url_is_not_downloaded(tmp_path, monkeypatch):
    """Only the config may name a URL; a record's is looked for in torch's cache."""
    swin = stock_file(tmp_path / 'swin.pth')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    monkeypatch.setattr(
        torch.hub, 'load_state_dict_from_url', lambda *args, **kwargs: pytest.fail('downloaded')
    )
    model = MODELS.build(tiny_config(tmp_path, swin)['model'])
    model.init_weights()
    backbone = model.backbone
    record = FrozenRecord(
        backbone.architecture(),
        'http://127.0.0.1:9/x/swin.pth?y=1',
        '',
        weights_hash(backbone.frozen_weights()),
    )
    backbone.restore_frozen(record)  # they are there
    other_weights(backbone)
    backbone.init_cfg = None
    with pytest.raises(RuntimeError, match=r'swin\.pth\?y=1: not downloaded, as the config does not name it'):
        backbone.restore_frozen(record)
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    os.rename(swin, tmp_path / 'hub' / 'checkpoints' / 'swin.pth')
    backbone.restore_frozen(record)
    assert weights_hash(backbone.frozen_weights()) == record.sha256


# ----------------------------------------------------------------------------------------- interoperation
def test_full_checkpoints_interoperate_with_mmseg(tmp_path):
    """Both ways: ours in mmseg's EncoderDecoder with mmpretrain's Swin, and theirs in ours, equal in their outputs."""
    head = dict(
        type='FCNHead', in_channels=64, in_index=3, channels=4, num_classes=3, num_convs=1, norm_cfg=None
    )
    stock = dict(
        type='EncoderDecoder', backbone=dict(type='mmpretrain.SwinTransformer', arch=ARCH, out_indices=(0, 1, 2, 3), pad_small_map=True),
        decode_head=head,
    )  # fmt: skip
    ours = dict(stock, backbone=dict(type='AdaptedSwin', arch=ARCH, frozen=False, fused=False))
    image = torch.randn(1, 3, 64, 64)
    for first, second in ((stock, ours), (ours, stock)):
        torch.manual_seed(0)
        a, b = (MODELS.build(copy.deepcopy(cfg)).eval() for cfg in (first, second))
        assert type(a) is EncoderDecoder
        torch.save(dict(state_dict=a.state_dict()), tmp_path / 'x.pth')
        load_checkpoint(b, str(tmp_path / 'x.pth'), strict=True)
        torch.testing.assert_close(a(image), b(image))
    # and as a pretrained backbone of the multi-task model, with its prefix
    cfg = tiny_config(tmp_path, tmp_path / 'x.pth')['model']
    model = MODELS.build(cfg)
    model.init_weights()
    for key, value in model.backbone.frozen_weights().items():
        assert torch.equal(value, a.state_dict()[f'backbone.{key}'])
