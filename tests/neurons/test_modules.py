"""Neuron layers: no hidden state, gradients in eval mode, the attacker's surrogate comes and goes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.neurons import IF, LIF, attacker_surrogate, neurons_of, surrogates, use_kernel


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
