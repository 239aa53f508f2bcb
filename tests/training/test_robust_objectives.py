"""TRADES, MART, consistency, sparse gradients and mixtures: by hand, by finite differences, and pass by pass."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from snnlib.errors import InputError
from snnlib.training import inner_attack
from snnlib.training.inner_attack import build_attack
from snnlib.training.objectives import build_objective, consistency, mart, mixed, natural, sparse_gradient, trades
from snnlib.training.objectives.terms import kl_divergence

sys.path.insert(0, str(Path(__file__).parent))

from linear_probe import (  # noqa: E402
    OFFSETS,
    SHIFT,
    SLOPES,
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
)


def test_divergence_is_that_of_two_classes_when_computed_by_hand():
    logits = [torch.tensor([[math.log(p), math.log(1 - p)]]) for p in (0.8, 0.5)]
    assert kl_divergence(*logits).item() == pytest.approx(0.8 * math.log(1.6) + 0.2 * math.log(0.4), rel=1e-6)
    assert kl_divergence(*logits[::-1]).item() == pytest.approx(0.5 * math.log(0.625) + 0.5 * math.log(2.5), rel=1e-6)


def test_trades_is_its_formula_when_computed_by_hand():
    loss, parts = trades(Probe(), *batch(), shifted)
    assert loss.item() == pytest.approx(cross_entropy(P) + 6 * kl(P, Q).mean(), rel=1e-12)
    assert parts["divergence"].item() == pytest.approx(kl(P, Q).mean(), rel=1e-12)
    assert parts["accuracy"].item() == (P.argmax(1) == Y).mean() == 0.5
    assert parts["adversarial_accuracy"].item() == (Q.argmax(1) == Y).mean() == 0


@pytest.mark.parametrize(
    ("direction", "divergence"),
    [("clean||adversarial", kl(P, Q).mean()), ("adversarial||clean", kl(Q, P).mean())],
)
def test_consistency_is_its_formula_in_either_direction_when_computed_by_hand(direction, divergence):
    loss, _ = consistency(Probe(), *batch(), shifted, direction=direction)
    assert loss.item() == pytest.approx(cross_entropy(P) + 2 * divergence, rel=1e-12)
    assert abs(kl(P, Q).mean() - kl(Q, P).mean()) > 1e-3


def test_mart_is_its_formula_when_computed_by_hand():
    loss, parts = mart(Probe(), *batch(), shifted)
    strongest_wrong = [max(Q[0, 1], Q[0, 2]), max(Q[1, 0], Q[1, 1])]
    margin = -np.log(1.0001 - np.array(strongest_wrong)).mean()
    weighted = (kl(P, Q) * (1 - P[[0, 1], Y])).mean()
    assert loss.item() == pytest.approx(cross_entropy(Q) + margin + 4 * weighted, rel=1e-12)
    assert parts["margin"].item() == pytest.approx(margin, rel=1e-12)
    assert parts["divergence"].item() == pytest.approx(weighted, rel=1e-12)
    assert parts["accuracy"].item() == 0


def test_mart_stays_finite_when_a_wrong_class_is_certain():
    model = Probe(slopes=np.array([0.0, 0.0, 0.0]), offsets=np.array([900.0, 0.0, 0.0]))
    loss, parts = mart(model, *batch(), shifted)
    loss.backward()
    margin = -(math.log(1.0001) + math.log(1.0001 - 1)) / 2  # label 0 has no rival, label 2 a certain one
    assert parts["margin"].item() == pytest.approx(margin, rel=1e-6) and model.slopes.grad.isfinite().all()


OTHER_WAY = partial(consistency, direction="adversarial||clean")


@pytest.mark.parametrize("objective", [trades, consistency, OTHER_WAY, mart, partial(sparse_gradient, weight=1)])
def test_gradient_flows_through_both_passes_when_compared_with_differences(objective):
    model = Probe()
    objective(model, *batch(), shifted)[0].backward()
    for parameter in (model.slopes, model.offsets):
        assert torch.allclose(parameter.grad, numerical_gradient(objective, model, parameter), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("objective", [trades, mart, consistency])
def test_clean_pass_comes_before_the_attack_and_the_adversarial_pass_after_it_in_train_mode(objective):
    model, seen = Probe().train(), []

    def attack(model, images, labels):
        seen.append((len(model.passes), model.norm.running_mean.item()))
        return images + SHIFT

    objective(model, *batch(), attack)
    assert model.passes == [(True, False), (True, False)]
    assert seen == [(1, pytest.approx(X.mean() / 2))]  # momentum ½, from 0
    assert model.norm.running_mean.item() == pytest.approx(X.mean() / 4 + (X.mean() + SHIFT) / 2)


@pytest.mark.parametrize("objective", [trades, mart, consistency])
def test_attack_is_in_eval_and_moves_no_statistics_when_it_is_the_papers_own(objective):
    model = Probe().train()
    attack = build_attack(inner_attack(objective.__name__, eps=0.1), seed=1)
    loss, _ = objective(model, *batch(), attack)
    modes = [training for training, _ in model.passes]
    assert modes[0] and modes[-1] and len(modes) > 3 and not any(modes[1:-1])
    assert model.training and model.norm.training and model.norm.num_batches_tracked == 2
    loss.backward()
    assert model.slopes.grad.isfinite().all() and model.slopes.requires_grad


def slope_of_confidence(x: float, own: int, rival: int, direction: int, h: float = 0.01) -> float:
    def confidence(at: float) -> float:
        logits = SLOPES * at + OFFSETS
        return math.exp(logits[own]) / (math.exp(logits[own]) + math.exp(logits[rival]))

    return (confidence(x + direction * h) - confidence(x)) / h


def test_sparse_gradient_is_its_formula_when_computed_by_hand():
    loss, parts = sparse_gradient(Probe(), *batch(), weight=0.5)
    # At 0.2 class 0 has its rival in 2 (0.1 over 0.0) and rises with x; at 0.5 class 2 has it in 0 and falls.
    squares = [slope_of_confidence(0.2, 0, 2, +1) ** 2, slope_of_confidence(0.5, 2, 0, -1) ** 2]
    assert parts["squared_slope"].item() == pytest.approx(np.mean(squares), rel=1e-9)
    assert loss.item() == pytest.approx(cross_entropy(P) + 0.5 * np.mean(squares), rel=1e-12)


def test_rival_class_stays_that_of_the_first_point_when_another_overtakes_it():
    _, parts = sparse_gradient(Probe(), *batch(), weight=1, h=0.8)
    assert (SLOPES * (0.5 - 0.8) + OFFSETS).argmax() == 1  # at 0.5 the rival of class 2 is 0
    squares = [slope_of_confidence(0.2, 0, 2, +1, h=0.8) ** 2, slope_of_confidence(0.5, 2, 0, -1, h=0.8) ** 2]
    assert parts["squared_slope"].item() == pytest.approx(np.mean(squares), rel=1e-9)


def test_direction_is_detached_and_both_passes_are_in_train_mode_when_regularised():
    model = Probe().train()
    sparse_gradient(model, *batch(), weight=1)
    assert model.passes == [(True, True), (True, False)]  # the second point carries no graph back to the first


def test_sparse_gradient_happens_at_the_adversarial_images_when_there_is_an_attack():
    images, labels = batch()
    with_attack = sparse_gradient(Probe(), images, labels, shifted, weight=2)[0]
    assert with_attack.item() == pytest.approx(sparse_gradient(Probe(), images + SHIFT, labels, weight=2)[0].item())
    assert with_attack.item() != pytest.approx(sparse_gradient(Probe(), images, labels, weight=2)[0].item())


def test_input_error_when_the_step_of_the_difference_is_zero():
    with pytest.raises(InputError, match="h is 0; expected a step above 0"):
        sparse_gradient(Probe(), *batch(), weight=1, h=0)


def test_mixture_is_the_weighted_sum_and_attacks_once_when_both_components_attack():
    calls = []

    def attack(model, images, labels):
        calls.append(images)
        return images + SHIFT

    parameters = {
        "first": {"objective": "mart", "weight": 0.25},
        "second": {"objective": "trades", "weight": 3, "parameters": {"beta": 1.5}},
    }
    loss, parts = build_objective("mixed", parameters)(Probe(), *batch(), attack)
    own = [mart(Probe(), *batch(), shifted), trades(Probe(), *batch(), shifted, beta=1.5)]
    assert loss.item() == pytest.approx(0.25 * own[0][0].item() + 3 * own[1][0].item(), rel=1e-12)
    assert len(calls) == 1
    assert parts["accuracy"] == own[0][1]["accuracy"] and parts["second_accuracy"] == own[1][1]["accuracy"]
    assert parts["first_loss"] == own[0][0] and not parts["second_loss"].requires_grad
    assert parts["second_divergence"] == own[1][1]["divergence"]


def test_mixture_needs_no_attack_when_no_component_does():
    halves = {"objective": "natural", "weight": 0.5}
    loss, parts = mixed(Probe(), *batch(), first=halves, second=halves)
    assert loss.item() == pytest.approx(natural(Probe(), *batch())[0].item()) and parts["accuracy"] == 0.5
