"""Neuron layers: no hidden state, gradients in eval mode, the attacker's surrogate comes and goes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.errors import InputError
from snnlib.neurons import IF, LIF, attacker_surrogate, compilations, lif_multi_step, neurons_of, surrogates, use_kernel


@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_input_gradient_exists_when_in_eval_mode(kernel):
    layer = LIF(leak=0.9).eval()
    currents = torch.rand(4, 2, 8, requires_grad=True)
    with use_kernel(kernel):
        (gradient,) = torch.autograd.grad(layer(currents).sum(), currents)
    assert (gradient != 0).all(), "atan is positive everywhere"


def test_no_state_leaks_when_a_layer_is_called_twice():
    layer, currents = IF(), torch.full((3, 5), 0.4)
    assert torch.equal(layer(currents), layer(currents))
    assert not list(layer.buffers())


def test_repr_shows_constants_and_kernel():
    with use_kernel("reference"):
        shown = repr(IF(threshold=0.5))
    assert shown == "IF(leak=1, threshold=0.5, atan(alpha=2), hard reset (detached), kernel=reference)"


def test_surrogate_changes_the_gradient_and_comes_back_when_context_ends():
    model = nn.Sequential(IF(), nn.Sequential(LIF()))
    own = [layer.surrogate for layer in neurons_of(model)]
    with pytest.raises(RuntimeError), attacker_surrogate(model, surrogates.rectangular(0.5)):
        assert all(layer.surrogate == surrogates.rectangular(0.5) for layer in neurons_of(model))
        raise RuntimeError("inside")
    assert [layer.surrogate for layer in neurons_of(model)] == own


def test_nothing_changes_when_attacker_surrogate_is_none():
    model = nn.Sequential(IF())
    with attacker_surrogate(model, None):
        assert model[0].surrogate == surrogates.atan()


def test_threshold_learns_when_it_is_a_parameter():
    layer = LIF(threshold=nn.Parameter(torch.tensor(1.0)))
    layer(torch.rand(4, 3, 7)).sum().backward()
    assert layer.threshold.grad is not None and layer.threshold.grad < 0


@pytest.fixture
def currents() -> torch.Tensor:
    return torch.rand(4, 3, 7, generator=torch.Generator().manual_seed(0)) / 10


def _trained(threshold: float, floor: float = 0.03) -> LIF:
    return LIF(threshold=threshold, trainable_threshold=True, threshold_floor=floor)


def test_threshold_is_one_parameter_when_trainable():
    layer = _trained(0.5)
    assert {name: value.shape for name, value in layer.named_parameters()} == {"threshold": ()}
    assert not list(LIF(threshold=0.5).parameters())
    given = torch.tensor(0.5)
    LIF(threshold=given, trainable_threshold=True).threshold.data.fill_(2.0)
    assert given == 0.5, "a parameter of its own"


@pytest.mark.parametrize("threshold", [0.01, torch.tensor(0.01), nn.Parameter(torch.tensor(0.01))])
def test_neuron_fires_at_the_floor_when_its_threshold_is_below(currents, threshold):
    layer = LIF(threshold=threshold, threshold_floor=0.25).eval()
    with use_kernel("reference"):
        wanted, _ = lif_multi_step(currents, leak=0.9, threshold=0.25)
        unfloored, _ = lif_multi_step(currents, leak=0.9, threshold=0.01)
        assert torch.equal(layer(currents), wanted)
    assert not torch.equal(wanted, unfloored)
    assert "threshold=0.25 (" in repr(layer) and "floor 0.25)" in repr(layer)
    assert torch.as_tensor(layer.threshold).item() == pytest.approx(0.01), "nothing is written in eval mode"


@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_gradient_of_the_threshold_is_that_of_a_clamp(currents, kernel):
    gradients = {}
    for value in (0.3, 0.25, 0.2):
        layer = _trained(value, floor=0.25).eval()
        with use_kernel(kernel):
            layer(currents).sum().backward()
        gradients[value] = layer.threshold.grad.item()
    free = _trained(0.25, floor=0.0)
    with use_kernel(kernel):
        free(currents).sum().backward()
    assert gradients[0.25] == free.threshold.grad.item() < 0
    assert gradients[0.3] < 0 and gradients[0.3] != gradients[0.25]
    assert gradients[0.2] == 0.0


def test_threshold_learns_again_when_an_optimiser_took_it_below_the_floor(currents):
    layer = _trained(0.25, floor=0.25)
    with use_kernel("reference"):
        first = layer(currents).sum()
        with torch.no_grad():
            layer.threshold -= 0.1
        layer.threshold.grad = None
        second = layer(currents).sum()
        assert layer.threshold.item() == 0.25, "put back on the floor"
        second.backward()
        assert layer.threshold.grad < 0
        assert first == second


def test_graph_of_the_first_pass_stays_usable_when_the_second_pass_meets_the_floor(currents):
    """Clean and adversarial pass, one backward: the floor writes to the threshold in between."""
    layer = _trained(0.2, floor=0.25).eval()
    with use_kernel("auto"):
        loss = layer(currents).sum()
        loss = loss + layer.train()(currents).sum()
        loss.backward()
    assert layer.threshold.item() == 0.25
    assert layer.threshold.grad < 0


def test_no_new_kernel_when_a_floor_is_set(currents):
    _trained(0.3, floor=0.0)(currents).sum().backward()
    before = compilations()
    _trained(0.3, floor=0.25)(currents).sum().backward()
    _trained(0.2, floor=0.25)(currents).sum().backward()
    assert compilations() == before


def test_rule_stands_in_for_the_forward_while_it_is_set(currents):
    layer = LIF(threshold=0.2, threshold_floor=0.3)
    with use_kernel("reference"):
        own = layer(currents)
        seen = []

        def rule(layer: LIF, currents: torch.Tensor) -> torch.Tensor:
            seen.append(layer)
            return (currents >= layer.effective_threshold).to(currents.dtype) + 5

        layer.rule = rule
        assert torch.equal(layer(currents), (currents >= 0.3) + 5.0)
        assert seen == [layer]
        layer.rule = None
        assert torch.equal(layer(currents), own)


@pytest.mark.parametrize("floor", [-0.1, float("nan"), float("inf"), "0.03"])
def test_one_line_error_when_the_floor_does_not_fit(floor):
    with pytest.raises(InputError, match="threshold_floor is .*; expected a finite number of at least 0") as error:
        LIF(threshold_floor=floor)
    assert "\n" not in str(error.value)
