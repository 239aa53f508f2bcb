"""Spikes and gradients against snnTorch 1.0, which fires at `>` where we fire at `>=`.

Off the threshold the two agree; on it they differ by definition, and that difference is a test too. In snnTorch the
way to reset decides what is differentiated: `reset_delay=True` resets from a detached copy at the start of the next
step, `reset_delay=False` resets through the spike itself, at once. A delayed subtraction comes after the leak, so
with a leak below 1 it is a different neuron and has no case here.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from snnlib.neurons import lif_multi_step, surrogates

snntorch = pytest.importorskip("snntorch", reason="snntorch is not installed")

CASES = [
    case
    for case in itertools.product([0.5, 0.75, 1.0], ["hard", "soft"], [True, False], [1, 4, 10])
    if not (case[1] == "soft" and case[2] and case[0] < 1)
]


def _currents_off_the_threshold(time_steps):
    """Multiples of 1/64 plus a small offset that no sum of halves and quarters cancels; below 1 after the first step,
    so that a subtracted reset leaves less than a threshold."""
    generator = torch.Generator().manual_seed(time_steps)
    currents = torch.randint(-16, 64, (time_steps, 6, 40), generator=generator) / 64 + 2.0**-11
    currents[0] = torch.randint(-16, 96, (6, 40), generator=generator) / 64 + 2.0**-9
    return currents


def _snntorch(currents, leak, reset, detach_reset):
    layer = snntorch.Leaky(
        beta=leak,
        threshold=1.0,
        reset_mechanism="zero" if reset == "hard" else "subtract",
        reset_delay=detach_reset,
        spike_grad=snntorch.surrogate.atan(alpha=2.0),
    )
    membrane, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        spike, membrane = layer(current, membrane)
        spikes.append(spike)
    return torch.stack(spikes)


@pytest.mark.parametrize("leak, reset, detach_reset, time_steps", CASES)
def test_spikes_and_gradients_agree_when_no_membrane_meets_the_threshold(leak, reset, detach_reset, time_steps):
    ours_in, theirs_in = (_currents_off_the_threshold(time_steps).requires_grad_() for _ in range(2))
    ours, _ = lif_multi_step(
        ours_in, leak=leak, reset=reset, detach_reset=detach_reset, surrogate=surrogates.atan(alpha=2.0)
    )
    theirs = _snntorch(theirs_in, leak, reset, detach_reset)
    assert torch.equal(ours, theirs)
    assert 0 < ours.mean() < 1
    weights = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    (our_gradient,) = torch.autograd.grad((ours * weights).sum(), ours_in)
    (their_gradient,) = torch.autograd.grad((theirs * weights).sum(), theirs_in)
    assert (our_gradient - their_gradient).norm() / their_gradient.norm() < 1e-6


def test_only_we_fire_when_the_membrane_is_exactly_at_the_threshold():
    at_threshold = torch.ones(1, 2, 3)
    assert lif_multi_step(at_threshold)[0].all()
    assert not _snntorch(at_threshold, 1.0, "hard", True).any()
