"""The published rows of a profile, `figures/<profile>`: read back, or put into `artifacts/rows` as if made here.

`rows.parquet` has the columns of `ROW_COLUMNS` and `result`, the name of the call that made a row; `results.parquet`
says of each result which notebooks used it, its arguments and what made it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.measure.attacked import _rows
from snnlib.companion.measure.rows import ROW_COLUMNS, read_table
from snnlib.companion.measure.store import ROWS, Artifact

ROWS_FILE, RESULTS_FILE = "rows.parquet", "results.parquet"
RESULT_COLUMNS = ("result", "notebooks", "arguments", "made")


def read_published(profile: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(results, rows) of `figures/<profile>`; both empty where nothing is published."""
    folder = paths.published_dir(profile)
    if not (folder / RESULTS_FILE).is_file():
        return pd.DataFrame(columns=list(RESULT_COLUMNS)), pd.DataFrame(columns=[*ROW_COLUMNS, "result"])
    return read_table(folder / RESULTS_FILE), read_table(folder / ROWS_FILE)


def published_results(profile: str) -> Iterator[dict]:
    """Of every published result its name, arguments and maker, and `table`: its rows as they were stored."""
    results, rows = read_published(profile)
    tables = dict(iter(rows.groupby("result", sort=False)))
    for line in results.itertuples():
        table = tables.get(line.result, rows.iloc[:0]).drop(columns="result").reset_index(drop=True)
        arguments, made = json.loads(line.arguments), json.loads(line.made)
        yield {"result": line.result, "arguments": arguments, "made": made, "table": table}


def unpack_published(profile: str) -> Counter[str]:
    """Put the published rows where measurements look for them; counts "taken", "here" and "left out".

    What is here already stays. Left out: results without rows, and those whose name is not that of their arguments in
    this version, as nobody would find them.
    """
    counts: Counter[str] = Counter()
    for found in published_results(profile):
        artifact = Artifact("rows", found["arguments"], _rows.version)
        if artifact.name != found["result"] or found["table"].empty:
            counts["left out"] += 1
        elif artifact.is_whole():
            counts["here"] += 1
        else:
            ROWS.write(artifact.path(ROWS.suffix), found["table"])
            artifact.sign(found["made"], ROWS.suffix)
            counts["taken"] += 1
    return counts
