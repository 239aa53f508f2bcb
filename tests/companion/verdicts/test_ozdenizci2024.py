"""Verdict rules on made-up numbers: each can come out either way, at its boundary too, and says its numbers."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.verdicts import ozdenizci2024 as verdicts
from snnlib.errors import InputError

CONVERSION, END_TO_END = "SNN, conversion from ", "SNN, end to end, "
ROBUST = ("AT", "TRADES", "MART")


def _table(robust: dict[str, tuple], clean: dict[str, tuple] | None = None, level: int = 4) -> pd.DataFrame:
    """One row per model and seed; clean accuracy 60 % where it is not given."""
    return pd.DataFrame(
        [
            {"model": model, "seed": seed, "clean": (clean or {}).get(model, (0.6,) * 9)[seed], level: share}
            for model, shares in robust.items()
            for seed, share in enumerate(shares)
        ]
    )


def _against(conversion, steps, time, clean=0.6):
    robust = {f"{CONVERSION}{name}": shares for name, shares in zip(ROBUST, conversion, strict=True)}
    robust |= {f"{END_TO_END}equal steps": steps, f"{END_TO_END}equal time": time}
    robust[f"{CONVERSION}natural"] = (0.0, 0.0)  # no part of the mean
    return _table(robust, dict.fromkeys(robust, (clean, clean)))


@pytest.mark.parametrize(
    "conversion, steps, time, verdict",
    [
        ([(0.3, 0.3)] * 3, (0.2, 0.2), (0.2, 0.2), "reproduced"),
        ([(0.3, 0.3)] * 3, (0.1, 0.1), (0.2, 0.4), "mixed"),
        ([(0.3, 0.3)] * 3, (0.4, 0.4), (0.2, 0.2), "not reproduced"),
        ([(0.3, 0.3)] * 3, (0.3, 0.3), (0.2, 0.2), "not reproduced"),
        ([(0.1, 0.1), (0.2, 0.2), (0.6, 0.6)], (0.29, 0.29), (0.2, 0.2), "reproduced"),
        ([(0.04, 0.04)] * 3, (0.02, 0.02), (0.0, 0.0), "not testable"),
        ([(0.05, 0.05)] * 3, (0.02, 0.02), (0.0, 0.0), "reproduced"),
    ],
)
def test_conversion_is_judged_by_its_mean_against_the_better_rival(conversion, steps, time, verdict):
    assert verdicts.judge_against_end_to_end(_against(conversion, steps, time), 4).verdict == verdict


def test_networks_that_guess_one_class_prove_nothing():
    constant = _against([(0.1, 0.1)] * 3, (0.1, 0.1), (0.1, 0.1), clean=0.1)
    assert verdicts.judge_against_end_to_end(constant, 4).verdict == "not testable"


def test_ratio_stands_in_the_evidence():
    judgement = verdicts.judge_against_end_to_end(_against([(0.3, 0.3)] * 3, (0.1, 0.0), (0.15, 0.0)), 4)
    assert "2.00, inf" in judgement.evidence
    assert "conversion 30.0 ± 0.0 %" in judgement.evidence and "end-to-end 7.5 ± 7.5 %" in judgement.evidence
    assert judgement.holds == (True, True)


def test_missing_rival_is_an_error():
    table = _against([(0.3, 0.3)] * 3, (0.1, 0.1), (0.1, 0.1))
    with pytest.raises(InputError, match="no seed to judge"):
        verdicts.judge_against_end_to_end(table[~table.model.str.startswith(END_TO_END)], 4)


@pytest.mark.parametrize(
    "ann, snn, verdict",
    [
        ((0.60, 0.60), (0.60, 0.62), "reproduced"),
        ((0.60, 0.60), (0.59, 0.59), "reproduced"),
        ((0.60, 0.60), (0.60, 0.5889), "mixed"),
        ((0.60, 0.60), (0.50, 0.50), "not reproduced"),
        ((0.19, 0.10), (0.19, 0.10), "not testable"),
        ((0.20, 0.10), (0.10, 0.10), "not reproduced"),
    ],
)
def test_clean_accuracy_may_fall_by_a_point(ann, snn, verdict):
    clean = {"ANN, AT": ann, f"{CONVERSION}AT": snn}
    table = _table(dict.fromkeys(clean, (0.0, 0.0)), clean)
    assert verdicts.judge_clean_accuracy(table, ["AT"]).verdict == verdict


def test_clean_accuracy_is_judged_for_every_objective():
    clean = {"ANN, AT": (0.6,), f"{CONVERSION}AT": (0.6,), "ANN, MART": (0.6,), f"{CONVERSION}MART": (0.4,)}
    judgement = verdicts.judge_clean_accuracy(_table(dict.fromkeys(clean, (0.0,)), clean), ["AT", "MART"])
    assert judgement.verdict == "mixed"
    assert "AT +0.0, MART -20.0" in judgement.evidence


@pytest.mark.parametrize(
    "natural, robust, verdict",
    [
        ((0.1, 0.1), (0.2, 0.2), "reproduced"),
        ((0.1, 0.2), (0.2, 0.2), "mixed"),
        ((0.2, 0.2), (0.2, 0.2), "not reproduced"),
        ((0.00, 0.04), (0.04, 0.04), "not testable"),
    ],
)
def test_transfer_needs_more_than_fine_tuning_alone(natural, robust, verdict):
    table = _table({f"{CONVERSION}natural": natural, f"{CONVERSION}AT": robust})
    assert verdicts.judge_transfer(table, ["AT"], 4).verdict == verdict


def test_robust_networks_that_are_not_compared_do_not_make_a_claim_testable():
    table = _table({f"{CONVERSION}natural": (0.0,), f"{CONVERSION}AT": (0.01,), f"{END_TO_END}equal time": (0.5,)})
    assert verdicts.judge_transfer(table, ["AT"], 4).verdict == "not testable"


@pytest.mark.parametrize(
    "ours, ablated, ablated_clean, ties_hold, verdict",
    [
        ((0.3, 0.3), (0.2, 0.2), (0.6, 0.6), False, "reproduced"),
        ((0.3, 0.3), (0.3, 0.3), (0.6, 0.6), False, "not reproduced"),
        ((0.3, 0.3), (0.3, 0.3), (0.6, 0.6), True, "reproduced"),
        ((0.3, 0.3), (0.31, 0.3), (0.6, 0.6), True, "mixed"),
        ((0.3, 0.3), (0.2, 0.2), (0.61, 0.62), False, "mixed"),
        ((0.04, 0.04), (0.0, 0.0), (0.6, 0.6), True, "not testable"),
    ],
)
def test_ablation_needs_robustness_without_a_loss_of_clean_accuracy(ours, ablated, ablated_clean, ties_hold, verdict):
    table = _table({"ours": ours, "ablated": ablated}, {"ablated": ablated_clean})
    judgement = verdicts.judge_ablation(table, "ours", "ablated", 4, "this against that", ties_hold=ties_hold)
    assert judgement.verdict == verdict
    assert "this against that: robust at 4/255" in judgement.evidence


def _member_rows(training: list[bool], other: list[bool], correct: list[bool] | None = None) -> pd.DataFrame:
    """Rows of two members on the same samples of one network; True: broken."""
    correct = correct or [True] * len(training)
    columns = {"model": "m", "seed": 0, "dataset": "d", "split": "test", "eps": 8 / 255}
    parts = [
        pd.DataFrame({"surrogate": name, "sample": range(len(broken)), "success": broken, "clean_correct": correct})
        for name, broken in (("training", training), ("other", other))
    ]
    return pd.concat(parts, ignore_index=True).assign(**columns)


@pytest.mark.parametrize(
    "training, other, verdict",
    [
        ([False] * 10, [True] * 2 + [False] * 8, "reproduced"),
        ([False] * 10, [True] * 1 + [False] * 9, "not reproduced"),
        ([True] * 5 + [False] * 5, [False] * 5 + [True] + [False] * 4, "reproduced"),
        ([True] * 5 + [False] * 5, [True] * 5 + [False] * 5, "not reproduced"),
        ([True] * 10, [True] * 10, "not testable"),
    ],
)
def test_ensemble_is_judged_by_the_share_of_what_was_left(training, other, verdict):
    assert verdicts.judge_ensemble(_member_rows(training, other), "training").verdict == verdict


def test_ensemble_on_a_network_that_has_not_learned_is_not_testable():
    rows = _member_rows([False] + [True] * 9, [True] * 10, correct=[True] + [False] * 9)
    assert verdicts.judge_ensemble(rows, "training").verdict == "not testable"


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
