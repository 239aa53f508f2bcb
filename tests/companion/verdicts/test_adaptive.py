"""Claims Q1a to Q1c on made-up rows of attacks on the same networks."""

from __future__ import annotations

import pytest

from snnlib.companion.verdicts.adaptive import differences, judge_choice, judge_schedule, judge_worst_case

NETWORKS = ("conversion", "end to end")


@pytest.fixture
def attack(rows_of):
    """Rows of one attack that leaves so many of 1,000 images per seed, of every network, at so many passes an image."""

    def rows(left: tuple[int, ...], passes: int = 10):
        return rows_of(dict.fromkeys(NETWORKS, left), forwards=passes, backwards=0)

    return rows


@pytest.fixture
def learned(accuracies_of):
    return accuracies_of(dict.fromkeys(NETWORKS, (0.6, 0.6, 0.6)))


@pytest.mark.parametrize(
    "left, passes, verdict",
    [
        ((250, 255, 250), 10, "reproduced"),
        ((299, 300, 300), 10, "not reproduced"),
        ((350, 350, 350), 10, "not reproduced"),
        ((250, 255, 250), 20, "not testable"),
    ],
)
def test_the_schedule_has_to_break_more_at_a_third_of_the_passes(attack, learned, left, passes, verdict):
    single = {"linear alone": attack(left, passes), "exponential alone": attack(left, passes)}
    judgement = judge_schedule(attack((300, 300, 300), 30), single, learned)
    assert judgement.verdict == verdict and "linear alone" in judgement.evidence
    assert judgement.estimate == pytest.approx((900 - sum(left)) / 30)


def test_the_choice_is_held_against_the_mean_of_the_surrogates_it_chooses_from(attack, learned):
    single = {"linear alone": attack((300, 300, 300)), "exponential alone": attack((340, 340, 340))}
    assert judge_choice(attack((250, 250, 250)), single, learned).estimate == pytest.approx(7)
    assert judge_choice(attack((320, 320, 320)), single, learned).verdict == "not reproduced"


def test_an_attack_that_leaves_hardly_anybody_cannot_be_strengthened(attack, learned):
    assert judge_choice(attack((0, 0, 0)), {"alone": attack((30, 30, 30))}, learned).verdict == "not testable"


@pytest.mark.parametrize(
    "left, verdict",
    [((250, 250, 250), "reproduced"), ((300, 300, 300), "reproduced"), ((340, 340, 340), "mixed"),
     ((440, 440, 440), "not reproduced")],
)
def test_the_worst_case_may_not_miss_what_one_attack_alone_breaks(attack, learned, left, verdict):
    others = {"APGD": attack((300, 300, 300)), "PGD": attack((400, 400, 400))}
    judgement = judge_worst_case(attack(left), others, learned)
    assert judgement.verdict == verdict and "worst case minus APGD" in judgement.evidence
    assert judgement.estimate == pytest.approx((300 - left[0]) / 10, abs=0.01)
    table = differences(attack(left), others).set_index(["model", "way"])
    assert table.loc[("conversion", "PGD"), "difference"] == pytest.approx((400 - left[0]) / 1000)
    assert (table.low <= table.difference).all() and (table.high >= table.difference).all() and len(table) == 4
