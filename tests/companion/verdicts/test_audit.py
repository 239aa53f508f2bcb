"""Rules of the audit on made-up rows: each can come out every way, and says its numbers."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.ours.audit import DENSE, OWN
from snnlib.companion.verdicts import audit as verdicts
from snnlib.companion.verdicts.luu2025 import AVERAGE, DEFENDED, MAX

NAMES = {"vanilla": MAX, "average": AVERAGE, "defended": DEFENDED}
LEARNED = (0.6, 0.6)


def _robust(spaces: dict[str, dict[int, dict[str, tuple[float, ...]]]]) -> pd.DataFrame:
    rows = [
        {"threat_model": space, "eps255": level, "model": NAMES[name], "seed": seed, "robust_accuracy": share}
        for space, levels in spaces.items()
        for level, models in levels.items()
        for name, shares in models.items()
        for seed, share in enumerate(shares)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def audited(rows_of):
    """Rows of (space, eps) -> images of 1,000 that stand, per network and seed."""

    def rows(standing: dict[tuple[str, int], dict[str, tuple[int, ...]]]) -> pd.DataFrame:
        parts = [
            rows_of({NAMES[name]: counts for name, counts in models.items()}, threat_model=space, eps255=level)
            for (space, level), models in standing.items()
        ]
        return pd.concat(parts, ignore_index=True)

    return rows


@pytest.fixture
def learned(accuracies_of):
    return accuracies_of(dict.fromkeys(NAMES.values(), LEARNED))


@pytest.mark.parametrize(
    "vanilla, defended, verdict",
    [
        ((300, 290), (300, 300), "reproduced"),
        ((500, 500), (300, 300), "reproduced"),
        ((100, 120), (300, 300), "not reproduced"),
        ((270, 240), (300, 300), "inconclusive at this size"),
        ((100, 500), (300, 300), "mixed"),
        ((140, 140), (140, 130), "not testable"),
    ],
)
def test_the_vanilla_network_has_to_keep_up_on_images(audited, learned, vanilla, defended, verdict):
    models = {"vanilla": vanilla, "defended": defended}
    rows = audited({("image", 6): models, ("encoded", 6): {"vanilla": (500, 500), "defended": (200, 200)}})
    protocol = audited({("authors", 6): {"vanilla": (220, 200), "defended": (150, 160)}})
    judgement = verdicts.judge_undefended(rows, protocol, learned)
    assert judgement.verdict == verdict and judgement.samples == 1000 and judgement.seeds == (0, 1)
    assert "on the code at 6/255 50.0 % vanilla, 20.0 % defended" in judgement.evidence
    assert "the authors' protocol alone leaves 21.0 % vanilla, 15.5 % defended" in judgement.evidence


def test_a_constant_defended_network_decides_nothing(audited, accuracies_of):
    rows = audited({("image", 6): {"vanilla": (200, 200), "defended": (200, 200)}})
    accuracies = accuracies_of({MAX: LEARNED, DEFENDED: (0.2, 0.2)})
    assert verdicts.judge_undefended(rows, rows, accuracies).verdict == "not testable"


def test_the_largest_eps_at_which_the_defended_network_stands_decides(audited, learned):
    small, large = {"vanilla": (100, 100), "defended": (400, 400)}, {"vanilla": (200, 200), "defended": (50, 60)}
    rows = audited({("image", 2): small, ("image", 6): large, ("encoded", 6): {"vanilla": (9, 9), "defended": (9, 9)}})
    judgement = verdicts.judge_undefended(rows, rows[rows.threat_model == "image"], learned)
    assert judgement.verdict == "not reproduced" and "standing at 2/255 on images: -30.0 points" in judgement.evidence
    assert "on the code the defended network keeps 10% at no eps" in judgement.evidence
    robust = verdicts.worst_case(rows)
    assert verdicts.deciding_level(robust, "image", (DEFENDED,)) == 2
    assert verdicts.deciding_level(robust, "image", (MAX, DEFENDED)) == 6
    assert verdicts.deciding_level(robust, "encoded", (DEFENDED,)) is None


@pytest.mark.parametrize(
    "clean, robust, verdict",
    [
        ((0.7, 0.7), (100, 100), "reproduced"),
        ((0.5, 0.5), (100, 100), "mixed"),
        ((0.7, 0.7), (300, 300), "mixed"),
        ((0.5, 0.5), (300, 300), "not reproduced"),
        ((0.7, 0.7), (145, 200), "inconclusive at this size"),
    ],
)
def test_the_trade_off_needs_both_halves(audited, accuracies_of, clean, robust, verdict):
    rows = audited({("image", 2): {"average": robust, "vanilla": (200, 200)}})
    judgement = verdicts.judge_trade(rows, accuracies_of({MAX: LEARNED, AVERAGE: clean}))
    assert judgement.verdict == verdict
    assert f"average minus max pool, clean: {100 * (sum(clean) / 2 - 0.6):+.1f} points" in judgement.evidence


def test_a_trade_off_of_zeros_is_not_testable(audited, learned):
    rows = audited({("image", 2): {"average": (10, 0), "vanilla": (0, 90)}})
    assert verdicts.judge_trade(rows, learned).verdict == "not testable"


SEEN = pd.DataFrame({"keep": [1.0, 1.0, 0.1, 0.1], "seed": [0, 1, 0, 1], "success": [0.9, 0.7, 0.3, 0.1]})


@pytest.mark.parametrize(
    "own, dense, zeros, verdict",
    [
        ((300, 300), (200, 210), 0.8, "reproduced"),
        ((300, 300), (300, 295), 0.8, "not reproduced"),
        ((300, 300), (300, 245), 0.8, "inconclusive at this size"),
        ((300, 300), (200, 210), 0.05, "not testable"),
        ((90, 90), (0, 0), 0.8, "not testable"),
    ],
)
def test_filled_zeros_have_to_let_the_attacker_find_more(audited, learned, own, dense, zeros, verdict):
    rows = [
        audited({(space, 2): {"vanilla": counts}}).assign(attacker=name)
        for space in ("image", "encoded")
        for name, counts in ((OWN, own), (DENSE, dense))
    ]
    filled = pd.DataFrame({"model": MAX, "seed": [0, 1], "zeros_own": zeros, "zeros_dense": 0.0})
    judgement = verdicts.judge_filled(pd.concat(rows, ignore_index=True), filled, SEEN, learned)
    assert judgement.verdict == verdict
    assert judgement.estimate == pytest.approx((sum(own) - sum(dense)) / 20)
    assert "sees 10% of the pixels leaves 80.0 instead of 20.0 %" in judgement.evidence


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
