"""The stack check: each broken stack gets an error that names the command that mends it; repairs touch only what needs them.

Every case is a process of its own that sees nothing but stand-ins for the packages of the stack (and, where a repair of
torchvision is at stake, the real torch), save one that looks at what the installed mmengine writes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import packaging
import pytest
import torch

pytestmark = pytest.mark.stack

COMPAT = Path(__file__).resolve().parents[1] / 'mmseg_polyhistor' / 'compat.py'

# A stack in which everything is right: package -> its __init__.py
GOOD = {
    'torch': "__version__ = '2.13.0+cpu'",
    'cv2': '',
    'torchvision': '',
    'mmengine': "__version__ = '0.10.7'",
    'mmengine/config': '',
    'mmengine/config/utils': "MODULE2PACKAGE = {'mmseg': 'mmsegmentation', 'mmpretrain': 'mmpretrain'}",
    'mmengine/dist': """
        import functools
        def master_only(function):
            return functools.wraps(function)(lambda *args: 'nothing')
    """,
    'mmengine/hooks': """
        class LoggerHook:
            def after_test_epoch(self):
                return 'everything'
    """,
    'mmcv': "__version__ = '2.1.0'",
    'mmcv/ops': 'from mmcv import _ext',
    'mmseg': "__version__ = '1.2.2'",
    'mmpretrain': "__version__ = '1.2.0'",
}
TORCHVISION = '0.28.0+cpu'
CHECK = 'compat.ensure_stack()'


@pytest.fixture
def stack(tmp_path):
    """A function that lays out the packages (None: absent), runs a snippet and returns the finished process."""

    def run(code=CHECK, *, torchvision_version=TORCHVISION, real_torch=False, distributions=(), **packages):
        site = tmp_path / 'site'
        for name, source in {**GOOD, **packages}.items():
            if source is not None and not (real_torch and name == 'torch'):
                (site / name).mkdir(parents=True, exist_ok=True)
                (site / name / '__init__.py').write_text(textwrap.dedent(source))
        versions = dict.fromkeys(distributions, '1.2.2')
        if torchvision_version is not None:
            versions['torchvision'] = torchvision_version
        for name, version in versions.items():
            info = site / f'{name.replace("-", "_")}-{version}.dist-info'
            info.mkdir(parents=True)
            fields = ('Metadata-Version: 2.1', f'Name: {name}', f'Version: {version}', '')
            (info / 'METADATA').write_text('\n'.join(fields))
        (site / 'packaging').symlink_to(Path(packaging.__file__).parent)
        shutil.copy(COMPAT, site / 'compat.py')
        blind = 'sys.path = [p for p in sys.path if "site-packages" not in p]' if not real_torch else ''
        environment = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
        return subprocess.run(
            [sys.executable, '-c', f'import sys\n{blind}\nsys.path.insert(0, {str(site)!r})\nimport compat\n{code}'],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    return run


def assert_refused(done, *parts):
    """The process died of a StackError that says all of `parts`, in this order."""
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stderr[done.stderr.rindex('compat.StackError') :]
    place = 0
    for part in parts:
        assert part in last[place:], last
        place = last.index(part, place)


def test_a_fit_stack_passes(stack):
    """No error, also when asked twice."""
    done = stack(f'{CHECK}\n{CHECK}\nprint("fine")')
    assert done.stdout == 'fine\n', done.stderr


@pytest.mark.parametrize(
    ('distributions', 'name'),
    [
        ((), 'mmsegmentation'),
        (('mmsegmentation',), 'mmsegmentation'),
        (('onedl-mmsegmentation',), 'onedl-mmsegmentation'),
        (('mmsegmentation', 'onedl-mmsegmentation'), 'mmsegmentation'),
    ],
)
def test_configs_of_mmseg_are_those_of_its_distribution(stack, distributions, name):
    """`_base_ = 'mmseg::...'` is looked for in the distribution that is installed."""
    code = f'{CHECK}\nfrom mmengine.config.utils import MODULE2PACKAGE\nprint(MODULE2PACKAGE)'
    done = stack(code, distributions=distributions)
    assert done.stdout == f'{dict(mmseg=name, mmpretrain="mmpretrain")}\n', done.stderr


EXTRA = "pip install 'mmseg_polyhistor[openmmlab]'"
BROKEN = {
    'no torch': (dict(torch=None), ['needs torch', EXTRA]),
    'no opencv': (dict(cv2=None), ['opencv cannot be imported', 'pip install opencv-python-headless']),
    'no libGL': (
        dict(cv2="raise ImportError('libGL.so.1: cannot open shared object file')"),
        ['system library', 'libGL.so.1', 'opencv-python-headless', 'apt-get install libgl1'],
    ),
    'no torchvision': (
        dict(torchvision=None, torchvision_version=None),
        ['needs torchvision, which is not installed', "pip install 'torchvision==0.28.*'"],
    ),
    'no mmengine': (
        {name: None for name in GOOD if name.startswith('mmengine')},
        ['needs mmengine', EXTRA],
    ),
    'no mmcv': ({'mmcv': None, 'mmcv/ops': None}, ['needs mmcv', EXTRA]),
    'rest of an mmcv': (dict(mmcv=None), ['the folder', 'site/mmcv is taken', 'remove or rename it', "'mmcv-lite==2.1.0'"]),
    'no mmseg': (dict(mmseg=None), ['needs mmseg', EXTRA]),
    'no mmpretrain': (dict(mmpretrain=None), ['needs mmpretrain', EXTRA]),
    'old mmseg': (
        dict(mmseg="__version__ = '0.30.0'"),
        ['mmseg 0.30.0 is installed', '>= 1.2.0, < 2.0.0', "pip install 'mmsegmentation==1.2.2'"],
    ),
    'old mmpretrain': (
        dict(mmpretrain="__version__ = '1.0.0rc8'"),
        ['mmpretrain 1.0.0rc8 is installed', "pip install 'mmpretrain==1.2.0'"],
    ),
    'new mmcv': (dict(mmcv="__version__ = '3.0.0'"), ['mmcv 3.0.0', '>= 2.0.0rc4', "pip install 'mmcv-lite==2.1.0'"]),
    'mmcv that mmseg refuses': (
        dict(mmseg="assert False, 'MMCV==2.2.0 is used but incompatible.'"),
        ['mmseg refuses the installed mmcv', 'MMCV==2.2.0 is used but incompatible', EXTRA],
    ),
    'no pkg_resources': (
        dict(mmengine="raise ModuleNotFoundError(\"No module named 'pkg_resources'\", name='pkg_resources')"),
        ['mmengine needs pkg_resources', "pip install 'setuptools<82'"],
    ),
    'a dependency is missing': (
        dict(mmseg='import ftfy_not_there'),
        ['mmseg is installed but cannot be imported', 'ftfy_not_there', 'pip install ftfy_not_there'],
    ),
    'a dependency under another name': (
        dict(mmengine="raise ModuleNotFoundError(\"No module named 'yaml'\", name='yaml')"),
        ['mmengine is installed but cannot be imported', 'pip install pyyaml'],
    ),
    'a broken package of the stack': (
        dict(mmseg='import mmcv.transforms'),
        ['mmseg is installed but cannot be imported', 'mmcv.transforms', "pip install --force-reinstall --no-deps 'mmcv-lite==2.1.0'"],
    ),
    'a name that is gone': (
        dict(mmpretrain='from mmengine import nothing_of_that_name'),
        ['mmpretrain is installed but cannot be imported', 'nothing_of_that_name', "'mmpretrain==1.2.0'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(('packages', 'parts'), BROKEN.values(), ids=BROKEN)
def test_broken_stacks(stack, packages, parts):
    """What is wrong, and then the command."""
    assert_refused(stack(**packages), *parts)


# --------------------------------------------------------------------------------------------- repairs
def test_missing_operators_raise_when_called(stack):
    """mmcv-lite: what mmseg imports is there, and calling it tells what to install."""
    done = stack(f"""
{CHECK}
from mmcv._ext import sigmoid_focal_loss_forward
from mmcv.ops import _ext
print(_ext.sigmoid_focal_loss_forward is not None, hasattr(_ext, '__path__'))
try:
    sigmoid_focal_loss_forward(1, key=2)
except RuntimeError as e:
    print(e)
""")
    first, message = done.stdout.splitlines()
    assert first == 'True False'
    assert "'sigmoid_focal_loss_forward' was called" in message and 'mim install' in message


def test_compiled_operators_are_left_alone(stack):
    """A real `mmcv._ext` stays what Python finds."""
    done = stack(
        f"{CHECK}\nprint('mmcv._ext' in sys.modules)\nimport mmcv._ext as e\nprint(e.real)",
        **{'mmcv/_ext': 'real = 1'},
    )
    assert done.stdout.splitlines() == ['False', '1'], done.stderr


def test_mmcv_without_ops_is_left_alone(stack):
    """Where there is no `mmcv.ops`, nothing is put there."""
    done = stack(f"{CHECK}\nprint('mmcv._ext' in sys.modules)", **{'mmcv/ops': None})
    assert done.stdout == 'False\n', done.stderr


RESTRICTED = """
    from functools import wraps
    class LoggerHook:
        def every_process(self):
            return 'everything'
        @wraps(every_process)
        def after_test_epoch(self):
            return 'its own'
"""


@pytest.mark.parametrize(
    ('hooks', 'written'),
    [({}, 'nothing'), ({'mmengine/hooks': RESTRICTED}, 'its own')],
    ids=['stock', 'mended'],
)
def test_metrics_of_a_test_are_for_the_main_process(stack, hooks, written):
    """The hook is restricted, unless it is already."""
    code = f'{CHECK}\n{CHECK}\nfrom mmengine.hooks import LoggerHook\nprint(LoggerHook().after_test_epoch())'
    done = stack(code, **hooks)
    assert done.stdout == f'{written}\n', done.stderr


@pytest.mark.parametrize('is_main', [True, False])
def test_other_processes_leave_the_metrics_alone(tmp_path, monkeypatch, is_main):
    """With the installed mmengine: two processes that write one file at a time may leave a piece of each in it."""
    from mmengine.hooks import LoggerHook

    import mmseg_polyhistor  # noqa: F401

    hook = LoggerHook()
    hook.json_log_path = 'metrics.json'
    processor = SimpleNamespace(get_log_after_epoch=lambda *_, **__: (dict(mse=0.5), 'mse: 0.5'))
    runner = SimpleNamespace(
        log_dir=str(tmp_path),
        log_processor=processor,
        logger=SimpleNamespace(info=lambda _: None),
        test_dataloader=[],
    )
    monkeypatch.setattr('mmengine.dist.utils.is_main_process', lambda *_: is_main)
    hook.after_test_epoch(runner, dict(mse=0.5))
    assert [p.read_text() for p in tmp_path.iterdir()] == (['{"mse": 0.5}'] if is_main else [])


TORCH_MINOR = torch.__version__.split('.')[1]
FITTING = f'0.{int(TORCH_MINOR) + 15}.0'
# What torchvision does when its compiled operators do not load: it describes an operator that nobody declared.
CUDA_BUILD = """
    import torch
    @torch.library.register_fake('torchvision::nms')
    def meta_nms(dets, scores, iou_threshold):
        return dets
"""


@pytest.mark.skipif(not torch.__version__.startswith('2.'), reason='the pairing is known for torch 2')
class TestTorchvision:
    """With the real torch."""

    def test_operators_of_another_build(self, stack):
        """The Python part imports; the operator is declared but has no kernel."""
        done = stack(
            f"""
{CHECK}
import gc, torch, torchvision
gc.collect()
print(torchvision.meta_nms.__name__, hasattr(torch.ops.torchvision, 'nms'))
try:
    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except NotImplementedError:
    print('no kernel')
""",
            torchvision_version=FITTING, real_torch=True, torchvision=CUDA_BUILD,
        )  # fmt: skip
        assert done.stdout.splitlines() == ['meta_nms True', 'no kernel'], done.stderr

    def test_wrong_version(self, stack):
        """No repair for a torchvision that belongs to another torch: the command installs the right one."""
        done = stack(torchvision_version='0.15.2', real_torch=True, torchvision=CUDA_BUILD)
        assert_refused(
            done,
            'torchvision 0.15.2 does not work',
            f'needs torchvision {FITTING[:-2]}',
            f'torchvision=={FITTING[:-2]}.*',
        )

    def test_broken_otherwise(self, stack):
        """An error that has nothing to do with operators is passed on."""
        done = stack(
            torchvision_version=FITTING, real_torch=True, torchvision="raise ImportError('libjpeg.so.9')"
        )
        assert_refused(done, f'torchvision {FITTING} does not work', 'libjpeg.so.9')
