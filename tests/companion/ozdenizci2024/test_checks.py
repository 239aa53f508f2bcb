"""Checks on the attacks themselves: what they compare, and when they hold."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from snnlib.companion.ozdenizci2024 import checks
from snnlib.companion.sizes import conversion_size
from snnlib.data import ImageSet
from snnlib.models import build_model
from snnlib.training.accuracy import predictions

ITEM = SimpleNamespace(network=SimpleNamespace(label="SNN"), seed=1)


def rows(*broken: int, samples: int = 10) -> pd.DataFrame:
    names = {"dataset": "cifar10", "split": "test"}
    return pd.DataFrame([{**names, "sample": sample, "success": sample in broken} for sample in range(samples)])


@pytest.fixture
def checked(monkeypatch):
    """Run `check_attacks` on attacks that break these samples of ten, and on these accuracies by steps."""

    def run(together=(), alone=(), square=(), by_steps=(0.5, 0.5, 0.5)) -> pd.DataFrame:
        size = replace(conversion_size("paper"), check_steps=(10, 20, 40))
        table = pd.DataFrame({"model": "SNN", "seed": 1, "steps": [10, 20, 40], "robust_accuracy": by_steps})
        half = rows(*together[::2]), rows(*together[1::2])
        monkeypatch.setattr(checks, "by_steps", lambda items, size: table)
        monkeypatch.setattr(checks, "ensemble", lambda *arguments: pd.concat(half))
        monkeypatch.setattr(checks, "one_gradient_rows", lambda item, size: rows(*alone))
        monkeypatch.setattr(checks, "square_rows", lambda item, size: rows(*square))
        return checks.check_attacks([ITEM], size).set_index("check")

    return run


def test_published_steps_are_those_of_the_follow_up():
    table = checks.published_by_steps()
    assert len(table) == 5 * 4 and set(table.steps) == {7, 10, 20, 40}
    dense = table[table.variant == "dense"].set_index("steps").robust_accuracy
    assert dense.to_dict() == pytest.approx({7: 0.290, 10: 0.279, 20: 0.269, 40: 0.258})
    assert checks.largest_published_fall() == pytest.approx(0.279 - 0.254)


def test_an_attack_alone_may_find_other_samples_but_not_more(checked):
    table = checked(together=(0, 1, 2, 3), alone=(0, 1, 9), square=(0, 1, 2, 3))
    assert table.loc["one gradient", ["ours", "beside", "only_ours"]].tolist() == pytest.approx([0.7, 0.6, 1])
    assert table.loc["no gradient", ["ours", "beside", "only_ours"]].tolist() == pytest.approx([0.6, 0.6, 0])
    assert table.holds.all()


def test_checks_fail_where_one_gradient_or_none_finds_more_than_all(checked):
    table = checked(together=(0, 1), alone=(0, 1, 2), square=(5, 6, 7, 8))
    assert not table.holds["one gradient"] and not table.holds["no gradient"]
    assert table.only_ours["no gradient"] == 4


@pytest.mark.parametrize(("most", "holds"), [(0.46, True), (0.44, False), (0.55, True)])
def test_more_steps_may_take_twice_the_largest_published_fall(checked, most, holds):
    line = checked(by_steps=(0.50, 0.48, most)).loc["more steps"]
    assert (line.ours, line.beside, line.holds) == (most, 0.50, holds)


def test_attacks_on_different_samples_are_not_compared(checked, monkeypatch):
    checked()
    monkeypatch.setattr(checks, "square_rows", lambda item, size: rows(samples=9))
    with pytest.raises(ValueError, match="same samples"):
        checks.check_attacks([ITEM], conversion_size("paper"))


def test_paper_profile_has_the_published_numbers():
    size = conversion_size("paper")
    assert (size.check_steps, size.square_queries, size.ensemble_steps) == ((10, 20, 40), 5000, 10)


def test_each_check_runs_the_attack_that_it_is_called_by(artifacts, splits, wrap):
    """On a network that nobody trained, with its own answers as labels, so that there is something to break."""
    model = build_model("resnet20", 3, 2, width=2, threshold_floor=0.03, trainable_threshold=True, seed=0).eval()
    answers = ImageSet(splits.test.images, predictions(model, splits.test))
    item, smoke = wrap(model, answers, "SNN, toy", seed=7), conversion_size("smoke")
    profile = replace(smoke.profile, attacked_per_class=2, attack_batch_size=4)
    size = replace(smoke, profile=profile, ensemble_steps=2, check_steps=(1,), square_queries=5)
    alone = checks.one_gradient_rows(item, size)
    assert set(alone.attack) == {"pgd"} and set(alone.steps) == {2}
    assert alone.surrogate.str.startswith("rate_gradient").all() and alone.eps.to_numpy() == pytest.approx(8 / 255)
    searched = checks.square_rows(item, size)
    assert searched.clean_correct.all() and 1 < searched.forwards.max() <= 5 + 2
    assert set(searched.attack) == {"square"} and searched.linf.max() <= 8 / 255 + 1e-6
    assert len(alone) == len(searched) > 0
    steps = checks.by_steps([item], size)
    assert steps[["model", "seed", "steps"]].to_numpy().tolist() == [["SNN, toy", 7, 1]]
