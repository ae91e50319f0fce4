"""`tools/reproduce.py` trains what is missing of a study, goes on where it stopped, and writes table and plot."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from PIL import Image

METHOD = """
custom_imports = dict(imports=['mmseg_polyhistor', 'tiny_segmentor'], allow_failed_imports=False)
tasks = ('semseg', 'saliency')
default_scope = 'mmseg'
model = dict(
    type='MultiTaskSegmentor', tasks=tasks, backbone=dict(type='AdaptedSwin', arch='tiny', tasks=tasks, {more}),
    decode_heads=dict(type='AllMLPHead', in_channels=[8, 16, 32, 64], channels=8),
    data_preprocessor=dict(type='MultiTaskDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='SafeCheckpointHook', interval=1))
custom_hooks = [dict(type='FiniteTrainingHook', on_nonfinite='stop')]
env_cfg = dict(dist_cfg=dict(backend='gloo'))
"""
DATA = """
loader = dict(
    batch_size=2, num_workers=0, dataset=dict(type='TinyImages'), sampler=dict(type='DefaultSampler', shuffle=False))
train_dataloader = val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(type='MultiTaskMetric')
"""
SCHEDULE = """
train_cfg = dict(type='SeededEpochBasedTrainLoop', max_epochs=2, val_interval=2)
val_cfg, test_cfg = dict(type='ValLoop'), dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', constructor='TrainableOptimWrapperConstructor', optimizer=dict(type='SGD', lr=0.01))
"""
STUDY = """
title = 'tiny'
data, schedule = 'data.py', 'schedule.py'
encoder = dict(arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]))
encoders = dict(random=dict(), other=dict(init_cfg=None))
groups = dict(decoder=0.01, small=0.01, broken=1e30)
rows = dict(
    lora=dict(config='lora.py', group='small', label='LoRA'),
    full=dict(config='full.py', group='small', label='Fine-tuning', seeds=(0, 1), encoders=('random', )),
    wild=dict(config='full.py', group='broken', label='Diverging', encoders=('random', )))
reference = 'full'
comparisons = [('lora', 'full')]
search = dict(rates=dict(lora=[0.02]), encoder='random', train=2, val=-2)
"""


@pytest.fixture(scope='module')
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('my studies')
    files = dict(
        lora=METHOD.format(more="adapter=dict(type='LoRA', rank=2)"), full=METHOD.format(more='frozen=False'),
        data=DATA, schedule=SCHEDULE, tiny=STUDY,
    )  # fmt: skip
    for name, text in files.items():
        (folder / f'{name}.py').write_text(text)
    return folder


@pytest.mark.integration
def test_a_study_from_nothing_to_its_table(tools, study):
    """Two runs at a time; a run that diverges is told and does not stop the others; what is finished stays as it is."""
    run = ['reproduce.py', 'tiny.py', '--threads', 1, '--jobs', 2]
    _, printed = tools.start(*run, '--list', cwd=study)
    assert [line.split()[:2] for line in printed.splitlines()] == [
        ['absent', name]
        for name in (
            *(f'random/{row}/seed_0' for row in ('full', 'lora', 'wild')),
            'other/lora/seed_0',
            'random/full/seed_1',
        )
    ]
    work = study / 'work_dirs/studies/tiny'
    work.mkdir(parents=True)
    (work / 'tiny_paper.md').write_text('of an earlier study\n')
    _, printed = tools.start(*run, cwd=study, expect=1)
    assert '0 of 5 runs are finished' in printed
    (problem,) = (line for line in printed.splitlines() if line.startswith('reproduce.py: random/wild'))
    console = Path(problem.split('its output: ')[1])
    assert 'not finite' in (study / console).read_text()
    assert 'note: random/wild/seed_0 is ' in printed and 'Fine-tuning' in printed

    rows = list(csv.DictReader((work / 'tiny.csv').read_text().splitlines()))
    assert [(row['method'], row['run']) for row in rows] == [
        ('Fine-tuning', 'random'),
        ('LoRA', 'random'),
        ('LoRA', 'other'),
    ]
    assert [int(row['runs']) for row in rows] == [2, 1, 1]
    assert '| Fine-tuning |' in (work / 'tiny.md').read_text()
    runs = list(csv.DictReader((work / 'tiny_runs.csv').read_text().splitlines()))
    assert [row['run'] for row in runs] == [
        *(f'random/{name}' for name in ('full/seed_0', 'full/seed_1', 'lora/seed_0')),
        'other/lora/seed_0',
    ]
    assert sum(float(row['semseg.mIoU']) for row in runs[:2]) / 2 == pytest.approx(
        float(rows[0]['semseg.mIoU'])
    )
    (difference,) = (work / 'tiny_differences.md').read_text().splitlines()[2:]
    assert [cell.strip() for cell in difference.split('|')][1:4] == ['LoRA', 'Fine-tuning', 'random']
    assert not (work / 'tiny_paper.md').exists()  # the study does not want it
    for plot in ('random', 'over_encoders'):
        assert Image.open(work / f'tiny_{plot}.png').size[0] > 400
    assert 'no plot of other' in printed  # without the reference it has no gain

    # an interrupted run goes on from its last checkpoint, the others are not touched
    lora = work / 'random/lora/seed_0'
    (work / 'random/wild').rename(study / 'wild')
    (lora / 'epoch_2.pth').unlink()
    (lora / 'last_checkpoint').write_text(str(lora / 'epoch_1.pth'))
    (stamp,) = lora.glob('2*_*')
    scalars = stamp / 'vis_data/scalars.json'
    lines = scalars.read_text().splitlines()
    scalars.write_text('\n'.join(lines[:2]) + '\n')
    stamp.rename(stamp.with_name('20200101_000000'))  # the next start may come within the same second
    untouched = work / 'random/full/seed_0/epoch_2.pth'
    before = os.stat(untouched).st_mtime_ns
    _, printed = tools.start(*run, '--rows', 'lora', 'full', cwd=study, expect=1)  # no plot of other
    assert '3 of 4 runs are finished' in printed
    assert os.stat(untouched).st_mtime_ns == before
    (second,) = (path for path in lora.glob('2*_*') if not path.name.startswith('2020'))
    assert len((second / 'vis_data/scalars.json').read_text().splitlines()) == len(lines) - 2
    assert (
        list(csv.DictReader((work / 'tiny.csv').read_text().splitlines()))[1].items()
        >= {
            key: value for key, value in rows[1].items() if key.startswith(('semseg', 'saliency', 'gain'))
        }.items()
    )


@pytest.mark.integration
def test_the_search_and_what_cannot_be(tools, study):
    _, printed = tools.start('reproduce.py', 'tiny.py', '--search', '--threads', 1, cwd=study)
    assert 'lora' in printed and '0.02' in printed and 'gain +0.00' in printed
    table = (study / 'work_dirs/studies/tiny/tiny_search.txt').read_text()
    assert table in printed and table.startswith('lora  ')
    for arguments, message in (
        (['--rows', 'none'], "reproduce.py: rows: unknown ['none']"),
        (['--table', '--work-dir', 'empty'], 'no run of tiny.py is finished'),
        (
            ['--table', '--cfg-options', 'groups.small=0.5'],
            'holds a run of another config than the study asks for',
        ),
        (['--jobs', 0], 'must be at least 1'),
        (['--search', '--seeds', 0], '--search has one encoder and one seed'),
        (['--table', '--rows', 'lora'], '--table shows all that is finished'),
    ):
        (status,), printed = tools.start('reproduce.py', 'tiny.py', *arguments, cwd=study, expect=None)
        assert status != 0 and message in printed and 'Traceback' not in printed
