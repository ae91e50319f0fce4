"""`tools/check_dataset.py` on a small tree: what it counts, what it finds, and its exit status."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmseg_polyhistor import tasks
from tests.tool_runner import load_tool

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    return load_tool(TESTS.parent / 'tools/check_dataset.py')


@pytest.fixture
def check(
    tool: ModuleType,
    pascal_tree: SimpleNamespace,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, str]]:
    """Run the tool on the tree; gives the exit status and what it printed."""
    monkeypatch.setenv('COLUMNS', '120')

    def run(*options: str) -> tuple[int, str]:
        status = tool.main([str(pascal_tree.root), *options])
        return status, capsys.readouterr().out

    return run


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows."""
    return [
        [cell.strip() for cell in line.strip('│').split('│')]
        for line in text.splitlines()
        if line.startswith('│')
    ]


@pytest.mark.parametrize('workers', ['1', '2'])
def test_a_sound_tree(
    check: Callable[..., tuple[int, str]], pascal_tree: SimpleNamespace, workers: str
) -> None:
    status, text = check('--workers', workers)
    assert status == 0
    assert 'no problems' in text
    assert 'train: 3 images in the list, PASCAL-Context has 4998' in text
    table = rows(text)
    assert ['train', 'image', '3', '0', '0', ''] in table
    assert ['val', 'human_parts', '3', '0', '0', '2 (66.7%)'] in table, 'images without a person'

    truth = np.stack(pascal_tree.truth['semseg'])
    labelled = (truth != 255).sum()
    (person,) = (row for row in table if row[:2] == ['15', 'person'])
    images = str((truth == 15).any(axis=(1, 2)).sum())
    assert person[2:4] == person[4:6] == [f'{(truth == 15).sum() / labelled:.2%}', images]
    (ignored,) = (row for row in table if row[0] == '255' and row[3] != '0')
    assert ignored[2] == f'{(truth == 255).mean():.2%}'
    (valid,) = (row for row in table if row[1].startswith('valid'))
    assert valid[2] == f'{(np.stack(pascal_tree.truth["normals"])[..., 0] != 255).mean():.2%}'


def test_every_missing_and_broken_file_is_reported(
    check: Callable[..., tuple[int, str]], pascal_tree: SimpleNamespace
) -> None:
    root = pascal_tree.root
    (root / 'human_parts/2008_000001.mat').write_bytes(b'broken')
    (root / 'sal_distill/2008_000001.png').unlink()
    (root / 'JPEGImages/2008_000003.jpg').unlink()
    photograph = root / 'JPEGImages/2008_000002.jpg'
    photograph.write_bytes(photograph.read_bytes()[:-100])
    status, text = check('--split', 'train', '--show', '9')
    assert status == 1
    assert ['train', 'image', '1', '1', '1', ''] in rows(text)
    assert ['train', 'saliency', '0', '1', '0', '0'] in rows(text)
    for line in (
        rf'train: missing image: {re.escape(str(root))}/JPEGImages/2008_000003\.jpg',
        r'train: broken image: .*2008_000002\.jpg: OSError: .*truncated',
        r'train: broken human_parts: .*2008_000001\.mat: found a file that cannot be read',
        r'train: missing saliency: .*sal_distill/2008_000001\.png',
        r'^4 problems',
    ):
        assert re.search(line, text, re.MULTILINE), line


def test_few_of_many_problems_are_shown(
    check: Callable[..., tuple[int, str]], pascal_tree: SimpleNamespace
) -> None:
    for path in (pascal_tree.root / 'sal_distill').iterdir():
        Image.fromarray(np.full((20, 28, 3), 9, np.uint8)).save(path)
    status, text = check('--split', 'val', '--tasks', 'saliency', '--show', '1')
    assert status == 1
    assert text.count('found an image of mode RGB') == 1
    assert 'val: ... and 2 more (--show 3)' in text


def test_missing_labels_may_be_allowed(
    check: Callable[..., tuple[int, str]], pascal_tree: SimpleNamespace
) -> None:
    (pascal_tree.root / 'human_parts/2008_000001.mat').unlink()
    assert check('--tasks', 'human_parts')[0] == 1
    status, text = check('--tasks', 'human_parts', '--allow-missing')
    assert status == 0
    assert ['train', 'human_parts', '2', '1', '0', '2 (100.0%)'] in rows(text)


def test_only_the_named_tasks_and_folders_are_looked_at(
    check: Callable[..., tuple[int, str]], pascal_tree: SimpleNamespace
) -> None:
    root = pascal_tree.root
    (root / 'sal_distill').rename(root / 'masks')
    (root / 'normals_distill').rename(root / 'other')
    status, text = check(
        '--tasks',
        'saliency',
        'semseg',
        '--data-prefix',
        'saliency=masks',
        'semseg=semseg/pascal-context,semseg/VOC12',
    )
    assert status == 0
    assert 'normals' not in text
    assert ['train', 'saliency', '3', '0', '0', '0 (0.0%)'] in rows(text)


def test_the_number_of_images_can_be_demanded(check: Callable[..., tuple[int, str]]) -> None:
    status, text = check('--tasks', 'saliency', '--expect-pascal')
    assert status == 1
    assert 'val: 3 images in the list, PASCAL-Context has 5105' in text


def test_a_missing_list_is_a_problem_and_the_other_split_is_still_checked(
    check: Callable[..., tuple[int, str]],
) -> None:
    status, text = check('--split', 'test', 'val', '--tasks', 'saliency')
    assert status == 1
    assert re.search(r'test: .*ImageSets/Context/test\.txt does not exist', text)
    assert ['val', 'saliency', '3', '0', '0', '0 (0.0%)'] in rows(text)


@pytest.mark.integration
def test_the_command_line(pascal_tree: SimpleNamespace) -> None:
    script = str(TESTS.parent / 'tools/check_dataset.py')
    done = subprocess.run([sys.executable, script, '--help'], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert 'examples:' in done.stdout
    done = subprocess.run(
        [sys.executable, script, str(pascal_tree.root / 'nowhere')],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert 'does not exist; check data_root' in done.stdout


def write_config(path: Path, loaders: dict[str, dict]) -> Path:
    path.write_text(
        "custom_imports = dict(imports=['mmseg_polyhistor'])\n"
        + ''.join(f'{split}_dataloader = dict(dataset={dataset!r})\n' for split, dataset in loaders.items())
    )
    return path


def test_the_data_sets_of_a_config(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NYUD-v2 and a folder per task, with a task that the table has not; two loaders of the same files count once."""
    monkeypatch.setenv('COLUMNS', '120')
    nyud = load_tool(TESTS / 'datasets/test_nyud_mt.py')
    truth = nyud.write_tree(tmp_path / 'nyud', 'invpt')
    row = dict(name='thirds', kind='semantic', classes=('a', 'b', 'c'))
    own = dict(
        type='MultiTaskDataset', data_root=str(tmp_path / 'own'), tasks=('thirds',), new_tasks=[row],
        data_prefix=dict(img_path='images', thirds='masks'), suffixes=dict(img_path='.png', thirds='.png'),
        sources=dict(thirds=dict(path='thirds', reader=dict(type='index_image'))), ann_file='list.txt',
    )  # fmt: skip
    mask = np.repeat(np.arange(3, dtype=np.uint8), 4)[None].repeat(9, axis=0)
    for folder, picture in (('images', np.zeros((9, 12, 3), np.uint8)), ('masks', mask)):
        (tmp_path / 'own' / folder).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / 'own' / folder / 'one.png')
    (tmp_path / 'own/list.txt').write_text('one\n')
    train = dict(
        type='NYUDMTDataset', data_root=str(tmp_path / 'nyud'), pipeline=[dict(type='NoSuchTransform')]
    )
    config = write_config(tmp_path / 'my.py', dict(train=train, val=own, test={**own, 'test_mode': True}))

    monkeypatch.setattr(tasks, '_TASKS', dict(tasks._TASKS))
    assert tool.main([str(config)]) == 0
    text = capsys.readouterr().out
    table = rows(text)
    assert ['train', 'depth', '2', '0', '0', '0 (0.0%)'] in table
    assert ['val, test', 'thirds', '1', '0', '0', '0 (0.0%)'] in table
    assert [row[2:] for row in table if row[1] in 'abc' and len(row) == 4] == [['33.33%', '1']] * 3
    depth = np.stack(truth['depth'])
    assert [f'{(depth > 0).mean():.2%}', '2'] in [row[2:] for row in table if row[1].startswith('valid')]

    (tmp_path / 'own/masks/one.png').unlink()
    assert tool.main([str(config), '--split', 'val']) == 1
    text = capsys.readouterr().out
    assert 'val: missing thirds' in text and 'depth' not in text


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--tasks', 'semseg', '--expect-pascal'], '--tasks, --expect-pascal is for a tree'),
        (['--split', 'val'], 'has no val_dataloader'),
        ([], 'the data set of train is a BaseSegDataset; only MultiTaskDataset'),
        (['--cfg-options', 'nothing.data_root=x'], 'the data set of train is a BaseSegDataset'),
    ],
)
def test_configs_that_cannot_be_checked(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    config = write_config(
        tmp_path / 'my.py',
        dict(train=dict(type='RepeatDataset', times=2, dataset=dict(type='BaseSegDataset'))),
    )
    with pytest.raises(SystemExit) as stop:
        tool.main([str(config), *options])
    assert message in f'{stop.value}{capsys.readouterr().err}'


def test_wrapped_data_sets_missing_labels_and_caches_of_a_config(
    tool: ModuleType, pascal_tree: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Every wrapped data set is a split of its own; what the config allows is allowed; nothing is cached."""
    cache = tmp_path / 'cache'
    tree = dict(type='PascalContextMTDataset', data_root='nowhere', parts_cache_dir=str(cache))
    train = dict(tree, tasks=('human_parts',), allow_missing=True, indices=1)
    val = dict(tree, tasks=('saliency',), ann_file='ImageSets/Context/val.txt')
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[train, val]))
    config = write_config(tmp_path / 'my.py', dict(train=wrapped))
    (pascal_tree.root / 'human_parts/2008_000001.mat').unlink()
    for path in (pascal_tree.root / 'sal_distill').iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray((mask > 127).astype(np.uint8)).save(path)
    (tmp_path / 'tree').symlink_to(pascal_tree.root)  # mmengine's DictAction drops the blank of its name
    root = f'train_dataloader.dataset.dataset.datasets.{{}}.data_root={tmp_path / "tree"}'
    assert tool.main([str(config), '--cfg-options', root.format(0), root.format(1)]) == 1
    text = capsys.readouterr().out
    assert ['train 1', 'human_parts', '2', '1', '0', '2 (100.0%)'] in rows(text)
    assert 'train 2: saliency is empty in all 3 images; masks of 0 and 1' in text and '1 problems' in text
    assert not cache.exists()


def test_options_of_a_config_are_none_of_a_tree(tool: ModuleType, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        tool.main(['data/PASCAL_MT', '--cfg-options', 'a=1'])
    assert '--cfg-options is for a config (.py), and data/PASCAL_MT is a tree' in capsys.readouterr().err
