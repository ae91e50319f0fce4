#!/usr/bin/env bash
# Install what is missing into .venv, check the style and run all tests. Arguments go to pytest:
#
#   bash tools/run_tests.sh                      everything
#   bash tools/run_tests.sh tests/adapters -x    one folder, stop at the first failure
#   bash tools/run_tests.sh -m 'not integration' without the tests that run the tools as subprocesses
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment openmmlab,test
cd "$ROOT"
export OMP_NUM_THREADS=1
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
if [ $# -eq 0 ]; then
    set -- -n "$(nproc 2>/dev/null || echo 2)" --dist loadscope
fi
exec "$PYTHON" -m pytest "$@"
