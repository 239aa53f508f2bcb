from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from snnlib.companion import paths
from snnlib.companion.measure import store
from snnlib.companion.measure.provenance import circumstances
from snnlib.companion.report import figures
from snnlib.errors import InputError
from snnlib.files import sha256_of

TABLE = pd.DataFrame(
    {"eps": [0.0, 1 / 3], "model": ["a", "b|c"], "n": [1, 1234567], "share": [None, 12345678.0]}
)


def drawn() -> Figure:
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot(TABLE.eps, TABLE.n)
    axes.set_xlabel("eps [pixel units]")
    return figure


def save(**changed: object) -> Path:
    arguments = {"profile": "night", "notebook": "12_x", "table": TABLE, "config": {"seed": 1}}
    return figures.save(drawn(), changed.pop("name", "12_accuracy"), **(arguments | changed))


def test_picture_and_numbers_are_the_same_bytes_when_saved_twice(home: Path) -> None:
    folder = save().parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {"12_accuracy.png", "12_accuracy.pdf", "12_accuracy.csv", "manifest.json"}
    save()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    for suffix in (".png", ".pdf"):  # a date or a version would change the bytes on another day
        assert not re.search(rb"CreationDate|Matplotlib", first["12_accuracy" + suffix])


def test_a_figure_of_the_trial_has_no_pdf(home: Path) -> None:
    folder = save(profile="smoke").parent
    assert {path.name for path in folder.iterdir()} == {"12_accuracy.png", "12_accuracy.csv", "manifest.json"}


def test_csv_holds_six_digits_and_unix_line_ends(home: Path) -> None:
    assert save().with_suffix(".csv").read_bytes() == (
        b"eps,model,n,share\n0,a,1,\n0.333333,b|c,1234567,1.23457e+07\n"
    )


def test_manifest_says_of_every_file_what_it_holds_and_what_made_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [{"seconds": 2.04, "commit": None, "device": "cpu", "torch": version} for version in ("2", "2", "3")]
    monkeypatch.setattr(store, "used", {f"rows/{place}": entry for place, entry in enumerate(made)})
    folder = save().parent
    monkeypatch.setattr(store, "used", {})
    figures.save_table(TABLE, "12_later", profile="night", notebook="12_x")
    manifest = figures.read_manifest("night")
    assert manifest["profile"] == "night"
    for suffix in (".png", ".pdf", ".csv"):
        entry = manifest["files"]["12_accuracy" + suffix]
        assert entry["sha256"] == sha256_of(folder / ("12_accuracy" + suffix))
        assert (entry["notebook"], entry["config"]) == ("12_x", store.name_of({"seed": 1}))
        assert entry["made"]["figure"] == circumstances("snnlib.companion.report.figures")
        results = {"count": 3, "seconds": 6.1, "commit": ["None"], "device": ["cpu"], "torch": ["2", "3"]}
        assert entry["made"]["results"] == results
    later = manifest["files"]["12_later.csv"]
    assert later["made"]["results"]["count"] == 0 and "config" not in later


def test_results_that_a_notebook_used_are_noted_beside_its_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"seconds": 1.0, "commit": "abc", "device": "cpu", "torch": "2"}
    monkeypatch.setattr(store, "used", {"rows/b": made, "networks/a": made})
    monkeypatch.setattr(store, "used_networks", {"a": [{"epoch": 1}]})
    save()
    note = {"results": ["networks/a", "rows/b"], "networks": {"a": [{"epoch": 1}]}}
    assert figures.note_of_use("night", "12") == note
    figures.used_path("night", "12").write_text("{half")
    assert figures.note_of_use("night", "12") == {"results": [], "networks": {}}


def test_figures_stay_outside_of_what_is_committed(home: Path) -> None:
    assert save().parent == paths.figures_dir("night") == home / "artifacts" / "night" / "figures"
    assert not paths.published_dir("night").exists()


def test_table_without_picture_gives_csv_and_markdown(home: Path) -> None:
    path = figures.save_table(TABLE, "15_table_1", profile="night", notebook="15")
    assert path.with_suffix(".md").read_text() == (
        "| eps | model | n | share |\n| --- | --- | --- | --- |\n"
        "| 0 | a | 1 |  |\n| 0.3333 | b\\|c | 1234567 | 1.235e+07 |\n"
    )
    assert set(figures.outputs_of("night", "15")) == {"15_table_1.csv", "15_table_1.md"}


def test_files_of_an_earlier_version_go_when_no_longer_listed(home: Path) -> None:
    folder = save().parent
    save(name="13_other", notebook="13")
    figures.forget_outputs("night", "12")
    assert figures.outputs_of("night", "12") == {} and len(figures.outputs_of("night", "13")) == 3
    figures.save_table(TABLE, "12_new", profile="night", notebook="12")
    figures.remove_orphans("night", "12")
    assert sorted(path.name[:8] for path in folder.glob("*.csv")) == ["12_new.c", "13_other"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "accuracy"}, "figure name 'accuracy'"),
        ({"name": "12_Accuracy"}, "figure name '12_Accuracy'"),
        ({"name": "12_a/b"}, "figure name '12_a/b'"),
        ({"notebook": "13"}, "both to start with the same number"),
        ({"profile": "huge"}, "unknown profile 'huge'"),
        ({"table": TABLE[:0]}, "table of '12_accuracy' is empty"),
        ({"config": {"seed": {1}}}, r"config\.seed is a set"),
    ],
)
def test_one_line_error_and_no_file_when_input_is_wrong(home: Path, changed: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        save(**changed)
    assert not list(home.rglob("12_*"))


@pytest.mark.parametrize("text", ["{half", "[]", "\0"])
def test_damaged_manifest_counts_as_not_there(home: Path, text: str) -> None:
    save()
    figures.record_seconds("night", "12", 61.04)
    figures.record_seconds("night", "13", 5.0, at_once=2)
    noted = {"12": {"seconds": 61.0}, "13": {"seconds": 5.0, "at_once": 2}}
    assert figures.read_manifest("night")["notebooks"] == noted
    figures.manifest_path("night").write_text(text)
    assert figures.read_manifest("night") == {"profile": "night", "notebooks": {}, "files": {}}
    figures.save_table(TABLE, "13_table", profile="night", notebook="13")
    assert set(figures.read_manifest("night")["files"]) == {"13_table.csv", "13_table.md"}
