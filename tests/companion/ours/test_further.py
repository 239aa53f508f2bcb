"""What notebook 33 trains: recipes, names, passes; networks at toy size are those of the notebook's smoke run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snnlib.companion import paths
from snnlib.companion.measure.networks import Network, build_recipe
from snnlib.companion.ours import further
from snnlib.companion.ozdenizci2024.networks import TRAINING_EPS
from snnlib.companion.sizes import conversion_size, further_size
from snnlib.training import OBJECTIVES
from snnlib.training.inner_attack import build_attack

SIZE, SIZES = conversion_size("smoke"), further_size("smoke")


@pytest.fixture
def size(profile):
    fine_tuning = {"epochs": 1, "batch_size": 12, "learning_rate": 1e-3}
    return replace(SIZE, profile=profile, network="resnet20", finetune=fine_tuning, inner_steps=1)


@pytest.mark.parametrize("profile_name", paths.PROFILE_NAMES)
@pytest.mark.parametrize("way", further.WAYS)
def test_every_way_is_a_recipe_that_ends_at_the_chapters_eps(profile_name, way):
    sizes = further_size(profile_name)
    network = Network(way, "vgg11", {}, further.way_recipe(way, conversion_size(profile_name), sizes))
    recipe = build_recipe(network, SIZE.profile, 0)
    assert recipe.attack["eps"] == TRAINING_EPS and recipe.epochs == sizes.epochs
    assert (recipe.curriculum is not None) == (way == "curriculum")


def test_a_drawn_surrogate_is_none_of_the_rules_that_evaluate():
    attack = further.way_recipe("drawn surrogate", SIZE, SIZES)["attack"]
    assert len(attack["gradient"]) == 17 and not [name for name in attack["gradient"] if "sharpness" in name]
    build_attack(attack, seed=3)


def test_the_ways_start_from_one_network_and_are_told_apart(artifacts, size):
    trained = [further.trained_on(way, size, SIZES, 0) for way in further.WAYS]
    assert len({item.key for item in trained}) == 4
    assert [item.label for item in trained] == [f"SNN, then {way}" for way in further.WAYS]
    assert trained[2].model.encoder.time_steps == size.profile.time_steps, "the curriculum puts T back"
    rows = further.worst_rows(trained[0], size, SIZES, 4)
    assert set(rows.attack) == {"worst_case"}


def test_passes_are_counted_on_the_network(artifacts, size):
    base = further.chapter.finetuned("trades", size, 0)
    passes = further.passes_of_ways(base, size, SIZES).set_index("way").passes
    # One image, T = 4. Fine-tuning: a clean pass, R-FGSM, an adversarial pass, and backwards through all of them.
    assert passes["fine-tuning"] % size.profile.time_steps == 0
    assert passes["hybrid"] <= 1.1 * passes["fine-tuning"]
    assert passes["curriculum"] < passes["hybrid"] == passes["drawn surrogate"]


def test_hat_is_named_by_its_helper_and_further_anns_start_from_the_natural_one(artifacts, size):
    natural, helped = (further.pretrained(name, size, SIZES, 0) for name in ("natural", "HAT"))
    assert f"hat-{natural.key}" in OBJECTIVES and helped.key != natural.key
    snns = [further.transferred(name, size, SIZES, 0) for name in ("natural", "HAT")]
    assert [item.label for item in snns] == ["SNN, transferred from natural", "SNN, transferred from HAT"]
