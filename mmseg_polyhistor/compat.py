"""The only module that knows versions of mmengine, mmcv, mmseg, mmpretrain, torch and torchvision.

`ensure_stack()` runs when `mmseg_polyhistor` is imported (and so by `custom_imports` under any tool). It refuses a
stack that cannot work with an error that names the command that mends it, and applies repairs, each only
where it is needed, so that a compiled mmcv, a fitting torchvision or a maintained fork is left alone:

1. mmcv-lite ships `mmcv.ops` without its compiled extension, yet mmseg 1.2 imports it unguarded: a stand-in module
   whose functions raise when they are *called*.
2. A torchvision of the right version whose compiled operators were built for CUDA does not load on a CPU-only
   torch, and then fails to import at all: the two operator schemas that its Python code expects are declared.
3. torch >= 2.6 unpickles with `weights_only=True` while mmengine 0.10 stores `HistoryBuffer` objects in
   checkpoints: see `mmseg_polyhistor.engine`, `SafeCheckpointHook` and `safe_load`; nothing is patched here.
4. The maintained forks look for the configs of `_base_ = 'mmseg::...'` under the name of the official distribution: the
   name of the fork's takes its place where only that is installed. (Too late for the config that imports this package.)
5. With several processes every one writes the metrics of a test, all into the same file at once, which may leave a piece
   of each in it: mmengine's `master_only`, which its other writers have, is put around that one too.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from importlib import metadata

from packaging.version import Version

__all__ = ['StackError', 'ensure_stack']

INSTALL_OFFICIAL = (
    "pip install 'mmseg_polyhistor[openmmlab]'   (from a checkout: pip install -e '.[openmmlab]')"
)

# module -> (lowest version, first version that is too new, distribution of the official stack)
SUPPORTED = {
    'mmengine': ('0.10.4', '1.0.0', 'mmengine==0.10.7'),
    'mmcv': ('2.0.0rc4', '2.4.0', 'mmcv-lite==2.1.0'),
    'mmseg': ('1.2.0', '2.0.0', 'mmsegmentation==1.2.2'),
    'mmpretrain': ('1.2.0', '2.0.0', 'mmpretrain==1.2.0'),
}
OTHER_NAMES = {'PIL': 'pillow', 'yaml': 'pyyaml'}  # module -> distribution


class StackError(ImportError):
    """The installed OpenMMLab / torch stack is missing or unfit; the message says what to install."""


def _fail(problem: str, command: str) -> StackError:
    return StackError(f'{problem}\n  To mend it: {command}')


def ensure_stack() -> None:
    """Check the installed stack and repair what can be repaired. Idempotent.

    Raises:
        StackError: if a package is missing, has an unfit version, or cannot be loaded; the message names the
            package, the version found, the versions that work and the command that installs them.
    """
    _check_torch()
    _check_opencv()
    _repair_torchvision()
    for module, (low, high, dist) in SUPPORTED.items():
        _check_module(module, low, high, dist)
        if module == 'mmcv':
            _repair_mmcv_ops()
    _repair_config_names()
    _repair_test_metrics()


def _check_torch() -> None:
    if importlib.util.find_spec('torch') is None:
        raise _fail('mmseg_polyhistor needs torch, which is not installed.', INSTALL_OFFICIAL)


def _check_opencv() -> None:
    try:
        importlib.import_module('cv2')
    except ModuleNotFoundError as e:
        raise _fail(f'opencv cannot be imported ({e}).', 'pip install opencv-python-headless') from e
    except (
        ImportError
    ) as e:  # the wheel is there, but a system library is not (libGL.so.1, libgthread-2.0.so.0)
        raise _fail(
            f'opencv is installed but a system library that it needs is missing ({e}).',
            'pip uninstall -y opencv-python && pip install --force-reinstall opencv-python-headless   '
            '(or, on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0)',
        ) from e


def _check_module(module: str, low: str, high: str, dist: str) -> None:
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name == 'pkg_resources':
            raise _fail(
                f'{module} needs pkg_resources, which setuptools 82 dropped.', "pip install 'setuptools<82'"
            ) from e
        if e.name == module:
            raise _fail(f'mmseg_polyhistor needs {module}, which is not installed.', INSTALL_OFFICIAL) from e
        raise _fail(f'{module} is installed but cannot be imported: {e}.', _install(e.name or module)) from e
    except ImportError as e:
        raise _fail(f'{module} is installed but cannot be imported: {e}.', _install(module)) from e
    except AssertionError as e:  # mmseg and mmpretrain assert the versions of mmcv and mmengine
        raise _fail(f'{module} refuses the installed mmcv or mmengine: {e}', INSTALL_OFFICIAL) from e
    found = getattr(imported, '__version__', None)
    if found is None:  # a folder of that name, a rest of an old installation or one in the working directory
        folders = ', '.join(getattr(imported, '__path__', ()))
        problem = f'the folder {folders} is taken for the package {module}, but holds none.'
        raise _fail(problem, f'remove or rename it, or {_install(module)}')
    if not Version(low) <= Version(found) < Version(high):
        raise _fail(
            f'{module} {found} is installed; mmseg_polyhistor works with {module} >= {low}, < {high}.',
            f"pip install '{dist}'",
        )


def _install(module: str) -> str:
    """The command that brings a module, be it missing or a part of a broken package of the stack."""
    package = module.partition('.')[0]
    if package in SUPPORTED:
        return f"pip install --force-reinstall --no-deps '{SUPPORTED[package][2]}'"
    return f'pip install {OTHER_NAMES.get(package, package)}'


# ---------------------------------------------------------------------------------------------- mmcv.ops
def _repair_mmcv_ops() -> None:
    """Let `mmcv.ops` import under mmcv-lite; a compiled `mmcv._ext` is left alone."""
    if 'mmcv._ext' in sys.modules or importlib.util.find_spec('mmcv._ext') is not None:
        return
    if importlib.util.find_spec('mmcv.ops') is None:
        return  # nothing to repair: this mmcv ships no ops at all, so nobody can import them by accident

    name = 'mmcv._ext'
    module = types.ModuleType(name, 'Stand-in for the compiled operators that mmcv-lite lacks.')
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)

    def __getattr__(attribute: str) -> Callable:
        if attribute.startswith('__'):
            raise AttributeError(attribute)

        def missing(*args: object, **kwargs: object) -> None:
            raise RuntimeError(
                f"the compiled operator '{attribute}' was called, but mmcv-lite is installed, which has none. "
                "Install the full mmcv (pip install -U openmim && mim install 'mmcv>=2.0.0,<2.2.0') to use it."
            )

        return missing

    module.__getattr__ = __getattr__
    sys.modules[name] = module


# ------------------------------------------------------------------------------------ configs of packages
def _repair_config_names() -> None:
    """Have mmengine find the configs of an mmseg that is installed under the name of the fork's distribution."""
    names = importlib.import_module('mmengine.config.utils').MODULE2PACKAGE
    fork = f'onedl-{names["mmseg"]}'
    installed = {d.name for name in (names['mmseg'], fork) for d in metadata.distributions(name=name)}
    if installed == {fork}:
        names['mmseg'] = fork


# ----------------------------------------------------------------------------------- metrics of a test run
def _repair_test_metrics() -> None:
    """Have the main process alone write the JSON file of a test's metrics; a hook that is restricted is left alone."""
    hook = importlib.import_module('mmengine.hooks').LoggerHook
    if not hasattr(hook.after_test_epoch, '__wrapped__'):
        hook.after_test_epoch = importlib.import_module('mmengine.dist').master_only(hook.after_test_epoch)


# ------------------------------------------------------------------------------------------- torchvision
def _torchvision_for(torch_version: str) -> str | None:
    """The torchvision minor release that belongs to a torch release: 2.x goes with 0.(x + 15)."""
    release = Version(torch_version).release
    return f'0.{release[1] + 15}' if release[0] == 2 else None


def _repair_torchvision() -> None:
    """Check that torchvision fits torch; where only its compiled operators are unfit, let its Python part import."""
    import torch

    if 'torchvision' in sys.modules:
        return
    wanted = _torchvision_for(torch.__version__)
    command = f"pip install 'torchvision=={wanted}.*'" if wanted else 'pip install torchvision'
    try:
        found = metadata.version('torchvision')
    except metadata.PackageNotFoundError as e:
        raise _fail('mmpretrain needs torchvision, which is not installed.', command) from e
    try:
        importlib.import_module('torchvision')
        return
    except (ImportError, RuntimeError, AttributeError) as e:
        cause = e
    fits = wanted is None or '.'.join(map(str, Version(found).release[:2])) == wanted
    unloaded = not hasattr(torch.ops.torchvision, 'nms')
    if fits and unloaded and 'torchvision::' in str(cause):
        _forget('torchvision')
        global _TORCHVISION_SCHEMAS  # a torch.library object takes its definitions along when it is collected
        _TORCHVISION_SCHEMAS = torch.library.Library('torchvision', 'FRAGMENT')
        for op in ('nms', 'qnms'):
            _TORCHVISION_SCHEMAS.define(f'{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        try:
            importlib.import_module('torchvision')
            return
        except (ImportError, RuntimeError, AttributeError) as e:
            cause = e
    raise _fail(
        f'torchvision {found} does not work with torch {torch.__version__}'
        + ('' if fits else f' (which needs torchvision {wanted})')
        + f': {cause}',
        command,
    ) from cause


_TORCHVISION_SCHEMAS = None


def _forget(package: str) -> None:
    """Drop a half-imported package, so that it can be imported afresh."""
    for name in [n for n in sys.modules if n == package or n.startswith(package + '.')]:
        del sys.modules[name]
