"""The published rows: what notebooks used, and nothing of notebooks that do not use it any more."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from snnlib.companion import paths
from snnlib.companion.measure.archive import read_published
from snnlib.companion.measure.rows import ROW_COLUMNS, ROW_SCHEMA, write_rows
from snnlib.companion.measure.store import Artifact
from snnlib.companion.report import figures
from snnlib.companion.report.row_archive import publish_rows
from snnlib.errors import InputError
from snnlib.files import write_atomic

SAMPLE_CELLS = {"string": "a", "bool": True, "double": 0.5, "float": 0.5}


def store_rows(network: str) -> str:
    """Rows of one image, stored as a measurement would; returns their name."""
    artifact = Artifact("rows", {"network": network})
    cells = {field.name: SAMPLE_CELLS.get(str(field.type), 1) for field in ROW_SCHEMA}
    write_rows(artifact.path(".parquet"), pd.DataFrame([{**cells, "run": network}]).astype({"success": bool}))
    artifact.complete("snnlib.files", 1.0, ".parquet")
    return artifact.name


def note_use(number: str, *names: str) -> None:
    content = json.dumps({"results": [f"rows/{name}" for name in names] + ["accuracies/other"]})
    write_atomic(figures.used_path("quick", number), content)


def test_rows_are_published_by_notebook_and_leave_with_it(home):
    first, both, late = (store_rows(network) for network in ("first", "both", "late"))
    note_use("12", first, both)
    note_use("30", both)
    publish_rows("quick", ["12", "30"])
    results, rows = read_published("quick")
    assert dict(zip(results.result, results.notebooks, strict=True)) == {first: "12", both: "12 30"}
    assert list(rows.columns) == [*ROW_COLUMNS, "result"] and set(rows.run) == {"first", "both"}
    assert json.loads(results.arguments[0])["network"] in ("first", "both")

    note_use("12", late)
    for path in (paths.ARTIFACTS / "rows").glob(f"{both}*"):
        path.unlink()  # what is published already need not be here any more
    publish_rows("quick", ["12"])
    results, rows = read_published("quick")
    assert dict(zip(results.result, results.notebooks, strict=True)) == {late: "12", both: "30"}
    assert set(rows.run) == {"late", "both"}


def test_rows_that_are_gone_are_one_line(home):
    note_use("12", "0123456789abcdef")
    with pytest.raises(InputError, match="0123456789abcdef of notebook 12 are gone; run it again, then publish"):
        publish_rows("quick", ["12"])
    assert read_published("quick")[0].empty
