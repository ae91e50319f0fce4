"""SIGKILL at a chosen place, for a training whose config imports this module.

The environment variable `KILL` says where, as JSON: `iter` (after so many iterations of this process), or `seconds`
(processor time of the training), or `call` (`fsync`, `replace` or `remove`, of module os) with `name` (regular expression for
the file's name), which is the moment before the call, unless `bytes` (share of the file that was written) or `after`
(true) is given.
"""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

from mmengine.hooks import Hook
from mmseg.registry import HOOKS

ORDER = json.loads(os.environ.get('KILL', '{}'))


def kill() -> None:
    """The end of this process."""
    os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class KillAtIteration(Hook):
    """Kills its process after the `iter`-th iteration, before any other hook knows of it, or after `seconds`."""

    priority = 'HIGHEST'
    seen = 0

    def before_train(self, runner):
        if 'seconds' in ORDER:
            signal.signal(signal.SIGPROF, lambda *args: kill())
            signal.setitimer(signal.ITIMER_PROF, max(ORDER['seconds'], 1e-6))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen += 1
        if self.seen == ORDER.get('iter'):
            kill()


if 'call' in ORDER:
    original = getattr(os, ORDER['call'])

    def mortal(file: Any, *args: Any) -> Any:
        """The function that `call` names."""
        path = os.readlink(f'/proc/self/fd/{file}') if ORDER['call'] == 'fsync' else [file, *args][-1]
        chosen = re.fullmatch(ORDER['name'], os.path.basename(path))
        if chosen and 'bytes' in ORDER:
            os.ftruncate(file, int(ORDER['bytes'] * os.fstat(file).st_size))
        if chosen and not ORDER.get('after'):
            kill()
        result = original(file, *args)
        if chosen:
            kill()
        return result

    setattr(os, ORDER['call'], mortal)
