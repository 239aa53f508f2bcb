"""What has to be so before anything is compared."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.verdicts import preconditions
from snnlib.errors import InputError


def test_an_image_stands_where_no_row_broke_it_over_the_seeds_that_all_have(rows_of):
    rows = pd.concat([rows_of({"a": (300, 200), "b": (100,)}), rows_of({"a": (250, 200), "b": (100,)})])
    tables = preconditions.standing(rows, ["a", "b"])
    assert tables["a"].shape == tables["b"].shape == (1, 1000)
    assert (tables["a"].sum(axis=1)[0], tables["b"].sum(axis=1)[0]) == (250, 100)


def test_rows_that_are_no_pairs_are_refused(rows_of):
    rows = rows_of({"a": (300,), "b": (300,)})
    with pytest.raises(InputError, match="no rows of \\['c'\\]"):
        preconditions.standing(rows, ["a", "c"])
    with pytest.raises(InputError, match="not attacked on the same images"):
        preconditions.standing(rows.drop(rows.index[:1]), ["a", "b"])
    with pytest.raises(InputError, match="none in common"):
        preconditions.standing(rows.assign(seed=(rows.model == "a").astype(int)), ["a", "b"])


def test_one_seed_of_one_network_that_has_not_learned_is_enough(accuracies_of):
    good = accuracies_of({"a": (0.6, 0.6), "b": (0.5, 0.31)})
    assert preconditions.not_learned(good, ["a", "b"]) == []
    (reason,) = preconditions.not_learned(accuracies_of({"a": (0.6, 0.6), "b": (0.5, 0.25)}), ["a", "b"])
    assert reason.startswith("b has not learned (25 % clean")
    collapsed = pd.concat([accuracies_of({"a": (0.6,)}), accuracies_of({"b": (0.6,)}, entropy=1.1)])
    (reason,) = preconditions.not_learned(collapsed, ["a", "b"])
    assert "1.1 bits" in reason
    shares = good.rename(columns={"test_accuracy": "clean_accuracy"})
    assert preconditions.not_learned(shares, ["a"]) == []
    with pytest.raises(InputError, match="lack clean accuracy or class_entropy"):
        preconditions.not_learned(good.drop(columns="class_entropy"), ["a"])
    with pytest.raises(InputError, match="no accuracy of 'c'"):
        preconditions.not_learned(good, ["c"])


def test_a_difference_needs_room_and_a_treatment_has_to_be_applied():
    assert preconditions.no_room({"a": 0.02, "b": 0.10}) == []
    assert preconditions.no_room({"a": 0.02, "b": 0.09}) == ["nobody keeps 10% under attack (a 2.0 %, b 9.0 %)"]
    assert preconditions.not_applied(pd.Series([0.1, 0.4]), "moves") == []
    assert preconditions.not_applied(pd.Series([0.014, 0.4]), "moves")[0].startswith("moves by 1.4 % only")
    assert preconditions.not_applied(pd.Series([], dtype=float), "moves")


def test_success_among_the_correct_stands_beside_the_accuracies(rows_of):
    text = preconditions.told(rows_of({"a": (300, 300)}), {"ours": ["a"]})
    assert text == "means of ours 30.0 % of 60.0 % clean (success among correct 50 %)"
