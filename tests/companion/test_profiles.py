"""Profiles: the paper's numbers, sizes that grow, and what the embedded images can give."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from snnlib.companion.sizes import PROFILES, get_profile
from snnlib.errors import InputError

EMBEDDED = {"train": 500, "test": 100}
"""Images per class."""


def _size(count: int | None) -> float:
    return float("inf") if count is None else count


def test_profile_comes_back_by_its_name():
    assert [get_profile(name).name for name in ("smoke", "quick", "paper")] == list(PROFILES)


@pytest.mark.parametrize("name", ["Quick", "", "full"])
def test_one_line_error_when_the_name_is_unknown(name):
    with pytest.raises(InputError, match=f"profile is '{name}'; expected one of smoke, quick, paper") as error:
        get_profile(name)
    assert "\n" not in str(error.value)


def test_profile_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        PROFILES["smoke"].epochs = 1


def test_paper_has_the_numbers_of_the_authors_code():
    paper = get_profile("paper")
    assert (paper.time_steps, paper.epochs, paper.batch_size, paper.width) == (10, 100, 16, 64)
    assert (paper.learning_rate, paper.weight_decay, paper.schedule) == (1e-3, 1e-3, "constant")
    assert paper.subset == "whole"
    assert paper.train_per_class is paper.test_per_class is paper.attacked_per_class is None
    assert paper.depths == (18, 34, 50)


def test_no_size_shrinks_when_the_profile_grows():
    sizes = ("train_per_class", "test_per_class", "attacked_per_class", "inspected_per_class", "width", "time_steps")
    for small, large in (("smoke", "quick"), ("quick", "paper")):
        for name in (*sizes, "epochs", "steps", "bench_repeats"):
            assert _size(getattr(PROFILES[small], name)) <= _size(getattr(PROFILES[large], name)), (small, name)
        assert set(PROFILES[small].depths) <= set(PROFILES[large].depths)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_can_run(profile):
    if profile.subset == "embedded":
        train, test = profile.train_per_class or EMBEDDED["train"], profile.test_per_class or EMBEDDED["test"]
        assert 2 <= train <= EMBEDDED["train"], "one image per class is held out"
        assert profile.attacked_per_class <= test <= EMBEDDED["test"]
    assert 6 in profile.eps_levels, "the headline eps is on every curve"
    assert list(profile.eps_levels) == sorted(set(profile.eps_levels))
    assert len(set(profile.seeds)) == len(profile.seeds) >= 2, "one seed shows no spread"
    for field in fields(profile):
        value = getattr(profile, field.name)
        assert isinstance(value, str | tuple) or value is None or value > 0, field.name
