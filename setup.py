"""Installation. The OpenMMLab stack is an extra, since two stacks with the same module names exist: see `extras`."""

import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM = Path('mmseg_polyhistor', '.mim')  # where mim looks for what a package ships beside its modules
SHIPPED = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Puts configs, tools and model-index.yml into the package's `.mim`: copies in a wheel, links in a checkout."""

    def run(self):
        super().run()
        target = (ROOT if self.editable_mode else Path(self.build_lib)) / MIM
        target.mkdir(parents=True, exist_ok=True)
        for name in SHIPPED:
            source, shipped = ROOT / name, target / name
            if not source.exists():
                raise FileNotFoundError(f'{source} is missing: the package ships it as {MIM / name}')
            if self.editable_mode:
                if not shipped.exists():
                    shipped.unlink(missing_ok=True)  # a link to a place that is gone
                    shipped.symlink_to(os.path.relpath(source, target))
            elif source.is_dir():
                ignored = shutil.ignore_patterns('__pycache__')
                shutil.copytree(source, shipped, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy2(source, shipped)


def version():
    namespace = {}
    exec((ROOT / 'mmseg_polyhistor' / 'version.py').read_text(encoding='utf-8'), namespace)
    return namespace['__version__']


openmmlab = [  # the official releases
    'mmengine==0.10.7',
    'mmcv-lite==2.1.0',
    'mmsegmentation==1.2.2',
    'mmpretrain==1.2.0',
    'ftfy',  # mmseg needs these two without declaring them
    'regex',
    'setuptools<82',  # mmengine needs pkg_resources
    'torch>=2.4',  # autocast's state by device
    'torchvision',
]
onedl = [  # the maintained forks: the same modules under other distribution names
    'onedl-mmengine>=0.10.12',
    'onedl-mmcv>=2.3.6',
    'onedl-mmsegmentation>=1.4.2',
    'onedl-mmpretrain>=1.3.6',
    'torch>=2.4',  # autocast's state by device
    'torchvision',
]

setup(
    name='mmseg_polyhistor',
    version=version(),
    description='Polyhistor for MMSegmentation: parameter-efficient multi-task adaptation of a frozen Swin',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['mmseg_polyhistor', 'mmseg_polyhistor.*']),
    package_data={'mmseg_polyhistor.datasets': ['*.txt']},
    include_package_data=False,
    python_requires='>=3.10',
    install_requires=['numpy', 'packaging', 'pillow', 'scipy'],
    extras_require={
        'openmmlab': openmmlab,
        'onedl': onedl,
        'timm': ['timm>=1.0'],  # AdaptedPVTv2
        'test': ['hypothesis', 'pytest', 'pytest-xdist', 'ruff', 'safetensors'],
        'export': ['onnx', 'onnxruntime', 'onnxscript'],
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
