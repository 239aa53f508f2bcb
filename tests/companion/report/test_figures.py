from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from snnlib.companion.measure.store import config_hash
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
    arguments = {"profile": "smoke", "notebook": "12_x", "table": TABLE, "config": {"seed": 1}}
    return figures.save(drawn(), changed.pop("name", "12_accuracy"), **(arguments | changed))


def test_picture_and_numbers_are_the_same_bytes_when_saved_twice(home: Path) -> None:
    folder = save().parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {"12_accuracy.png", "12_accuracy.pdf", "12_accuracy.csv", "manifest.json"}
    save()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    for suffix in (".png", ".pdf"):  # a date or a version would change the bytes on another day
        assert not re.search(rb"CreationDate|Matplotlib", first["12_accuracy" + suffix])


def test_csv_holds_six_digits_and_unix_line_ends(home: Path) -> None:
    assert save().with_suffix(".csv").read_bytes() == (
        b"eps,model,n,share\n0,a,1,\n0.333333,b|c,1234567,1.23457e+07\n"
    )


def test_manifest_lists_every_file_with_its_checksum(home: Path) -> None:
    folder = save().parent
    manifest = figures.read_manifest("smoke")
    assert manifest["profile"] == "smoke" and {"commit", "device", "python", "torch"} <= set(manifest)
    for suffix in (".png", ".pdf", ".csv"):
        entry = manifest["files"]["12_accuracy" + suffix]
        assert entry["sha256"] == sha256_of(folder / ("12_accuracy" + suffix))
        assert (entry["notebook"], entry["config"]) == ("12_x", config_hash({"seed": 1}))


def test_table_without_picture_gives_csv_and_markdown(home: Path) -> None:
    path = figures.save_table(TABLE, "15_table_1", profile="smoke", notebook="15")
    assert path.with_suffix(".md").read_text() == (
        "| eps | model | n | share |\n| --- | --- | --- | --- |\n"
        "| 0 | a | 1 |  |\n| 0.3333 | b\\|c | 1234567 | 1.235e+07 |\n"
    )
    assert set(figures.outputs_of("smoke", "15")) == {"15_table_1.csv", "15_table_1.md"}


def test_files_of_an_earlier_version_go_when_no_longer_listed(home: Path) -> None:
    folder = save().parent
    save(name="13_other", notebook="13")
    figures.forget_outputs("smoke", "12")
    assert figures.outputs_of("smoke", "12") == {} and len(figures.outputs_of("smoke", "13")) == 3
    figures.save_table(TABLE, "12_new", profile="smoke", notebook="12")
    figures.remove_orphans("smoke", "12")
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


def test_one_line_error_when_manifest_is_damaged(home: Path) -> None:
    save()
    figures.manifest_path("smoke").write_text("{half")
    with pytest.raises(InputError, match="manifest.json is damaged .*delete it"):
        save()
