"""A model small enough to run in a moment, as a config."""

from __future__ import annotations

import copy

import pytest

TASKS = ('semseg', 'normals', 'saliency')

MODEL = dict(
    type='MultiTaskSegmentor',
    tasks=TASKS,
    data_preprocessor=dict(type='MultiTaskDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, size_divisor=32),
    backbone=dict(
        type='AdaptedSwin',
        arch=dict(embed_dims=16, depths=[1, 2, 1], num_heads=[1, 2, 4]),
        tasks=TASKS,
        drop_path_rate=0.0,
        adapter=dict(type='Polyhistor', ratio=4, rank=-2),
    ),
    decode_heads=dict(type='AllMLPHead', in_channels=[16, 32, 64], channels=8, dropout_ratio=0.0),
)  # fmt: skip


@pytest.fixture
def model_cfg():
    """A config of a small model; its adapter can be replaced."""

    def make(**adapter):
        cfg = copy.deepcopy(MODEL)
        if adapter:
            cfg['backbone']['adapter'] = adapter
        return cfg

    return make


@pytest.fixture
def config_file(tmp_path):
    """Writes a config of the small model, and gives its path."""

    def write(name='tiny.py', **adapter):
        cfg = copy.deepcopy(MODEL)
        if adapter:
            cfg['backbone']['adapter'] = adapter
        path = tmp_path / name
        path.write_text(
            "custom_imports = dict(imports=['mmseg_polyhistor'], allow_failed_imports=False)\n"
            f"default_scope = 'mmseg'\nmodel = {cfg!r}\n"
        )
        return path

    return write
