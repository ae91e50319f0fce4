"""Train a model, with mmseg's command line: `python tools/train.py CONFIG [--work-dir DIR] [--resume] ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without installation

from mmseg_polyhistor.engine.launch import run_mmseg_tool

if __name__ == '__main__':
    run_mmseg_tool('train.py')
