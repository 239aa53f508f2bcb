"""The ensemble's members beside those of the published decomposition, and what each of them adds."""

from __future__ import annotations

import pandas as pd

from snnlib.attacks.ensemble import MEMBERS
from snnlib.companion.measure.rows import SAMPLE_KEY, robust_accuracy
from snnlib.companion.published import load_reference
from snnlib.errors import InputError

PUBLISHED_NAMES = (
    *("PCW 1.0", "PCW 2.0", "PCW 3.0", "PCW 0.5", "PCW 0.25"),
    *("EXP (.3,.5)", "EXP (.3,1)", "EXP (.3,2)", "EXP (1,.5)", "EXP (1,1)", "EXP (1,2)"),
    *("RECT .25", "RECT .5", "RECT 1", "RECT 2", "RECT 4"),
    *("STE", "BPTR", "conversion-based"),
)
"""Names of the members in the follow-up's table A1, in the order of `MEMBERS`."""
SHORT_NAMES = dict(zip(MEMBERS, PUBLISHED_NAMES, strict=True))
PUBLISHED_NETWORKS = {"conversion": "SNN, conversion", "end to end": "SNN, end to end, random connectivity"}


def published_members() -> pd.DataFrame:
    """Follow-up's table A1: one row per member (index), one column per kind of network, robust accuracy 0..1."""
    table = load_reference("schmolli2025_tables")
    table = table[(table.table == "Table A1") & table.attack.str.startswith("FGSM, ")]
    columns = {}
    for kind, network in PUBLISHED_NETWORKS.items():
        rows = table[table.network == network]
        columns[kind] = (rows.value / 100).set_axis(rows.attack.str.removeprefix("FGSM, "))
    return pd.DataFrame(columns).loc[list(PUBLISHED_NAMES)]


def member_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy under each member alone, per model and seed: columns member, model, seed, robust_accuracy.

    rows: made with `alone`, one attack and one eps. Errors: InputError where a member did not run on every sample.
    """
    table = robust_accuracy(rows, by=["model", "seed", "surrogate"])
    if table.groupby(["model", "seed"]).samples.nunique().max() > 1:
        raise InputError("members ran on different numbers of samples; expected rows made with alone=True")
    return table.assign(member=table.surrogate.map(SHORT_NAMES)).drop(columns="surrogate")


def survivors(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of samples still standing after each member in turn: columns model, seed, number (from 1), member,
    standing. rows: one attack and one eps, alone or not.
    """
    broken = rows[rows.success].assign(number=rows.surrogate.map({name: n for n, name in enumerate(MEMBERS, 1)}))
    lines = []
    for (model, seed), group in rows.groupby(["model", "seed"], sort=False):
        own = broken[(broken.model == model) & (broken.seed == seed)]
        first = own.groupby(SAMPLE_KEY).number.min()
        count = len(group.drop_duplicates(SAMPLE_KEY))
        for number, member in enumerate(PUBLISHED_NAMES, 1):
            standing = 1 - (first <= number).sum() / count
            lines.append({"model": model, "seed": seed, "number": number, "member": member, "standing": standing})
    return pd.DataFrame(lines)
