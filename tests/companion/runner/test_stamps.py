from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from snnlib.companion import paths
from snnlib.companion.measure.provenance import code_digest
from snnlib.companion.measure.store import name_of
from snnlib.companion.report import claims, figures
from snnlib.companion.runner import run
from snnlib.companion.runner.series import load_series
from snnlib.companion.runner.stamps import earlier_code, make_runs, seconds_saved, state_of

SAVE = """
import pandas as pd
from snnlib.companion.measure.store import name_of
from snnlib.companion.report import claims, figures
from snnlib.companion.verdicts.rules import untestable
figures.save_table(pd.DataFrame({"x": [size]}), "10_numbers", profile=profile, notebook="10_a")
claims.record(profile, "L1", untestable("L1", f"{size} of 3"), notebook="10_a")
"""


def test_result_is_out_of_date_when_anything_it_left_is_lost(
    home: Path, add_notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    def state() -> str:
        capsys.readouterr()
        assert run.main(["--profile", "smoke", "--list"]) == 0
        return capsys.readouterr().out.splitlines()[2].split("|")[3].strip()

    def lost(path: Path) -> str:
        shutil.copy(path, home / "kept")
        path.unlink()
        seen = state()
        shutil.copy(home / "kept", path)
        return seen

    add_notebook("10_a", SAVE, parameters="size = 3")
    assert state() == "not run"
    assert run.main(["--profile", "smoke"]) == 0
    assert state() == "up to date"
    table = paths.figures_dir("smoke") / "10_numbers.csv"
    for path in (table, claims.claims_path("smoke"), figures.manifest_path("smoke")):
        assert lost(path) == "out of date", path
    assert lost(paths.runs_dir("smoke") / "notebooks" / "10_a.ipynb") == "out of date"
    assert lost(paths.runs_dir("smoke") / "stamps" / "10.json") == "not run"
    assert state() == "up to date"
    stamp = paths.runs_dir("smoke") / "stamps" / "10.json"
    whole = stamp.read_text()
    stamp.write_text(whole[:20])
    assert state() == "not run", "a damaged stamp counts as none"
    stamp.write_text(whole)
    before = table.read_bytes()
    table.write_bytes(b"x\n4\n")
    assert state() == "out of date"
    assert run.main(["--profile", "smoke"]) == 0
    assert state() == "up to date" and table.read_bytes() == before


def test_every_other_notebook_makes_the_overview_out_of_date(add_notebook) -> None:
    def fingerprints() -> dict[str, str]:
        series = load_series(paths.NOTEBOOKS)
        runs = make_runs(series, "smoke", {number: {"profile": "smoke"} for number in series})
        return {number: run.fingerprint for number, run in runs.items()}

    for name in ("10_a", "11_b", "99_all"):
        add_notebook(name)
    before = fingerprints()
    add_notebook("10_a", "x = 1")
    changed = {number for number, fingerprint in fingerprints().items() if fingerprint != before[number]}
    assert changed == {"10", "99"}


def test_what_stored_results_took_is_told_once_and_only_of_those_found_here(home: Path, add_notebook) -> None:
    now = time.time()
    for name, seconds, age in (("own", 20.0, 60), ("shared", 300.0, 60), ("fresh", 4000.0, -60)):
        path = paths.ARTIFACTS / "rows" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"made": {"seconds": seconds}, "sha256": {}}
        path.write_text(json.dumps({**record, "digest": name_of(record)}))
        os.utime(path, (now - age, now - age))
    for number, names in (("10", ["shared"]), ("11", ["own", "shared", "fresh", "deleted"])):
        add_notebook(f"{number}_a")
        noted = figures.used_path("smoke", number)
        noted.parent.mkdir(parents=True, exist_ok=True)
        noted.write_text(json.dumps({"results": [f"rows/{name}" for name in names]}))
    runs = make_runs(load_series(paths.NOTEBOOKS), "smoke", {number: {"profile": "smoke"} for number in ("10", "11")})
    assert [seconds_saved(run, now) for run in runs.values()] == [300, 20]


def test_list_counts_the_results_that_earlier_code_made(
    home: Path, add_notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    module = "snnlib.energy"
    made = {
        "new": {"module": module, "code": code_digest(module)},
        "old": {"module": module, "code": "0" * 16},
        "gone": {"module": "snnlib.of_last_year", "code": "0" * 16},
    }
    for name, entry in made.items():
        path = paths.ARTIFACTS / "rows" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"made": entry, "sha256": {}}
        path.write_text(json.dumps({**record, "digest": name_of(record)}))
    (paths.ARTIFACTS / "rows" / "torn.json").write_text("{half")
    add_notebook("10_a")
    (one,) = make_runs(load_series(paths.NOTEBOOKS), "smoke", {"10": {"profile": "smoke"}}).values()
    assert earlier_code(one) == (0, 0) and state_of(one) == "not run"
    noted = figures.used_path("smoke", "10")
    noted.parent.mkdir(parents=True)
    names = [*made, "torn", "deleted"]
    noted.write_text(json.dumps({"results": [f"rows/{name}" for name in names]}))
    assert earlier_code(one) == (4, 5)
    assert run.main(["--profile", "smoke", "--list"]) == 0
    assert "| 4 of 5 results |" in capsys.readouterr().out
    noted.write_text("{half")
    assert earlier_code(one) == (0, 0)
