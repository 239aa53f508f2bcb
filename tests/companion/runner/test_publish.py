"""What `--publish` copies to where it is committed, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from snnlib.companion import paths
from snnlib.companion.report import claims, figures, front_page
from snnlib.companion.runner import run
from snnlib.companion.runner.publish import publish
from snnlib.companion.verdicts.rules import Judgement


def _run(number: str) -> SimpleNamespace:
    return SimpleNamespace(notebook=SimpleNamespace(number=number), profile="night")


def _save(name: str, value: int) -> None:
    figures.save_table(pd.DataFrame({"x": [value]}), name, profile="night", notebook=name[:2])


def _published() -> dict[str, str]:
    """File -> content of the published tables."""
    return {path.name: path.read_text().split()[1] for path in paths.published_dir("night").glob("*.csv")}


@pytest.fixture
def two_notebooks(home: Path) -> None:
    """Notebooks 10 and 11 have run and are published."""
    _save("10_old", 1)
    _save("11_other", 1)
    numbers = {"estimate": 1.0, "low": 0.5, "high": 1.5, "unit": "%", "would_count": "above 2", "p": 0.5}
    judgement = Judgement(verdict="not reproduced", evidence="1 of 3", seeds=(0, 1), samples=3, **numbers)
    claims.record("night", "L1", judgement, notebook="10_a")
    figures.record_seconds("night", "10", 5.0)
    publish("night", [_run("10"), _run("11")])


def test_figures_verdicts_and_their_manifest_are_copied(two_notebooks: None) -> None:
    target = paths.published_dir("night")
    made = figures.read_manifest("night")
    assert made["files"].keys() == {"10_old.csv", "10_old.md", "11_other.csv", "11_other.md"}
    assert figures.read_manifest_in(target, "night") == made
    for name in made["files"]:
        assert (target / name).read_bytes() == (paths.figures_dir("night") / name).read_bytes()
    table = claims.read_claims_in(claims.published_path("night")).set_index("claim")
    assert table.loc["L1", "evidence"] == "1 of 3"


def test_only_what_the_named_notebooks_made_is_replaced(two_notebooks: None) -> None:
    figures.forget_outputs("night", "10")
    _save("10_new", 2)
    _save("11_other", 2)
    publish("night", [_run("10")])
    assert _published().keys() - {"claims.csv"} == {"10_new.csv", "11_other.csv"}
    assert (_published()["10_new.csv"], _published()["11_other.csv"]) == ("2", "1")
    listed = figures.read_manifest_in(paths.published_dir("night"), "night")
    assert listed["files"].keys() == {"10_new.csv", "10_new.md", "11_other.csv", "11_other.md"}
    assert listed["notebooks"] == {"10": {"seconds": 5.0}}


def test_publishing_any_profile_makes_the_front_page_anew(two_notebooks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = paths.ROOT / "README.md"
    readme.touch()
    written: list[Path] = []
    monkeypatch.setattr(front_page, "write", written.append)
    publish("night", [_run("10")])
    assert written == [readme]


def test_damaged_manifest_costs_no_figure_of_another_notebook(two_notebooks: None) -> None:
    (paths.published_dir("night") / "manifest.json").write_text("<<<<<<< HEAD")
    publish("night", [_run("10")])
    assert {"10_old.csv", "11_other.csv"} <= _published().keys()


def test_published_notebook_holds_outputs_and_nothing_of_the_run(home: Path, add_notebook) -> None:
    path = add_notebook("10_a", "", "print(profile)", "1 + 1")
    before = json.loads(path.read_text())
    assert run.main(["--publish"]) == 0
    text = path.read_text()
    after = json.loads(text)
    assert [cell["source"] for cell in after["cells"]] == [cell["source"] for cell in before["cells"]]
    assert after["cells"][3]["outputs"][0]["text"] == ["quick\n"]
    assert after["cells"][4]["outputs"][0]["data"]["text/plain"] == ["2"]
    assert [cell.get("execution_count") for cell in after["cells"]] == [None, 1, 2, 3, 4]
    assert "papermill" not in text and "injected-parameters" not in text and str(home) not in text
    assert run.main(["--publish"]) == 0
    assert path.read_text() == text
