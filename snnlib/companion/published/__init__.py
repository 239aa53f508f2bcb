"""Published numbers, each with its source, to stand beside ours. Nothing here was measured by this project.

Tables: `luu2025_tables` (results of Luu et al. 2025, cells that we could not read stay empty), `luu2025_setup`
(their settings as released), `schmolli2025_tables` (the follow-up of Özdenizci & Legenstein 2024, whose own tables
were not available to us; sparse networks unless a row says dense), `competitors` (independent references, not from
Luu et al.), `sources` (key to address). Accuracies are in percent, as printed (100 minus the attack success where a
row's note says so); `eps255` and `step255` are in 1/255 of the pixel range.
"""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from snnlib.errors import InputError

NOT_AVAILABLE = "not available to us"
NUMBERS = ("time_steps", "sparsity", "eps255", "steps", "step255", "value", "number")
TEXT_VALUES = ("luu2025_setup",)


def reference_names() -> list[str]:
    """Names that `load_reference` takes."""
    names = (entry.name for entry in _folder().iterdir())
    return sorted(name.removesuffix(".csv") for name in names if name.endswith(".csv"))


def load_reference(name: str) -> pd.DataFrame:
    """One table of published numbers. Unknown numbers are NaN, empty texts "".

    Errors: InputError for an unknown name.
    """
    if name not in reference_names():
        raise InputError(f"reference is {name!r}; expected one of {', '.join(reference_names())}")
    with _folder().joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    for column in NUMBERS:
        if column in table and not (column == "value" and name in TEXT_VALUES):
            table[column] = pd.to_numeric(table[column])
    return table


def _folder():
    return files("snnlib.companion.published")
