"""Intervals and verdicts on numbers of which the answer is known; Holm's method by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from snnlib.companion.verdicts import rules
from snnlib.companion.verdicts.effects import EFFECTS, Effect
from snnlib.companion.verdicts.rules import Estimate
from snnlib.errors import InputError

GAIN = Effect("gain", 0.05, "points", 0.01, "")
EQUAL = Effect("as good as", 0.05, "points", 0.01, "")
LEVEL = Effect("level", 0.25, "%", 0.02, "")
AT_MOST = Effect("at most", 0.05, "%", 0.0, "")


def differences(*plus_minus: tuple[int, int], images: int = 1000) -> np.ndarray:
    """Per seed so many images that only the first side kept, so many that only the second one kept."""
    return np.array([[1] * plus + [-1] * minus + [0] * (images - plus - minus) for plus, minus in plus_minus], float)


def test_every_effect_has_a_reason_and_says_what_would_have_counted():
    assert all(effect.reason and effect.smallest > 0 for effect in EFFECTS.values())
    assert EFFECTS["C1"].would_count() == "95 % interval above 0 points; against it: all below 5"
    assert EFFECTS["C2"].would_count() == "95 % interval above -1 points"
    assert EFFECTS["Q2"].would_count() == "95 % interval below 0.2 %"


def test_without_noise_between_seeds_the_interval_is_that_of_the_images():
    sharp = Effect("gain", 0.05, "points", 0.0, "")
    rows = differences((130, 70), (130, 70), (130, 70))
    found = rules.of_differences(sharp, rows)
    half = 1.96 * rows[0].std() / math.sqrt(1000)
    assert found.value == pytest.approx(0.06)
    # The same images at every seed: three seeds know no more than one.
    assert (found.low, found.high) == pytest.approx((0.06 - half, 0.06 + half), abs=0.002)


def test_seeds_that_agree_by_accident_still_count_as_seeds_that_differ():
    found = rules.of_seeds(GAIN, [0.02, 0.02])
    half = stats.t.ppf(0.975, rules.PRIOR_SEEDS + 1) * math.sqrt(rules.PRIOR_SEEDS / (rules.PRIOR_SEEDS + 1) / 2) * 0.01
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half), abs=0.001)
    wide = rules.of_seeds(GAIN, [-0.08, 0.12])
    assert wide.high - wide.low > 5 * (found.high - found.low)


def test_no_interval_of_a_share_goes_below_none_or_above_all():
    share = replace(LEVEL, seed_sd=0.1, least=0, most=1)
    for values, clipped in (([0.0, 0.01], "low"), ([0.99, 1.0], "high")):
        free, found = (rules.of_seeds(each, values) for each in (replace(LEVEL, seed_sd=0.1), share))
        assert not 0 <= getattr(free, clipped) <= 1 and 0 <= found.low < found.high <= 1
        assert found.p == free.p and rules.verdict_of(share, found) == rules.verdict_of(share, free)


@pytest.mark.parametrize(
    "effect, rows, verdict",
    [
        (GAIN, differences((150, 50), (160, 50)), "reproduced"),
        (GAIN, differences((50, 50), (52, 50)), "not reproduced"),
        (GAIN, differences((50, 150), (60, 150)), "not reproduced"),
        (GAIN, differences((150, 125), (140, 110)), "inconclusive at this size"),
        (GAIN, differences((250, 20), (20, 250)), "mixed"),
        (EQUAL, differences((50, 50), (52, 50)), "reproduced"),
        (EQUAL, differences((150, 50), (160, 50)), "reproduced"),
        (EQUAL, differences((50, 190), (50, 200)), "not reproduced"),
        (EQUAL, differences((50, 90), (50, 80)), "inconclusive at this size"),
    ],
)
def test_verdict_follows_from_where_the_interval_lies(effect, rows, verdict):
    assert rules.verdict_of(effect, rules.of_differences(effect, rows)) == verdict


def test_a_real_effect_that_is_too_small_to_count_is_none():
    rows = np.repeat(differences((400, 200), images=10_000), 2, axis=0)
    found = rules.of_differences(Effect("gain", 0.05, "points", 0.0, ""), rows)
    assert 0 < found.low < found.high < 0.05 and rules.verdict_of(GAIN, found) == "not reproduced"


@pytest.mark.parametrize(
    "values, verdict",
    [
        ((0.5, 0.6), "reproduced"),
        ((0.01, 0.02), "not reproduced"),
        ((0.25, 0.27), "inconclusive at this size"),
        ((0.5, 0.02), "mixed"),
    ],
)
def test_a_level_has_to_be_passed_by_the_whole_interval(values, verdict):
    assert rules.verdict_of(LEVEL, rules.of_seeds(LEVEL, values)) == verdict


@pytest.mark.parametrize(
    "hits, verdict",
    [
        ((1, 2), "reproduced"),
        ((30, 25), "not reproduced"),
        ((8, 6), "inconclusive at this size"),
        ((0, 60), "mixed"),
    ],
)
def test_a_share_has_to_stay_below_its_limit_with_its_exact_interval(hits, verdict):
    found = rules.of_counts(AT_MOST, hits, (200, 200))
    exact = stats.binomtest(sum(hits), 400).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert rules.verdict_of(AT_MOST, found) == verdict


@pytest.mark.parametrize("untied", [1, 2, 17, 200])
def test_the_sign_test_is_scipys_for_every_count(untied):
    found = [rules._sign_test(plus, untied) for plus in range(untied + 1)]
    assert found == pytest.approx([stats.binomtest(plus, untied).pvalue for plus in range(untied + 1)], rel=1e-11)


def test_mcnemar_is_exact_per_seed_and_told():
    found = rules.of_differences(GAIN, differences((9, 1), (3, 0)))
    assert [one.mcnemar for one in found.seeds] == pytest.approx([22 / 1024, 0.25])
    assert "per seed +0.8 (p = 0.021), +0.3 (p = 0.25)" in rules.describe(GAIN, found, "x")


def test_both_one_sided_tests_are_told():
    equal = rules.of_differences(EQUAL, differences((50, 50), (50, 50)))
    better = rules.of_differences(EQUAL, differences((150, 50), (150, 50)))
    assert "equal by both tests" in rules.describe(EQUAL, equal, "x")
    assert "as good or better" in rules.describe(EQUAL, better, "x")


def test_unpaired_accuracies_give_the_wide_interval_of_two_shares():
    effect = Effect("as good as", 0.01, "points", 0.0, "")
    found = rules.of_shares(effect, np.array([[0.6], [0.6]]), np.array([[0.5], [0.5]]), 1000)
    half = 1.96 * math.sqrt((0.24 + 0.25) / 1000 / 2)
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half), abs=0.003)


def test_the_same_rows_give_the_same_numbers():
    rows = differences((120, 80), (130, 90))
    assert rules.of_differences(GAIN, rows) == rules.of_differences(GAIN, rows)


def judged(**parts: Estimate) -> rules.Judgement:
    return rules.judge(parts, "evidence", seeds=(0, 1), samples=1000)


def test_all_parts_have_to_hold_and_the_weakest_is_shown():
    strong, weak = Estimate(0.10, 0.08, 0.12, 0.001), Estimate(0.04, 0.01, 0.07, 0.02)
    open_, none = Estimate(0.02, -0.03, 0.07, 0.4), Estimate(-0.02, -0.05, 0.01, 1.0)
    both = judged(**{"C3/AT": strong, "C3/MART": weak})
    assert (both.verdict, both.p, both.unit) == ("reproduced", 0.02, "points")
    assert (both.estimate, both.low, both.high) == pytest.approx((4, 1, 7))
    assert judged(**{"C3/AT": strong, "C3/MART": open_}).verdict == "inconclusive at this size"
    assert judged(**{"C3/AT": strong, "C3/MART": none}).verdict == "mixed"
    assert judged(**{"C3/AT": open_, "C3/MART": none}).verdict == "not reproduced"


def test_a_failed_precondition_outweighs_any_number():
    judgement = rules.judge({"C1": Estimate(0.1, 0.08, 0.12, 0.001)}, "", seeds=(0,), samples=9, failures=["too weak"])
    assert judgement.verdict == "not testable" and judgement.evidence.startswith("too weak; C1: +10.0 points")
    assert math.isnan(judgement.p) and judgement.estimate == pytest.approx(10)


def test_nothing_is_judged_without_a_seed():
    with pytest.raises(InputError, match="no seed to judge"):
        rules.of_seeds(GAIN, [])
    with pytest.raises(InputError, match="no seed to judge"):
        rules.of_counts(AT_MOST, [], [])


def test_holm_takes_back_what_only_one_of_several_claims_would_show():
    claims = {"C1": 0.01, "C2": 0.02, "C3": 0.04, "C4": float("nan"), "L1": 0.04}
    table = pd.DataFrame({"claim": list(claims), "p": list(claims.values()), "verdict": "reproduced"})
    table.loc[3, "verdict"] = "not testable"
    adjusted = rules.holm(table)
    assert adjusted.p_holm.tolist()[:3] == pytest.approx([0.03, 0.04, 0.04])
    assert adjusted.verdict.tolist() == ["reproduced"] * 3 + ["not testable", "reproduced"]
    table.loc[2, "p"] = 0.5
    table.loc[1, "p"] = 0.03
    demoted = rules.holm(table)
    assert demoted.verdict.tolist()[:3] == ["reproduced", "inconclusive at this size", "inconclusive at this size"]
    table = demoted.assign(p=[0.01, 0.01, 0.01, float("nan"), 0.04])
    assert rules.holm(table).verdict.tolist()[:3] == ["reproduced"] * 3
