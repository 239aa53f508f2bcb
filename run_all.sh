#!/usr/bin/env bash
# Rebuild every figure and table:  ./run_all.sh [--profile smoke|quick|night|paper] [--only 11,13] [--list] [--help]
# Check everything:                ./run_all.sh test
# Build the site to read:          ./run_all.sh docs
# Networks and rows by many:       ./run_all.sh sweep --help
# The first start makes .venv with the pinned versions; an active conda environment that has the package is used as it is.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$root/.venv"

fail() { echo "error: $1" >&2; exit 2; }

find_python() { # find_python MODULES: that has them too, such as "venv, ensurepip"
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if "$candidate" -c "import sys, $1; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
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

fingerprint() { # of what an installation of the given kind, run, docs or test, consists of
    "$venv/bin/python" -c 'import hashlib, sys; d = b"".join(open(f, "rb").read() for f in sys.argv[2:])
print(sys.argv[1], hashlib.sha256(d + (sys.version + sys.prefix).encode()).hexdigest())' \
        "$1" "$root/pyproject.toml" "$root/constraints.txt" 2>/dev/null
}

is_installed() { [ -f "$venv/ready" ] && grep -qxF "$(fingerprint "$1")" "$venv/ready"; }

install() { # install KIND EXTRAS, once per version of the pins; no "ready" means that an installation did not end
    local base quiet=--quiet kept
    if is_installed "$1"; then return; fi
    base="$(find_python "venv, ensurepip")"
    # Else pip's exit code would be taken for a network that failed.
    trap 'echo >&2; echo "interrupted; the next start installs what is missing" >&2; exit 130' INT
    # pip inherits descriptor 9 and with it the lock: a pip that outlives a killed start is waited for.
    exec 9> "$root/.venv.lock"
    "$base" -c 'import fcntl, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); fcntl.flock(9, fcntl.LOCK_EX)'
    if ! is_installed "$1"; then
        if [ ! -f "$venv/ready" ] || [ -z "$(fingerprint "$1")" ]; then
            echo "making $venv with $("$base" --version)"
            "$base" -m venv --clear "$venv"
        fi
        kept="$(grep -F "$(fingerprint run | cut -d' ' -f2)" "$venv/ready" 2>/dev/null || true)" # of the same pins
        rm -f "$venv/ready"
        echo "installing the pinned versions (once; about 2 GB and some minutes)"
        if [ -t 1 ]; then quiet=; fi # on a terminal pip shows its progress
        "$venv/bin/python" -m pip install --disable-pip-version-check $quiet \
            -c "$root/constraints.txt" -e "$root[$2]" \
            || fail "the installation failed (see above); check the network and start again"
        printf '%s\n' "$kept" "$(fingerprint run)" "$(fingerprint "$1")" > "$venv/ready.part"
        mv "$venv/ready.part" "$venv/ready"
    fi
    exec 9>&-
    trap - INT
}

# Each extra's packages, for an environment that this script did not make.
modules="snnlib torchvision scipy seaborn jinja2 papermill ipykernel jupyterlab pyarrow snntorch statsmodels"
modules="$modules spikingjelly norse"
kind=run extras=companion,bench,nir
if [ "${1:-}" = test ]; then
    kind=test extras=test modules="$modules pytest xdist nbval hypothesis pyautoattack ruff setuptools"
fi
if [ "${1:-}" = docs ]; then kind=docs extras=$extras,docs modules="$modules myst_nb sphinx sphinx_book_theme"; fi
python="${CONDA_PREFIX:-}/bin/python"
if [ -z "${CONDA_PREFIX:-}" ] || ! has_modules "$python" $modules; then python=""; fi

asked() { local word; for word in "${@:2}"; do [ "$word" != "$1" ] || return 0; done; return 1; }
before_install() { # what can be said without any package
    local base
    base="$(find_python fcntl)" || { sed -n '2,6s/^# //p' "$0"; exit 2; }
    export PYTHONPATH="$root" PYTHONDONTWRITEBYTECODE=1
    unset SNNLIB_HOME
    exec "$base" -m snnlib.companion.runner.options "$@"
}
if [ "${1:-}" != sweep ] && { asked --help "$@" || asked -h "$@"; }; then before_install --help; fi
if asked --list "$@" && [ -z "$python" ] && ! is_installed "$kind"; then before_install "$@"; fi

export SNNLIB_HOME="$root" MPLBACKEND=agg PYTHONHASHSEED=0
# glibc: keep freed blocks inside the process (snnlib/runtime.py says why)
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=67108864

if [ "$kind" != run ] && [ $# != 1 ]; then fail "'$1' takes no further arguments, got: ${*:2}"; fi
if [ -z "$python" ]; then
    install "$kind" "$extras"
    python="$venv/bin/python"
fi

if [ "${1:-}" = sweep ]; then exec "$python" -P -m snnlib.companion.runner.work "${@:2}"; fi
if [ "$kind" = docs ]; then exec "$python" "$root/docs/build.py"; fi
if [ "$kind" = run ]; then
    # Two notebooks with a thread each take less time than one with two; night and paper are for a GPU.
    if [ "$(getconf _NPROCESSORS_ONLN)" -gt 1 ] && [[ ! "$*" =~ --dry-run|night|paper ]]; then
        set -- --at-once 2 "$@"
        export SNNLIB_THREADS="${SNNLIB_THREADS:-1}"
    fi
    exec "$python" -P -m snnlib.companion.runner "$@"
fi

cd "$root"
step() { echo "== $1"; shift; "$@" || { echo "FAILED: $*" >&2; exit 1; }; }
step "style" "$python" -m ruff check --output-format=concise .
# One worker per core, one thread each: two with two threads each would wait for each other most of the time.
export OMP_NUM_THREADS=1 SNNLIB_THREADS=1
smoke=("$python" -P -m snnlib.companion.runner --profile smoke --at-once 2)
step "notebooks of the neuron, of training and of speed at profile smoke" "${smoke[@]}" --only 01,10,40
export SNNLIB_KERNEL=reference # compiling takes longer than all that the others compute
step "notebooks at profile smoke" "${smoke[@]}"
unset SNNLIB_KERNEL
# One more than cores, as some tests wait for processes; in the order of the folders, whose last files are short.
workers=(-n $(($(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses=8 --dist loadscope --no-loadscope-reorder)
step "unit, property and parity tests" "$python" -m pytest "${workers[@]}" -p no:nbval
export JUPYTER_PATH="$root/artifacts/smoke/jupyter/00" # the kernel that the smoke run declared
export SNNLIB_KERNEL=reference # what is stored is read, and what runs live runs by the plain loop this time
around=("$python" -P -m snnlib.companion.runner.warm_kernels around) # all start with the same imports
step "notebooks again, cell by cell" "${around[@]}" "$python" -m pytest -q "${workers[@]}" \
    -p no:hypothesispytest --nbval-lax --nbval-kernel-startup-timeout=600 --nbval-cell-timeout=600 artifacts/smoke/notebooks
echo "all checks passed"
