"""Every config loads, builds, trains what the paper's table says, and names the same tasks everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from mmseg_polyhistor.engine import count_parameters
from mmseg_polyhistor.tasks import get_task

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
PATHS = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.glob('*/*.py') if p.parent.name != '_base_')

# Section 6 of the method's description: trainable parameters of the encoder, without output norms.
ENCODER = {
    'single_task': 110_071_272,
    'decoder_only': 0,
    'multi_task': 27_517_818,
    'adapter': 8_688_000,
    'low_rank_adapter': 339_696,
    'hyperformer': 72_772_304,
    'polyhistor': 6_410_684,
    'polyhistor_lite': 413_552,
}
DECODERS = 2_549_024  # four decoders and their output norms
PASCAL = [f'{method}/swin-t_pascal.py' for method in ENCODER]


@pytest.fixture(scope='module')
def built():
    """Config and model of a path; the last one is kept, as tests come grouped by path."""
    last = {}

    def build(path):
        if path not in last:
            last.clear()
            cfg = Config.fromfile(CONFIGS / path)
            last[path] = cfg, MODELS.build(cfg.model)
        return last[path]

    return build


@pytest.fixture(params=PATHS, scope='module')
def path(request):
    return request.param


def test_there_is_a_config_for_every_row_of_the_table():
    assert set(PASCAL) <= set(PATHS)


def test_data_sets_heads_and_backbone_have_the_same_tasks(path, built):
    cfg, model = built(path)
    assert set(model.backbone.tasks) == set(model.decode_heads) == set(model.tasks)
    for split in ('train', 'val', 'test'):
        dataset = DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, lazy_init=True))
        assert set(dataset.metainfo['tasks']) == set(model.tasks), split


def test_a_step_reaches_every_trained_parameter_and_no_other(path, built):
    _, model = built(path)
    torch.manual_seed(0)
    logits = model.train()(torch.randn(2, 3, 32, 32))
    sum(x.square().mean() for x in logits.values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    model.zero_grad()


def by_name(model):
    """Trainable parameters, told apart by the names that the configs' backbones give them."""
    norms = re.compile(r'backbone\.(output_norms|encoders\.\w+\.norm\d)\.')
    encoder = decoder = 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith('backbone.') and not norms.match(name):
            encoder += parameter.numel()
        else:
            decoder += parameter.numel()
    return encoder, decoder


def test_trained_parameters_equal_the_papers_table(path, built):
    _, model = built(path)
    counts = count_parameters(model)
    assert (counts.encoder, counts.decoder) == by_name(model)
    assert counts.total == sum(p.numel() for p in model.parameters() if p.requires_grad)
    if path in PASCAL:
        encoder = ENCODER[Path(path).parent.name]
        assert counts.encoder == encoder
        assert counts.decoder == DECODERS
        assert counts.total == encoder + DECODERS


@pytest.mark.parametrize('path', PASCAL)
def test_the_recipe_is_the_papers(path):
    """Section 8: the same for every method."""
    cfg = Config.fromfile(CONFIGS / path)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('Adam', 1e-4, 1e-4)
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (60, 12)
    (decay,) = cfg.param_scheduler
    assert (decay.type, decay.power, decay.eta_min, decay.end) == ('PolyLR', 1.0, 0.0, 60)
    assert decay.convert_to_iter_based
    assert 'loss_decode' not in cfg.model.decode_heads  # so the table of tasks decides
    weights = {task: get_task(task).loss['loss_weight'] for task in cfg.model.tasks}
    assert weights == dict(semseg=1, human_parts=2, saliency=5, normals=10)
    pipeline = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    assert pipeline['MultiTaskRandomFlip'].prob == 0.5
    assert pipeline['MultiTaskRandomRotate'].degree == 20
    assert pipeline['MultiTaskRandomRotate'].scale_range == (0.75, 1.25)
    assert pipeline['MultiTaskResize'].scale == (512, 512)
