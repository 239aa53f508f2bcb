from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from snnlib.companion import paths
from snnlib.companion.report import claims, figures
from snnlib.companion.runner import run

SAVE = """
import pandas as pd
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
    before = table.read_bytes()
    table.write_bytes(b"x\n4\n")
    assert state() == "out of date"
    assert run.main(["--profile", "smoke"]) == 0
    assert state() == "up to date" and table.read_bytes() == before
