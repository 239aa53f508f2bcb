"""The benchmark's own arithmetic, on a clock and a machine that are made up."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from snnlib.bench import contenders as bench_contenders
from snnlib.bench import speed as bench
from snnlib.models import parameter_count
from snnlib.neurons import IF, use_kernel

# SpikingJelly and Norse script modules where torch has deprecated that.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless `now` (seconds) is moved."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock.now)
    return clock


def _takes(clock: SimpleNamespace, name: str, seconds: list[float], order: list[str]) -> Callable[[], None]:
    durations = iter(seconds)

    def run() -> None:
        order.append(name)
        clock.now += next(durations)

    return run


def test_contenders_take_turns_after_two_rounds_of_warm_up(clock):
    order: list[str] = []
    runs = {
        "a": _takes(clock, "a", [9, 9, 0.5, 0.25, 0.125], order),
        "b": _takes(clock, "b", [9, 9, 1, 2, 3], order),
    }
    times = bench.milliseconds(runs, rounds=3, device="cpu")
    assert "".join(order) == "abab" + "ababab", "in the warm-up too"
    assert times == {"a": [500, 250, 125], "b": [1000, 2000, 3000]}


def test_device_is_waited_for_on_both_sides_of_a_run(clock, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    bench.milliseconds({"a": lambda: order.append("run")}, rounds=2, device="cuda")
    assert order == ["run"] * 2 + ["wait", "run", "wait"] * 2


def test_copy_bandwidth_counts_what_is_read_and_written(monkeypatch):
    monkeypatch.setattr(bench, "milliseconds", lambda runs, rounds, device: {"copy": [4.0, 2.0, 3.0]})
    assert bench.copy_bandwidth("cpu", size=1000) == 2 * 4 * 1000 / 0.002


def test_row_is_judged_by_the_fastest_round():
    row = bench._row("work", (2, 3), "name", [5.0, 2.0, 9.0], own=4.0, saved=1.5)
    assert row == {
        "work": "work", "shape": "2x3", "contender": "name", "best_ms": 2.0, "median_ms": 5.0, "times_snnlib": 0.5,
        "saved_in_inputs": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    "function, storages",
    [
        (lambda x, y: x + y, 0),
        (lambda x, y: x.exp(), 1),
        (lambda x, y: x * y, 2),
        (lambda x, y: x * x, 1),
        (lambda x, y: (x * y) * x, 3),
        (lambda x, y: x[:1] * y[:1], 2),
        (lambda x, y: (x * y).detach(), 2),
    ],
)
def test_saved_bytes_count_each_storage_once(function, storages):
    x, y = (torch.rand(4, 8, requires_grad=True) for _ in range(2))
    assert bench.saved_bytes(lambda: function(x, y)) == storages * 4 * 8 * 4


def test_spiking_layer_keeps_its_currents_and_no_more():
    currents = torch.rand(6, 4, 8, requires_grad=True)
    kept = bench.saved_bytes(lambda: IF()(currents))
    assert kept <= currents.nbytes + 64, "beside them only the scalars leak and threshold"


def test_floor_is_the_unavoidable_bytes_at_copy_bandwidth(monkeypatch):
    monkeypatch.setattr(bench, "copy_bandwidth", lambda device: 1e6)
    monkeypatch.setattr(bench, "LIF_CONTENDERS", {"snnlib": bench_contenders.reference_layer})
    table = bench.bench_lif(((2, 3, 4), (2, 3, 8)), rounds=2, device="cpu")
    floors = table[table.contender.str.startswith("floor")]
    assert floors["shape"].tolist() == ["2x3x4", "2x3x8"]
    assert floors.best_ms.tolist() == pytest.approx([5 * 96 / 1e6 * 1e3, 5 * 192 / 1e6 * 1e3])
    own = table[table.contender == "snnlib"]
    assert own.times_snnlib.tolist() == [1.0, 1.0] and (own.best_ms > 0).all()
    assert floors.times_snnlib.to_numpy() == pytest.approx(floors.best_ms.to_numpy() / own.best_ms.to_numpy())
    assert floors.saved_in_inputs.isna().all() and (own.saved_in_inputs > 0).all()


@pytest.mark.parametrize("name", ["snnlib, reference", "SpikingJelly", "snnTorch", "Norse"])
def test_layers_are_the_same_work(name):
    """0.3, 0.6, ... never meets the threshold, where the contenders differ."""
    currents = torch.full((7, 4, 8), 0.3, requires_grad=True)
    with use_kernel("reference"):
        layers = [bench_contenders.LIF_CONTENDERS[key]() for key in ("snnlib", name)]
        own, theirs = (layer(currents) for layer in layers)
        assert torch.equal(layers[1](currents), theirs), "the state is not carried from call to call"
    assert theirs.shape == own.shape and theirs.requires_grad
    if name != "Norse":
        assert torch.equal(own, theirs)
        assert own[:, 0, 0].tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_steps_train_networks_of_one_size_and_change_their_weights():
    networks = {name: make() for name, make in bench_contenders.STEP_CONTENDERS.items()}
    assert {parameter_count(network) for network in networks.values()} == {11_181_642}
    with pytest.MonkeyPatch.context() as patch, use_kernel("reference"):
        network = networks["SpikingJelly"]
        patch.setattr(bench, "STEP_CONTENDERS", {"SpikingJelly": lambda: network})
        before = network.network.fc.weight.detach().clone()
        bench.training_step("SpikingJelly", time_steps=2, batch=2, device="cpu")()
    assert not torch.equal(network.network.fc.weight, before)


def test_step_table_has_the_memory_of_each_contender(clock, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(bench, "STEP_CONTENDERS", {"snnlib": None, "other": None})
    warm_up = [1] * bench.STEP_WARM_UP
    monkeypatch.setattr(bench, "training_step", lambda name, **_: _takes(clock, name, warm_up + [len(name)] * 3, order))
    monkeypatch.setattr(bench, "peak_memory", lambda name, sizes, device: 100.0 * len(name))
    table = bench.bench_step({"time_steps": 2, "batch": 3}, rounds=3, device="cpu").set_index("contender")
    assert table.best_ms.to_dict() == {"snnlib": 6000, "other": 5000}
    assert table.times_snnlib["other"] == 5 / 6
    assert table.peak_mib.to_dict() == {"snnlib": 600, "other": 500}
    assert set(table["shape"]) == {"2x3x3x32x32"}


def test_memory_is_what_the_fresh_process_prints_last(monkeypatch):
    def run(command, **_):
        seen.append(command[1:])
        return subprocess.CompletedProcess(command, 0, stdout="a notice\n321.5\n", stderr="")

    seen: list[list[str]] = []
    monkeypatch.setattr(bench.subprocess, "run", run)
    assert bench.peak_memory("snnlib", {"time_steps": 2, "batch": 3}, "cpu") == 321.5
    wanted = ["--peak-memory", "snnlib", "--device", "cpu", "--time-steps=2", "--batch=3"]
    assert seen == [["-m", "snnlib.bench", *wanted]]


def test_last_line_is_told_when_the_fresh_process_fails(monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nMemoryError: too large\n")
    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="memory of snnlib failed: MemoryError: too large"):
        bench.peak_memory("snnlib", {}, "cpu")


def test_peak_is_printed_when_the_hidden_option_asks_for_it(monkeypatch, capsys):
    steps, peaks = [], iter([100.0, 164.0])
    monkeypatch.setattr(bench, "training_step", lambda name, **sizes: lambda: steps.append((name, sizes)))
    monkeypatch.setattr(bench, "_peak_resident_mib", lambda: next(peaks))
    assert bench.main(["--peak-memory", "snnlib", "--device", "cpu", "--time-steps", "2", "--batch", "3"]) == 0
    assert steps == [("snnlib", {"time_steps": 2, "batch": 3, "device": "cpu"})] * 3
    assert capsys.readouterr().out == "64.0\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_resident_memory_grows_with_what_is_touched():
    before = bench._peak_resident_mib()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    assert before >= resident - 1
    size = int(before - resident + 64) << 20
    with mmap.mmap(-1, size) as fresh:  # past the allocator, which may have freed memory at hand
        fresh.write(b"x" * size)
    peak = bench._peak_resident_mib()
    assert peak > before + 60
    assert bench._peak_resident_mib() == pytest.approx(peak, abs=1), "a peak does not sink"


def test_table_holds_both_benchmarks_and_what_they_ran_on(monkeypatch):
    monkeypatch.setattr(bench, "bench_lif", lambda shapes, rounds, device: pd.DataFrame({"work": [shapes]}))
    monkeypatch.setattr(bench, "bench_step", lambda sizes, rounds, device: pd.DataFrame({"work": [sizes]}))
    table = bench.bench(4, "cpu", small=True)
    assert table.work.tolist() == [bench.SMALL_LIF_SHAPES, bench.SMALL_STEP]
    assert table.device.str.startswith("cpu: ").all() and table.allocator.notna().all()


@pytest.mark.parametrize("rounds", ["0", "-3"])
def test_exit_code_2_and_one_line_when_there_are_no_rounds(capsys, rounds):
    assert bench.main(["--rounds", rounds]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"error: --rounds is {rounds}; expected at least 1; use e.g. --rounds 15\n"


def test_module_exits_with_2_and_one_line_when_run_without_rounds():
    answer = subprocess.run(
        [sys.executable, "-m", "snnlib.bench", "--rounds", "0"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert answer.stderr.startswith("error: --rounds is 0")
