"""Our members beside the published ones."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.attacks.ensemble import MEMBERS
from snnlib.companion.ozdenizci2024.members import SHORT_NAMES, member_table, published_members, survivors
from snnlib.errors import InputError

FIRST, SECOND, THIRD = list(MEMBERS)[:3]


def _rows(broken: dict[str, list[bool]], **columns) -> pd.DataFrame:
    """One row per member and sample; `broken[member][sample]`."""
    lines = [
        {"surrogate": member, "sample": sample, "success": success}
        for member, successes in broken.items()
        for sample, success in enumerate(successes)
    ]
    return pd.DataFrame(lines).assign(**{"model": "m", "seed": 0, "dataset": "d", "split": "test", **columns})


def test_names_follow_the_members_parameters():
    assert SHORT_NAMES["piecewise_linear(width=0.25, height=4)"] == "PCW 0.25"
    assert SHORT_NAMES["exponential(height=0.3, rate=2)"] == "EXP (.3,2)"
    assert SHORT_NAMES["rectangular(width=4)"] == "RECT 4"
    assert list(SHORT_NAMES.values())[-3:] == ["STE", "BPTR", "conversion-based"]
    assert list(MEMBERS)[-2:] == ["backward_through_rate", "relu_proxy"]


def test_published_decomposition_has_every_member_and_its_strongest():
    table = published_members()
    assert table.shape == (19, 2) and table.notna().all().all()
    assert table.idxmin().tolist() == ["EXP (.3,2)", "EXP (.3,2)"]
    assert table.loc["PCW 1.0", "conversion"] == pytest.approx(0.5481)


def test_single_members_are_counted_on_all_samples():
    table = member_table(_rows({FIRST: [True, False, False, False], SECOND: [True, True, True, False]}))
    assert dict(zip(table.member, table.robust_accuracy, strict=True)) == {"PCW 1.0": 0.75, "PCW 2.0": 0.25}


def test_rows_of_survivors_alone_are_no_table_of_members():
    rows = pd.concat([_rows({FIRST: [True, False]}), _rows({SECOND: [True]})])
    with pytest.raises(InputError, match="alone=True"):
        member_table(rows)


def test_survivors_fall_by_what_a_member_adds():
    rows = _rows({FIRST: [True, False, False, False], SECOND: [True, True, False, False], THIRD: [False] * 4})
    standing = survivors(rows).standing.tolist()
    assert standing[:3] == [0.75, 0.5, 0.5] and set(standing[3:]) == {0.5}


def test_network_that_nothing_breaks_stands():
    assert set(survivors(_rows({FIRST: [False, False]})).standing) == {1.0}
