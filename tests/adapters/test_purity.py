"""The adapters are pure torch and import without the OpenMMLab stack."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib.abc, sys, types

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmengine', 'mmcv', 'mmseg', 'mmpretrain', 'torchvision', 'cv2'):
            raise ImportError('the adapters imported ' + name)

sys.meta_path.insert(0, Refuse())
package = types.ModuleType('mmseg_polyhistor')  # the package without its stack check
package.__path__ = [sys.argv[1]]
sys.modules['mmseg_polyhistor'] = package
import mmseg_polyhistor.adapters as adapters
m = adapters.PolyhistorLite(layout=adapters.BackboneLayout((16, 32), (1, 1)), tasks=('a',))
assert len(m.generate(('a',))) == 2
print('pure')
"""


def test_adapters_import_nothing_but_torch(repo):
    done = subprocess.run(
        [sys.executable, '-c', CODE, str(repo / 'mmseg_polyhistor')],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == 'pure', done.stderr
