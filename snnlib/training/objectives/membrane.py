"""Objectives that look at the membrane: they push it away from the threshold, where the surrogate gradient lives.

Both make the attacker's gradient small on purpose. Whether the network has become robust or the attacker blind is a
question for `snnlib.audit`, not for PGD.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.neurons import LIF, neurons_of
from snnlib.neurons.reference import membrane_dtype
from snnlib.runtime import sent
from snnlib.training.objectives.terms import InnerAttack, Parts, cross_entropy


@contextmanager
def recorded_membranes(model: nn.Module, noise: float = 0.0) -> Iterator[list[Tensor]]:
    """Inside, every call of a spiking layer appends its u = h − θ, `[T, N, ...]` with graph, to the list yielded.

    h is the membrane before the spike; spikes and gradients are the layer's own. noise: standard deviation of a normal
    draw that is added to every membrane at every step, from PyTorch's global generator of the CPU.
    Errors: InputError for a model without snnlib's neurons.
    """
    layers, found = neurons_of(model), []
    if not layers:
        raise InputError(f"{type(model).__name__} has no spiking layer of snnlib; expected one; wrap or convert it")

    def fire(layer: LIF, currents: Tensor) -> Tensor:
        spikes, distances = _fired(layer, currents, noise)
        found.append(distances)
        return spikes

    own = [layer.rule for layer in layers]
    try:
        for layer in layers:
            layer.rule = fire
        yield found
    finally:
        for layer, rule in zip(layers, own, strict=True):
            layer.rule = rule


def membrane_overlap(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: InnerAttack | None = None,
    *,
    weight: float,
    width: float = 1.0,
) -> tuple[Tensor, Parts]:
    """MPD-SGR: CE + weight · Ω, the share of membranes where the surrogate has a gradient.

        Ω = mean over layers, channels c and steps t of  Φ((μ + g) / σ) − Φ((μ − g) / σ)

    μ, σ: mean and standard deviation of u = h − θ over the batch (and the map) of channel c at step t; g: `width`, the
    half-width of a triangular surrogate; Φ: the normal distribution function. With an `attack` everything happens at
    its adversarial images. Parts: `accuracy`, `overlap` (Ω).
    **Source:** Jiang et al. 2026 (MPD-SGR, AAAI), reconstructed from public reading notes, which have the loss; there μ
    and σ come from BatchNorm's parameters (its theorem 1), here from the membranes themselves.
    """
    images = images if attack is None else attack(model, images, labels)
    with recorded_membranes(model) as membranes:
        loss, parts = cross_entropy(model(images), labels)
    overlap = torch.stack([_overlap(distances, width) for distances in membranes]).mean()
    return loss + weight * overlap, parts | {"overlap": overlap.detach()}


def membrane_guard(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: InnerAttack | None = None,
    *,
    weight: float,
    margin: float = 0.5,
    noise: float = 0.0,
) -> tuple[Tensor, Parts]:
    """TGO: CE + weight · Σ over layers of mean max(0, margin − |h − θ|), with noisy neurons while training.

    margin: δ, the distance from the threshold that costs. noise: standard deviation of the normal noise on every
    membrane (NLIF), in training alone. The weight rises by a cosine there: `Recipe.curriculum`. With an `attack`
    everything happens at its adversarial images. Parts: `accuracy`, `constraint` (the sum, without weight).
    **Source:** Wang et al. 2026 (TGO, ICLR), reconstructed from public reading notes, which have the loss but neither
    δ nor the noise's size.
    """
    images = images if attack is None else attack(model, images, labels)
    with recorded_membranes(model, noise) as membranes:
        loss, parts = cross_entropy(model(images), labels)
    constraint = torch.stack([(margin - distances.abs()).relu().mean() for distances in membranes]).sum()
    return loss + weight * constraint, parts | {"constraint": constraint.detach()}


def _fired(layer: LIF, currents: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Spikes `[T, N, ...]` of `lif_reference`, and the membranes' distances from the threshold."""
    threshold, spikes, distances = layer.effective_threshold, [], []
    v = torch.zeros_like(currents[0], dtype=membrane_dtype(currents))
    for x in currents.unbind(0):
        h = layer.leak * v + x.to(v.dtype)
        if noise:
            h = h + noise * sent(torch.randn(h.shape), h.device).to(h.dtype)
        u = h - threshold
        s = layer.surrogate.spike(u)
        reset = s.detach() if layer.detach_reset else s
        v = h * (1 - reset) if layer.reset == "hard" else h - threshold * reset
        spikes.append(s.to(currents.dtype))
        distances.append(u)
    return torch.stack(spikes), torch.stack(distances)


def _overlap(distances: Tensor, width: float) -> Tensor:
    """Mean over steps and channels of the normal mass within `width` of the threshold. distances: `[T, N, C, ...]`."""
    places = [axis for axis in range(distances.ndim) if axis not in (0, 2)]
    mean = distances.mean(places)
    deviation = (distances.var(places, correction=0) + 1e-8).sqrt()  # the root of 0 has no derivative
    return (torch.special.ndtr((mean + width) / deviation) - torch.special.ndtr((mean - width) / deviation)).mean()
