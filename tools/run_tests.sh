#!/usr/bin/env bash
# Install what is missing into .venv, check the style and run all tests. Arguments go to pytest:
#
#   bash tools/run_tests.sh                      everything
#   bash tools/run_tests.sh tests/adapters -x    one folder, stop at the first failure
#   bash tools/run_tests.sh -m 'not integration' without the tests that run the tools as subprocesses
#   bash tools/run_tests.sh --stack onedl        on the maintained forks of OpenMMLab, installed into .venv-onedl
#
# The last runs the tests that the versions of the stack matter to (training, resuming, loading, mmseg's own tools); with
# further arguments, those that they name.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
forks=
if [ "${1:-}" = --stack ]; then
    [ "${2:-}" = onedl ] || die "--stack takes 'onedl', got '${2:-}'; without it, the official releases are taken"
    forks=yes
    shift 2
fi
if [ $# -eq 0 ]; then
    set -- -n "$(nproc 2>/dev/null || echo 2)" --dist loadscope ${forks:+-m stack}
fi
if [ -n "$forks" ]; then
    prepare_environment onedl,test .venv-onedl
    "$PYTHON" -c 'from importlib.metadata import version; print("onedl-mmengine", version("onedl-mmengine"))' \
        || die "$PYTHON has not the forks (POLYHISTOR_NO_VENV takes it as it is): pip install -e '.[onedl,test]'"
else
    prepare_environment openmmlab,test,export,timm
fi
cd "$ROOT"
export OMP_NUM_THREADS=1
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"
