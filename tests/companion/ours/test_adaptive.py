"""Attacks at equal cost: what each may spend, and tables of made-up rows."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from snnlib.attacks.worst_case import SCHEDULE
from snnlib.companion.measure.attacked import Attack
from snnlib.companion.ours import adaptive
from snnlib.companion.ours.adaptive import (
    ALONE,
    CURVES,
    FIXED,
    WORST,
    adaptive_steps,
    broken_by_passes,
    opening_table,
    openings,
    per_sample,
    surrogates_alone,
    ways,
    within,
)
from snnlib.companion.sizes import AdaptiveSize, get_profile
from snnlib.data import ImageSet, load_images

SIZE = AdaptiveSize(1, 1, 1, 4, passes=(122,), fixed_steps=10, per_step_steps=7)


def _rows(*lines: tuple[str, int, bool, int, int]) -> pd.DataFrame:
    """Lines of (surrogate, sample, success, forwards, backwards)."""
    columns = ["surrogate", "sample", "success", "forwards", "backwards"]
    names = {"model": "m", "seed": 0, "eps": 8 / 255, "dataset": "d", "split": "test"}
    return pd.DataFrame(lines, columns=columns).assign(**names)


FIXED_ROWS = _rows(
    ("a", 0, True, 3, 2), ("a", 1, False, 5, 4), ("b", 1, True, 2, 1), ("a", 2, False, 5, 4), ("b", 2, False, 5, 4)
)  # fmt: skip


def test_a_sample_pays_for_every_member_that_ran_on_it():
    table = per_sample(FIXED_ROWS).set_index("sample")
    assert table.passes.to_dict() == {0: 5, 1: 12, 2: 18}
    assert table.broken.to_dict() == {0: True, 1: True, 2: False}


@pytest.mark.parametrize("passes, broken", [(4, []), (5, [0]), (11, [0]), (12, [0, 1]), (100, [0, 1])])
def test_a_success_beyond_the_budget_is_none(passes, broken):
    cut = within(FIXED_ROWS, passes)
    assert sorted(cut[cut.success]["sample"]) == broken


def test_curve_rises_where_samples_fall_and_ends_at_the_budget():
    curve = broken_by_passes(FIXED_ROWS, 20)
    assert curve.passes.tolist() == [5, 12, 20]
    assert curve.broken.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert broken_by_passes(FIXED_ROWS, 7).broken.tolist() == pytest.approx([1 / 3, 1 / 3])
    assert broken_by_passes(_rows(("a", 0, False, 3, 2)), 9).broken.tolist() == [0]


@pytest.mark.parametrize("passes", [24, 122, 204, 1200])
def test_no_attack_may_spend_more_than_the_budget(passes):
    for name, attack in ways(SIZE, passes, 4 / 255).items():
        attack.check()
        options, cost = attack.options, {"apgd": 2, "sa_pgd": 2, "mixed_surrogates": 7, "adaptive_ensemble": 2}
        if attack.name in cost:
            spent = 1 + cost[attack.name] * options["steps"] + (attack.name in ("apgd", "sa_pgd"))
            assert spent <= passes and passes - spent < 40, name
        elif attack.name == "apgd_targeted":
            assert 1 + options["targets"] * (2 * options["steps"] + 1) <= passes
        elif name == FIXED:
            spent = len(attack.members) * 2 * (options["steps"] + 1)
            assert options["steps"] == 10 or passes - 40 < spent <= passes
    assert set(CURVES) <= set(ways(SIZE, passes, 0.1)) and {WORST, FIXED} <= set(CURVES)


def test_adaptive_steps_leave_room_for_the_turns():
    # 64 steps: trials of 12 and 12, climbs of 20, 20: 4 turns, the clean sample, two passes a step.
    assert adaptive_steps(2 * 64 + 4 + 1) == 64 and adaptive_steps(2 * 64 + 4) == 63
    assert adaptive_steps(3) == 1


def test_surrogates_alone_are_the_turns_with_nothing_to_choose():
    parts = {text: text for text in (*ALONE.values(), WORST)}
    assert list(surrogates_alone(parts)) == list(ALONE.values())


def test_an_opening_moves_one_turn_to_the_front_and_keeps_the_rest():
    schedules = [attack.options["schedule"] for attack in openings(204, 1 / 255).values()]
    assert schedules[0] == SCHEDULE and len(schedules) == 3
    for first, schedule in zip(SCHEDULE, schedules, strict=False):
        assert schedule == (first, *(turn for turn in SCHEDULE if turn != first))


def test_openings_are_compared_on_validation_images(monkeypatch):
    splits = load_images("cifar10")
    item = SimpleNamespace(splits=splits, network=None, label="m", seed=3)
    asked = []

    def broken_by_the_second(item: SimpleNamespace, attack: Attack, images: ImageSet, batch_size: int, split: str):
        asked.append((images.key, split))
        is_second = attack.options["schedule"][0] == SCHEDULE[1]
        return _rows(("a", 0, False, 1, 1), ("b", 0, is_second, 1, 1), ("a", 1, True, 1, 1))

    monkeypatch.setattr(adaptive, "attack_rows", broken_by_the_second)
    table = opening_table([item], SIZE, get_profile("smoke"))
    assert table.broken.tolist() == [1, 2, 1] and table.images.unique().tolist() == [10]
    assert table.first_turn.tolist() == [turn.name for turn in SCHEDULE[:3]]
    assert (table[["eps255", "seed", "passes"]] == [4, 3, 122]).all(axis=None)
    assert set(asked) == {(splits.validation.first_per_class(1).key, "validation")}
