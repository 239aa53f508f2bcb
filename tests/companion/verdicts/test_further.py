"""Q3 and Q4 on made-up rows: each can come out either way."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.ours.further import AFTER, NATURAL, TRANSFERRED, WAYS
from snnlib.companion.verdicts.further import judge_objectives, judge_ways

LEARNED, LEVEL = (0.6, 0.6, 0.6), 4
EQUAL = pd.DataFrame({"way": WAYS, "passes": 6.0})


def ways(*counts: int) -> dict[str, tuple[int, ...]]:
    return {f"{AFTER}{way}": (count, count, count) for way, count in zip(WAYS, counts, strict=True)}


@pytest.mark.parametrize(
    ("score", "hat", "verdict"),
    [(400, 420, "reproduced"), (300, 300, "not reproduced"), (400, 300, "mixed")],
)
def test_every_objective_has_to_leave_more_than_the_natural_start(rows_of, accuracies_of, score, hat, verdict):
    counts = {NATURAL: 300, "SCORE": score, "HAT": hat}
    standing = {f"{TRANSFERRED}{name}": (count,) * 3 for name, count in counts.items()}
    accuracies = accuracies_of(dict.fromkeys(standing, LEARNED))
    judgement = judge_objectives(rows_of(standing), accuracies, ("SCORE", "HAT"), LEVEL)
    assert judgement.verdict == verdict and "HAT, standing at 4/255" in judgement.evidence


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((300, 400, 400, 400), "reproduced"),
        ((300, 300, 300, 300), "not reproduced"),
        ((300, 400, 300, 400), "mixed"),
        ((20, 90, 90, 90), "not testable"),
    ],
)
def test_every_way_has_to_leave_more_than_fine_tuning(rows_of, accuracies_of, counts, verdict):
    standing = ways(*counts)
    accuracies = accuracies_of(dict.fromkeys(standing, LEARNED))
    assert judge_ways(rows_of(standing), accuracies, EQUAL, LEVEL).verdict == verdict


def test_a_dearer_way_is_not_compared(rows_of, accuracies_of):
    standing = ways(300, 400, 400, 400)
    accuracies = accuracies_of(dict.fromkeys(standing, LEARNED))
    dear = EQUAL.assign(passes=[6.0, 6.5, 6.0, 9.0])
    judgement = judge_ways(rows_of(standing), accuracies, dear, LEVEL)
    assert judgement.verdict == "not testable"
    assert judgement.evidence.startswith("drawn surrogate takes 9 passes, fine-tuning 6;")
