"""Process settings: allocator, threads, determinism.

**Allocator.** glibc serves large blocks with `mmap` and hands them back to the kernel on `free`. A PyTorch tensor
of a few megabytes is therefore faulted in page by page each time an operation allocates its result, and on a CPU
that costs more than the arithmetic. Raising the mmap and trim thresholds keeps freed blocks inside the process, so
that the next step finds warm pages. `allocation_cost()` measures the effect; `SNNLIB_KEEP_MALLOC=1` leaves glibc alone.

**Threads.** One OpenMP thread per core that this process may use. The count is part of a result's identity (the
order of a sum depends on it), so it is fixed once, by `SNNLIB_THREADS`, `OMP_NUM_THREADS` or the cores at hand. It is
no part of an artifact's name: what another machine made is reused, and rows and manifest say which device made it.
Idle threads go to sleep soon (`GOMP_SPINCOUNT`, unless it or `OMP_WAIT_POLICY` is set): GNU OpenMP's threads otherwise
spin for about a millisecond, and two busy processes on two cores then slow each other down many times over.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from snnlib.errors import InputError

M_TRIM_THRESHOLD = -1  # glibc <malloc.h>
M_MMAP_THRESHOLD = -3
MMAP_THRESHOLD_BYTES = 1 << 30
OLD_GLIBC_MMAP_THRESHOLD_BYTES = 1 << 25  # the most that older versions accept
SPINS_BEFORE_SLEEP = "20000"
TRIM_THRESHOLD_BYTES = (1 << 31) - 1  # mallopt takes a C int


@dataclass(frozen=True)
class ProcessSettings:
    """What `apply_process_settings` did in this process."""

    allocator: str
    threads: int


_applied: ProcessSettings | None = None


def keep_freed_memory() -> str:
    """Tell glibc to keep freed blocks; returns "tuned", or why the allocator was left alone."""
    if os.environ.get("SNNLIB_KEEP_MALLOC") == "1":
        return "default (SNNLIB_KEEP_MALLOC=1)"
    if platform.libc_ver()[0] != "glibc":
        return "default (not glibc)"
    libc = ctypes.CDLL(None)
    trims_late = libc.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    if libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES):
        return "tuned" if trims_late else "tuned (mmap threshold only)"
    if libc.mallopt(M_MMAP_THRESHOLD, OLD_GLIBC_MMAP_THRESHOLD_BYTES):
        return "tuned (mmap threshold 32 MiB)"
    return "default (glibc refused mallopt)"


def thread_count() -> int:
    """Threads for this process: `SNNLIB_THREADS`, else `OMP_NUM_THREADS`, else the cores that it may run on."""
    for variable in ("SNNLIB_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable)
        if text:
            if not text.isdecimal() or int(text) < 1:
                raise InputError(f"{variable} is {text!r}; expected a whole number of at least 1; unset it or use 1")
            return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def apply_process_settings() -> ProcessSettings:
    """Apply allocator and thread settings once; later calls return what was done."""
    global _applied
    if _applied is None:
        if "OMP_WAIT_POLICY" not in os.environ:  # both are read once, when the OpenMP library is loaded
            os.environ.setdefault("GOMP_SPINCOUNT", SPINS_BEFORE_SLEEP)
        import torch

        threads = thread_count()
        torch.set_num_threads(threads)
        _applied = ProcessSettings(allocator=keep_freed_memory(), threads=threads)
    return _applied


def make_deterministic(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators and refuse operations that are not deterministic."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def default_device() -> str:
    """`SNNLIB_DEVICE` if set, else "cuda" where a CUDA device answers, else "cpu"."""
    import torch

    wanted = os.environ.get("SNNLIB_DEVICE")
    if wanted not in (None, "", "cpu", "cuda"):
        raise InputError(f"SNNLIB_DEVICE is {wanted!r}; expected 'cpu' or 'cuda'; unset it to choose automatically")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("SNNLIB_DEVICE is 'cuda' but PyTorch sees no CUDA device; unset it or set it to 'cpu'")
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def describe_device(device: str | None = None) -> str:
    """One line that names the hardware which made a result, for manifests and tables."""
    import torch

    if (device or default_device()) == "cuda":
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu: {platform.machine()}, {apply_process_settings().threads} threads"


def allocation_cost(megabytes: int = 64, repeats: int = 7) -> float:
    """Median milliseconds to allocate and fill a float32 tensor; shows page-faulting when compared across settings.

    Warms up first: while the heap still grows, every setting faults.
    """
    import torch

    seconds = []
    for _ in range(10):
        torch.ones(megabytes * (1 << 18))
    for _ in range(repeats):
        start = time.perf_counter()
        torch.ones(megabytes * (1 << 18))
        seconds.append(time.perf_counter() - start)
    return 1e3 * sorted(seconds)[repeats // 2]


def allocation_cost_by_default() -> float:
    """`allocation_cost` in a fresh process that leaves glibc's allocator alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    answer = subprocess.run(
        [sys.executable, "-c", "from snnlib import runtime; print(runtime.allocation_cost())"],
        env={**environment, "SNNLIB_KEEP_MALLOC": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(answer.stdout)


def environment_summary() -> dict[str, str]:
    """Versions and settings of this process, in the order in which notebook 00 shows them."""
    import numpy
    import torch

    settings = asdict(apply_process_settings())
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": describe_device(),
        "threads": str(settings["threads"]),
        "allocator": settings["allocator"],
    }
