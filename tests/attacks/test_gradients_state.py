"""Adaptive sharpness: its table, its running statistics, and what happens to them when samples leave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.attacks import Budget, pgd
from snnlib.attacks.gradients import adaptive_sharpness
from snnlib.attacks.gradients.adaptive_width import SHARPENED
from snnlib.attacks.prepared import prepared
from snnlib.errors import InputError
from snnlib.neurons import LIF, surrogates, use_kernel

T, N, F = 4, 5, 3


@pytest.fixture(autouse=True)
def plain_loops():
    with use_kernel("reference"):
        yield


def currents(seed):
    return torch.rand(T, N, F, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sharpness_by_loops(passes, omega):
    """α of the last pass for each element of `passes`, a list of u `[T, N, F]`."""
    alpha = torch.empty_like(passes[0])
    for position in range(alpha.numel()):
        mean, deviation = 1.0, 0.0
        for u in passes:
            size = abs(u.flatten()[position].item())
            mean = 0.9 * mean + 0.1 * size
            deviation = 0.9 * deviation + 0.1 * abs(size - mean)
        alpha.view(-1)[position] = omega / (mean + 1.5 * deviation + 1e-4)
    return alpha


@pytest.mark.parametrize("name", SHARPENED)
@pytest.mark.parametrize("a", [0.5, 0.87])
def test_share_a_of_the_density_lies_within_one_when_sharpness_is_omega(name, a):
    density, omega = SHARPENED[name]
    u = torch.linspace(-1, 1, 400_001, dtype=torch.float64)
    alpha = torch.tensor(omega(a), dtype=torch.float64)
    assert torch.trapezoid(density(u, alpha), u).item() == pytest.approx(a, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "omega"),
    [("atan", 3.074), ("rectangular", 0.870), ("triangular", 0.639), ("sigmoid", 2.666), ("gaussian", 1.514)],
)
def test_omega_at_the_default_is_that_of_the_published_table(name, omega):
    assert SHARPENED[name][1](0.87) == pytest.approx(omega, abs=6e-4)


@pytest.mark.parametrize(
    ("name", "ours", "width_of"),
    [
        ("atan", surrogates.atan, lambda alpha: {"alpha": alpha}),
        ("rectangular", surrogates.rectangular, lambda alpha: {"width": 2 / alpha}),
        ("triangular", surrogates.piecewise_linear, lambda alpha: {"width": 1 / alpha, "height": alpha}),
        ("sigmoid", surrogates.sigmoid, lambda alpha: {"slope": alpha}),
        ("gaussian", surrogates.gaussian, lambda alpha: {"sigma": 1 / alpha}),
    ],
)
def test_densities_are_the_neurons_own_surrogates_at_that_sharpness(name, ours, width_of):
    u = torch.linspace(-2, 2, 1001, dtype=torch.float64)
    density = SHARPENED[name][0](u, torch.tensor(2.5, dtype=torch.float64))
    torch.testing.assert_close(density, ours(**width_of(2.5))(u))


@pytest.mark.parametrize("surrogate", SHARPENED)
def test_sharpness_follows_the_running_statistics_of_each_neuron(surrogate):
    gradient = adaptive_sharpness(surrogate=surrogate)
    rule, layer, seen = gradient.new_rule(), LIF(), []
    density, omega = SHARPENED[surrogate]
    for seed in range(3):
        u = currents(seed) - 1
        seen.append(u)
        expected = density(u, sharpness_by_loops(seen, omega(0.87)))
        torch.testing.assert_close(rule.slope(layer, u), expected, rtol=1e-12, atol=1e-12)


def test_passes_that_only_score_do_not_move_the_statistics():
    layer, x = LIF(leak=0.5), currents(0)
    once, thrice = adaptive_sharpness().new_rule(), adaptive_sharpness().new_rule()
    for _ in range(2):
        with torch.no_grad():
            thrice(layer, x)
    u = x - 1
    with torch.no_grad():
        assert torch.equal(thrice.slope(layer, u), once.slope(layer, u))


def test_repeated_passes_use_the_statistics_and_do_not_move_them():
    layer, rule, everybody = LIF(), adaptive_sharpness().new_rule(), torch.arange(N)
    rule.active(everybody, repeat=False)
    rule.slope(layer, currents(0))
    rule.active(everybody, repeat=True)
    first, second = rule.slope(layer, currents(1)), rule.slope(layer, currents(1))
    rule.active(everybody, repeat=False)
    moved = rule.slope(layer, currents(1))
    assert torch.equal(first, second) and not torch.equal(moved, first)


@pytest.mark.parametrize("named_from_the_start", [True, False])
def test_statistics_stay_with_their_sample_when_others_leave(named_from_the_start):
    layer, whole, shrinking = LIF(), adaptive_sharpness().new_rule(), adaptive_sharpness().new_rule()
    for step, stay in enumerate([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 2, 3, 4], [2, 4], [4]]):
        index = torch.tensor(stay)
        if step > 0 or named_from_the_start:
            shrinking.active(index, repeat=False)
        expected = whole.slope(layer, currents(step))[:, index]
        assert torch.equal(shrinking.slope(layer, currents(step)[:, index]), expected)


def test_statistics_begin_with_those_who_are_there_when_samples_left_before_the_first_gradient():
    layer, whole, late = LIF(), adaptive_sharpness().new_rule(), adaptive_sharpness().new_rule()
    for stay in ([1, 3, 4], [3], [3]):
        index = torch.tensor(stay)
        late.active(index, repeat=False)
        expected = whole.slope(layer, currents(0))[:, index]
        assert torch.equal(late.slope(layer, currents(0)[:, index]), expected)


def test_leaving_without_notice_is_an_error():
    rule, layer = adaptive_sharpness().new_rule(), LIF()
    rule.slope(layer, currents(0))
    with pytest.raises(InputError, match="meets 3 samples with a state for 5; expected the batch of before"):
        rule.slope(layer, currents(0)[:, :3])


def spiking_net():
    class Frames(nn.Module):
        def forward(self, x):
            return x.flatten(1).expand(T, -1, -1)

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(0)

    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(
            Frames(), nn.Linear(12, 24), LIF(threshold=0.3), nn.Linear(24, 24), LIF(threshold=0.2, leak=0.7),
            nn.Linear(24, 4), Mean(),
        )  # fmt: skip


def test_attack_by_adaptive_sharpness_does_not_depend_on_who_leaves_the_batch():
    model = spiking_net()
    images = torch.rand(12, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        labels = model(images).argmax(1)
    options = {"steps": 8, "gradient": adaptive_sharpness()}
    together = pgd(model, images, labels, Budget(0.08), **options)
    alone = [pgd(model, images[i : i + 1], labels[i : i + 1], Budget(0.08), **options) for i in range(len(images))]
    assert len(set(together.first_successful_step.tolist())) > 2
    for i, single in enumerate(alone):
        torch.testing.assert_close(together.adversarial[i], single.adversarial[0], rtol=0, atol=1e-6)
        assert together.first_successful_step[i] == single.first_successful_step[0]


def test_state_is_fresh_for_every_attack():
    model = spiking_net()
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    labels = model(images).argmax(1)
    first, second = (
        pgd(model, images, labels, Budget(0.01), steps=4, gradient=adaptive_sharpness()) for _ in range(2)
    )
    assert torch.equal(first.adversarial, second.adversarial) and torch.equal(first.loss, second.loss)
    with prepared(model, gradient=adaptive_sharpness()) as lent:
        held = lent.rule
    with prepared(model, gradient=adaptive_sharpness()) as lent:
        assert lent.rule is not held and model[2].rule is lent.rule
    assert model[2].rule is None
