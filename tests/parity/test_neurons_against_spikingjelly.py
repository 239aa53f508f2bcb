"""Spikes and gradients against SpikingJelly 2.0 on inputs whose arithmetic is exact in float32.

Inputs are multiples of 1/64 and leaks are 0.5, 0.75 and 1, so both libraries compute the same membranes without
rounding, and many of them lie exactly on the threshold. Both fire at `>=`.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from snnlib.neurons import lif_multi_step, surrogates

neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="spikingjelly is not installed")
sj_surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")

CASES = list(itertools.product([0.5, 0.75, 1.0], ["hard", "soft"], [True, False], [1, 4, 10]))


def _lattice_currents(time_steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(time_steps)
    currents = torch.randint(-16, 64, (time_steps, 6, 40), generator=generator) / 64
    currents[0, :, :8] = 1.0
    return currents


def _spikingjelly(currents, leak, reset, detach_reset):
    options = {
        "v_threshold": 1.0,
        "v_reset": 0.0 if reset == "hard" else None,
        "detach_reset": detach_reset,
        "surrogate_function": sj_surrogate.ATan(alpha=2.0),
        "step_mode": "m",
    }
    if leak == 1.0:
        return neuron.IFNode(**options)(currents)
    return neuron.LIFNode(tau=1 / (1 - leak), decay_input=False, **options)(currents)


@pytest.mark.parametrize("leak, reset, detach_reset, time_steps", CASES)
def test_spikes_are_equal_and_gradients_agree(leak, reset, detach_reset, time_steps):
    ours_in, theirs_in = (_lattice_currents(time_steps).requires_grad_() for _ in range(2))
    ours, _ = lif_multi_step(
        ours_in, leak=leak, reset=reset, detach_reset=detach_reset, surrogate=surrogates.atan(alpha=2.0)
    )
    theirs = _spikingjelly(theirs_in, leak, reset, detach_reset)
    assert torch.equal(ours, theirs)
    assert ours[0, :, :8].all(), "inputs exactly at the threshold fire in both"
    weights = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    (our_gradient,) = torch.autograd.grad((ours * weights).sum(), ours_in)
    (their_gradient,) = torch.autograd.grad((theirs * weights).sum(), theirs_in)
    error = (our_gradient - their_gradient).norm() / their_gradient.norm()
    assert error < 1e-6
