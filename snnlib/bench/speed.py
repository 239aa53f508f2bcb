"""`python -m snnlib.bench`: the neuron and a training step against peers, in one run with one set of process settings.

Contenders take turns, round by round, so that a slow moment of the machine hits all of them. `best_ms` is the fastest
round and the basis of every ratio; `median_ms` shows how noisy the machine was. The floor is the time that moving the
unavoidable bytes would take at this machine's copy bandwidth, measured in the same run.
"""

from __future__ import annotations

import argparse
import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

from snnlib.bench.contenders import LIF_CONTENDERS, STEP_CONTENDERS
from snnlib.commands import OneLineParser, exit_code
from snnlib.errors import InputError
from snnlib.runtime import apply_process_settings, check_device, default_device, describe_device

LIF_SHAPES = ((4, 64, 32, 32, 32), (8, 32, 32, 32, 32), (10, 16, 64, 32, 32))
SMALL_LIF_SHAPES = ((4, 4, 8, 16, 16),)
STEP = {"time_steps": 10, "batch": 32}
STEP_WARM_UP = 8
"""Steps until the heap has stopped growing: before, page faults are timed and not the step."""
SMALL_STEP = {"time_steps": 2, "batch": 2}
TENSORS_MOVED = 5
"""Forward reads the currents and writes the spikes; backward reads both gradient and currents and writes a gradient."""


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def milliseconds(
    runs: dict[str, Callable[[], object]], rounds: int, device: str, warm_up: int = 2
) -> dict[str, list[float]]:
    """Milliseconds of every round of every run; all take turns, in the rounds of warm-up too."""
    for _ in range(warm_up):
        for run in runs.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            _finish(device)
            start = time.perf_counter()
            run()
            _finish(device)
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def copy_bandwidth(device: str, rounds: int = 9, size: int = 1 << 25) -> float:
    """Bytes per second of a float32 copy too large for the caches, counting what is read and what is written."""
    source = torch.ones(size, device=device)
    target = torch.empty_like(source)
    best = min(milliseconds({"copy": lambda: target.copy_(source)}, rounds, device)["copy"])
    return 2 * 4 * size / (best / 1e3)


def saved_bytes(run: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps alive for the backward pass of `run`, each storage once."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = run()
    del output
    return sum(storages.values())


def bench_lif(shapes: tuple[tuple[int, ...], ...], rounds: int, device: str) -> pd.DataFrame:
    """Forward and backward of one spiking layer, float32: one row per shape and contender, the floor among them."""
    bandwidth = copy_bandwidth(device)
    rows = [row for shape in shapes for row in _lif_rows(shape, rounds, device, bandwidth)]
    return pd.DataFrame(rows).assign(rounds=rounds)


def _lif_rows(shape: tuple[int, ...], rounds: int, device: str, bandwidth: float) -> list[dict]:
    work = "LIF forward+backward"
    currents = (0.6 * torch.rand(shape, device=device)).requires_grad_()
    upstream = torch.randn(shape, device=device)
    layers = {name: make(device) for name, make in LIF_CONTENDERS.items()}

    def both(layer: Callable) -> None:
        currents.grad = None
        layer(currents).backward(upstream)

    times = milliseconds({name: partial(both, layer) for name, layer in layers.items()}, rounds, device)
    own = min(times["snnlib"])
    rows = []
    for name, values in times.items():
        kept = saved_bytes(partial(layers[name], currents)) / currents.nbytes
        rows.append(_row(work, shape, name, values, own, kept))
    floor = 1e3 * TENSORS_MOVED * currents.nbytes / bandwidth
    return [*rows, _row(work, shape, "floor (bytes / copy bandwidth)", [floor], own, float("nan"))]


def _row(work: str, shape: tuple[int, ...], name: str, values: list[float], own: float, saved: float) -> dict:
    ordered = sorted(values)
    return {
        "work": work,
        "shape": "x".join(map(str, shape)),
        "contender": name,
        "best_ms": ordered[0],
        "median_ms": ordered[len(ordered) // 2],
        "times_snnlib": ordered[0] / own,
        "saved_in_inputs": saved,
    }


def training_step(name: str, *, time_steps: int, batch: int, device: str) -> Callable[[], None]:
    """One Adam step of SEW-ResNet-18 (width 64, 7x7 stem, max pool, IF, atan) on random bit planes, by contender."""
    torch.manual_seed(0)
    body = STEP_CONTENDERS[name]().to(device)
    encoded = (torch.rand(time_steps, batch, 3, 32, 32, device=device) > 0.5).float()
    labels = torch.randint(0, 10, (batch,), device=device)
    optimiser = torch.optim.Adam(body.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(body(encoded), labels).backward()
        optimiser.step()

    return step


def bench_step(sizes: dict[str, int], rounds: int, device: str) -> pd.DataFrame:
    """A training step against SpikingJelly's own SEW-ResNet-18, with each contender's peak memory."""
    steps = {name: training_step(name, **sizes, device=device) for name in STEP_CONTENDERS}
    times = milliseconds(steps, rounds, device, warm_up=STEP_WARM_UP)
    own = min(times["snnlib"])
    shape = (sizes["time_steps"], sizes["batch"], 3, 32, 32)
    del steps
    gc.collect()
    rows = []
    for name, values in times.items():
        row = _row("training step of SEW-ResNet-18", shape, name, values, own, float("nan"))
        rows.append({**row, "peak_mib": peak_memory(name, sizes, device)})
    return pd.DataFrame(rows).assign(rounds=rounds)


def peak_memory(name: str, sizes: dict[str, int], device: str) -> float:
    """MiB that three training steps add to a fresh process (CPU: resident set; CUDA: allocated)."""
    numbers = [f"--{key.replace('_', '-')}={value}" for key, value in sizes.items()]
    command = [sys.executable, "-m", "snnlib.bench", "--peak-memory", name, "--device", device, *numbers]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RuntimeError(f"measuring the memory of {name} failed: {answer.stderr.strip().splitlines()[-1]}")
    return float(answer.stdout.strip().splitlines()[-1])


def _peak_resident_mib() -> float:
    """Peak resident set of this process. Linux: from /proc, because getrusage counts the parent's peak across exec."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def _own_peak_memory(name: str, sizes: dict[str, int], device: str) -> float:
    step = training_step(name, **sizes, device=device)
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() / (1 << 20) if cuda else _peak_resident_mib()
    for _ in range(3):
        step()
    return (torch.cuda.max_memory_allocated() / (1 << 20) if cuda else _peak_resident_mib()) - before


def bench(rounds: int, device: str, small: bool = False) -> pd.DataFrame:
    """Everything: one table with the columns of both benchmarks, device and settings."""
    layers = bench_lif(SMALL_LIF_SHAPES if small else LIF_SHAPES, rounds, device)
    steps = bench_step(SMALL_STEP if small else STEP, rounds, device)
    settings = apply_process_settings()
    table = pd.concat([layers, steps], ignore_index=True)
    return table.assign(device=describe_device(device), allocator=settings.allocator)


def main(arguments: list[str] | None = None) -> int:
    return exit_code(lambda: run_bench(arguments))


def run_bench(arguments: list[str] | None) -> int:
    """Measure and print. Errors: InputError for an option that does not fit."""
    parser = OneLineParser(prog="python -m snnlib.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds per contender")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps; chosen automatically without it")
    parser.add_argument("--small", action="store_true", help="sizes that take seconds")
    parser.add_argument("--peak-memory", choices=sorted(STEP_CONTENDERS), help=argparse.SUPPRESS)
    for key in STEP:
        parser.add_argument(f"--{key.replace('_', '-')}", type=int, default=STEP[key], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    apply_process_settings()
    if options.rounds < 1:
        raise InputError(f"--rounds is {options.rounds}; expected at least 1; use e.g. --rounds 15")
    device = check_device("--device", options.device) if options.device else default_device()
    if options.peak_memory:
        print(_own_peak_memory(options.peak_memory, {key: getattr(options, key) for key in STEP}, device))
        return 0
    print(bench(options.rounds, device, options.small).to_string(index=False, float_format="%.3g"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
