"""Process settings: allocator, threads, determinism, device.

Importing the library changes none of them. `apply_process_settings()` does; the command lines, the sizes of a profile
and `make_deterministic` call it.

**Allocator.** glibc serves large blocks with `mmap` and hands them back to the kernel on `free`. A PyTorch tensor
of a few megabytes is therefore faulted in page by page each time an operation allocates its result, and on a CPU
that costs more than the arithmetic. Raising the mmap and trim thresholds keeps freed blocks inside the process, so
that the next step finds warm pages. `allocation_cost()` measures the effect; `SNNLIB_KEEP_MALLOC=1` leaves glibc alone.

**Threads.** Exactly two, on every machine, unless `SNNLIB_THREADS` or `OMP_NUM_THREADS` asks for another count. The
order of a sum depends on the count, spikes amplify its rounding, and trained networks then differ: the same bytes need
the same count, PyTorch version and kind of processor. The count is no part of a result's name: what another count made
is reused, and says by which it was made. Idle threads go to sleep soon (`GOMP_SPINCOUNT`, unless it or
`OMP_WAIT_POLICY` is set): GNU OpenMP's threads otherwise spin for about a millisecond, and two busy processes on two
cores then slow each other down many times over.

**CUDA.** TensorFloat-32 is off, in convolutions too, where PyTorch has it on: its 10 bits of mantissa move a membrane
across its threshold. cuBLAS gets the workspace that its deterministic mode asks for; it is read when CUDA starts.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from snnlib.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

THREADS = 2
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
    """Threads for this process: `SNNLIB_THREADS`, else `OMP_NUM_THREADS`, else `THREADS` on every machine."""
    for variable in ("SNNLIB_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable)
        if text:
            if not text.isdecimal() or int(text) < 1:
                raise InputError(f"{variable} is {text!r}; expected a whole number of at least 1; unset it or use 1")
            return int(text)
    return THREADS


def let_idle_threads_sleep() -> None:
    """Has an effect before PyTorch is imported: its OpenMP library reads the variables once, when it is loaded."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS_BEFORE_SLEEP)


def set_environment() -> None:
    """What PyTorch reads from the environment when it is loaded, here or in a process that this one starts.

    Errors: InputError for a thread count in the environment that is none.
    """
    thread_count()
    let_idle_threads_sleep()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def apply_process_settings() -> ProcessSettings:
    """Apply allocator, thread and CUDA settings once, before CUDA is used; later calls return what was done.

    Errors: InputError for a thread count in the environment that is none.
    """
    global _applied
    if _applied is None:
        set_environment()
        import torch

        threads = thread_count()
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
        _applied = ProcessSettings(allocator=keep_freed_memory(), threads=threads)
    return _applied


def make_deterministic(seed: int) -> None:
    """Apply the process settings, seed Python's, NumPy's and PyTorch's global generators and refuse operations that
    are not deterministic.
    """
    import random

    import numpy as np
    import torch

    apply_process_settings()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def default_device() -> str:
    """`SNNLIB_DEVICE` ("cpu", "cuda", "cuda:1", "mps") if set, else "cuda" where a CUDA device answers, else "cpu".

    Never "mps" by itself: Metal knows no float64, and not every operation in a fixed order.
    """
    import torch

    wanted = os.environ.get("SNNLIB_DEVICE")
    if wanted:
        return check_device("SNNLIB_DEVICE", wanted)
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str, wanted: str) -> str:
    """Return `wanted`. name: of the variable or option that asks. Errors: InputError unless the device is here."""
    import torch

    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,3})?", wanted):
        raise InputError(f"{name} is {wanted!r}; expected cpu, cuda, cuda:1 or mps; leave it out to choose by itself")
    kind, _, index = wanted.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"{name} is 'mps' but PyTorch sees no Metal device; leave it out or use cpu")
    devices = torch.cuda.device_count() if kind == "cuda" and torch.cuda.is_available() else 0
    if kind == "cuda" and int(index or 0) >= devices:
        raise InputError(f"{name} is {wanted!r} but PyTorch sees {devices} CUDA devices; leave it out or use cpu")
    return wanted


def sent(values: Tensor, device: torch.device | str) -> Tensor:
    """`values`, of the CPU, on `device`; where that is CUDA the host does not wait until they are there."""
    import torch

    if torch.device(device).type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    # On Metal a copy that nobody waits for may read memory that was given to something else since.
    return values.to(device, non_blocking=torch.device(device).type != "mps")


def reading(values: Tensor) -> Callable[[], list]:
    """Begin to read `values` of a device; returns what gives them as `tolist` does.

    Where that is CUDA, the answer waits for what the device was given before, not for what it is given afterwards.
    """
    import torch

    if values.device.type != "cuda":
        return values.tolist
    there = values.to("cpu", non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(values.device))

    def numbers() -> list:
        arrived.synchronize()
        return there.tolist()

    return numbers


def running_sum(values: Tensor) -> Tensor:
    """`values.cumsum(0)` as a CPU takes it, in float64 where the device has it; CUDA's own has no fixed order."""
    import torch

    wide = values if values.device.type == "mps" else values.double()
    return torch.stack(list(accumulate(wide.unbind(0)))).to(values.dtype)


def describe_device(device: str | torch.device | None = None) -> str:
    """One line that names the hardware which made a result, for manifests and tables."""
    import torch

    device = str(device or default_device())
    if device.startswith("cuda"):
        return f"{device}: {torch.cuda.get_device_name(device)}"
    threads = f", {apply_process_settings().threads} threads" if device == "cpu" else ""
    return f"{device}: {platform.machine()}{threads}"


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
        [sys.executable, "-c", "import snnlib.runtime as r; r.apply_process_settings(); print(r.allocation_cost())"],
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
