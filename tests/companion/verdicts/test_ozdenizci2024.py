"""Rules of the conversion chapter on made-up rows: each can come out either way, and says its numbers."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.verdicts import ozdenizci2024 as verdicts
from snnlib.errors import InputError

CONVERSION, END_TO_END = "SNN, conversion from ", "SNN, end to end, "
ROBUST = ("AT", "TRADES", "MART")
LEARNED = (0.6, 0.6, 0.6)


@pytest.fixture
def judged(rows_of, accuracies_of):
    """A rule's verdict on networks of which so many of 1,000 images stand per seed; all have learned but `clean`."""

    def judge(rule, standing: dict[str, tuple[int, ...]], *arguments, clean: dict | None = None):
        accuracies = accuracies_of({**dict.fromkeys(standing, LEARNED), **(clean or {})})
        return rule(rows_of(standing), accuracies, *arguments)

    return judge


def against(conversion, steps, time) -> dict[str, tuple[int, ...]]:
    standing = {f"{CONVERSION}{name}": counts for name, counts in zip(ROBUST, conversion, strict=True)}
    standing[f"{CONVERSION}natural"] = (0, 0, 0)  # no part of the mean
    return standing | {f"{END_TO_END}equal steps": steps, f"{END_TO_END}equal time": time}


@pytest.mark.parametrize(
    "conversion, steps, time, verdict",
    [
        ([(300, 300, 310)] * 3, (200, 200, 200), (200, 210, 200), "reproduced"),
        ([(300, 300, 300)] * 3, (0, 0, 0), (500, 490, 500), "reproduced"),
        ([(300, 300, 300)] * 3, (400, 400, 400), (400, 390, 400), "not reproduced"),
        ([(300, 300, 300)] * 3, (300, 300, 300), (300, 290, 300), "not reproduced"),
        ([(100, 100, 100), (200, 200, 200), (600, 600, 600)], (200, 200, 200), (200, 200, 200), "reproduced"),
        ([(330, 320, 330)] * 3, (270, 320, 300), (280, 320, 320), "inconclusive at this size"),
        ([(90, 90, 90)] * 3, (20, 20, 20), (0, 0, 0), "not testable"),
    ],
)
def test_conversion_is_judged_by_its_mean_against_the_mean_of_the_rivals(judged, conversion, steps, time, verdict):
    assert judged(verdicts.judge_against_end_to_end, against(conversion, steps, time), 4).verdict == verdict


def test_numbers_sides_and_seeds_stand_in_the_judgement(judged):
    standing = against([(300, 300, 300)] * 3, (200, 200, 200), (100, 100, 100))
    judgement = judged(verdicts.judge_against_end_to_end, standing, 4)
    assert judgement.estimate == pytest.approx(15) and judgement.low < 15 < judgement.high
    assert (judgement.unit, judgement.seeds, judgement.samples) == ("points", (0, 1, 2), 1000)
    assert "conversion 30.0 % of 60.0 % clean (success among correct 50 %)" in judgement.evidence
    assert "conversion minus end to end, standing at 4/255: +15.0 points" in judgement.evidence
    assert "±" not in judgement.evidence and "above 0 points" in judgement.would_count


def test_one_rival_that_has_not_learned_makes_the_comparison_worthless(judged):
    standing = against([(300, 300, 300)] * 3, (200, 200, 200), (170, 170, 170))
    judgement = judged(
        verdicts.judge_against_end_to_end, standing, 4, clean={f"{END_TO_END}equal time": (0.17, 0.17, 0.25)}
    )
    assert judgement.verdict == "not testable" and "equal time has not learned" in judgement.evidence


def test_missing_rival_is_an_error(judged):
    with pytest.raises(InputError, match="no rival"):
        judged(verdicts.judge_against_end_to_end, {f"{CONVERSION}AT": (300, 300, 300)}, 4)


@pytest.mark.parametrize(
    "ann, snn, verdict",
    [
        ((0.60, 0.60, 0.60), (0.61, 0.60, 0.61), "reproduced"),
        ((0.60, 0.60, 0.60), (0.59, 0.59, 0.59), "inconclusive at this size"),
        ((0.60, 0.60, 0.60), (0.55, 0.54, 0.55), "not reproduced"),
        ((0.60, 0.60, 0.60), (0.10, 0.10, 0.10), "not reproduced"),
        ((0.19, 0.60, 0.60), (0.19, 0.60, 0.60), "not testable"),
    ],
)
def test_clean_accuracy_may_fall_by_a_point(accuracies_of, ann, snn, verdict):
    accuracies = accuracies_of({"ANN, AT": ann, f"{CONVERSION}AT": snn})
    judgement = verdicts.judge_clean_accuracy(accuracies, ["AT"])
    assert judgement.verdict == verdict and judgement.samples == 10_000


def test_clean_accuracy_is_the_mean_of_the_objectives(accuracies_of):
    clean = {"ANN, AT": LEARNED, f"{CONVERSION}AT": LEARNED, "ANN, MART": LEARNED, f"{CONVERSION}MART": (0.4, 0.4, 0.4)}
    judgement = verdicts.judge_clean_accuracy(accuracies_of(clean), ["AT", "MART"])
    assert judgement.verdict == "not reproduced" and "AT +0.0, MART -20.0" in judgement.evidence
    with pytest.raises(InputError, match="missing: \\['ANN, TRADES'"):
        verdicts.judge_clean_accuracy(accuracies_of(clean), ["TRADES"])


@pytest.mark.parametrize(
    "natural, at, mart, verdict",
    [
        ((100, 100), (200, 200), (210, 200), "reproduced"),
        ((200, 200), (200, 200), (200, 190), "not reproduced"),
        ((100, 100), (200, 200), (100, 100), "mixed"),
        ((200, 200), (300, 300), (255, 200), "inconclusive at this size"),
        ((0, 40), (40, 40), (90, 80), "not testable"),
    ],
)
def test_transfer_needs_more_than_fine_tuning_alone_for_every_objective(judged, natural, at, mart, verdict):
    standing = {f"{CONVERSION}natural": natural, f"{CONVERSION}AT": at, f"{CONVERSION}MART": mart}
    assert judged(verdicts.judge_transfer, standing, ["AT", "MART"], 4).verdict == verdict


@pytest.mark.parametrize(
    "claim, ours, ablated, moved, verdict",
    [
        ("C5", (300, 300, 300), (200, 200, 200), 0.2, "reproduced"),
        ("C5", (300, 300, 300), (300, 300, 300), 0.2, "not reproduced"),
        ("C5", (300, 300, 300), (200, 200, 200), 0.014, "not testable"),
        ("C6", (300, 300, 300), (300, 300, 300), 0.2, "reproduced"),
        ("C6", (200, 200, 200), (300, 300, 300), 0.2, "not reproduced"),
        ("C6", (90, 90, 90), (0, 0, 0), 0.2, "not testable"),
    ],
)
def test_ablation_needs_a_treatment_that_was_applied(judged, claim, ours, ablated, moved, verdict):
    def rule(rows, accuracies):
        change = pd.Series(moved, range(3))
        return verdicts.judge_ablation(claim, rows, accuracies, "ours", "ablated", 4, change, "this against that")

    judgement = judged(rule, {"ours": ours, "ablated": ablated})
    assert judgement.verdict == verdict and "this minus that, standing at 4/255" in judgement.evidence


@pytest.mark.parametrize(
    "training, other, verdict",
    [
        ((500, 500, 500), (375, 370, 380), "reproduced"),
        ((500, 500, 500), (499, 495, 500), "not reproduced"),
        ((500, 500, 500), (450, 445, 455), "inconclusive at this size"),
        ((90, 90, 90), (0, 0, 0), "not testable"),
    ],
)
def test_ensemble_is_judged_by_the_share_of_what_was_left(rows_of, accuracies_of, training, other, verdict):
    members = {"training": training, "other": other}
    rows = pd.concat([rows_of({"m": counts}, surrogate=name) for name, counts in members.items()], ignore_index=True)
    judgement = verdicts.judge_ensemble(rows, accuracies_of({"m": LEARNED}), "training")
    assert judgement.verdict == verdict
    assert judgement.estimate == pytest.approx(100 * (1 - sum(other) / sum(training)), abs=0.1)


def test_table_takes_the_worst_case_per_sample_and_level():
    rows = pd.DataFrame(
        [
            {"model": "m", "seed": 0, "dataset": "d", "split": "test", "eps": level / 255, "sample": n, "success": fell}
            for level, broken in ((2, ([0, 0, 0, 1], [0, 0, 1, 0])), (8, ([1, 1, 0, 0], [0, 1, 1, 0])))
            for attack in broken
            for n, fell in enumerate(map(bool, attack))
        ]
    )
    clean = pd.DataFrame({"model": ["m"], "seed": [0], "test_accuracy": [0.7], "run": ["r"]})
    table = verdicts.by_network(rows, clean)
    assert table.to_dict("records") == [{"model": "m", "seed": 0, "clean": 0.7, 2: 0.5, 8: 0.25}]


def test_rank_correlation_by_hand():
    ours = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "only ours": 9.0})
    assert verdicts.rank_correlation(ours, pd.Series({"a": 10, "b": 20, "c": 30})) == pytest.approx(1)
    assert verdicts.rank_correlation(ours, pd.Series({"a": 3, "b": 2, "c": 1})) == pytest.approx(-1)
    # ranks 1 2 3 against 1 3 2: 1 - 6·(0 + 1 + 1) / (3·8) = 1/2
    assert verdicts.rank_correlation(ours, pd.Series({"a": 1, "b": 3, "c": 2})) == pytest.approx(0.5)
    with pytest.raises(InputError, match="2 common members"):
        verdicts.rank_correlation(ours, pd.Series({"a": 1, "b": 3}))
