"""What gets installed: a wheel and an editable installation, both made from a copy of the sources, without network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from mmseg_polyhistor import __version__

JUNK = shutil.ignore_patterns(
    '.*', '__pycache__', '*.egg-info', 'build', 'dist', 'venv', 'work_dirs', 'data', 'tests', '*.pth'
)
STACK = ('torch', 'mm', 'onedl')


@pytest.fixture
def sources(repo, tmp_path):
    """A copy of the checkout, in a directory with a space in its name."""
    return Path(shutil.copytree(repo, tmp_path / 'my checkout', ignore=JUNK))


def pip(*arguments, cwd):
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def files_below(root):
    return {
        p.relative_to(root).as_posix()
        for p in root.rglob('*')
        if p.is_file() and p.parent.name != '__pycache__'
    }


def test_wheel(sources, tmp_path):
    """The wheel holds every module, the data file, and `.mim` with configs, tools and index; nothing else."""
    pip('wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', tmp_path, sources, cwd=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob('*.whl'))) as wheel:
        names = {n for n in wheel.namelist() if '.dist-info/' not in n}
        info = f'mmseg_polyhistor-{__version__}.dist-info'
        metadata = Parser().parsestr(wheel.read(f'{info}/METADATA').decode())
        assert any(n.startswith(info) and n.endswith('LICENSE') for n in wheel.namelist())
    mim = 'mmseg_polyhistor/.mim'
    package = {f'mmseg_polyhistor/{n}' for n in files_below(sources / 'mmseg_polyhistor') if '.mim/' not in n}
    shipped = {f'{mim}/{d}/{n}' for d in ('configs', 'tools') for n in files_below(sources / d)}
    assert names == package | shipped | {f'{mim}/model-index.yml'}
    assert 'mmseg_polyhistor/datasets/normals_valid_context_ids.txt' in names
    assert f'{mim}/configs/polyhistor/swin-t_pascal.py' in names and f'{mim}/tools/dist_train.sh' in names

    assert (metadata['Name'].replace('-', '_'), metadata['Version']) == ('mmseg_polyhistor', __version__)
    assert metadata['Requires-Python'] == '>=3.10'
    required = [r for r in metadata.get_all('Requires-Dist') if 'extra ==' not in r]
    assert required and not [r for r in required if r.startswith(STACK)]
    extras = set(metadata.get_all('Provides-Extra'))
    assert extras == {'openmmlab', 'onedl', 'timm', 'test', 'export'}
    official = [r for r in metadata.get_all('Requires-Dist') if re.search(r'extra == .openmmlab.', r)]
    assert any(r.replace(' ', '').startswith('mmsegmentation==1.2.2') for r in official)
    assert not [r for r in official if r.startswith('onedl')]


def test_editable(sources, tmp_path):
    """`pip install -e` finds the checkout's package, with `.mim` linked to the checkout's folders; twice is fine."""
    target = tmp_path / 'site'
    for _ in range(2):
        pip(
            'install', '--no-deps', '--no-build-isolation', '--no-index', '--upgrade',
            '--target', target, '-e', sources, cwd=tmp_path,
        )  # fmt: skip
    code = f"""
import importlib.metadata, importlib.util, pathlib, site, sys
# an installation that the tests themselves run from must not be found first
sys.path[:] = [p for p in sys.path if not pathlib.Path(p, 'mmseg_polyhistor').is_dir()]
sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder).lower()]
for name in [name for name in sys.modules if name.startswith('__editable__')]:
    del sys.modules[name]
sys.path.insert(0, {str(target)!r})
site.addsitedir({str(target)!r})
package = pathlib.Path(importlib.util.find_spec('mmseg_polyhistor').origin).parent
print(package)
print(importlib.metadata.version('mmseg_polyhistor'))
print((package / '.mim/configs/polyhistor/swin-t_pascal.py').read_text() != '')
print((package / '.mim/model-index.yml').is_file(), (package / '.mim/tools/train.py').is_file())
"""
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        str(sources / 'mmseg_polyhistor'), __version__, 'True', 'True True'
    ]  # fmt: skip
    link = sources / 'mmseg_polyhistor' / '.mim' / 'configs'
    assert link.is_symlink() and link.resolve() == sources / 'configs'


def test_a_wheel_made_of_the_source_distribution(sources, tmp_path):
    """`python -m build` makes the wheel of the unpacked sdist: it must hold the files that the checkout's wheel holds."""
    command = [sys.executable, 'setup.py', '-q', 'sdist', '-d', str(tmp_path / 'sdist')]
    subprocess.run(command, cwd=sources, check=True, capture_output=True)
    (archive,) = (tmp_path / 'sdist').glob('*.tar.gz')
    with tarfile.open(archive) as sdist:
        sdist.extractall(tmp_path, filter='data')
    unpacked = tmp_path / archive.name.removesuffix('.tar.gz')
    names = []
    for source in (sources, unpacked):
        out = tmp_path / f'wheel_of_{source.name}'
        pip('wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', out, source, cwd=tmp_path)
        with zipfile.ZipFile(next(out.glob('*.whl'))) as wheel:
            names.append(set(wheel.namelist()))
    assert names[0] == names[1]
    assert not (unpacked / 'tests').exists()


def test_incomplete_sources_are_refused(sources, tmp_path):
    """A wheel without its configs would be useless to mim: building one fails and says what is missing."""
    shutil.rmtree(sources / 'configs')
    command = [sys.executable, 'setup.py', 'build_py', '--build-lib', str(tmp_path / 'lib')]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True)
    assert done.returncode != 0 and 'configs is missing' in done.stderr


def test_license_is_apache(repo):
    """The full text, not a stub."""
    text = (repo / 'LICENSE').read_text()
    assert 'Apache License' in text and 'Version 2.0, January 2004' in text
    assert '9. Accepting Warranty or Additional Liability' in text and len(text) > 10_000
