"""The attack inside an objective: what it reaches, what it leaves alone, and its defaults for training."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from snnlib.attacks import ATTACKS
from snnlib.errors import InputError
from snnlib.training import Recipe, inner_attack
from snnlib.training.inner_attack import build_attack

PGD = {"name": "pgd", "eps": 0.1, "steps": 4, "step_size": 0.05}


def linear_model() -> nn.Module:
    """Logits (0, s) with s the sum of the four pixels minus 2."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0] * 4, [1.0] * 4]))
        model[1].bias.copy_(torch.tensor([0.0, -2.0]))
    return model


def test_pgd_reaches_the_worst_corner_when_the_model_is_linear():
    images = torch.full((2, 1, 2, 2), 0.7)
    reached = build_attack(PGD, seed=1)(linear_model(), images, torch.tensor([1, 1]))
    assert torch.allclose(reached, images - 0.1)


@pytest.mark.parametrize("name", ["pgd", "fgsm", "r_fgsm"])
def test_misclassified_samples_are_attacked_too_unless_the_recipe_stops_early(name):
    images, labels = torch.full((1, 1, 2, 2), 0.4), torch.tensor([1])
    options = {"name": name, "eps": 0.1}
    reached = build_attack(options, seed=1)(linear_model(), images, labels)
    assert reached.mean() < 0.38  # classified as 0 from the start, and yet pushed further down
    stopped = build_attack({**options, "early_stop": True}, seed=1)(linear_model(), images, labels)
    assert torch.equal(stopped, images)


def test_batch_norm_and_weights_are_untouched_when_attacked_during_training(tiny):
    model, images = tiny.make_model().train(), tiny.make_set(12, 0).batch(slice(None))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reached = build_attack(PGD, seed=1)(model, images, tiny.make_set(12, 0).labels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert model.training and model.norm.training and not reached.requires_grad
    assert 0 < (reached - images).abs().max() <= 0.1 + 1e-6


def test_attack_noise_differs_between_steps_and_is_fixed_by_the_seed():
    images, labels = torch.full((3, 1, 2, 2), 0.7), torch.ones(3, dtype=torch.int64)
    noise = {"name": "random_noise", "eps": 0.1}
    points = [build_attack(noise, seed)(linear_model(), images, labels) for seed in (1, 1, 2)]
    assert torch.equal(points[0], points[1]) and not torch.equal(points[0], points[2])


@pytest.mark.parametrize(
    ("objective", "attack", "options"),
    [
        ("adversarial", "pgd", {"steps": 10, "loss": "ce", "start": "uniform"}),
        ("trades", "pgd", {"steps": 10, "loss": "kl", "start": "gaussian"}),
        ("mart", "pgd", {"steps": 10, "loss": "ce", "start": "gaussian"}),
        ("consistency", "r_fgsm", {"loss": "kl"}),
    ],
)
def test_inner_attack_is_the_one_of_the_paper_and_runs_to_its_end(monkeypatch, objective, attack, options):
    calls = []

    def spy(model, images, labels, budget, *, generator, early_stop, **given):
        calls.append((budget.eps, early_stop, given))
        return SimpleNamespace(adversarial=images)

    spy.__signature__ = inspect.signature(ATTACKS[attack])
    monkeypatch.setitem(ATTACKS, attack, spy)
    parameters = inner_attack(objective, eps=2 / 255)
    build_attack(parameters, seed=1)(linear_model(), torch.zeros(1, 1, 2, 2), torch.tensor([1]))
    assert calls == [(2 / 255, False, options)]
    assert Recipe(epochs=1, objective=objective, attack=parameters).attack == parameters


def test_input_error_names_the_objective_when_it_has_no_attack_of_its_own():
    with pytest.raises(InputError, match="objective is 'natural'; expected one of adversarial, trades, mart"):
        inner_attack("natural", eps=2 / 255)
