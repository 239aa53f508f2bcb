#!/usr/bin/env bash
# Rebuild every figure and table:  ./run_all.sh [--profile smoke|quick|paper] [--only 11,13] [--list] [--help]
# Check everything:                ./run_all.sh test
# The first start makes .venv with the pinned versions; an active conda environment that has the package is used as it is.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$root/.venv"

fail() { echo "error: $1" >&2; exit 2; }

find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python >= 3.11 with venv on the PATH; install one, such as python3.12 and python3.12-venv, and start again"
}

# has_modules PYTHON MODULE... : -P keeps this folder from counting as an installed package
has_modules() {
    "$1" -P -c 'import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, sys.argv[1:])))' "${@:2}" 2>/dev/null
}

fingerprint() { # of what is installed with the given extras
    "$1" -c 'import hashlib, sys; d = b"".join(open(f, "rb").read() for f in sys.argv[2:])
print(sys.argv[1], hashlib.sha256(d + sys.version.encode()).hexdigest())' \
        "$2" "$root/pyproject.toml" "$root/constraints.txt"
}

install() { # install EXTRA: once per version of the pins; "ready" is missing while an installation is under way
    local python="$venv/bin/python" quiet=--quiet stamp base
    if [ -f "$venv/ready" ] && stamp="$(fingerprint "$python" "$1" 2>/dev/null)"; then
        if grep -qxF "$stamp" "$venv/ready"; then return; fi
    else
        base="$(find_python)"
        echo "making $venv with $("$base" --version)"
        "$base" -m venv --clear "$venv"
    fi
    rm -f "$venv/ready"
    if [ -t 1 ]; then quiet=; fi # on a terminal pip shows its progress
    echo "installing the pinned versions (once; about 2 GB and some minutes)"
    "$python" -m pip install --disable-pip-version-check $quiet -c "$root/constraints.txt" -e "$root[$1]" \
        || fail "the installation failed (see above); check the network and start again"
    { fingerprint "$python" bench; [ "$1" = bench ] || fingerprint "$python" "$1"; } > "$venv/ready"
}

export SNNLIB_HOME="$root" MPLBACKEND=agg PYTHONHASHSEED=0
# glibc: keep freed blocks inside the process (snnlib/runtime.py says why)
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=67108864

extra=bench modules="snnlib papermill spikingjelly norse"
if [ "${1:-}" = test ]; then extra=test modules="$modules pytest nbval hypothesis ruff"; fi
if [ -n "${CONDA_PREFIX:-}" ] && has_modules "$CONDA_PREFIX/bin/python" $modules; then
    python="$CONDA_PREFIX/bin/python"
else
    install "$extra"
    python="$venv/bin/python"
fi

if [ "$extra" = bench ]; then exec "$python" -P -m snnlib.run "$@"; fi
[ $# = 1 ] || fail "'test' takes no further arguments, got: ${*:2}"

cd "$root"
step() { echo "== $1"; shift; "$@" || { echo "FAILED: $*" >&2; exit 1; }; }
step "style" "$python" -m ruff check .
step "notebooks at profile smoke" "$python" -P -m snnlib.run --profile smoke
step "unit, property and parity tests" "$python" -m pytest
export JUPYTER_PATH="$root/artifacts/smoke/jupyter" SNNLIB_PROGRESS=off
step "notebooks again, cell by cell" "$python" -m pytest -q --nbval-lax --nbval-cell-timeout=600 artifacts/smoke/notebooks
echo "all checks passed"
