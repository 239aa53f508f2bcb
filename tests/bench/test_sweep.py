"""The sweep on made-up clocks and contenders."""

from __future__ import annotations

from functools import partial

import pandas as pd
import pytest
import torch

from snnlib.bench import sweep
from snnlib.commands import exit_code
from snnlib.neurons import use_kernel


class _Clock:
    """Says how long a run takes, and notes which ran."""

    def __init__(self, seconds: dict) -> None:
        self.seconds, self.order = seconds, []

    def of(self, run, repeats: int) -> float:
        self.order.append((run(), repeats))
        return self.seconds[run()]

    def peak_mib(self, run) -> float:
        return 1.0


def _says(name: str):
    return lambda: lambda: name


def test_contenders_take_turns_and_short_runs_are_repeated():
    watch = _Clock({"own": 0.5, "other": 20.0})
    rows = sweep.compare({"own": _says("own"), "other": _says("other")}, watch, rounds=2)
    assert watch.order == [("own", 1), ("other", 1), ("own", 10), ("other", 1), ("own", 10), ("other", 1)]
    assert [row["times_snnlib"] for row in rows] == [1, 40] and [row["note"] for row in rows] == ["", ""]


def test_a_peer_that_fails_is_named_and_ours_is_an_error():
    def missing():
        raise ModuleNotFoundError("No module named 'spikingjelly'\nmore")

    rows = sweep.compare({"own": _says("own"), "other": missing}, _Clock({"own": 1.0}))
    assert rows[1]["note"] == "ModuleNotFoundError: No module named 'spikingjelly'" and "median_ms" not in rows[1]
    with pytest.raises(ModuleNotFoundError):
        sweep.compare({"own": missing, "other": _says("other")}, _Clock({"other": 1.0}))


def test_table_is_written_piece_by_piece_and_names_what_it_did_not_reach(tmp_path, monkeypatch):
    target = tmp_path / "sweep.csv"
    clock = iter([0.0, 1.0, 2.0, 99.0, 99.0, 99.0, 99.0])
    monkeypatch.setattr(sweep.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sweep, "copy_bandwidth", lambda *_, **__: 2e9)
    monkeypatch.setattr(sweep, "lif_rows", lambda size, *_: iter([{"work": "LIF", "size": size}]))
    monkeypatch.setattr(sweep, "network_rows", lambda *_: iter([{"work": "network", "size": 2}]))
    table = sweep.sweep("cpu", 50, True, target)
    assert table.work.tolist() == ["copy, GB/s", "LIF", "network", "LIF"]
    assert table.note.tolist()[-1] == "not reached in 50 s"
    assert len(pd.read_csv(target)) == 4


def test_layer_and_network_are_measured_on_a_cpu(monkeypatch):
    monkeypatch.setattr(sweep, "compare", partial(sweep.compare, rounds=1))
    monkeypatch.setattr(sweep, "LIF_CONTENDERS", {"snnlib": sweep.LIF_CONTENDERS["snnlib"]})
    monkeypatch.setattr(sweep, "ROUNDS", 1)
    watch = sweep._Watch("cpu")
    with use_kernel("reference"):
        layer = list(sweep.lif_rows(400, watch, "cpu", 1e9))
        monkeypatch.setattr(sweep, "compare", lambda make, watch, rounds: [{"ran": make["snnlib"]()()}])
        network = list(sweep.network_rows(4, 2, 2, watch, "cpu", 1))
    assert [row["work"] for row in layer] == ["LIF forward", "LIF forward+backward"]
    assert all(row["median_ms"] > 0 and row["share_of_bandwidth"] > 0 for row in layer)
    assert [row["work"] for row in network] == ["training step, width 4, T = 2", "PGD-1, width 4, T = 2"]
    assert torch.is_tensor(network[1]["ran"].adversarial)


def test_exit_code_2_when_there_is_no_time(capsys, tmp_path):
    assert exit_code(lambda: sweep.run_sweep([str(tmp_path / "a.csv"), "--seconds", "0"])) == 2
    assert capsys.readouterr().err.startswith("error: --seconds is 0")
