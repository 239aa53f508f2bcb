"""Published tables are those that notebooks used, and are found again where there is nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from snnlib.companion import paths
from snnlib.companion.measure.store import stored
from snnlib.companion.measure.unreleased import read_notes
from snnlib.companion.report import figures
from snnlib.companion.runner.published_tables import ARCHIVE, publish_tables, take_tables
from snnlib.errors import InputError
from snnlib.files import write_atomic

made: list[int] = []


def numbers(start: int) -> pd.DataFrame:
    made.append(start)
    return pd.DataFrame({"number": range(start, start + 20)})


numbers.__module__ = "snnlib.files"  # a module whose digest can be taken
numbers = stored("numbers")(numbers)


@pytest.fixture
def used(home: Path) -> Callable[..., None]:
    """`used(notebook, *starts)`: the notebook has made and used these tables, rows and a network."""

    def note(number: str, *starts: int) -> None:
        for start in starts:
            numbers(start)
        results = [f"numbers/{numbers.artifact(start).name}" for start in starts] + ["rows/a", "networks/b"]
        content = {"results": results, "networks": {"b": [{"epoch": 1}]}}
        write_atomic(figures.used_path("night", number), json.dumps(content))

    made.clear()
    return note


def test_tables_come_back_and_are_not_made_again(used):
    used("12", 0, 1)
    used("30", 1)
    publish_tables("night", ["12", "30"])
    assert read_notes("night")["30"]["networks"] == {"b": [{"epoch": 1}]}
    shutil.rmtree(paths.ARTIFACTS / "numbers")
    assert take_tables("night") == (2, 0) and take_tables("night") == (0, 2)
    assert numbers(1).number.iloc[0] == 1 and made == [0, 1]


def test_those_of_other_notebooks_stay_and_what_nobody_uses_goes(used):
    used("12", 0)
    used("30", 1)
    publish_tables("night", ["12", "30"])
    shutil.rmtree(paths.ARTIFACTS / "numbers")
    used("12", 2)
    publish_tables("night", ["12"])
    shutil.rmtree(paths.ARTIFACTS / "numbers")
    assert take_tables("night") == (2, 0)
    assert [numbers.artifact(start).is_whole() for start in range(3)] == [False, True, True]


def test_equal_tables_give_equal_bytes(used):
    used("12", 0, 1)
    archive = paths.published_dir("night") / ARCHIVE
    publish_tables("night", ["12"])
    before = archive.read_bytes()
    for path in (paths.ARTIFACTS / "numbers").iterdir():
        path.touch()
    publish_tables("night", ["12"])
    assert archive.read_bytes() == before


def test_a_table_that_is_gone_and_a_damaged_archive_are_one_line(used):
    assert take_tables("night") == (0, 0)
    used("12", 0)
    numbers.artifact(0).path(".parquet").unlink()
    with pytest.raises(InputError, match="the table numbers/.* of a notebook is gone; run the notebook again"):
        publish_tables("night", ["12"])
    assert not (paths.published_dir("night") / ARCHIVE).exists()
    write_atomic(paths.published_dir("night") / ARCHIVE, b"damaged")
    with pytest.raises(InputError, match="tables.tar.xz cannot be unpacked"):
        take_tables("night")
