"""Published rows are put where measurements look for them, and are then not measured again."""

from __future__ import annotations

import json

import pytest

from snnlib.companion import paths
from snnlib.companion.measure import archive, store
from snnlib.companion.measure.archive import published_results, read_published, unpack_published
from snnlib.companion.measure.attacked import Attack, _rows, attacked
from snnlib.companion.measure.rows import read_table, write_table
from snnlib.companion.report import figures
from snnlib.companion.report.row_archive import publish_rows
from snnlib.errors import InputError
from snnlib.files import write_atomic
from snnlib.models import build_model

PROFILE, PUBLISHER = "quick", "the publisher's device"
ATTACKS = [Attack("fgsm", 2 / 255), Attack("pgd", 2 / 255, options={"steps": 2})]


@pytest.fixture
def measure(artifacts, splits, wrap):
    """A function that gives the rows of two attacks, measured or found."""
    model = build_model("sew_resnet18", 3, 2, width=4, seed=0).eval()
    network = wrap(model, splits.test.take(slice(0, 6)))
    return lambda: attacked(network, ATTACKS, network.splits.test, 6)


@pytest.fixture
def published(measure):
    """Both are published, by another device, and gone from here; returns rows, and bytes by file name."""
    rows = measure()
    files = sorted((paths.ARTIFACTS / "rows").iterdir())
    before = {path.name: path.read_bytes() for path in files}
    names = [f"rows/{path.stem}" for path in files if path.suffix == ".json"]
    write_atomic(figures.used_path(PROFILE, "12"), json.dumps({"results": names}))
    publish_rows(PROFILE, ["12"])
    change_results("made", lambda made: json.dumps({**json.loads(made), "device": PUBLISHER}))
    for path in files:
        path.unlink()
    store.used.clear()
    return rows, before


def change_results(column, change, places=(0, 1)):
    path = paths.published_dir(PROFILE) / archive.RESULTS_FILE
    results = read_table(path)
    for place in places:
        results.loc[place, column] = change(results.loc[place, column])
    write_table(path, results)


def state():
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (paths.ARTIFACTS / "rows").iterdir()}


def test_unpacked_rows_are_found_and_say_who_made_them(published, measure, calls):
    rows, before = published
    assert unpack_published(PROFILE) == {"taken": 2}
    assert measure().equals(rows) and calls["rows"] == 0
    assert len(store.used) == 2 and {made["device"] for made in store.used.values()} == {PUBLISHER}
    tables = {name: content for name, content in before.items() if name.endswith(".parquet")}
    assert len(tables) == 2 and all(state()[name][1] == content for name, content in tables.items())


def test_second_run_changes_nothing(published):
    unpack_published(PROFILE)
    before = state()
    assert unpack_published(PROFILE) == {"here": 2} and state() == before


def test_rows_that_are_here_stay_and_damaged_ones_are_replaced(published, measure):
    rows, _ = published
    measure()
    first, second = sorted((paths.ARTIFACTS / "rows").glob("*.parquet"))
    second.write_bytes(b"damaged")
    assert unpack_published(PROFILE) == {"here": 1, "taken": 1}
    devices = [store.read_record(path.with_suffix(".json"))["made"]["device"] for path in (first, second)]
    assert devices[0] != PUBLISHER == devices[1] and measure().equals(rows)


def test_what_does_not_fit_is_left_out_and_measured(published, measure, calls):
    change_results("result", lambda name: name[::-1], places=[0])
    rows_path = paths.published_dir(PROFILE) / archive.ROWS_FILE
    results, rows = read_published(PROFILE)
    write_table(rows_path, rows[rows.result != results.result[1]])
    assert unpack_published(PROFILE) == {"left out": 2}
    assert not state()
    assert measure().equals(published[0]) and calls["rows"] == 2


def test_rows_of_an_earlier_version_are_left_out(published, monkeypatch):
    monkeypatch.setattr(_rows, "version", _rows.version + 1)
    assert unpack_published(PROFILE) == {"left out": 2}


def test_without_an_archive_nothing_is_taken_and_a_damaged_one_is_one_line(home):
    assert not unpack_published("night") and not list(published_results("night"))
    folder = paths.published_dir("night")
    for name in (archive.RESULTS_FILE, archive.ROWS_FILE):
        write_atomic(folder / name, b"damaged")
    with pytest.raises(InputError, match="results.parquet is damaged"):
        unpack_published("night")
