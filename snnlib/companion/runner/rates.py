"""How fast a machine is: measured seconds of each network's epoch and passes, and what follows for other machines.

`rates/<name>.csv` has a line per measurement of one machine: `python -m snnlib.companion.runner.rates NAME` makes it
(minutes on a GPU), and goes on where it was cut short. Other machines are estimates, and say so.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pandas as pd
import torch

from snnlib.bench.speed import milliseconds
from snnlib.companion.luu2025.networks import network
from snnlib.companion.measure.networks import build_network
from snnlib.companion.runner.cost import CLASSES, Meter, Training, Work, images_of, work_of
from snnlib.companion.sizes import get_profile
from snnlib.errors import InputError
from snnlib.files import write_atomic
from snnlib.runtime import default_device, describe_device
from snnlib.training.epoch import batches_per_epoch

FOLDER = Path(__file__).with_name("rates")
COLUMNS = ["key", "network", "work", "passes", "layers", "seconds", "gradient_seconds"]
PROBE = "probe"
DERIVED = "epoch, by arithmetic"
"""Not measured: the epoch's passes times the seconds of one with its gradient, times 1.7. So much is the median of what
measured epochs took beside their passes (0.9 to 7.6: the machine had other work, and one batch says little)."""


@dataclass(frozen=True)
class Scaled:
    """A machine that nobody has measured: another one's rates times a factor, and a time below which no pass gets.

    factor: of the seconds. forward, gradient: the floor of one pass of a network with `layers` layers, in seconds, with
    its gradient or without: a GPU waits for its next kernel with small batches.
    """

    of: str
    factor: float
    forward: float
    gradient: float
    layers: int
    why: str


HOST_BOUND = {"forward": 0.009, "gradient": 0.025, "layers": 18}
"""Of figures/gpu/40_sweep_nvidia_h200.csv: a step of SEW-ResNet-18 takes 25 to 28 ms at 16 images and at 256."""
ESTIMATES = {
    "H200": Scaled("cpu2", 1 / 300, why="small batches as measured on an H200, large ones by arithmetic", **HOST_BOUND),
    "H100": Scaled("cpu2", 1 / 300, why="as an H200, which has the same arithmetic units", **HOST_BOUND),
    "A100": Scaled("cpu2", 1 / 90, why="as an H100 with 0.3 times its float32 arithmetic", **HOST_BOUND),
}
"""float32 without TensorFloat-32: 67 TFLOP/s on paper for H100 and H200, 19.5 for an A100, 0.2 for two CPU cores."""


def machines() -> list[str]:
    """Names of the machines with rates."""
    return sorted({path.stem for path in FOLDER.glob("*.csv")} | ESTIMATES.keys())


def read_rates(name: str) -> tuple[dict[str, float | tuple[float, float]], str]:
    """Rates of a machine by key, and a line that says where they are from. Errors: InputError for an unknown name."""
    by_name = {known.lower(): known for known in machines()}
    if (name := by_name.get(name.lower(), name)) not in by_name.values():
        raise InputError(f"machine is {name!r}; expected one of {', '.join(machines())}; measure others by "
                         "python -m snnlib.companion.runner.rates NAME on one of them")  # fmt: skip
    scaled = ESTIMATES.get(name)
    table = _table(scaled.of if scaled else name)
    count = int(table.work.eq(DERIVED).sum())
    derived = f" ({count} of {len(table) - 1} rates by arithmetic)" if count else ""
    origin = f"estimate, {scaled.why}" if scaled else f"measured on {table.network[0]}"
    return _as_rates(table, scaled or Scaled(name, 1.0, 0.0, 0.0, 1, "")), origin + derived


def rates_here() -> tuple[dict[str, float | tuple[float, float]], str]:
    """The measured machine's rates, scaled to this one by one small measurement of both."""
    table = _table("cpu2")
    factor = probe(default_device()) / table.seconds[0]
    why = f"estimate: rates of {table.network[0]}, times {factor:.2f} by a probe; --measure times every network here"
    return _as_rates(table, Scaled("cpu2", factor, 0.0, 0.0, 1, "")), why


def _table(name: str) -> pd.DataFrame:
    """A machine's measurements; the first line is its name and the probe."""
    return pd.read_csv(FOLDER / f"{name}.csv")


def _as_rates(table: pd.DataFrame, scaled: Scaled) -> dict[str, float | tuple[float, float]]:
    rates: dict[str, float | tuple[float, float]] = {}
    for row in table[table.key != PROBE].itertuples():
        size = row.layers / scaled.layers
        floors = [row.passes * size * seconds for seconds in (scaled.forward, scaled.gradient)]
        if pd.isna(row.gradient_seconds):
            rates[row.key] = max(row.seconds * scaled.factor, floors[1])
        else:
            forward, gradient = row.seconds * scaled.factor, row.gradient_seconds * scaled.factor
            rates[row.key] = max(forward, floors[0]), max(gradient, floors[1])
    return rates


def probe(device: str) -> float:
    """Seconds of one pass with its gradient, of a small SEW-ResNet-18 on 16 random images; the median of five."""
    profile = get_profile("quick")
    model = build_network(network("sew_max", 18), profile, CLASSES, 0).to(device)
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_(True)
    work = {"pass": lambda: torch.autograd.grad(model(images).logsumexp(1).sum(), images)}
    return median(milliseconds(work, 5, device, warm_up=2)["pass"]) / 1e3


class Recorder(Meter):
    """A meter that writes down each measurement as soon as it is made."""

    def __init__(self, name: str, device: str, batches: int) -> None:
        self.path, self.of = FOLDER / f"{name}.csv", None
        first = not self.path.is_file()
        self.rows = [] if first else list(_table(name).itertuples(index=False))
        super().__init__(device, batches, {} if first else _as_rates(_table(name), Scaled(name, 1.0, 0.0, 0.0, 1, "")))
        if first:
            self._write(PROBE, describe_device(device), "", 1, 1, probe(device))

    def epoch(self, training: Training) -> float:
        recipe = training.recipe()
        steps = 1 + (recipe.attack.get("steps", 1) if recipe.attack else 0)  # FGSM has one and does not say so
        self.of = training, "epoch", steps * batches_per_epoch(recipe, images_of(training.profile).train)
        return super().epoch(training)

    def passes(self, training: Training, surrogate: str) -> tuple[float, float]:
        before, self.of = self.of, (training, f"pass, {surrogate}", 1 / training.profile.attack_batch_size)
        found = super().passes(training, surrogate)
        self.of = before
        return found

    def _once(self, training: Training, work: dict, measure):
        new = set(self.rates)
        found = super()._once(training, work, measure)
        for key in self.rates.keys() - new - {row[0] for row in self.rows}:
            trained, what, passes = self.of
            seconds = found if isinstance(found, tuple) else (found, None)
            self._write(key, trained.network.label, what, passes, len(_layers(trained)), *seconds)
        return found

    def _write(self, *row: object) -> None:
        self.rows.append((*row, *[None] * (len(COLUMNS) - len(row))))
        write_atomic(self.path, pd.DataFrame(self.rows, columns=COLUMNS).to_csv(index=False, float_format="%.5g"))


def _layers(training: Training) -> list[torch.nn.Module]:
    kinds = torch.nn.Conv2d | torch.nn.Linear
    return [module for module in training.outline().modules() if isinstance(module, kinds)]


def measure(name: str, profile: str = "paper") -> None:
    """Measure this machine for a profile into `rates/<name>.csv`; what is there already is not measured again."""
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise InputError(f"name is {name!r}; expected letters, digits and hyphens, such as H100")
    device = default_device()
    meter = Recorder(name, device, get_profile(profile).timed_batches)
    trainings, attacks = work_of(profile)
    for work in [*attacks, *trainings]:  # the short ones first
        _timed(meter, work)
        print(f"{len(meter.rows) - 1} measured", end="\r", flush=True)


def _timed(meter: Meter, work: Training | Work) -> None:
    if isinstance(work, Training):
        meter.epoch(work)
    else:
        meter.under(work, 1)


if __name__ == "__main__":
    measure(*sys.argv[1:])
