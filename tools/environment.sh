# Sourced by quickstart.sh and run_tests.sh: a virtual environment with everything installed.
#
#   prepare_environment EXTRAS [FOLDER]   creates FOLDER (.venv) where it is missing, installs the package with the extras
#                                         (only when something changed since the last time), and sets PYTHON to its
#                                         interpreter.
#
# POLYHISTOR_NO_VENV  if set, the interpreter in use is taken as it is: nothing is created or installed
# POLYHISTOR_PYTHON   the interpreter to build the environment from (default: the first of python3.12, 3.11, 3.10, python3 that fits)
# POLYHISTOR_PIP_ARGS further arguments for pip, e.g. an index with torch's small CPU wheels

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

die() { printf '%s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${POLYHISTOR_PYTHON:+"$POLYHISTOR_PYTHON"} python3.12 python3.11 python3.10 python3; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "No Python 3.10, 3.11 or 3.12 was found. Install one, or name it: POLYHISTOR_PYTHON=/path/to/python bash $0"
}

prepare_environment() {
    local extras="$1" venv="$ROOT/${2:-.venv}" stamp want base
    if [ -n "${POLYHISTOR_NO_VENV:-}" ]; then
        PYTHON="${POLYHISTOR_PYTHON:-python}"
        return
    fi
    PYTHON="$venv/bin/python"
    if ! "$PYTHON" -c '' 2>/dev/null; then
        base="$(find_python)" || exit 1
        printf 'Making a virtual environment in %s from %s\n' "$venv" "$base"
        rm -rf "$venv"
        "$base" -m venv "$venv" || die "python -m venv failed. On Debian and Ubuntu: apt-get install python3-venv"
    fi
    stamp="$venv/.installed-${extras//,/-}"
    want="$(cat "$ROOT/setup.py" "$ROOT/tools/constraints.txt" "$ROOT/tools/environment.sh" | cksum) $ROOT"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        printf 'Installing mmseg_polyhistor[%s]; torch makes this a download of some size\n' "$extras"
        # shellcheck disable=SC2086  (several arguments are meant)
        "$PYTHON" -m pip install --quiet --disable-pip-version-check ${POLYHISTOR_PIP_ARGS:-} \
            --constraint "$ROOT/tools/constraints.txt" --editable "$ROOT[$extras]" \
            || die "pip could not install the package; its message above says why. Run the command again after mending it."
        if ! "$PYTHON" -c 'import cv2' 2>/dev/null; then
            # opencv's desktop build needs libGL, which a server or container lacks
            printf 'opencv cannot load here (no libGL?): taking its headless build instead\n'
            "$PYTHON" -m pip uninstall --quiet --yes opencv-python
            # shellcheck disable=SC2086
            "$PYTHON" -m pip install --quiet --disable-pip-version-check ${POLYHISTOR_PIP_ARGS:-} opencv-python-headless
        fi
        "$PYTHON" -c 'import mmseg_polyhistor' || die "The stack was installed but does not load; the message above says why."
        printf '%s' "$want" > "$stamp"
    fi
}
