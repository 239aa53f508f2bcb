"""Surrogates whose width follows the membrane: per channel and step (PDSG), or per neuron, step and sample (ASSG)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from statistics import NormalDist
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from snnlib.attacks.gradients.base import MembraneRule, SpikeGradient, SpikeRule
from snnlib.errors import InputError
from snnlib.neurons import LIF
from snnlib.runtime import running_sum

DECAY_OF_MEAN = DECAY_OF_DEVIATION = 0.9
RELAX = 1.5
SMALLEST_WIDTH = 1e-4


class _PotentialDependent(MembraneRule):
    def __init__(self, over_batch: bool) -> None:
        self._over_batch = over_batch

    def slope(self, layer: LIF, u: Tensor) -> Tensor:
        sigma = spread_so_far(u, self._over_batch)
        scaled = u / sigma - 0.5
        return torch.exp(-0.5 * scaled * scaled) / (math.sqrt(2 * math.pi) * sigma)


def spread_so_far(u: Tensor, over_batch: bool) -> Tensor:
    """Standard deviation of `u` `[T, N, C, ...]` up to each step, per channel; `[T, N or 1, C or 1, 1, ...]`.

    For `[T, N, F]` (linear layers) over all features. Unbiased; 1 where it is 0 or there is a single value.
    """
    pooled = [*([1] if over_batch else []), *(range(3, u.dim()) if u.dim() > 3 else [2])]
    # Variances do not feel a shift; taking out the first step's mean keeps the squares from cancelling.
    centred = u - u[:1].mean(pooled, keepdim=True)
    count = math.prod(u.shape[axis] for axis in pooled)
    totals = running_sum(centred.sum(pooled, keepdim=True))
    squares = running_sum(centred.square().sum(pooled, keepdim=True))
    values = count * torch.arange(1, len(u) + 1, device=u.device, dtype=u.dtype).view(-1, *[1] * (u.dim() - 1))
    variance = (squares - totals * totals / values) / (values - 1).clamp_min(1)
    return torch.where(variance > 0, variance.clamp_min(0).sqrt(), 1.0)


@dataclass(frozen=True)
class PotentialDependent(SpikeGradient):
    """See `potential_dependent`."""

    statistics: str = "sample"
    family: ClassVar[str] = "potential_dependent"

    def __post_init__(self) -> None:
        if self.statistics not in ("sample", "batch"):
            raise InputError(f"statistics is {self.statistics!r}; expected 'sample' or 'batch' (the authors')")

    def new_rule(self) -> SpikeRule:
        return _PotentialDependent(self.statistics == "batch")


def potential_dependent(statistics: str = "sample") -> SpikeGradient:
    """PDSG: a normal density centred at +σ/2, with σ per channel and step from the potentials so far::

        σ_c(t) = std of v over steps 1..t and the map (and the batch);   σ = 0 counts as 1
        ds/du  = exp(−(u − σ/2)² / (2σ²)) / (√(2π) σ),   u = v − θ, v before the reset

    Linear layers have one σ for all features. Otherwise `bptt`.
    statistics: "sample" (default) = every sample on its own, so that no result depends on batch mates; "batch" = over
    the whole batch as in the authors' code: there the gradient of an image depends on who shares its batch.
    **Source:** Lun et al. 2025 (CVPR), authors' code.
    """
    return PotentialDependent(statistics)


def _atan(u: Tensor, alpha: Tensor) -> Tensor:
    return 0.5 * alpha / (1 + (0.5 * math.pi * alpha * u).square())


def _rectangular(u: Tensor, alpha: Tensor) -> Tensor:
    return 0.5 * alpha * (alpha * u.abs() < 1)


def _triangular(u: Tensor, alpha: Tensor) -> Tensor:
    return alpha * (1 - alpha * u.abs()).clamp_min(0)


def _sigmoid(u: Tensor, alpha: Tensor) -> Tensor:
    probability = torch.sigmoid(alpha * u)
    return alpha * probability * (1 - probability)


def _gaussian(u: Tensor, alpha: Tensor) -> Tensor:
    return alpha * torch.exp(-0.5 * (alpha * u).square()) / math.sqrt(2 * math.pi)


SHARPENED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[float], float]]] = {
    "atan": (_atan, lambda a: 2 / math.pi * math.tan(math.pi * a / 2)),
    "rectangular": (_rectangular, lambda a: a),
    "triangular": (_triangular, lambda a: 1 - math.sqrt(1 - a)),
    "sigmoid": (_sigmoid, lambda a: 2 * math.atanh(a)),
    "gaussian": (_gaussian, lambda a: NormalDist().inv_cdf((1 + a) / 2)),
}
"""Per surrogate: its density at sharpness α, and ω(A), the α at which the share A of its mass lies within |u| <= 1."""


@dataclass
class _Moments:
    """Running mean of |u| and mean deviation from it, `[T, n, ...]`, of the samples `index` (None: the whole batch)."""

    mean: Tensor
    deviation: Tensor
    index: Tensor | None

    def follow(self, index: Tensor | None) -> None:
        """Keep the samples `index`, a subset of those held; both ascending."""
        if index is not None and len(index) < self.mean.shape[1]:
            kept = index if self.index is None else torch.searchsorted(self.index, index)
            self.mean, self.deviation = self.mean.index_select(1, kept), self.deviation.index_select(1, kept)
            self.index = index

    def move(self, magnitude: Tensor) -> None:
        self.mean.lerp_(magnitude, 1 - DECAY_OF_MEAN)
        self.deviation.lerp_((magnitude - self.mean).abs_(), 1 - DECAY_OF_DEVIATION)


class _AdaptiveSharpness(MembraneRule):
    def __init__(self, surrogate: str, a: float) -> None:
        self._density, omega = SHARPENED[surrogate]
        self._omega = omega(a)
        self._moments: WeakKeyDictionary[LIF, _Moments] = WeakKeyDictionary()
        self._index: Tensor | None = None
        self._repeat = False

    def active(self, index: Tensor, repeat: bool) -> None:
        self._index, self._repeat = index, repeat

    def slope(self, layer: LIF, u: Tensor) -> Tensor:
        moments = self._moments_of(layer, u)
        if not self._repeat:
            moments.move(u.abs())
        alpha = self._omega / (moments.mean + RELAX * moments.deviation + SMALLEST_WIDTH)
        return self._density(u, alpha)

    def _moments_of(self, layer: LIF, u: Tensor) -> _Moments:
        if layer not in self._moments:
            self._moments[layer] = _Moments(torch.ones_like(u), torch.zeros_like(u), self._index)
        moments = self._moments[layer]
        moments.follow(self._index)
        if moments.mean.shape != u.shape:
            raise InputError(
                f"adaptive_sharpness meets {u.shape[1]} samples with a state for {moments.mean.shape[1]}; expected the "
                "batch of before; call PreparedModel.active when samples leave"
            )
        return moments


@dataclass(frozen=True)
class AdaptiveSharpness(SpikeGradient):
    """See `adaptive_sharpness`."""

    surrogate: str = "atan"
    a: float = 0.87
    stateful: ClassVar[bool] = True
    family: ClassVar[str] = "adaptive_sharpness"

    def __post_init__(self) -> None:
        if self.surrogate not in SHARPENED:
            raise InputError(f"surrogate is {self.surrogate!r}; expected one of {', '.join(SHARPENED)}")
        if isinstance(self.a, bool) or not isinstance(self.a, Real) or not 0 < self.a < 1:
            raise InputError(f"a is {self.a!r}; expected a share between 0 and 1; use a=0.87")

    def new_rule(self) -> SpikeRule:
        return _AdaptiveSharpness(self.surrogate, self.a)


def adaptive_sharpness(surrogate: str = "atan", a: float = 0.87) -> SpikeGradient:
    """ASSG: the sharpness α per neuron, step, layer and sample follows the size of u over the attack's iterations::

        M ← 0.9 M + 0.1 |u|,   D ← 0.9 D + 0.1 ||u| − M|  (with the new M),   M = 1, D = 0 at first
        α = ω(A) / (M + 1.5 D + 1e-4)

    and ds/du is the surrogate's density g at sharpness α; otherwise `bptt`. ω solves "share of g's mass in |u| <= 1
    is A" at α = ω: a is the largest expected degree A to which the gradient may have vanished::

        atan         (α/2) / (1 + (παu/2)²)       (2/π) tan(πA/2)
        rectangular  α/2 where |u| < 1/α          A
        triangular   α (1 − α|u|) >= 0            1 − √(1−A)
        sigmoid      α σ(αu) (1 − σ(αu))          2 artanh A
        gaussian     α exp(−α²u²/2) / √(2π)       √2 erf⁻¹(A)

    M and D start fresh for every batch, follow the samples that stay (`PreparedModel.active`) and end with the attack.
    They move in passes that are differentiated, and of repeated ones (EOT) in the first.
    **Source:** "Towards Reliable Evaluation of Adversarial Robustness for Spiking Neural Networks", arXiv 2512.22522,
    authors' code (there A/2 is the parameter, searched on the test set; 0.87 is the value of their ablations). ω beyond
    atan is derived here. Passes that only score do not move M and D here; in their code every pass does.
    """
    return AdaptiveSharpness(surrogate, a)
