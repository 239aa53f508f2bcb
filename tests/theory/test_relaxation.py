"""The relaxation's gradient is the surrogate and the derivative of its own forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.errors import InputError
from snnlib.neurons import IF, LIF, Surrogate, surrogates
from snnlib.theory import relaxed, soft_spike
from snnlib.theory.relaxation import ROUGH, relaxed_lif

SMOOTH = [name for name in surrogates.FAMILIES if name not in ROUGH]
U = torch.linspace(-2.03, 2.04, 83, dtype=torch.float64)


@pytest.mark.parametrize("name", surrogates.FAMILIES)
def test_soft_spike_starts_at_a_half_and_climbs_by_the_surrogate(name):
    surrogate = surrogates.from_name(name)
    assert soft_spike(torch.zeros(1, dtype=torch.float64), surrogate).item() == 0.5
    u = U.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(soft_spike(u, surrogate).sum(), u)
    assert torch.equal(slope, surrogate(U))
    h = 1e-6
    climbed = (soft_spike(U + h, surrogate) - soft_spike(U - h, surrogate)) / (2 * h)
    assert torch.allclose(climbed, surrogate(U), atol=1e-4)


@pytest.mark.parametrize("name", ["atan", "sigmoid", "gaussian", "rectangular", "exponential", "piecewise_linear"])
def test_a_surrogate_of_integral_one_gives_a_spike_between_zero_and_one(name):
    surrogate = surrogates.from_name(name)
    ends = soft_spike(torch.tensor([-1e6, 1e6], dtype=torch.float64), surrogate)
    assert torch.allclose(ends, torch.tensor([0.0, 1.0], dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_gradient_of_a_relaxed_layer_is_its_derivative_though_the_layer_detaches_its_reset(name, reset):
    layer = LIF(leak=0.8, surrogate=surrogates.from_name(name), reset=reset, detach_reset=True)
    x = 0.6 * torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.2
    assert torch.autograd.gradcheck(lambda currents: relaxed_lif(layer, currents), x.requires_grad_(True), atol=1e-5)


def test_one_step_by_hand():
    layer = LIF(leak=0.5, threshold=1.0, surrogate=surrogates.sigmoid(slope=4.0))
    spikes = relaxed_lif(layer, torch.tensor([[1.0], [0.25]], dtype=torch.float64))
    # h = 1, s = 1/2, v = 1/2; then h = 0.25 + 0.25 = 0.5, s = σ(4 · (0.5 − 1)).
    assert torch.allclose(spikes[:, 0], torch.tensor([0.5, torch.sigmoid(torch.tensor(-2.0))], dtype=torch.float64))


def test_a_model_comes_back_as_it_was_also_after_an_exception():
    model = nn.Sequential(IF(), LIF())
    model[1].rule = kept = lambda layer, currents: currents
    with pytest.raises(ArithmeticError), relaxed(model):
        assert [layer.rule for layer in model] == [relaxed_lif, relaxed_lif]
        raise ArithmeticError
    assert model[0].rule is None and model[1].rule is kept


def test_without_neurons_nothing_changes():
    model = nn.Linear(2, 2)
    x = torch.rand(1, 2)
    with relaxed(model):
        assert torch.equal(model(x), nn.functional.linear(x, model.weight, model.bias))


def test_a_family_without_a_primitive_is_refused():
    unknown = Surrogate("cubic", (), lambda u: u, ())
    with pytest.raises(InputError, match="no primitive"):
        soft_spike(torch.zeros(1), unknown)
