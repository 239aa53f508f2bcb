"""Objectives at one point, a new one beside them, and what a recipe refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from snnlib.errors import InputError
from snnlib.training import Recipe, fit
from snnlib.training.objectives import OBJECTIVES, adversarial, build_objective, natural, needs_attack

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


def test_batch_norm_counts_one_batch_per_step_when_trained_adversarially(tiny, tmp_path):
    recipe = replace(tiny.RECIPE, epochs=2, objective="adversarial", attack=PGD)
    model = tiny.make_model()
    fit(model, tiny.make_splits(), recipe, directory=tmp_path)
    assert model.norm.num_batches_tracked == 2 * 4


def test_adversarial_training_resumes_exactly_when_stopped(tiny, tmp_path):
    recipe = replace(tiny.RECIPE, epochs=2, objective="adversarial", attack=PGD)
    models = [tiny.make_model(), tiny.make_model(), tiny.make_model()]
    fit(models[0], tiny.make_splits(), recipe, directory=tmp_path / "whole")
    for model in models[1:]:
        fit(model, tiny.make_splits(), recipe, directory=tmp_path / "pieces", time_limit=0)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[2].parameters(), strict=True))


def test_a_new_objective_takes_parameters_when_registered(tiny, tmp_path, monkeypatch):
    def scaled(model, images, labels, attack, *, weight=1.0):
        return weight * model(attack(model, images, labels)).sum(), {"accuracy": torch.tensor(1.0)}

    monkeypatch.setitem(OBJECTIVES, "scaled", scaled)
    changes = {"objective": "scaled", "objective_parameters": {"weight": 1e-3}, "attack": PGD, "epochs": 2}
    history = fit(tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, **changes), directory=tmp_path)
    assert history.epochs[1]["loss"] < history.epochs[0]["loss"] - 1e-3 and history.epochs[1]["train_accuracy"] == 1
    recipe = Recipe(epochs=1, objective="scaled", objective_parameters={"weight": 3.0}, attack=PGD)
    objective = build_objective(recipe.objective, recipe.objective_parameters)
    loss, _ = objective(
        linear_model(), torch.full((1, 1, 2, 2), 0.5), None, lambda model, images, labels: images
    )
    assert loss.item() == 6.0 and needs_attack("scaled", {}) and not needs_attack("natural", {})


def mixture(second: str, **options) -> dict:
    return {"first": {"objective": "natural"}, "second": {"objective": second, **options}}


def test_recipe_is_the_same_when_built_from_its_config():
    parameters = mixture("trades", weight=0.5, parameters={"beta": 2.0})
    recipe = Recipe(epochs=3, objective="mixed", objective_parameters=parameters, attack=PGD, optimiser="sgd")
    config = json.loads(json.dumps(recipe.as_config()))
    assert Recipe(**config) == recipe
    assert config["attack"] == PGD and config["objective_parameters"] == parameters


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
        ({"schedule": "step"}, "schedule is 'step'; expected one of constant, cosine, cosine-per-epoch, one-cycle"),
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
        ({"weight_retraction": -1}, "weight_retraction is -1; expected a finite number of 0 or more"),
        ({"project_mixing": 1}, "project_mixing is 1; expected True or False"),
        ({"objective": "trades"}, "objective is 'trades' without an attack"),
        (
            {"objective": "trades", "objective_parameters": {"beta": -6}, "attack": PGD},
            "beta of objective 'trades' is -6; expected a finite number of 0 or more",
        ),
        (
            {"objective": "trades", "objective_parameters": {"beta": float("nan")}, "attack": PGD},
            "beta of objective 'trades' is nan",
        ),
        (
            {"objective": "consistency", "objective_parameters": {"direction": "both"}, "attack": PGD},
            r"direction of objective 'consistency' is 'both'; expected one of clean\|\|adversarial, adv",
        ),
        ({"objective": "sparse_gradient"}, "objective 'sparse_gradient' lacks the parameter 'weight'"),
        ({"objective": "mixed"}, "objective 'mixed' lacks the parameter 'first'"),
        ({"objective": "mixed", "objective_parameters": {"first": 3}}, "first of objective 'mixed' is 3; expected"),
        ({"objective": "mixed", "objective_parameters": mixture("magic")}, "objective is 'magic'; expected one of"),
        ({"objective": "mixed", "objective_parameters": mixture("mart")}, "objective is 'mixed' without an attack"),
        (
            {"objective": "mixed", "objective_parameters": mixture("natural", weight=-1)},
            "weight in second of objective 'mixed' is -1; expected a finite number of 0 or more",
        ),
        (
            {"objective": "mixed", "objective_parameters": mixture("natural", beta=1)},
            "second of objective 'mixed' got the parameter 'beta'; expected objective, parameters, weight",
        ),
        (
            {"objective": "mixed", "objective_parameters": mixture("trades", parameters={"gamma": 1}), "attack": PGD},
            "objective 'trades' got the parameter 'gamma'; expected beta",
        ),
    ],
)
def test_input_error_names_the_value_when_the_recipe_does_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**{"epochs": 1, **changes})
