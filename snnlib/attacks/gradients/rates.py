"""Rules that look at rates: what a neuron did over all steps, not when it did it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from snnlib.attacks.gradients.base import (
    PulledBack,
    SpikeGradient,
    SpikeRule,
    check_above,
    distance_to_threshold,
    threshold_of,
)
from snnlib.neurons import LIF, surrogates
from snnlib.neurons.reference import membrane_dtype


class _ThroughRate(SpikeRule):
    def pull_back(self, layer: LIF, currents: Tensor, spikes: Tensor) -> PulledBack:
        fired = spikes.any(0)
        return lambda g_spikes: g_spikes * fired


@dataclass(frozen=True)
class BackwardThroughRate(SpikeGradient):
    """See `backward_through_rate`."""

    family: ClassVar[str] = "backward_through_rate"

    def new_rule(self) -> SpikeRule:
        return _ThroughRate()


def backward_through_rate() -> SpikeGradient:
    """BPTR: dL/dI(t) = dL/ds(t) · 1[mean_t s > 0]; a neuron that fired at all passes the gradient on, step by step.

    **Source:** Ding et al. 2022 (SNN-RAT), authors' code; member 18 of Özdenizci & Legenstein 2024.
    """
    return BackwardThroughRate()


class _RateCurve(SpikeRule):
    def __init__(self, gamma: float, beta: float) -> None:
        self._gamma, self._beta = gamma, beta

    def pull_back(self, layer: LIF, currents: Tensor, spikes: Tensor) -> PulledBack:
        mean_current = currents.to(membrane_dtype(currents)).mean(0)
        threshold, lost = threshold_of(layer), 1 - layer.leak
        steep = (1 - self._gamma * lost * threshold) / ((self._beta - lost) * threshold)
        rises = (mean_current >= lost * threshold) & (mean_current <= self._beta * threshold)
        creeps = (mean_current >= 0) & (mean_current < lost * threshold)
        slope = (steep * rises + self._gamma * creeps).to(spikes.dtype)
        return lambda g_spikes: g_spikes * slope


@dataclass(frozen=True)
class RateGradient(SpikeGradient):
    """See `rate_gradient`."""

    gamma: float = 0.2
    beta: float = 2.0
    family: ClassVar[str] = "rate_gradient"

    def __post_init__(self) -> None:
        check_above("gamma", self.gamma)
        check_above("beta", self.beta, bound=1.0)

    def new_rule(self) -> SpikeRule:
        return _RateCurve(self.gamma, self.beta)


def rate_gradient(gamma: float = 0.2, beta: float = 2.0) -> SpikeGradient:
    """RGA: dL/dI(t) = dL/ds(t) · r'(Ī) with Ī = mean_t I(t), leak λ, threshold θ, and the rate curve's slope::

        r'(Ī) = γ                                       for 0 <= Ī < (1−λ)θ
                (1 − γ(1−λ)θ) / ((β − (1−λ))θ)          for (1−λ)θ <= Ī <= βθ
                0                                       elsewhere

    For an IF neuron (λ = 1): 1 / (βθ) on [0, βθ]. The rate r is continuous and reaches 1 at Ī = βθ.

    **Source:** Bu et al. 2023 (CVPR), authors' code with θ = 1; general θ as in the code of the ASSG paper. Their two
    pieces share the point (1−λ)θ; here it belongs to the second.
    """
    return RateGradient(gamma, beta)


class _Hart(SpikeRule):
    def __init__(self, gamma: float) -> None:
        self._triangle = surrogates.piecewise_linear(width=gamma, height=1 / gamma)

    def pull_back(self, layer: LIF, currents: Tensor, spikes: Tensor) -> PulledBack:
        slope = self._triangle(distance_to_threshold(layer, currents, spikes)).to(spikes.dtype)
        return lambda g_spikes: (g_spikes * slope).mean(0).expand_as(g_spikes)


@dataclass(frozen=True)
class Hart(SpikeGradient):
    """See `hart`."""

    gamma: float = 1.0
    family: ClassVar[str] = "hart"

    def __post_init__(self) -> None:
        check_above("gamma", self.gamma)

    def new_rule(self) -> SpikeRule:
        return _Hart(self.gamma)


def hart(gamma: float = 1.0) -> SpikeGradient:
    """HART: the temporal chain is cut, and every step gets the average over time of the local gradients::

        dL/dI(t) = (1/T) Σ_τ dL/ds(τ) · max(0, γ − |u(τ)|) / γ²,   u = membrane − θ before the reset

    gamma: half-width of the triangle; the wider, the less of the timing survives (γ → ∞: rates alone).
    **Source:** Hao et al. 2024 (ICLR), authors' code, mode "avg". They tune γ on the test set (0.10 ... 2.45); here it
    is whatever the caller names, 1 by default. Choose it on other images than those that are reported.
    """
    return Hart(gamma)
