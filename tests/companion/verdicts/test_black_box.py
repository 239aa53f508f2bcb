"""Claim Q2's rule and the chapter's tables, on made-up rows."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.verdicts.black_box import (
    both_sides,
    by_attack,
    by_strength,
    judge_gradient_free,
    square_beside_published,
    standing_by_queries,
    transfer_matrix,
)


def row(sample, access, attack, success, **more):
    key = {"model": "m", "seed": 0, "eps255": 2, "dataset": "d", "split": "test", "sample": sample}
    defaults = {"clean_correct": True, "queries": 10}
    return {**key, "access": access, "attack": attack, "success": success, **defaults, **more}


def cell(white, free, **more):
    """Samples broken by the two sides, as strings of 0 and 1."""
    lines = [row(i, "white-box", "apgd ce", hit == "1", **more) for i, hit in enumerate(white)]
    return pd.DataFrame(lines + [row(i, "score", "square", hit == "1", **more) for i, hit in enumerate(free)])


@pytest.fixture
def judged(accuracies_of):
    def judge(rows, clean=(0.6, 0.6, 0.6)):
        return judge_gradient_free(rows, accuracies_of({"m": clean}))

    return judge


def side(left: int, beyond: int = 0, images: int = 1000) -> tuple[str, str]:
    """White-box attacks leave so many images; of these the gradient-free ones break so many."""
    return "0" * left + "1" * (images - left), "1" * beyond + "0" * (images - beyond)


def test_sides_are_the_worst_case_per_sample_and_count_who_fell_to_one_alone():
    rows = pd.DataFrame(
        [row(i, "white-box", "apgd", hit) for i, hit in enumerate((True, False, False, False))]
        + [row(i, "white-box", "ensemble", hit) for i, hit in ((1, True), (2, False), (3, False))]
        + [row(i, "nothing", "random_noise", i == 0) for i in range(4)]
        + [row(i, "decision", "rays", False) for i in range(4)]
        + [row(i, "transfer", "transfer", i == 2) for i in range(4)]
    )
    (line,) = both_sides(rows).to_dict("records")
    assert (line["white_box_robust"], line["gradient_free_robust"], line["all_robust"]) == (0.5, 0.5, 0.25)
    assert (line["only_gradient_free"], line["only_white_box"], line["beyond"]) == (0.25, 0.25, 1)
    assert 0 < line["white_box_low"] < 0.5 < line["white_box_high"] < 1


@pytest.mark.parametrize(
    ("cells", "verdict"),
    [
        ([side(300), side(300)], "reproduced"),
        ([side(300), side(300, 2)], "inconclusive at this size"),
        ([side(300, 20), side(300, 15)], "not reproduced"),
        ([side(50), side(50)], "not testable"),
    ],
)
def test_limit_is_held_against_the_exact_interval(judged, cells, verdict):
    rows = pd.concat([cell(*each, seed=seed) for seed, each in enumerate(cells)])
    judgement = judged(rows)
    assert judgement.verdict == verdict and "\n" not in judgement.evidence
    assert (judgement.seeds, judgement.samples) == ((0, 1), 1000)


def test_one_eps_at_which_it_fails_is_enough_and_one_with_nobody_left_says_nothing(judged):
    good, bad, empty = cell(*side(300)), cell(*side(300, 20), eps255=8), cell(*side(0, 0), eps255=16)
    judgement = judged(pd.concat([good, bad]))
    assert judgement.verdict == "not reproduced" and "20 of 1000 images" in judgement.evidence
    judgement = judged(pd.concat([good, empty]))
    assert judgement.estimate == 0 and "0 of 1000 images" in judgement.evidence


def test_a_network_that_has_not_learned_cannot_mask_anything(judged):
    assert judged(cell(*side(300)), clean=(0.1,)).verdict == "not testable"


def test_stronger_white_box_sides_leave_less_beyond():
    rows = pd.DataFrame(
        [row(i, "white-box", "apgd ce", i == 0) for i in range(4)]
        + [row(i, "white-box", "ensemble", i == 1) for i in (1, 2, 3)]
        + [row(i, "white-box", "apgd margin", i == 2) for i in range(4)]
        + [row(i, "score", "square", i < 3) for i in range(4)]
    )
    table = by_strength(rows)
    assert table.beyond.tolist() == [2, 1, 0] and table.robust_accuracy.tolist() == [0.75, 0.5, 0.25]


def test_cost_is_summed_over_members_and_the_ensemble_line_is_the_whole_side():
    rows = pd.DataFrame(
        [row(0, "white-box", "apgd ce", True, queries=5), row(1, "white-box", "apgd ce", False, queries=9)]
        + [row(1, "white-box", "ensemble", hit, queries=4) for hit in (False, True)]
        + [row(0, "score", "square", False, queries=7), row(1, "score", "square", False, clean_correct=False)]
    )
    table = by_attack(rows).set_index("attack")
    both = {"apgd ce + ensemble": 0.0, "all white-box": 0.0}
    assert table.robust_accuracy.to_dict() == {"square": 1.0, "apgd ce": 0.5, **both}
    assert table.mean_forwards.to_dict() == {"square": 7.0, "apgd ce": 7.0, **dict.fromkeys(both, 11.0)}


def test_standing_falls_at_the_query_that_fooled():
    rows = pd.DataFrame(
        [row(0, "score", "square", True, queries=1), row(1, "score", "square", True, queries=30)]
        + [row(i, "score", "square", False, queries=100) for i in (2, 3)]
    )
    curve = standing_by_queries(rows).set_index("queries").robust_accuracy
    assert curve.index[0] == 1 and curve.index[-1] == 100
    assert curve.loc[1] == 0.75 and curve.loc[100] == 0.5
    assert (curve[curve.index < 30] == 0.75).all() and (curve[curve.index >= 30] == 0.5).all()


def test_transfer_matrix_pools_seeds_and_leaves_out_what_was_wrong_before():
    rows = pd.DataFrame(
        [row(0, "transfer", "transfer", True, seed=seed, source="a") for seed in (0, 1)]
        + [row(1, "transfer", "transfer", seed == 1, seed=seed, source="a") for seed in (0, 1)]
        + [row(2, "transfer", "transfer", True, source="a", clean_correct=False)]
    )
    (line,) = transfer_matrix(rows).to_dict("records")
    assert (line["samples"], line["attack_success_rate"]) == (4, 0.75)


def test_ours_stand_beside_the_published_square_rows():
    rows = pd.DataFrame([row(i, "score", "square", i > 0, eps255=8) for i in range(4)])
    table = square_beside_published(rows, queries=200)
    assert table.columns[3:].tolist() == ["200 queries", "500 queries", "1000 queries", "5000 queries"]
    published, ours = table[table.whose != "ours"], table[table.whose == "ours"].iloc[0]
    conversion = published[published.network.str.startswith("SNN, conversion")].iloc[0]
    assert (conversion["clean"], conversion["500 queries"], conversion["5000 queries"]) == (89.5, 52.3, 36.3)
    assert len(published) == 4 and (ours["clean"], ours["200 queries"]) == (100.0, 25.0)
