"""The rows behind published figures, sample by sample, in two small files: a number can be followed to images.

What they hold and how they are read: `snnlib.companion.measure.archive`.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.measure.archive import RESULT_COLUMNS, RESULTS_FILE, ROWS_FILE, read_published
from snnlib.companion.measure.rows import ROW_COLUMNS, write_table
from snnlib.companion.measure.store import ROWS, read_record
from snnlib.companion.report import figures
from snnlib.errors import InputError


def publish_rows(profile: str, numbers: Collection[str]) -> None:
    """Put the rows that these notebooks used into `figures/<profile>`; those of other notebooks stay.

    Errors: InputError where rows that a notebook used are gone.
    """
    old_results, old_rows = read_published(profile)
    lines, tables = [], []
    for name, notebooks in sorted(_users(profile, numbers, old_results).items()):
        record = read_record(paths.ARTIFACTS / "rows" / f"{name}.json")
        published = old_results[old_results.result == name]
        if record is not None:
            told = [json.dumps(record[part], sort_keys=True) for part in ("arguments", "made")]
            tables.append(ROWS.read(paths.ARTIFACTS / "rows" / f"{name}{ROWS.suffix}").assign(result=name))
        elif len(published):
            told = [published.arguments.item(), published.made.item()]
            tables.append(old_rows[old_rows.result == name])
        else:
            raise InputError(f"the rows {name} of notebook {', '.join(notebooks)} are gone; run it again, then publish")
        lines.append((name, " ".join(sorted(notebooks)), *told))
    if lines:
        folder = paths.published_dir(profile)
        write_table(folder / RESULTS_FILE, pd.DataFrame(lines, columns=list(RESULT_COLUMNS)))
        write_table(folder / ROWS_FILE, pd.concat(tables, ignore_index=True)[[*ROW_COLUMNS, "result"]])


def _users(profile: str, numbers: Collection[str], published: pd.DataFrame) -> dict[str, set[str]]:
    """Result -> the notebooks that use it: of `numbers` as they ran last, of others as published."""
    users: dict[str, set[str]] = {}
    for line in published.itertuples():
        if others := set(line.notebooks.split()) - set(numbers):
            users[line.result] = others
    for number in numbers:
        for name in figures.used_results(profile, number):
            if name.startswith("rows/"):
                users.setdefault(name.removeprefix("rows/"), set()).add(number)
    return users
