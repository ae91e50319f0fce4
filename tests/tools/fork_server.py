"""Runs the tools again and again, each time in a fork of one process that has the slow imports behind it.

It may be started in a mount namespace of its own, so that disks can be mounted for the tools that nobody else sees.

An order is a line of JSON on the standard input: `argv` (script and arguments), `cwd`, `environments` (a process is started
for each, with these additions) and `log` (file for all that is printed). The answer is a line with the list of the exit
statuses, negative for a signal. An order with `shell` alone runs that command, and answers its status and output.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import traceback

import matplotlib.pyplot as plt
import torch
from plain_configs import leave_configs_plain

import mmseg_polyhistor  # noqa: F401  (the slow import)


def become(argv: list[str], cwd: str, environment: dict[str, str], log: str) -> None:
    """The child: run the tool, and end."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(cwd)
    os.environ.update(environment)
    sys.argv = argv
    sys.path[0] = os.path.dirname(argv[0])
    sys.path[1:1] = filter(None, environment.get('PYTHONPATH', '').split(os.pathsep))
    status = 0
    try:
        runpy.run_path(argv[0], run_name='__main__')
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Take orders until the input ends."""
    torch.set_num_threads(1)
    leave_configs_plain()
    plt.close(plt.figure())
    print('ready', flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if 'shell' in order:
            done = subprocess.run(order['shell'], shell=True, capture_output=True, text=True)
            print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
            continue
        children = []
        for environment in order['environments']:
            children.append(os.fork())
            if children[-1] == 0:
                become(order['argv'], order['cwd'], environment, order['log'])
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), flush=True)


if __name__ == '__main__':
    main()
