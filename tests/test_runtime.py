"""Process settings: threads, allocator, device, determinism."""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from snnlib import runtime
from snnlib.errors import InputError

GLIBC = platform.libc_ver()[0] == "glibc"
FAULTS = """
import resource
from snnlib import runtime
print(runtime.apply_process_settings().allocator)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * (64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(sum(faults() for _ in range(4)))
"""


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of ours set, settings not applied yet; the thread count comes back."""
    for name in ("SNNLIB_THREADS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "SNNLIB_DEVICE", "SNNLIB_KEEP_MALLOC"):
        monkeypatch.setenv(name, "")  # so that a value set inside is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(runtime, "_applied", None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def own_precision(untouched, monkeypatch) -> Iterator[None]:
    """What `apply_process_settings` sets for CUDA comes back."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.mark.parametrize(
    "environment, threads",
    [
        ({"SNNLIB_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "2"}, 2),
        ({"SNNLIB_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3),
        ({"SNNLIB_THREADS": "", "OMP_NUM_THREADS": "2"}, 2),
    ],
)
def test_threads_come_from_the_environment(untouched, monkeypatch, environment, threads):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert runtime.thread_count() == threads


@pytest.mark.parametrize("cores", [1, 64])
def test_threads_are_two_on_every_machine_when_nothing_is_set(untouched, monkeypatch, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert runtime.thread_count() == 2


@pytest.mark.parametrize("name", ["SNNLIB_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize("value", ["0", "-1", "2.5", "abc", " ", "²"])
def test_one_line_error_when_the_thread_count_is_not_one(untouched, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{name} is '{value}'; expected a whole number of at least 1") as error:
        runtime.thread_count()
    assert "\n" not in str(error.value)


def test_settings_are_applied_once(untouched, monkeypatch):
    calls = []
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: calls.append("allocator") or "tuned")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: calls.append(count))
    monkeypatch.setenv("SNNLIB_THREADS", "3")
    first = runtime.apply_process_settings()
    monkeypatch.setenv("SNNLIB_THREADS", "4")
    assert runtime.apply_process_settings() is first
    assert first == runtime.ProcessSettings(allocator="tuned", threads=3)
    assert sorted(map(str, calls)) == ["3", "allocator"]


def test_cuda_computes_in_full_precision_and_with_a_fixed_workspace_when_applied(own_precision):
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    runtime.apply_process_settings()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_own_workspace_stays_when_applied(own_precision, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    runtime.apply_process_settings()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize("own, spins", [(None, runtime.SPINS_BEFORE_SLEEP), ("active", None)])
def test_idle_threads_sleep_soon_unless_the_environment_says_otherwise(untouched, monkeypatch, own, spins):
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: "tuned")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    runtime.apply_process_settings()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


@pytest.mark.parametrize(
    "answers, said",
    [
        ((1, 1), "tuned"),
        ((0, 1), "tuned (mmap threshold only)"),
        ((1, 0, 1), "tuned (mmap threshold 32 MiB)"),
        ((1, 0, 0), "default (glibc refused mallopt)"),
    ],
)
def test_glibc_is_told_both_thresholds(untouched, monkeypatch, answers, said):
    asked, replies = [], iter(answers)

    class Libc:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            asked.append((parameter, value))
            return next(replies)

    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: Libc)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert runtime.keep_freed_memory() == said
    wanted = [(-1, (1 << 31) - 1), (-3, 1 << 30), (-3, 1 << 25)]
    assert asked == wanted[: len(answers)], "M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h"


@pytest.mark.parametrize("libc", ["", "musl"])
def test_allocator_is_left_alone_when_there_is_no_glibc(untouched, monkeypatch, libc):
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: pytest.fail("the C library was opened"))
    assert runtime.keep_freed_memory() == "default (not glibc)"


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_freed_memory_is_kept_unless_the_environment_says_no():
    answers = {}
    for keep in ("", "1"):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        answer = subprocess.run(
            [sys.executable, "-c", FAULTS],
            env=environment | {"SNNLIB_KEEP_MALLOC": keep, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        )
        allocator, faults = answer.stdout.split("\n")[:2]
        answers[allocator] = int(faults)
    tuned, default = answers["tuned"], answers["default (SNNLIB_KEEP_MALLOC=1)"]
    assert default >= 4 * 32, "64 MiB anew each time, in pages of 2 MiB at most"
    assert tuned < default / 4


@pytest.fixture
def hardware(monkeypatch) -> Callable[[int, bool], None]:
    """A function that pretends how many CUDA devices, and whether Metal, are here."""

    def pretend(cuda: int, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card of {device}")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    "wanted, cuda, device",
    [
        (None, 0, "cpu"),
        (None, 1, "cuda"),
        ("", 1, "cuda"),
        ("cpu", 1, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
        ("mps", 0, "mps"),
    ],
)
def test_device_is_the_wanted_one_or_the_best(untouched, monkeypatch, hardware, wanted, cuda, device):
    hardware(cuda, mps=True)
    if wanted is not None:
        monkeypatch.setenv("SNNLIB_DEVICE", wanted)
    assert runtime.default_device() == device
    assert torch.device(device)


@pytest.mark.parametrize(
    "wanted, message",
    [
        ("gpu", "SNNLIB_DEVICE is 'gpu'; expected cpu, cuda, cuda:1 or mps"),
        ("cuda:x", "SNNLIB_DEVICE is 'cuda:x'; expected cpu"),
        ("cuda", "SNNLIB_DEVICE is 'cuda' but PyTorch sees 0 CUDA devices"),
        ("mps", "SNNLIB_DEVICE is 'mps' but PyTorch sees no Metal device"),
    ],
)
def test_one_line_error_when_the_device_is_not_there(untouched, monkeypatch, hardware, wanted, message):
    hardware(0, mps=False)
    monkeypatch.setenv("SNNLIB_DEVICE", wanted)
    with pytest.raises(InputError, match=message) as error:
        runtime.default_device()
    assert "\n" not in str(error.value)


def test_a_card_beyond_those_here_is_refused(untouched, hardware):
    hardware(2, mps=False)
    with pytest.raises(InputError, match="--device is 'cuda:2' but PyTorch sees 2 CUDA devices"):
        runtime.check_device("--device", "cuda:2")


def test_device_is_described_by_its_name_and_the_hardware(untouched, monkeypatch, hardware):
    hardware(2, mps=True)
    monkeypatch.setattr(runtime, "_applied", runtime.ProcessSettings(allocator="tuned", threads=7))
    assert runtime.describe_device() == "cuda: card of cuda"
    assert runtime.describe_device(torch.device("cuda:1")) == "cuda:1: card of cuda:1"
    assert runtime.describe_device("mps") == f"mps: {platform.machine()}"
    assert runtime.describe_device("cpu") == f"cpu: {platform.machine()}, 7 threads"


@pytest.fixture
def own_determinism() -> Iterator[None]:
    """What `make_deterministic` sets for the whole process comes back."""
    strict, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    torch.use_deterministic_algorithms(strict)
    torch.backends.cudnn.benchmark = benchmark
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])


def test_draws_are_equal_when_made_deterministic(own_determinism):
    def draws(seed: int) -> tuple[float, float, float]:
        runtime.make_deterministic(seed)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first, other = draws(3), draws(4)
    assert draws(3) == first
    assert all(one != two for one, two in zip(first, other, strict=True))
    assert draws(2**32 + 3)[1] == first[1], "NumPy takes 32 bits"


def test_operations_without_a_fixed_order_are_refused_when_made_deterministic(own_determinism):
    runtime.make_deterministic(0)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_process_settings_are_part_of_being_deterministic(own_determinism, own_precision):
    runtime.make_deterministic(0)
    assert runtime._applied is not None
    assert torch.get_num_threads() == runtime.THREADS


def test_environment_is_summarised_in_strings(untouched, monkeypatch):
    monkeypatch.setattr(runtime, "_applied", runtime.ProcessSettings(allocator="tuned", threads=7))
    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    summary = runtime.environment_summary()
    assert list(summary) == ["python", "torch", "numpy", "device", "threads", "allocator"]
    assert all(isinstance(value, str) for value in summary.values())
    assert (summary["torch"], summary["numpy"]) == (torch.__version__, np.__version__)
    assert (summary["threads"], summary["allocator"]) == ("7", "tuned")
    assert summary["device"] == f"cpu: {platform.machine()}, 7 threads"


def test_allocation_cost_is_the_median_in_milliseconds(monkeypatch):
    clock = iter([0.0, 0.001, 0.0, 0.5, 0.0, 0.002])
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: next(clock))
    assert runtime.allocation_cost(megabytes=1, repeats=3) == 2.0


def test_default_allocator_is_measured_in_a_process_that_keeps_it(monkeypatch):
    def run(command, *, env, **_):
        assert env["SNNLIB_KEEP_MALLOC"] == "1" and "MALLOC_TRIM_THRESHOLD_" not in env
        return subprocess.CompletedProcess(command, 0, stdout="12.5\n")

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setattr(runtime.subprocess, "run", run)
    assert runtime.allocation_cost_by_default() == 12.5
