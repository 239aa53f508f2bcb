"""How often the rules err on simulated networks, at the sizes of a night."""

from __future__ import annotations

import pytest

from snnlib.companion.verdicts.effects import EFFECTS
from snnlib.companion.verdicts.operating import CASES, operating_characteristics

THEOREMS = {"L5", "L7"}


@pytest.fixture(scope="module")
def rates():
    table = operating_characteristics(100)
    return table.set_index(["claim", "scenario"])


def test_every_claim_with_an_effect_is_simulated():
    assert [case.claim for case in CASES] == [claim for claim in EFFECTS if claim != "L4 clean"]


def test_what_is_just_false_is_reproduced_in_fewer_than_one_of_twenty(rates):
    assert (rates.xs("claim just false", level="scenario").reproduced < 0.05).all()


def test_the_smallest_effect_is_found_in_more_than_four_of_five(rates):
    assert (rates.xs("smallest effect", level="scenario").reproduced > 0.8).all()
    assert (rates.xs("smallest effect", level="scenario")["not reproduced"] < 0.1).all()


def test_twice_that_is_found_even_as_the_first_of_six_claims(rates):
    assert (rates.xs("twice that", level="scenario").reproduced_by_holm > 0.8).all()


@pytest.mark.parametrize("rival", ["constant rival", "collapsed rival"])
def test_no_claim_is_decided_by_a_rival_that_has_not_learned(rates, rival):
    table = rates.xs(rival, level="scenario")
    assert set(table.index) == set(EFFECTS) - {"L4 clean"} - THEOREMS
    assert (table["not testable"] == 1).all()


def test_gains_are_rarely_reproduced_wrongly_though_trainings_differ_twice_as_much():
    rows = operating_characteristics(60, claims=("C1", "C5", "L6b"), spreads=(2,))
    table = rows[rows.spread == 2].set_index("scenario")
    assert (table.loc["claim just false"].reproduced < 0.05).all()
