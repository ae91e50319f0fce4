"""Studies: what their files may say, the jobs that follow, the configs of the jobs, and how finished runs become a table."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from mmseg_polyhistor.benchmark import count_config
from mmseg_polyhistor.results.study import Job, Study
from mmseg_polyhistor.results.study_runs import (
    ABSENT,
    FINISHED,
    UNFINISHED,
    collect_study,
    run_jobs,
    search_table,
    state,
)

METHOD = """
tasks = ('semseg', 'normals')
default_scope = 'mmseg'
model = dict(
    type='MultiTaskSegmentor', tasks=tasks, backbone={backbone},
    decode_heads=dict(type='AllMLPHead', in_channels=[96, 192, 384, 768], channels=256),
    data_preprocessor=dict(type='MultiTaskDataPreProcessor'))
train_dataloader = dict(batch_size=12, num_workers=8, dataset=dict(type='PascalContextMTDataset'))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=5.0, momentum=0.9))
default_hooks = dict(logger=dict(type='LoggerHook', interval=50))
"""
SHARED = "dict(type='AdaptedSwin', arch='tiny', tasks=tasks, adapter=dict(type='LoRA', rank=4), init_cfg=dict(type='Pretrained', checkpoint='a'))"
ALONE = "dict(type='TaskEncoders', tasks=tasks, encoder=dict(type='AdaptedSwin', arch='tiny', frozen=False))"
DATA = """
loader = dict(batch_size=2, dataset=dict(type='NYUDMTDataset', data_root='here'))
train_dataloader = val_dataloader = test_dataloader = loader
"""
SCHEDULE = """
optim_wrapper = dict(
    type='OptimWrapper', constructor='TrainableOptimWrapperConstructor', optimizer=dict(type='Adam', lr=1.0))
train_cfg = dict(type='SeededEpochBasedTrainLoop', max_epochs=2)
"""
LORA = "dict(config='lora.py', group='small', label='LoRA', seeds=(0, 1))"
STUDY = """
title = 'toy'
data = 'data.py'
schedule = 'schedule.py'
encoder = dict(arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4), window_size=4)
encoders = dict(good=dict(init_cfg=dict(type='Pretrained', checkpoint='swin.pth')), random=dict(init_cfg=None))
model = dict(decode_heads=dict(in_channels=[8, 16, 32, 64], channels=8))
runtime = dict(default_hooks=dict(logger=dict(interval=1)))
groups = dict(decoder=0.2, small=0.1, large=0.01)
rows = dict(
    lora=LORA,
    wide=dict(config='lora.py', group='small', encoders=('good',),
              options=dict(model=dict(backbone=dict(adapter=dict(rank=8))))),
    alone=dict(config='alone.py', group='large', label='Alone'))
reference = 'alone'
search = dict(rates=dict(lora=[0.1, 0.3]), encoder='good', train=6, val=-2)
""".replace('LORA', LORA)


@pytest.fixture
def write(tmp_path):
    """A function that writes the study, with changes of its text, and gives its path."""

    def write(*changes: tuple[str, str], more: str = '') -> Path:
        text = STUDY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        files = dict(
            lora=METHOD.format(backbone=SHARED),
            alone=METHOD.format(backbone=ALONE),
            data=DATA,
            schedule=SCHEDULE,
        )
        for name, content in (files | {'study': text + more}).items():
            (tmp_path / f'{name}.py').write_text(content)
        return tmp_path / 'study.py'

    return write


def test_jobs_come_with_the_reference_first_and_seed_by_seed(write):
    study = Study(write())
    assert [job.name for job in study.jobs()] == [
        'good/alone/seed_0', 'good/lora/seed_0', 'good/wide/seed_0', 'random/alone/seed_0', 'random/lora/seed_0',
        'good/lora/seed_1', 'random/lora/seed_1',
    ]  # fmt: skip
    assert {job.row: job.rate for job in study.jobs()} == dict(alone=0.01, lora=0.1, wide=0.1)
    some = study.jobs(rows=['lora'], encoders=['random'], seeds=[1])
    assert some == (Job(row='lora', encoder='random', seed=1, rate=0.1),)
    assert [job.name for job in study.search_jobs()] == [
        'search/good/lora/rate_0.1',
        'search/good/lora/rate_0.3',
    ]
    with pytest.raises(ValueError, match=r"rows: unknown \['none'\]; rows: \['alone', 'lora', 'wide'\]"):
        study.jobs(rows=['none'])
    with pytest.raises(ValueError, match=r'seeds: unknown \[7\]; seeds: \[0, 1\]'):
        study.jobs(seeds=[0, 7])
    with pytest.raises(ValueError, match='no run has these rows, encoders and seeds together'):
        study.jobs(rows=['wide'], encoders=['random'])


def test_configs_of_jobs(write):
    """Data, schedule and the encoder's entries are replaced, the rest is merged; an encoder per task gets them too."""
    study = Study(write(), dict(data_root='elsewhere'))
    cfg = study.config(Job(row='wide', encoder='good', seed=3, rate=0.1))
    dataset = dict(type='NYUDMTDataset', data_root='elsewhere')
    assert cfg.train_dataloader.to_dict() == dict(batch_size=2, dataset=dataset)
    assert cfg.optim_wrapper.to_dict() == dict(
        type='OptimWrapper',
        constructor='TrainableOptimWrapperConstructor',
        optimizer=dict(type='Adam', lr=0.2),
        paramwise_cfg=dict(custom_keys={'backbone.': dict(lr_mult=0.5)}),
    )
    arch = dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4)
    assert cfg.model.backbone.to_dict() == dict(
        type='AdaptedSwin', arch=arch, window_size=4, tasks=('semseg', 'normals'), adapter=dict(type='LoRA', rank=8),
        init_cfg=dict(type='Pretrained', checkpoint='swin.pth'),
    )  # fmt: skip
    heads = dict(type='AllMLPHead', in_channels=[8, 16, 32, 64], channels=8)
    assert cfg.model.decode_heads.to_dict() == heads
    assert cfg.default_hooks.to_dict() == dict(logger=dict(type='LoggerHook', interval=1))
    assert cfg.randomness.to_dict() == dict(seed=3)
    alone = study.config(Job(row='alone', encoder='random', seed=0, rate=1.0)).model.backbone
    assert alone.encoder.to_dict() == dict(
        type='AdaptedSwin', arch=arch, window_size=4, frozen=False, init_cfg=None
    )
    assert set(alone) == {'type', 'tasks', 'encoder'}

    tasks = Study(write(more="tasks = ('normals',)\n"))
    for row in ('lora', 'alone'):
        cfg = tasks.config(Job(row=row, encoder='random', seed=0, rate=1.0))
        assert cfg.tasks == cfg.model.tasks == cfg.model.backbone.tasks == ('normals',)
        assert count_config(cfg).total > 0


@pytest.mark.parametrize(
    ('old', 'new', 'error', 'message'),
    [
        ("title = 'toy'\n", '', ValueError, r'is no study: it lacks title \(what the study is called\)'),
        ("title = 'toy'\n", "title = 'toy'\nseeds = 3\n", ValueError, r"unknown \['seeds'\]"),
        ("'data.py'", "'none.py'", FileNotFoundError, r"names 'none\.py', and .*none\.py does not exist"),
        ("group='large'", "group='huge'", ValueError, r"rows\['alone'\]: group: unknown \['huge'\]; groups"),
        ("label='Alone'", "name='Alone'", ValueError, r"rows\['alone'\] must have config and group"),
        (
            'decoder=0.2, ',
            '',
            ValueError,
            "groups must have 'decoder', the learning rate of the decoders of all rows",
        ),
        (
            "encoders=('good',)",
            "encoders=('bad',)",
            ValueError,
            r"rows\['wide'\]: encoders: unknown \['bad'\]",
        ),
        ("= 'alone'", "= 'none'", ValueError, r"reference: unknown \['none'\]; rows"),
        ("= 'alone'", "= ('good', 'alone')", ValueError, 'reference: unknown'),
    ],
)
def test_what_a_study_may_not_say(write, old, new, error, message):
    with pytest.raises(error, match=message):
        Study(write((old, new)))


@pytest.mark.parametrize('change', ['groups.tiny', 'encoders.god.init_cfg.checkpoint', 'rows.lorra.seeds'])
def test_changes_add_no_group_encoder_or_row(write, change):
    table, name, *_ = change.split('.')
    with pytest.raises(ValueError, match=rf"change of {table}: unknown \['{name}'\]; {table}: \['"):
        Study(write(), {change: 0.5})
    assert Study(write(), {'groups.small': 0.5}).rates['small'] == 0.5


@pytest.mark.parametrize(('row', 'rate'), [('lora', 0.1), ('alone', 0.01), ('bare', 0.2)])
def test_decoders_learn_at_one_rate_and_encoders_at_that_of_their_group(write, row, rate):
    study = Study(write((f'lora={LORA}', f'lora={LORA}, bare={LORA.replace("small", "decoder")}')))
    cfg = study.config(study.jobs(rows=[row], seeds=[0], encoders=['random'])[0])
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    found = {names[id(p)]: group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    assert set(found) == set(names.values())
    for name, learned in found.items():
        assert learned == pytest.approx(rate if name.startswith('backbone.') else 0.2), name
    assert any(name.startswith('backbone.') for name in found)


def log_run(study: Study, job: Job, folder: Path, semseg: float, normals: float, epochs: int = 2) -> None:
    """A work dir as mmengine leaves it, of a training that ended after some epochs."""
    vis = folder / job.name / '20260101_000000' / 'vis_data'
    vis.mkdir(parents=True)
    study.config(job).dump(folder / job.name / 'config.py')
    study.config(job).dump(vis / 'config.py')
    rows = [
        {'loss': 1.0, 'time': 0.5, 'epoch': epoch, 'iter': 4 * epoch, 'step': 4 * epoch}
        for epoch in range(1, epochs + 1)
    ]
    if epochs == 2:
        rows.append({'semseg.mIoU': semseg, 'normals.mean': normals, 'step': 2})
    (vis / 'scalars.json').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    (folder / job.name / f'epoch_{epochs}.pth').touch()


def test_finished_runs_become_rows(write, tmp_path):
    """A row per method and encoder: means, deviations and gains by hand; what is not finished is told and left out."""
    study, work = Study(write()), tmp_path / 'work'
    jobs = {job.name: job for job in study.jobs()}
    log_run(study, jobs['good/alone/seed_0'], work, 50.0, 20.0)
    log_run(study, jobs['good/lora/seed_0'], work, 55.0, 18.0)
    log_run(study, jobs['good/lora/seed_1'], work, 57.0, 20.0)
    log_run(study, jobs['random/lora/seed_0'], work, 25.0, 40.0)
    log_run(study, jobs['random/lora/seed_1'], work, 0.0, 0.0, epochs=1)
    states = {name: state(study, job, work) for name, job in jobs.items()}
    assert states['good/lora/seed_1'] == FINISHED and states['random/lora/seed_1'] == UNFINISHED
    assert states['good/wide/seed_0'] == ABSENT

    found = collect_study(study, work)
    assert found['good'].reference == {'semseg': 50.0, 'normals': 20.0} and found['random'].reference is None
    rows = {(row.method, row.name): row for part in found.values() for row in part.rows}
    assert list(rows) == [('Alone', 'good'), ('LoRA', 'good'), ('LoRA', 'random')]
    lora = rows['LoRA', 'good']
    assert lora.runs == 2 and lora.values['semseg.mIoU'] == 56.0
    gains = [100 * (0.1 + 0.1) / 2, 100 * (0.14 + 0) / 2]
    assert lora.values['gain'] == pytest.approx(sum(gains) / 2)
    assert lora.spread['gain'] == pytest.approx(abs(gains[0] - gains[1]) / math.sqrt(2))
    single = {job.name: row.values['gain'] for job, row in found['good'].each.items() if job.row == 'lora'}
    assert single == pytest.approx({'good/lora/seed_0': gains[0], 'good/lora/seed_1': gains[1]})
    assert rows['LoRA', 'random'].runs == 1 and rows['Alone', 'good'].values['gain'] == 0
    assert 'gain' not in rows['LoRA', 'random'].values
    assert 'no gain with random: no run of random/alone is finished' in found['random'].remarks
    remarks = [remark for part in found.values() for remark in part.remarks]
    assert remarks.count('random/lora/seed_1 is unfinished, and left out') == 1
    assert 'good/wide/seed_0 is absent, and left out' in remarks
    assert found['good'].notes == ('gain with good: percent over Alone (semseg 50.00, normals 20.00)',)
    counts = count_config(study.config(jobs['good/lora/seed_0']))
    assert (lora.encoder, lora.total) == (counts.encoder, counts.total)

    log_run(study, jobs['random/alone/seed_0'], work, 20.0, 50.0)  # each encoder has a reference of its own
    part = collect_study(study, work)['random']
    gains = {row.method: row.values['gain'] for row in part.rows}
    assert gains == pytest.approx(dict(Alone=0, LoRA=100 * (0.25 + 0.2) / 2))


def test_a_run_without_its_last_validation_is_not_finished(write, tmp_path):
    """As a kill between the last checkpoint and its validation leaves it."""
    study, work = Study(write()), tmp_path / 'work'
    job = study.jobs()[0]
    log_run(study, job, work, 50.0, 20.0)
    (scalars,) = work.glob('**/scalars.json')
    first, second, validation = scalars.read_text().splitlines()
    scalars.write_text('\n'.join([first, validation, second]) + '\n')
    assert state(study, job, work) == UNFINISHED
    scalars.write_text('\n'.join([first, second, validation]) + '\n')
    assert state(study, job, work) == FINISHED


TRAIN = """
import pathlib, sys, time
pathlib.Path(sys.argv[3], 'started').touch()
time.sleep(60)
"""


def wait_for(found) -> None:
    for _ in range(400):
        if found():
            return
        time.sleep(0.05)
    raise AssertionError('nothing came')


def test_an_interruption_ends_the_trainings_and_a_folder_has_one(write, tmp_path):
    """Two trainings that would take a minute; the second call finds the folders taken, the interruption ends everything."""
    study, work = Study(write()), tmp_path / 'work'
    train = tmp_path / 'train.py'
    train.write_text(TRAIN)
    jobs = study.jobs()[:3]

    def interrupt() -> None:
        wait_for(lambda: len(list(work.glob('**/started'))) == 2)
        problems.extend(run_jobs(study, jobs[:2], work, train=train))
        os.kill(os.getpid(), signal.SIGINT)

    problems: list[str] = []
    other = threading.Thread(target=interrupt)
    began = time.monotonic()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        other.start()
        with pytest.raises(KeyboardInterrupt):
            run_jobs(study, jobs, work, train=train, parallel=2)
        other.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 30
    assert problems == [
        f'{job.name} is left out: another process trains in {work / job.name}' for job in jobs[:2]
    ]
    assert not (work / jobs[2].name).exists()
    assert run_jobs(study, jobs[:1], work, train=Path(os.devnull))[0].startswith(
        f'{jobs[0].name} ended with status 0'
    )


def test_runs_of_another_study_are_refused(write, tmp_path):
    """A table may not mix what two versions of a study have trained; the first difference is named."""
    study, work = Study(write()), tmp_path / 'work'
    job = study.jobs()[1]
    log_run(study, job, work, 50.0, 20.0)
    changed = Study(write(('small=0.1', 'small=0.2')))
    message = r'lr_mult is 1\.0 in the study and 0\.5 in the run; move it away'
    with pytest.raises(ValueError, match=message):
        state(changed, changed.jobs()[1], work)
    more = Study(write(more="runtime['extra'] = 1\n"))
    with pytest.raises(ValueError, match='extra is only in the study'):
        state(more, more.jobs()[1], work)
    with pytest.raises(FileNotFoundError, match=r'no run of .*study\.py is finished'):
        collect_study(study, tmp_path / 'nowhere')


def test_the_search_is_a_table_of_rates(write, tmp_path):
    study, work = Study(write()), tmp_path / 'work'
    first, second = study.search_jobs()
    log_run(study, first, work, 50.0, 20.0)
    line, missing = search_table(study, study.search_jobs(), work).splitlines()
    assert line.split() == ['lora', '0.1', 'semseg', '50.00', 'normals', '20.00', 'gain', '+0.00']
    assert missing.split() == ['lora', '0.3', 'not', 'finished']
    log_run(study, second, work, 60.0, 20.0)
    assert search_table(study, study.search_jobs(), work).splitlines()[1].split()[-1] == '+10.00'
    assert study.config(second).optim_wrapper.paramwise_cfg.custom_keys['backbone.'].lr_mult == pytest.approx(
        1.5
    )
    assert study.search_jobs(['lora']) == (first, second)
    with pytest.raises(ValueError, match=r"rows: unknown \['alone'\]; rows of the search: \['lora'\]"):
        study.search_jobs(['alone'])


def test_a_rate_that_learned_nothing_is_no_reference(write, tmp_path):
    study, work = Study(write()), tmp_path / 'work'
    for job, semseg in zip(study.search_jobs(), (0.0, 60.0), strict=True):
        log_run(study, job, work, semseg, 20.0)
    assert all(
        line.endswith('no gain over 0')
        for line in search_table(study, study.search_jobs(), work).splitlines()
    )


def test_the_search_validates_on_held_out_training_images(write):
    """With the pipeline of the validation; the runs of the table have neither."""
    more = """
train_dataloader = dict(batch_size=2, dataset=dict(type='A', ann_file='train.txt', pipeline=['crop']))
val_dataloader = dict(batch_size=4, dataset=dict(type='A', ann_file='val.txt', pipeline=['resize'], test_mode=True))
test_dataloader = val_dataloader
"""
    path = write()
    (path.parent / 'data.py').write_text(more)
    study = Study(path, dict(data_root='here'))
    cfg = study.config(study.search_jobs()[0])
    held_out = dict(type='A', ann_file='train.txt', data_root='here')
    assert cfg.train_dataloader.dataset.to_dict() == {**held_out, 'pipeline': ['crop'], 'indices': 6}
    assert cfg.val_dataloader.to_dict() == dict(
        batch_size=4, dataset={**held_out, 'pipeline': ['resize'], 'test_mode': True, 'indices': -2}
    )
    cfg = study.config(study.jobs()[0])
    assert 'indices' not in cfg.train_dataloader.dataset and cfg.val_dataloader.dataset.ann_file == 'val.txt'
    with pytest.raises(
        ValueError, match=r"search must have \['encoder', 'rates', 'train', 'val'\], got \['rates'\]"
    ):
        Study(
            write(
                (
                    "search = dict(rates=dict(lora=[0.1, 0.3]), encoder='good', train=6, val=-2)",
                    'search = dict(rates=1)',
                )
            )
        ).search_jobs()


STUDIES = sorted((Path(__file__).resolve().parents[2] / 'configs/studies').glob('*.py'))


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_every_model_of_our_studies_can_be_built(path):
    """With as many frozen parameters in all rows but those that train the whole encoder."""
    study = Study(path)
    frozen = set()
    for row in study.rows.values():
        (job,) = study.jobs(
            rows=[row.name], encoders=[*(row.encoders or study.encoders)][:1], seeds=row.seeds[:1]
        )
        counts = count_config(study.config(job))
        if counts.frozen:
            frozen.add(counts.frozen)
        else:
            assert row.group == 'full'
    assert len(frozen) == 1


def test_the_study_of_the_paper_is_its_configs():
    """Every row of `pascal.py`: the same entries but the seed, and all that is trained at the recipe's rate."""
    study = Study(STUDIES[0].with_name('pascal.py'))
    jobs = study.jobs(seeds=[0])
    assert len(jobs) == len(study.rows) >= 19
    for job in jobs:
        cfg, own = study.config(job).to_dict(), Config.fromfile(study.rows[job.row].config).to_dict()
        assert cfg['optim_wrapper'].pop('paramwise_cfg') == dict(custom_keys={'backbone.': dict(lr_mult=1.0)})
        assert cfg.pop('randomness') == {**own.pop('randomness', {}), 'seed': 0}
        assert cfg == own, job.row
