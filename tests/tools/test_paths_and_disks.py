"""The tools on odd paths and on disks that are full or read-only.

Disks are small tmpfs, mounted in a mount namespace that only the tools see; where that is not permitted, the tests skip.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parents[2]
TOY = REPO / 'tests' / 'engine' / 'toy_config.py'
ODD = """a b 'c' "d" ß数 & $HOME;"""
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmseg_polyhistor', 'toy_training'], allow_failed_imports=False)
data = dict(data_root={root!r}, parts_cache_dir={cache!r})
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)
train_cfg = dict(max_epochs=1, val_interval=1)
custom_hooks = [dict(type='ToyLossLog')]
"""
MAKE = ['--train', 2, '--val', 2, '--size', 32, '--workers', 0]

pytestmark = pytest.mark.integration


@pytest.fixture
def disk(tools, tmp_path):
    """A function: mount options -> folder with a disk of its own, which no other process sees."""

    def mount(options, name='disk'):
        if tools.no_mounts:
            pytest.skip(f'no disk can be mounted here: {tools.no_mounts}')
        folder = tmp_path / name
        folder.mkdir()
        tools.shell(f'mount -t tmpfs -o {options} tmpfs "{folder}"')
        folders.append(folder)
        return folder

    folders = []
    yield mount
    for folder in folders:
        tools.shell(f'umount "{folder}"')


@pytest.fixture(scope='module')
def mini(tools, tmp_path_factory):
    """Two training and two validation images."""
    root = tmp_path_factory.mktemp('mini') / 'data'
    tools.start('dataset_converters/make_mini_pascal.py', root, *MAKE, cwd=root.parent)
    return root


@pytest.fixture
def config(tmp_path):
    """A function: data root -> config file of the smallest real training."""

    def write(root, name='config.py', cache=None):
        base = REPO / 'configs' / 'polyhistor_lite' / 'swin-pico_mini-pascal.py'
        path = tmp_path / name
        path.write_text(CONFIG.format(base=str(base), root=str(root), cache=cache and str(cache)))
        return path

    return write


def losses(folder):
    return (folder / 'losses_rank0.txt').read_text()


# ---------------------------------------------------------------------------------------------------- full disks
def test_full_disk_while_a_checkpoint_is_written(tools, disk, tmp_path):
    """The error names file and disk, the last good checkpoint stays, nothing half done stays, and with room it goes on."""
    tools.start('train.py', TOY, '--work-dir', tmp_path / 'whole', cwd=tmp_path)
    work_dir = disk('size=72k') / 'run'
    train = ['train.py', TOY, '--work-dir', work_dir]
    _, printed = tools.start(*train, cwd=tmp_path, expect=1)
    assert 'No space left on device: the file of ' in printed
    failed = next(f'epoch_{i}.pth' for i in (2, 3) if f"bytes free: '{work_dir}/epoch_{i}.pth'" in printed)
    assert f"the disk at '{work_dir.parent}' has " in printed
    kept = tools.shell(f'cd {work_dir}; ls *.p*; cat last_checkpoint').split()
    before = {'epoch_2.pth': 'epoch_1.pth', 'epoch_3.pth': 'epoch_2.pth'}[failed]
    assert (
        kept[-1] == str(work_dir / before)
        and failed not in kept
        and not any(f.endswith('.part') for f in kept)
    )

    tools.shell(f'mount -o remount,size=4m {work_dir.parent}')
    tools.start(*train, '--resume', cwd=tmp_path)
    tools.shell(f'cp -r {work_dir} {tmp_path}/copy')
    ends = [torch.load(tmp_path / name / 'epoch_4.pth', weights_only=True) for name in ('whole', 'copy')]
    assert ends[0]['state_dict'].keys() == ends[1]['state_dict'].keys()
    assert all(torch.equal(v, ends[1]['state_dict'][k]) for k, v in ends[0]['state_dict'].items())
    assert set(losses(tmp_path / 'whole').splitlines()) <= set(losses(tmp_path / 'copy').splitlines())


@pytest.mark.parametrize('when', ['from the start', 'later'])
def test_full_disk_while_logs_are_written(tools, disk, tmp_path, when):
    """Logs, scalars and configs go to the work dir too: the error names it, and says how full the disk is."""
    folder = disk('size=40k')
    if when == 'from the start':
        tools.shell(f'head -c 100000 /dev/zero > {folder}/filler || true')
    options = ['train_cfg.max_epochs=200', 'default_hooks.checkpoint.interval=200']
    _, printed = tools.start(
        'train.py', TOY, '--work-dir', folder / 'run', '--cfg-options', *options, cwd=tmp_path, expect=1
    )
    assert 'No space left on device' in printed.splitlines()[-1]
    assert f"the disk at '{folder}' has 0 bytes free" in printed.splitlines()[-1]


def test_full_or_read_only_disk_under_new_data(tools, disk, tmp_path):
    """make_mini_pascal says what is wrong and what to do, in a line."""
    folder = disk('size=32k')
    make = ['dataset_converters/make_mini_pascal.py', folder / 'data', *MAKE]
    _, printed = tools.start(*make, cwd=tmp_path, expect=1)
    last = printed.splitlines()[-1]
    assert (
        last.startswith('make_mini_pascal: ')
        and 'No space left' in last
        and f'{folder}/data is incomplete' in last
    )
    tools.shell(f'mount -o remount,size=8m {folder}')
    tools.start(*make, '--overwrite', cwd=tmp_path)
    tools.shell(f'mount -o remount,ro {folder}')
    make[1] = folder / 'more'
    _, printed = tools.start(*make, cwd=tmp_path, expect=1)
    assert 'Traceback' not in printed and f"Read-only file system: '{folder}/more" in printed


# ------------------------------------------------------------------------------------- read-only, missing, in the way
def test_read_only_data(tools, disk, mini, config, tmp_path):
    """A data root that cannot be written to serves for checking, training and testing."""
    root = disk('size=8m')
    tools.shell(f'cp -r {mini}/. {root}; mount -o remount,ro {root}')
    path = config(root, cache=tmp_path / 'cache')
    tools.start('check_dataset.py', root, cwd=tmp_path)
    tools.start('train.py', path, '--work-dir', tmp_path / 'run', cwd=tmp_path)
    tools.start(
        'test.py', path, tmp_path / 'run' / 'epoch_1.pth', '--work-dir', tmp_path / 'test', cwd=tmp_path
    )
    assert len(list((tmp_path / 'cache').iterdir())) == 4


def test_cache_that_cannot_be_written(tools, disk, mini, config, tmp_path):
    """The error names the image and the folder."""
    cache = disk('ro,size=1m') / 'cache'
    _, printed = tools.start(
        'train.py', config(mini, cache=cache), '--work-dir', tmp_path / 'run', cwd=tmp_path, expect=1
    )
    assert f"Read-only file system: '{cache}'" in printed and '/JPEGImages/train_00000' in printed


def test_missing_data_root(tools, config, tmp_path):
    """The error names the key, what was given, and from where a relative path was followed."""
    for root, tool in (('/nowhere/at all', 'train.py'), ('near/by', 'check_dataset.py')):
        arguments = [config(root), '--work-dir', 'run'] if tool == 'train.py' else [root]
        _, printed = tools.start(tool, *arguments, cwd=tmp_path, expect=1)
        assert (
            f'the list of images {root}/ImageSets/Context/train.txt does not exist; check data_root'
            in printed
        )
        assert f'{root!r} is no folder, seen from {tmp_path}' in printed


def test_work_dir_that_cannot_be_made(tools, disk, tmp_path):
    """A file, or a link to nothing, is in the way, or the disk is read-only: one line names the folder and the cause."""
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'link').symlink_to(tmp_path / 'gone')
    cases = {
        'file': f"'{tmp_path}/file' is a file",
        'file/sub': f"'{tmp_path}/file' is a file",
        'link': f"'{tmp_path}/link' is a symbolic link to nothing",
    }
    if not tools.no_mounts:
        cases['disk/run'] = f"nothing can be written to '{disk('ro')}'"
    for name, reason in cases.items():
        _, printed = tools.start('train.py', TOY, '--work-dir', tmp_path / name, cwd=tmp_path, expect=1)
        last = printed.splitlines()[-1]
        assert (
            last.startswith(f"train.py: the work dir '{tmp_path}/{name}' cannot be made (") and reason in last
        )
    assert (tmp_path / 'file').read_text() == 'mine'


# -------------------------------------------------------------------------------------------------------- odd names
def rename(root, split, name):
    """Give the first image of a split another name; returns it."""
    ids = root / 'ImageSets' / 'Context' / f'{split}.txt'
    first, *others = ids.read_text().split()
    for path in list(root.rglob(f'{first}.*')):
        path.rename(path.with_name(name + path.suffix))
    ids.write_text('\n'.join([name, *others]), encoding='utf-8')


def test_odd_names(tools, config, tmp_path):
    """Blanks, quotes, dollars and other letters in the names of data, images, config, work dir, checkpoint and outputs."""
    here = tmp_path / ODD
    here.mkdir()
    root, work_dir = here / f'data {ODD}', here / f'run {ODD}'
    tools.start('dataset_converters/make_mini_pascal.py', root, *MAKE, cwd=here)
    for split in ('train', 'val'):
        rename(root, split, f'{split} {ODD}')
    _, printed = tools.start('check_dataset.py', root, cwd=here)
    assert 'no problems' in printed
    path = config(root, name=f'config {ODD}.py', cache=here / 'cache')
    train = ['train.py', path, '--work-dir', work_dir]
    tools.start(*train, cwd=here)
    first = losses(work_dir)
    tools.start(*train, '--resume', '--cfg-options', 'train_cfg.max_epochs=2', cwd=here)
    assert losses(work_dir).startswith(first) and len(losses(work_dir).splitlines()) == 2
    outputs = ['--work-dir', here / 'test', '--out', here / f'out {ODD}', '--show-dir', here / f'show {ODD}']
    tools.start('test.py', path, work_dir / 'epoch_2.pth', *outputs, cwd=here)
    assert (here / f'out {ODD}' / 'semseg' / f'val {ODD}.png').is_file()
    assert any(f'val {ODD}' in p.name for p in (here / f'show {ODD}').rglob('*.png'))


def test_same_results_by_links_and_other_spellings(tools, mini, config, tmp_path):
    """A link, a relative path, a slash at the end, a `~`: the same data, the same losses, in the same work dir."""
    (tmp_path / 'real').mkdir()
    (tmp_path / 'linked run').symlink_to(tmp_path / 'real', target_is_directory=True)
    linked = tmp_path / 'linked data'
    linked.symlink_to(mini, target_is_directory=True)
    (tmp_path / 'files').mkdir()
    for path in mini.rglob('*'):  # every file a link
        place = tmp_path / 'files' / path.relative_to(mini)
        place.mkdir(parents=True, exist_ok=True) if path.is_dir() else place.symlink_to(path)
    roots = [tmp_path / 'files', f'{os.path.relpath(mini, tmp_path)}/', '~/linked data']
    home = [dict(HOME=str(tmp_path))]
    tools.start('train.py', config(mini), '--work-dir', tmp_path / 'plain', cwd=tmp_path)
    plain = losses(tmp_path / 'plain')
    for root in roots:
        shutil.rmtree(tmp_path / 'real')
        (tmp_path / 'real').mkdir()
        train = ['train.py', config(root), '--work-dir', '~/linked run']
        tools.start(*train, cwd=tmp_path, environments=home)
        assert losses(tmp_path / 'real') == plain, root
    _, printed = tools.start(*train, '--resume', cwd=tmp_path, environments=home)
    assert f'Load checkpoint from {tmp_path}/linked run/epoch_1.pth' in printed
    assert losses(tmp_path / 'real') == plain and not (tmp_path / '~').exists()
    tools.start('check_dataset.py', '~/linked data', cwd=tmp_path, environments=home)
    test = [
        'test.py',
        config('~/linked data'),
        tmp_path / 'linked run' / 'epoch_1.pth',
        '--work-dir',
        '~/test',
    ]
    tools.start(*test, cwd=tmp_path, environments=home)
    (result,) = (tmp_path / 'test').glob('*/*.json')
    assert json.loads(result.read_text())
