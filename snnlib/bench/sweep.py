"""`python -m snnlib.bench.sweep FILE.csv`: from sizes where launching decides to sizes where memory does.

Every measurement runs its contender so often in a row that a round takes some milliseconds, and only then waits for the
device: what counts is the rate at which work is done. Contenders take turns; each row has the median and the best
round. A contender that is not installed or fails is named with the reason, and so is work that the time did not reach.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnlib.attacks import AttackResult, Budget, pgd
from snnlib.bench.attacks import plain_pgd, random_starts
from snnlib.bench.contenders import LIF_CONTENDERS, SpikingJellyNetwork
from snnlib.bench.speed import copy_bandwidth
from snnlib.checks import number
from snnlib.commands import OneLineParser, exit_code
from snnlib.encoding import build_encoder
from snnlib.files import user_path
from snnlib.models import Model, build_model
from snnlib.runtime import apply_process_settings, check_device, default_device, describe_device
from snnlib.training.replay import PlainPasses, ReplayedPasses

ROUNDS = 7
ROUND_MS = 5.0
LIF_TIME_STEPS = 4
NEURON_STEPS = (100_000_000, 10_000_000, 1_000_000, 100_000)
"""Large first: Inductor chooses a kernel's blocks by the first width that it meets."""
TENSORS = {"forward": 2, "forward+backward": 5}
NETWORKS = ((64, 4, 64), (64, 4, 16), (64, 4, 256), (16, 10, 64), (16, 10, 16), (16, 10, 256))
"""Width, time steps, batch."""
PGD_STEPS = 20
SMALL = {"neuron_steps": (100_000, 10_000), "networks": ((4, 2, 2),)}
MODULES = {"SpikingJelly": "spikingjelly", "snnTorch": "snntorch", "Norse": "norse"}
RECORDED = "snnlib, CUDA graphs"
OURS = ("snnlib", RECORDED)
Run = Callable[[], object]


class _Watch:
    """Milliseconds on a device: by its events on CUDA, by the clock elsewhere."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def of(self, run: Run, repeats: int) -> float:
        """Mean milliseconds of `repeats` runs in a row."""
        if not self.cuda:
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            return 1e3 * (time.perf_counter() - start) / repeats
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(repeats):
            run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / repeats

    def peak_mib(self, run: Run) -> float:
        """MiB that one run takes at its peak beside what is there before; not measured on a CPU."""
        if not self.cuda:
            return float("nan")
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / (1 << 20)


def compare(make: dict[str, Callable[[], Run]], watch: _Watch, rounds: int = ROUNDS) -> list[dict]:
    """A row per contender; `make` prepares its run. The first contender is ours, and its failure is an error."""
    runs: dict[str, Run] = {}
    rows = {name: {"contender": name, "note": ""} for name in make}
    own = next(iter(make))
    for name, prepare in make.items():
        try:
            run = prepare()
            for _ in range(3):
                run()
            rows[name]["peak_mib"] = watch.peak_mib(run)
        except Exception as error:  # a peer's; it is told in the table
            if name == own:
                raise
            rows[name]["note"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        else:
            runs[name] = run
    repeats = {name: max(1, round(ROUND_MS / max(watch.of(run, 1), 1e-3))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(watch.of(run, repeats[name]))
    for name, values in times.items():
        rows[name] |= {"median_ms": median(values), "best_ms": min(values)}
        rows[name]["times_snnlib"] = rows[name]["median_ms"] / rows[own]["median_ms"]
    return list(rows.values())


def lif_rows(neuron_steps: int, watch: _Watch, device: str, peak_rate: float) -> Iterator[dict]:
    """One layer of IF neurons at T = 4, alone and with its backward pass, in float32."""
    currents = 0.6 * torch.rand(LIF_TIME_STEPS, neuron_steps // LIF_TIME_STEPS, device=device)
    upstream, leaf = torch.randn_like(currents), currents.clone().requires_grad_()

    def prepared(name: str, backward: bool) -> Run:
        if name in MODULES:
            importlib.import_module(MODULES[name])
        layer = LIF_CONTENDERS[name](device)
        if backward:
            return lambda: torch.autograd.grad(layer(leaf), leaf, upstream)
        return torch.no_grad()(partial(layer, currents))

    for part, tensors in TENSORS.items():
        make = {name: partial(prepared, name, part != "forward") for name in LIF_CONTENDERS}
        for row in compare(make, watch):
            share = tensors * currents.nbytes / (1e-3 * row.get("median_ms", float("nan"))) / peak_rate
            yield {"work": f"LIF {part}", "size": neuron_steps, "share_of_bandwidth": share, **row}


def _model(name: str, width: int, time_steps: int, device: str) -> nn.Module:
    if name in OURS:
        return build_model("sew_resnet18", 10, time_steps, encoder="direct", width=width, seed=0).to(device)
    importlib.import_module(MODULES[name])
    if width != 64:
        raise ValueError("its SEW-ResNet has width 64")
    return Model(build_encoder("direct", time_steps), SpikingJellyNetwork(), {}).to(device)


def network_rows(width: int, time_steps: int, batch: int, watch: _Watch, device: str, steps: int) -> Iterator[dict]:
    """A training step (Adam) and a PGD of `steps` steps of SEW-ResNet-18 on random images, directly coded.

    Ours attacks by `pgd`, on CUDA also with recorded passes, as `training.fit` trains; the peer's network is attacked
    by the plain loop of published codes.
    """
    images = torch.rand(batch, 3, 32, 32, device=device)
    labels = torch.randint(0, 10, (batch,), device=device)

    def training(name: str) -> Run:
        model = _model(name, width, time_steps, device).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=name == RECORDED)
        passes = ReplayedPasses(model) if name == RECORDED else PlainPasses()

        def step() -> None:
            optimiser.zero_grad(set_to_none=True)
            with passes.active():
                logits = model(images) if name in OURS else model.body(model.encoder(images).contiguous())
            F.cross_entropy(logits, labels).backward()
            optimiser.step()

        return step

    def attack(name: str) -> Run:
        model, budget = _model(name, width, time_steps, device).eval(), Budget(8 / 255)
        if name in OURS:
            passes = ReplayedPasses(model, sizes=[batch]) if name == RECORDED else PlainPasses()

            def whole() -> AttackResult:
                with passes.active():
                    return pgd(model, images, labels, budget, steps=steps, early_stop=False)

            return whole
        start: Tensor = random_starts(images, budget)
        return lambda: plain_pgd(model, images, labels, start, budget, steps)

    for work, prepare, rounds in (("training step", training, ROUNDS), (f"PGD-{steps}", attack, 3)):
        names = [*(OURS if watch.cuda else OURS[:1]), "SpikingJelly"]
        for row in compare({name: partial(prepare, name) for name in names}, watch, rounds):
            yield {"work": f"{work}, width {width}, T = {time_steps}", "size": batch, **row}


def sweep(device: str, seconds: float, small: bool, target: Path) -> pd.DataFrame:
    """Measure until `seconds` are over, and write the table after every piece of work.

    Columns: work, size (neuron-steps, or images in a batch), contender, median_ms, best_ms, times_snnlib (ratio of
    medians), share_of_bandwidth (of a large copy on the same device), peak_mib, note, device.
    """
    watch, end = _Watch(device), time.monotonic() + seconds
    rate = copy_bandwidth(device, size=(16 if small else 1024) << 18)
    rows: list[dict] = [{"work": "copy, GB/s", "size": rate / 1e9, "contender": "torch", "note": ""}]
    networks = SMALL["networks"] if small else NETWORKS
    sizes = SMALL["neuron_steps"] if small else NEURON_STEPS
    tasks = [("LIF", size, partial(lif_rows, size, watch, device, rate)) for size in sizes]
    for width, time_steps, batch in networks:
        name = f"SEW-ResNet-18, width {width}, T = {time_steps}"
        steps = 2 if small else PGD_STEPS
        tasks.append((name, batch, partial(network_rows, width, time_steps, batch, watch, device, steps)))
    tasks = [task for pair in _alternating(tasks[: len(sizes)], tasks[len(sizes) :]) for task in pair]
    for work, size, measure in tasks:
        if time.monotonic() > end:
            rows.append({"work": work, "size": size, "contender": "", "note": f"not reached in {seconds:g} s"})
        else:
            rows += measure()
        table = pd.DataFrame(rows).assign(device=describe_device(device), torch=torch.__version__)
        table.to_csv(target, index=False)
    return table


def _alternating(first: list, second: list) -> Iterator[list]:
    """By turns, so that a short time reaches some of both."""
    for i in range(max(len(first), len(second))):
        yield first[i : i + 1] + second[i : i + 1]


def run_sweep(arguments: list[str] | None) -> int:
    """Measure, print and write. Errors: InputError for an option that does not fit."""
    parser = OneLineParser(prog="python -m snnlib.bench.sweep", description=__doc__)
    parser.add_argument("target", metavar="FILE.csv", type=user_path, help="takes the table")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps; chosen automatically without it")
    parser.add_argument("--seconds", type=float, default=90.0, help="no piece of work starts later (90)")
    parser.add_argument("--small", action="store_true", help="sizes that take seconds")
    options = parser.parse_args(arguments)
    seconds = number("--seconds", options.seconds, above=0)
    device = check_device("--device", options.device) if options.device else default_device()
    apply_process_settings()
    print(sweep(device, seconds, options.small, options.target).to_string(index=False, float_format="%.3g"))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(lambda: run_sweep(None)))
