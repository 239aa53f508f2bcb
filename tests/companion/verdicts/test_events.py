"""L8: both halves have to hold, and each precondition can stop it."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.verdicts.events import AVERAGE, MAX, deciding_cells, judge_events
from snnlib.companion.verdicts.luu2025 import WITHOUT_SHORTCUTS


@pytest.fixture
def rows(rows_of):
    def made(max_pool, average_pool, cells=16):
        table = rows_of({MAX: max_pool, AVERAGE: average_pool})
        return table.assign(kind="l0", attack="greedy flips", amount=float(cells), label=0)

    return made


def sparsity(share):
    return pd.DataFrame({"model": MAX, "seed": [0, 1], "batch_norm": "train", WITHOUT_SHORTCUTS: share})


@pytest.fixture
def learned(accuracies_of):
    return accuracies_of({MAX: (0.6, 0.6), AVERAGE: (0.6, 0.6)})


@pytest.mark.parametrize(
    ("standing", "share", "verdict"),
    [
        (((500, 500), (300, 300)), 0.6, "reproduced"),
        (((500, 500), (300, 300)), 0.0, "mixed"),
        (((300, 300), (300, 300)), 0.0, "not reproduced"),
        (((300, 300), (300, 300)), 0.6, "mixed"),
        (((50, 50), (20, 20)), 0.6, "not testable"),
    ],
)
def test_both_halves_have_to_hold(rows, learned, standing, share, verdict):
    judgement = judge_events(rows(*standing), sparsity(share), learned)
    assert judgement.verdict == verdict and judgement.samples == 1000 and judgement.seeds == (0, 1)


def test_a_network_that_has_not_learned_decides_nothing(rows, accuracies_of):
    weak = accuracies_of({MAX: (0.6, 0.2), AVERAGE: (0.6, 0.6)})
    judgement = judge_events(rows((500, 500), (300, 300)), sparsity(0.6), weak)
    assert judgement.verdict == "not testable" and "has not learned" in judgement.evidence


def test_the_largest_budget_at_which_one_keeps_a_tenth_decides(rows):
    table = pd.concat([rows((500, 500), (300, 300), 4), rows((150, 100), (0, 0), 16), rows((50, 0), (0, 0), 64)])
    assert deciding_cells(table) == (16, True)
    assert deciding_cells(rows((50, 50), (0, 0), 64)) == (64, False)


def test_the_worst_attack_on_recordings_counts_and_float_frames_do_not(rows, learned):
    table = rows((500, 500), (300, 300))
    frames = table.assign(kind="float frames", attack="PGD on float frames", success=True)
    assert judge_events(pd.concat([table, frames]), sparsity(0.6), learned).verdict == "reproduced"
    moved = rows((300, 300), (300, 300)).assign(kind="retiming", attack="retiming")
    assert judge_events(pd.concat([table, moved]), sparsity(0.6), learned).verdict == "mixed"
