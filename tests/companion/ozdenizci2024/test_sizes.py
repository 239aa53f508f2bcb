"""What the profiles mean for the conversion chapter: comparisons are fair, and "paper" is the authors' code."""

from __future__ import annotations

import pytest

from snnlib.companion.measure.networks import Network, build_recipe
from snnlib.companion.ozdenizci2024.networks import OBJECTIVES, ann_network, end_to_end_network, finetune_recipe
from snnlib.companion.sizes import SIZES, conversion_size
from snnlib.companion.sizes import PROFILES
from snnlib.companion.verdicts.ozdenizci2024 import HEADLINE
from snnlib.errors import InputError

each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def _fine_tuning(size):
    return build_recipe(Network("", size.network, {}, finetune_recipe(size)), size.profile, 0)


def _end_to_end(size, comparison):
    return build_recipe(end_to_end_network(comparison, size), size.profile, 0)


def test_there_is_a_size_for_every_profile():
    assert SIZES.keys() == PROFILES.keys()
    assert all(size.profile.name == name for name, size in SIZES.items())


def test_unknown_profile_is_refused():
    with pytest.raises(InputError, match="profile is 'huge'"):
        conversion_size("huge")


@each_size
def test_what_the_notebooks_ask_for_is_there(size):
    assert HEADLINE in size.eps_levels
    assert size.profile.time_steps in size.other_time_steps
    assert list(size.end_to_end_epochs) == ["equal steps", "equal time"]
    assert len(size.profile.seeds) >= 2


@each_size
def test_equal_steps_are_equal(size):
    ours, rival = _fine_tuning(size), _end_to_end(size, "equal steps")
    assert (rival.epochs, rival.batch_size) == (ours.epochs, ours.batch_size)
    assert size.end_to_end_epochs["equal time"] > rival.epochs


@each_size
def test_rival_trains_on_the_same_objective_attack_and_images(size):
    ours, rival = _fine_tuning(size), _end_to_end(size, "equal time")
    for name in ("objective", "objective_parameters", "attack", "augmentation", "optimiser"):
        assert getattr(rival, name) == getattr(ours, name), name


@each_size
def test_only_robust_objectives_are_attacked_in_training(size):
    recipes = {name: build_recipe(ann_network(name, size), size.profile, 0) for name in OBJECTIVES}
    assert recipes.pop("natural").attack is None
    for recipe in recipes.values():
        assert recipe.attack["eps"] == 2 / 255 and recipe.attack["steps"] == size.inner_steps


def test_paper_is_the_authors_code():
    size = conversion_size("paper")
    ann = build_recipe(ann_network("trades", size), size.profile, 0)
    assert (ann.epochs, ann.batch_size, ann.learning_rate, ann.weight_decay) == (200, 64, 0.1, 5e-4)
    assert (ann.optimiser, ann.schedule, ann.augmentation) == ("sgd", "cosine-per-epoch", "crop-flip-cutout")
    assert ann.attack == {"name": "pgd", "eps": 2 / 255, "steps": 10, "loss": "kl", "start": "gaussian"}
    ours = _fine_tuning(size)
    assert (ours.epochs, ours.batch_size, ours.learning_rate, ours.weight_decay) == (60, 64, 1e-3, 1e-3)
    assert (ours.optimiser, ours.schedule, ours.augmentation) == ("sgd", "cosine-per-epoch", "crop-flip")
    assert (ours.objective, ours.objective_parameters) == ("consistency", {"beta": 2.0})
    assert ours.attack == {"name": "r_fgsm", "eps": 2 / 255, "loss": "kl"}
    rival = _end_to_end(size, "equal time")
    assert (rival.epochs, rival.learning_rate, rival.weight_decay) == (200, 0.1, 5e-4)
    assert (size.profile.width, size.profile.time_steps, size.network) == (64, 8, "vgg11")
    assert not size.calibration, "the defaults of calibrate are the paper's"
