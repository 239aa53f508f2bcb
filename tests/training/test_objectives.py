"""Objectives, the inner attack, and what a recipe refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from snnlib.errors import InputError
from snnlib.training import Recipe, fit
from snnlib.training.objectives import (
    OBJECTIVES,
    adversarial,
    build_attack,
    build_objective,
    natural,
    needs_attack,
)

PGD = {"name": "pgd", "eps": 0.1, "steps": 4, "step_size": 0.05}


def linear_model() -> nn.Module:
    """Logits (0, s) with s the sum of the pixels."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0] * 4, [1.0] * 4]))
        model[1].bias.zero_()
    return model


def test_natural_is_the_mean_cross_entropy_when_logits_are_known():
    images = torch.tensor([0.0, 0.5]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    loss, parts = natural(linear_model(), images, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)
    assert loss.requires_grad and {name: value.item() for name, value in parts.items()} == {"accuracy": 0.5}


def test_adversarial_is_the_loss_at_what_the_attack_returns_when_called():
    calls = []

    def attack(model, images, labels):
        calls.append((model, images, labels))
        return images + 0.25

    model, images, labels = linear_model(), torch.full((1, 1, 2, 2), 0.25), torch.tensor([1])
    loss, parts = adversarial(model, images, labels, attack)
    assert len(calls) == 1 and all(a is b for a, b in zip(calls[0], (model, images, labels), strict=True))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2))) and parts["accuracy"].item() == 1


def test_pgd_reaches_the_worst_corner_when_the_model_is_linear():
    images = torch.full((2, 1, 2, 2), 0.5)
    reached = build_attack(PGD, seed=1)(linear_model(), images, torch.tensor([1, 1]))
    assert torch.allclose(reached, images - 0.1)


def test_batch_norm_and_weights_are_untouched_when_attacked_during_training(tiny):
    model, images = tiny.make_model().train(), tiny.make_set(12, 0).batch(slice(None))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reached = build_attack(PGD, seed=1)(model, images, tiny.make_set(12, 0).labels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert model.training and model.norm.training and not reached.requires_grad
    assert 0 < (reached - images).abs().max() <= 0.1 + 1e-6


def test_batch_norm_counts_one_batch_per_step_when_trained_adversarially(tiny, tmp_path):
    recipe = replace(tiny.RECIPE, epochs=2, objective="adversarial", attack=PGD)
    model = tiny.make_model()
    fit(model, tiny.make_splits(), recipe, directory=tmp_path)
    assert model.norm.num_batches_tracked == 2 * 4


def test_attack_noise_differs_between_steps_and_is_fixed_by_the_seed():
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.ones(3, dtype=torch.int64)
    noise = {"name": "random_noise", "eps": 0.1}
    points = [build_attack(noise, seed)(linear_model(), images, labels) for seed in (1, 1, 2)]
    assert torch.equal(points[0], points[1]) and not torch.equal(points[0], points[2])


def test_adversarial_training_resumes_exactly_when_stopped(tiny, tmp_path):
    recipe = replace(tiny.RECIPE, epochs=2, objective="adversarial", attack=PGD)
    models = [tiny.make_model(), tiny.make_model(), tiny.make_model()]
    fit(models[0], tiny.make_splits(), recipe, directory=tmp_path / "whole")
    for model in models[1:]:
        fit(model, tiny.make_splits(), recipe, directory=tmp_path / "pieces", time_limit=0)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[2].parameters(), strict=True))


def test_a_new_objective_takes_parameters_when_registered(monkeypatch):
    def scaled(model, images, labels, attack, *, weight=1.0):
        return weight * model(attack(model, images, labels)).sum(), {"accuracy": torch.tensor(1.0)}

    monkeypatch.setitem(OBJECTIVES, "scaled", scaled)
    recipe = Recipe(epochs=1, objective="scaled", objective_parameters={"weight": 3.0}, attack=PGD)
    objective = build_objective(recipe.objective, recipe.objective_parameters)
    loss, _ = objective(
        linear_model(), torch.full((1, 1, 2, 2), 0.5), None, lambda model, images, labels: images
    )
    assert loss.item() == 6.0 and needs_attack("scaled") and not needs_attack("natural")


def test_recipe_is_the_same_when_built_from_its_config():
    recipe = Recipe(epochs=3, objective="adversarial", attack=PGD, optimiser="sgd")
    config = json.loads(json.dumps(recipe.as_config()))
    assert Recipe(**config) == recipe
    assert config["attack"] == PGD and config["objective_parameters"] == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0; expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"seed": -1}, "seed is -1"),
        ({"learning_rate": 0}, "learning_rate is 0; expected a finite number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; expected a finite number of 0 or more"),
        ({"optimiser": "adamw"}, "optimiser is 'adamw'; expected one of adam, sgd"),
        ({"schedule": "step"}, "schedule is 'step'; expected one of constant, cosine, one-cycle"),
        ({"augmentation": "mixup"}, "augmentation is 'mixup'; expected one of none, flip, crop-flip"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"objective": "magic"}, "objective is 'magic'; expected one of natural, adversarial"),
        (
            {"objective_parameters": {"beta": 6}},
            "objective 'natural' got the parameter 'beta'; expected none",
        ),
        ({"objective": "adversarial"}, "objective is 'adversarial' without an attack"),
        ({"attack": {"name": "pgd"}}, "attack has no 'eps'"),
        ({"attack": {"name": "cw", "eps": 0.1}}, "attack is 'cw'; expected one of fgsm"),
        ({"attack": {**PGD, "eps": 8}}, "eps is 8; pixels run from 0 to 1"),
        ({"attack": {**PGD, "step": 1}}, "attack 'pgd' got the parameter 'step'; expected batch_norm"),
    ],
)
def test_input_error_names_the_value_when_the_recipe_does_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**{"epochs": 1, **changes})
