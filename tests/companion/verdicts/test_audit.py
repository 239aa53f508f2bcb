"""Final verdict rules on made-up numbers: each can come out every way, and says its numbers."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.verdicts import audit as verdicts
from snnlib.companion.verdicts.luu2025 import AVERAGE, DEFENDED, MAX
from snnlib.errors import InputError

NAMES = {"vanilla": MAX, "average": AVERAGE, "defended": DEFENDED}


def _robust(spaces: dict[str, dict[int, dict[str, tuple[float, ...]]]]) -> pd.DataFrame:
    rows = [
        {"threat_model": space, "eps255": level, "model": NAMES[name], "seed": seed, "robust_accuracy": share}
        for space, levels in spaces.items()
        for level, models in levels.items()
        for name, shares in models.items()
        for seed, share in enumerate(shares)
    ]
    return pd.DataFrame(rows)


PROTOCOL = _robust({"authors": {6: {"vanilla": (0.22, 0.20), "defended": (0.15, 0.16)}}})


@pytest.mark.parametrize(
    "vanilla, defended, verdict",
    [
        ((0.30, 0.29), (0.30, 0.30), "reproduced"),
        ((0.10, 0.12), (0.30, 0.30), "not reproduced"),
        ((0.10, 0.30), (0.30, 0.30), "mixed"),
        ((0.04, 0.04), (0.04, 0.03), "not testable"),
    ],
)
def test_the_vanilla_network_has_to_keep_up_on_images(vanilla, defended, verdict):
    models = {"vanilla": vanilla, "defended": defended}
    on_code = {"vanilla": (0.5, 0.5), "defended": (0.1, 0.1)}
    judgement = verdicts.judge_undefended(_robust({"image": {6: models}, "encoded": {6: on_code}}), PROTOCOL)
    assert judgement.verdict == verdict
    assert "on the code at 6/255 50.0 ± 0.0 % vanilla, 10.0 ± 0.0 % defended" in judgement.evidence
    assert "the authors' protocol alone left 21.0 ± 1.0 % and 15.5 ± 0.5 %" in judgement.evidence


def test_the_largest_eps_at_which_the_defended_network_stands_decides():
    small = {"vanilla": (0.1, 0.1), "defended": (0.4, 0.4)}
    large = {"vanilla": (0.06, 0.06), "defended": (0.01, 0.02)}
    robust = _robust({"image": {2: small, 6: large}, "encoded": {6: large}})
    judgement = verdicts.judge_undefended(robust, PROTOCOL)
    assert judgement.verdict == "not reproduced" and "on images at 2/255 10.0" in judgement.evidence
    assert "on the code the defended network keeps 5% at no eps" in judgement.evidence
    assert verdicts.deciding_level(robust, "image", (DEFENDED,)) == 2
    assert verdicts.deciding_level(robust, "image", (MAX, DEFENDED)) == 6
    assert verdicts.deciding_level(robust, "encoded", (DEFENDED,)) is None


def _accuracies(average: tuple[float, ...], vanilla: tuple[float, ...]) -> pd.DataFrame:
    rows = [(AVERAGE, seed, share) for seed, share in enumerate(average)]
    rows += [(MAX, seed, share) for seed, share in enumerate(vanilla)]
    return pd.DataFrame(rows, columns=["model", "seed", "test_accuracy"])


@pytest.mark.parametrize(
    "clean, robust, verdict",
    [
        ((0.5, 0.5), (0.1, 0.1), "reproduced"),
        ((0.3, 0.3), (0.1, 0.1), "not reproduced"),
        ((0.5, 0.5), (0.3, 0.3), "not reproduced"),
        ((0.5, 0.3), (0.1, 0.1), "mixed"),
    ],
)
def test_the_trade_off_needs_both_halves(clean, robust, verdict):
    table = _robust({"image": {2: {"average": robust, "vanilla": (0.2, 0.2)}}})
    judgement = verdicts.judge_trade(table, _accuracies(clean, (0.4, 0.4)))
    assert judgement.verdict == verdict
    assert "on the code neither keeps 5% at any eps" in judgement.evidence
    gains = ", ".join(f"{100 * (share - 0.2):+.1f}" for share in robust)
    assert f"worst case on images at 2/255 {gains}" in judgement.evidence


def test_a_trade_off_of_zeros_is_not_testable():
    table = _robust({"image": {2: {"average": (0.01, 0.0), "vanilla": (0.0, 0.02)}}})
    assert verdicts.judge_trade(table, _accuracies((0.5, 0.5), (0.4, 0.4))).verdict == "not testable"


def _nonzeros(shares: dict[str, float], seeds: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"model": NAMES[name], "seed": seed, "space": space, "nonzero_share": share}
            for name, share in shares.items()
            for seed in range(seeds)
            for space in ("image", "encoded")
        ]
    )


def _success(shares: dict[str, float], seeds: int = 2) -> pd.DataFrame:
    table = _nonzeros(shares, seeds)
    return table.rename(columns={"space": "threat_model", "nonzero_share": "success"}).assign(eps255=2)


SEEN = pd.DataFrame({"keep": [1.0, 1.0, 0.1, 0.1], "seed": [0, 1, 0, 1], "success": [0.9, 0.7, 0.3, 0.1]})
FILLED = pd.DataFrame(
    {
        "space": ["image", "encoded"],
        "seed": [0, 0],
        "zeros_own": [0.78, 0.78],
        "zeros_dense": [0.0, 0.0],
        "left_own": [0.2, 0.3],
        "left_dense": [0.2, 0.25],
    }
)


@pytest.mark.parametrize(
    "nonzeros, success, verdict",
    [
        ({"vanilla": 0.2, "average": 0.5, "defended": 0.9}, (0.5, 0.6, 0.8), "reproduced"),
        ({"vanilla": 0.2, "average": 0.5, "defended": 0.9}, (0.8, 0.6, 0.5), "not reproduced"),
        ({"vanilla": 1.0, "average": 0.999, "defended": 1.0}, (0.5, 0.6, 0.9), "not reproduced"),
        ({"vanilla": 1.0, "average": 0.999, "defended": 1.0}, (0.5, 0.51, 0.52), "not testable"),
    ],
)
def test_success_has_to_follow_the_nonzeros(nonzeros, success, verdict):
    shares = dict(zip(nonzeros, success, strict=True))
    judgement = verdicts.judge_nonzeros(_nonzeros(nonzeros), _success(shares), SEEN, FILLED)
    assert judgement.verdict == verdict
    low, high = 100 * min(nonzeros.values()), 100 * max(nonzeros.values())
    assert f"on images {low:.2f}-{high:.2f} % non-zeros against 50-" in judgement.evidence
    assert "(78 -> 0 %): PGD leaves" in judgement.evidence and "on the code 30.0 -> 25.0 %" in judgement.evidence
    assert "gradient at 10% of the pixels: it leaves 80.0 instead of 20.0 %" in judgement.evidence


def test_one_threat_model_that_disagrees_is_enough_against_a_seed():
    nonzeros, success = _nonzeros({"vanilla": 0.2, "average": 0.9}), _success({"vanilla": 0.2, "average": 0.9})
    turned = (success.threat_model == "encoded") & (success.seed == 1)
    success.loc[turned, "success"] = 1 - success.success[turned]
    judgement = verdicts.judge_nonzeros(nonzeros, success, SEEN, FILLED)
    assert judgement.verdict == "mixed" and judgement.holds == (True, False)


def test_seeds_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="different seeds"):
        verdicts.judge_nonzeros(_nonzeros({"vanilla": 1.0}), _success({"vanilla": 1.0}, seeds=1), SEEN, FILLED)


def test_success_is_counted_among_the_correct_images():
    robust = _robust({"image": {2: {"vanilla": (0.3,), "defended": (0.2,)}}})
    clean = pd.DataFrame({"model": [MAX, DEFENDED], "seed": [0, 0], "clean_accuracy": [0.6, 0.8]})
    success = verdicts.success_among_correct(robust, clean).set_index("model").success
    assert success[MAX] == pytest.approx(0.5) and success[DEFENDED] == pytest.approx(0.75)


def test_the_worst_case_is_per_sample_and_clean_errors_stay():
    rows = pd.DataFrame(
        {
            "threat_model": "image", "model": MAX, "seed": 0, "eps255": 2, "dataset": "d", "split": "test",
            "sample": [0, 1, 2, 3, 0, 2], "success": [False, True, False, False, True, False],
            "clean_correct": [True, False, True, True, True, True],
        }
    )  # fmt: skip
    assert verdicts.worst_case(rows).robust_accuracy.item() == 0.5
    assert verdicts.clean_of(rows).clean_accuracy.item() == 0.75
