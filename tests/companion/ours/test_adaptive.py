"""The adaptive ensemble beside the fixed one, on made-up rows."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.ours.adaptive import broken_by_passes, compare, per_sample


def _rows(*lines: tuple[str, int, bool, int, int]) -> pd.DataFrame:
    """Lines of (surrogate, sample, success, forwards, backwards)."""
    columns = ["surrogate", "sample", "success", "forwards", "backwards"]
    names = {"model": "m", "seed": 0, "eps": 8 / 255, "dataset": "d", "split": "test"}
    return pd.DataFrame(lines, columns=columns).assign(**names)


FIXED = _rows(
    ("a", 0, True, 3, 2), ("a", 1, False, 5, 4), ("b", 1, True, 2, 1), ("a", 2, False, 5, 4), ("b", 2, False, 5, 4)
)  # fmt: skip
ADAPTIVE = _rows(("adaptive", 0, True, 1, 0), ("adaptive", 1, False, 3, 2), ("adaptive", 2, True, 2, 1))


def test_a_sample_pays_for_every_member_that_ran_on_it():
    table = per_sample(FIXED).set_index("sample")
    assert table.passes.to_dict() == {0: 5, 1: 12, 2: 18}
    assert table.broken.to_dict() == {0: True, 1: True, 2: False}


def test_comparison_counts_failures_passes_and_who_fell_to_one_alone():
    line = compare(FIXED, ADAPTIVE).iloc[0]
    assert (line.samples, line.fixed_broken, line.adaptive_broken) == (3, 2, 2)
    assert (line.only_fixed, line.only_adaptive) == (1, 1)
    assert (line.fixed_passes, line.adaptive_passes) == (35, 9)
    assert line.share_of_passes == pytest.approx(9 / 35)


def test_curve_rises_where_samples_fall():
    curve = broken_by_passes(FIXED)
    assert curve.passes.tolist() == [5, 12]
    assert curve.broken.tolist() == pytest.approx([1 / 3, 2 / 3])


def test_curve_of_a_network_that_nothing_breaks_is_empty():
    assert broken_by_passes(_rows(("a", 0, False, 3, 2))).empty
