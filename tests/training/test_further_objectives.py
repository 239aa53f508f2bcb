"""Clean plus adversarial, SCORE, HAT, weight perturbation and objectives of users: by hand and by differences."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from snnlib.errors import InputError
from snnlib.training import OBJECTIVES, Recipe, fit, register_objective, with_helper
from snnlib.training.objectives import adversarial, build_objective, clean_and_adversarial, needs_attack, score

sys.path.insert(0, str(Path(__file__).parent))

from linear_probe import (  # noqa: E402
    SHIFT,
    P,
    Probe,
    Q,
    X,
    Y,
    batch,
    cross_entropy,
    kl,
    numerical_gradient,
    shifted,
    softmax,
)

UNIT = np.eye(3)[Y]


@pytest.fixture
def own_names():
    """What a test registers is gone after it."""
    before = dict(OBJECTIVES)
    yield
    OBJECTIVES.clear()
    OBJECTIVES.update(before)


def test_clean_and_adversarial_is_its_weighted_sum():
    loss, parts = clean_and_adversarial(Probe(), *batch(), shifted, clean_weight=0.25)
    assert loss.item() == pytest.approx(0.25 * cross_entropy(P) + 0.75 * cross_entropy(Q), rel=1e-12)
    assert parts["accuracy"].item() == 0.5 and parts["adversarial_accuracy"].item() == 0


def test_score_is_its_formula_when_computed_by_hand():
    loss, parts = score(Probe(), *batch(), shifted, beta=3.0)
    own, moved = ((P - UNIT) ** 2).sum(1).mean(), ((Q - P) ** 2).sum(1).mean()
    assert loss.item() == pytest.approx(own + 3 * moved, rel=1e-12)
    assert parts["distance"].item() == pytest.approx(moved, rel=1e-12)


class Helper(nn.Module):
    """Says class 1 for dark pixels and class 2 for bright ones."""

    def __init__(self) -> None:
        super().__init__()
        self.modes = []

    def forward(self, images):
        self.modes.append((self.training, torch.is_grad_enabled()))
        pixel = images.flatten(1)
        return torch.cat([torch.zeros_like(pixel), 0.1 - pixel, pixel - 0.1], 1)


def test_hat_asks_the_helper_at_the_adversarial_point_and_goes_on_beyond_it():
    helper = Helper().train()
    loss, parts = with_helper(helper)(Probe(), *batch(), shifted, beta=2.0, gamma=0.5, factor=3.0)
    beyond = softmax(X + 3 * SHIFT)
    told = -np.log(beyond[[0, 1], [1, 2]]).mean()  # at -0.1 the helper sees class 1, at 0.2 class 2
    assert loss.item() == pytest.approx(cross_entropy(P) + 2 * kl(P, Q).mean() + 0.5 * told, rel=1e-12)
    assert parts["helper_loss"].item() == pytest.approx(told, rel=1e-12)
    assert helper.modes == [(False, False)] and helper.training


@pytest.mark.parametrize("objective", [clean_and_adversarial, score, with_helper(Helper())])
def test_gradient_flows_through_all_passes_when_compared_with_differences(objective):
    model = Probe()
    objective(model, *batch(), shifted)[0].backward()
    for parameter in (model.slopes, model.offsets):
        assert torch.allclose(parameter.grad, numerical_gradient(objective, model, parameter), rtol=1e-6, atol=1e-9)


class Layers(nn.Module):
    """A linear layer and BatchNorm on one pixel, in double."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1).double()
        self.fc = nn.Linear(1, 3).double()
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[3.0], [-2.0], [0.5]]))
            self.fc.bias.zero_()

    def forward(self, images):
        return self.fc(self.norm(images).flatten(1))


def test_weights_are_perturbed_by_their_share_along_the_gradient_and_stay_as_they_are():
    model, moved = Layers().train(), Layers().train()
    before = model.fc.weight.clone()
    awp = build_objective("weight_perturbed", {"inner": {"objective": "adversarial"}, "gamma": 0.1})
    loss, parts = awp(model, *batch(), shifted)
    loss.backward()
    assert torch.equal(model.fc.weight, before)
    adversarial(moved, *batch(), shifted)[0].backward()
    with torch.no_grad():
        slope = moved.fc.weight.grad
        moved.fc.weight += 0.1 * before.norm() / slope.norm() * slope
    moved.zero_grad()
    worse, _ = adversarial(moved, *batch(), shifted)
    worse.backward()
    assert loss.item() == pytest.approx(worse.item(), rel=1e-12) and set(parts) == {"accuracy"}
    assert torch.allclose(model.fc.weight.grad, moved.fc.weight.grad)
    assert torch.allclose(model.fc.bias.grad, moved.fc.bias.grad)


def test_perturbing_weights_attacks_once_and_counts_one_pass_in_batch_norm():
    model, calls = Layers().train(), []

    def attack(seen, images, labels):
        calls.append(seen)
        return images + SHIFT

    build_objective("weight_perturbed", {"inner": {"objective": "adversarial"}})(model, *batch(), attack)
    assert calls == [model] and model.norm.num_batches_tracked == 1
    assert model.norm.running_mean.item() == pytest.approx(0.1 * (X.mean() + SHIFT))


def test_perturbed_weights_need_an_attack_where_the_inner_objective_does():
    assert needs_attack("weight_perturbed", {"inner": {"objective": "trades"}})
    assert not needs_attack("weight_perturbed", {"inner": {"objective": "natural"}})
    loss, _ = build_objective("weight_perturbed", {"inner": {"objective": "natural"}})(Layers(), *batch())
    assert loss.item() > 0


def test_an_objective_of_the_user_trains_a_network_with_its_parameters(tiny, own_names, tmp_path):
    seen = []

    def doubled(model, images, labels, attack=None, *, factor: float = 1.0):
        seen.append(factor)
        loss = factor * nn.functional.cross_entropy(model(images), labels)
        return loss, {"accuracy": torch.zeros(())}

    register_objective("doubled", doubled)
    recipe = Recipe(epochs=1, batch_size=25, objective="doubled", objective_parameters={"factor": 2.0})
    history = fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path)
    assert history.finished and seen == [2.0, 2.0]


def test_a_users_objective_without_a_default_attack_needs_one(own_names):
    register_objective("mine", lambda model, images, labels, attack: None)
    with pytest.raises(InputError, match="objective is 'mine' without an attack"):
        Recipe(epochs=1, objective="mine")


@pytest.mark.parametrize("name", ["trades", "", 3])
def test_input_error_when_the_name_is_snnlibs_own_or_none(name, own_names):
    with pytest.raises(InputError, match="expected one that snnlib does not have"):
        register_objective(name, lambda model, images, labels, attack=None: None)


def test_input_error_when_the_arguments_are_others(own_names):
    with pytest.raises(InputError, match=r"takes \(model, x, y\); expected \(model, images, labels, attack\)"):
        register_objective("mine", lambda model, x, y: None)
    with pytest.raises(InputError, match="then keyword-only parameters"):
        register_objective("mine", lambda model, images, labels, attack=None, weight=1.0: None)
    assert "mine" not in OBJECTIVES
