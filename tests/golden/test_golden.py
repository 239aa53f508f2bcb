"""Numbers that must not change unnoticed: an expensive result keeps its name when the code that made it changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from cases import CASES, rows_of  # noqa: E402

ADVICE = (
    "if the new numbers are meant, raise the version of the function that makes such results (@stored, or "
    "TRAINING_VERSION) and run tests/golden/renew.py; if not, mend the code"
)


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_the_golden_ones(name):
    found = rows_of(name)
    wanted = pd.read_csv(HERE / f"{name}.csv", dtype=str, keep_default_na=False)
    assert list(found.columns) == list(wanted.columns), ADVICE
    for column in wanted:
        if found[column].dtype.kind == "f":
            one, other = pd.to_numeric(wanted[column]).tolist(), found[column].tolist()
            assert other == pytest.approx(one, rel=2e-4, abs=1e-7, nan_ok=True), f"{name}, {column}: {ADVICE}"
        else:
            assert found[column].astype(str).tolist() == wanted[column].tolist(), f"{name}, {column}: {ADVICE}"


def test_every_golden_file_belongs_to_a_case():
    assert {path.stem for path in HERE.glob("*.csv")} == set(CASES)
