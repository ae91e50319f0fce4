"""The walk of docs/own_data.md: its config and its commands are taken out of the page and run, on shapes and on photographs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS
from PIL import Image, ImageDraw

from mmseg_polyhistor import tasks
from mmseg_polyhistor.datasets import known_readers
from mmseg_polyhistor.task_rows import add_tasks
from mmseg_polyhistor.visualization.layout import Layout

CLASSES = ('background', 'shirt', 'trousers')
SIZE = (80, 60)  # width, height


pytestmark = pytest.mark.usefixtures('task_table')


@pytest.fixture(scope='module')
def page(repo: Path) -> str:
    return (repo / 'docs/own_data.md').read_text(encoding='utf-8')


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf'```{language}\n(.*?)```', page, flags=re.S)


@pytest.fixture(scope='module')
def config(page: str, repo: Path) -> str:
    """The page's config, with a small Swin that needs no download."""
    text = blocks(page, 'python')[0]
    assert text.count('swin-t.py') == 1
    return text.replace('swin-t.py', 'swin-pico.py').replace("'configs/", f"'{repo.as_posix()}/configs/")


def write_street(root: Path, number: int = 11) -> None:
    """Photographs of a shirt above trousers, somewhere on a grey street, and their two masks."""
    rng = np.random.default_rng(0)
    for folder in ('images', 'garments', 'silhouette'):
        (root / folder).mkdir(parents=True)
    for k in range(number):
        image = Image.fromarray(rng.integers(90, 150, (*SIZE[::-1], 3), np.uint8))
        garments, silhouette = Image.new('P', SIZE), Image.new('L', SIZE)
        garments.putpalette([(53 * i + 7) % 256 for i in range(768)])
        left, top = int(rng.integers(5, 45)), int(rng.integers(3, 15))
        for row, colour in ((1, (200, 40, 40)), (2, (40, 40, 200))):
            box = (left, top + 20 * (row - 1), left + 20, top + 20 * row)
            ImageDraw.Draw(image).rectangle(box, fill=colour)
            ImageDraw.Draw(garments).rectangle(box, fill=row)
            ImageDraw.Draw(silhouette).rectangle(box, fill=255)
        image.save(root / f'images/p{k:02}.jpg', quality=95)
        garments.save(root / f'garments/p{k:02}.png')
        silhouette.save(root / f'silhouette/p{k:02}.png')
    (root / 'classes.txt').write_text('\n'.join(CLASSES) + '\n')


def test_the_page_describes_what_is_there(page: str) -> None:
    """A config of some 50 lines; the readers that the table names; every row of the examples."""
    first, rows = blocks(page, 'python')
    assert 45 <= len(first.splitlines()) <= 55
    named = re.findall(r'\(`(\w+)`\)', page)
    assert len(named) == 8 and set(named) <= set(known_readers())
    scope: dict = {}
    exec(rows, scope)
    specs = add_tasks(scope['new_tasks'])
    assert [spec.name for spec in specs] == ['parts', 'seams', 'distance', 'mood']
    table = re.findall(r"\| `'(\w+)'` \|.*\| ([\w -]+), (\d+) \| `(\w+)`", page)
    assert {kind for kind, *_ in table} == set(tasks.KINDS)
    for kind, _, weight, metric in table:
        more = dict(classes=CLASSES) if kind == 'semantic' else {}
        (spec,) = add_tasks([dict(name=f'a_{kind}', kind=kind, **more)])
        assert (spec.loss['loss_weight'], spec.metric) == (float(weight), metric)


@pytest.mark.integration
@pytest.mark.stack
def test_the_walk(page: str, config: str, tools, tmp_path: Path) -> None:
    """All commands of the page in their order; two epochs instead of sixty, in small."""
    write_street(tmp_path / 'data/street')
    (tmp_path / 'street.py').write_text(config.replace('(384, 512)', '(80, 64)'))
    small = ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=4']
    small += [f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')]
    for line in ''.join(blocks(page, 'bash')).splitlines():
        if not line.startswith('python '):
            subprocess.run(['bash', '-c', line], cwd=tmp_path, check=True)
            continue
        _, tool, *arguments = line.replace('epoch_60', 'epoch_2').split()
        if tool in ('tools/train.py', 'tools/test.py'):
            arguments += [*([] if '--cfg-options' in arguments else ['--cfg-options']), *small]
        tools.start(tool.removeprefix('tools/'), *arguments, cwd=tmp_path)

    street = tmp_path / 'data/street'
    train, val = ((street / f'{split}.txt').read_text().split() for split in ('train', 'val'))
    assert (len(train), val) == (9, ['p04', 'p09'])
    assert set(train) | set(val) == {f'p{k:02}' for k in range(11)}
    assert len(list((tmp_path / 'outputs/browse').glob('*.png'))) == 8
    assert (tmp_path / 'work_dirs/street/epoch_2.pth').is_file()

    (report,) = (tmp_path / 'work_dirs/street').glob('*/2*.json')
    metrics = json.loads(report.read_text())
    assert {'garments.mIoU', 'silhouette.mIoU', 'silhouette.maxF'} <= set(metrics)
    sheets = sorted((tmp_path / 'sheets/vis_data/vis_image').iterdir())
    assert [sheet.name.split('.')[0] for sheet in sheets] == ['test_p04', 'test_p09']
    rows = Layout([(192, 256)], rows=3, columns=2, legend=[])  # truth, prediction and error
    assert Image.open(sheets[0]).height > rows.size[0]

    results = tmp_path / 'outputs/street'
    assert json.loads((results / 'classes.json').read_text())['garments'] == list(CLASSES)
    for k in range(11):
        garments = Image.open(results / f'garments/p{k:02}.png')
        assert (garments.mode, garments.size) == ('P', SIZE)
        assert np.array(garments).max() < len(CLASSES)
        assert Image.open(results / f'silhouette/p{k:02}.png').size == SIZE
        assert (results / f'overview/p{k:02}.jpg').is_file()


@pytest.fixture
def ccp(config: str, shared_data: Path, tmp_path: Path) -> Config:
    """The page's config for 1,004 street photographs, with the body's parts as a third task."""
    root = shared_data / 'ccp'
    if not root.is_dir():
        pytest.skip(f'{root} is not there')
    file = tmp_path / 'ccp.py'
    file.write_text(
        config.replace("'data/street/classes.txt'", repr(str(root / 'classes.txt')))
        .replace("'data/street'", repr(str(root)))
        .replace("garments='garments'", "garments='semseg', parts='human_parts'")
        .replace("silhouette='silhouette')", "silhouette='saliency')")
        .replace("garments='.png'", "garments='.png', parts='.png'")
        .replace("sources=dict(", "sources=dict(parts=dict(path='parts', reader=dict(type='index_image')),")
        .replace("dict(name='silhouette'", "dict(name='parts', kind='semantic', channels=7), dict(name='silhouette'")
        .replace("('garments', 'silhouette')", "('garments', 'parts', 'silhouette')")
        .replace('(384, 512)', '(64, 96)')
    )  # fmt: skip
    return Config.fromfile(file)


@pytest.mark.parametrize(('split', 'number'), [('train', 804), ('val', 200)])
def test_real_photographs_are_read(ccp: Config, split: str, number: int) -> None:
    """Every label of every photograph, held against Pillow; 59 garments, 7 parts, silhouettes."""
    loader = ccp[f'{split}_dataloader'].dataset
    loader.pipeline = [ccp.load, ccp.labels]
    dataset = DATASETS.build(loader)
    assert len(dataset) == number
    counts = {key: np.zeros(256, int) for key in ('garments', 'parts', 'silhouette')}
    for sample in dataset:
        for key, count in counts.items():
            label = sample[f'gt_{key}']
            raw = np.asarray(Image.open(sample['label_paths'][key]))
            np.testing.assert_array_equal(label, raw > 127 if key == 'silhouette' else raw)
            count += np.bincount(label.ravel(), minlength=256)
    assert {key: int(count.nonzero()[0].max()) for key, count in counts.items()} == dict(
        garments=58, parts=6, silhouette=1
    )
    assert (counts['parts'][:7] > 0).all() and (counts['garments'][:59] > 0).sum() > 50
    add_tasks(ccp.new_tasks)
    assert tasks.get_task('garments').classes[:2] == ('null', 'accessories')


def test_two_iterations_on_real_photographs(ccp: Config, tmp_path: Path) -> None:
    for split in ('train', 'val', 'test'):
        ccp[f'{split}_dataloader'].update(num_workers=0)
        ccp[f'{split}_dataloader'].dataset.indices = 8 if split == 'train' else 2
    ccp.train_dataloader.batch_size = 4
    ccp.train_cfg.update(max_epochs=1, val_interval=1)
    ccp.update(work_dir=str(tmp_path / 'work'), experiment_name=tmp_path.name, log_level='WARNING')
    runner = Runner.from_cfg(ccp)
    head = runner.model.decode_heads.garments
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    runner.train()
    assert runner.iter == 2
    assert not any(torch.equal(p, before[name]) for name, p in head.named_parameters())
    hub = runner.message_hub
    for task in ('garments', 'parts', 'silhouette'):
        assert np.isfinite(hub.get_scalar(f'train/loss_{task}').current())
        assert 0 <= hub.get_scalar(f'val/{task}.mIoU').current() <= 100
