"""Pseudo-derivatives of the spike: what a gradient sees where the forward pass has a step.

A neuron fires at `u >= 0`, with `u = membrane - threshold`. Every family below is a function of `u` alone.
`surrogate(u)` is the pseudo-derivative; `surrogate.spike(u)` is the step that carries it. Coefficients travel as
numbers beside the formula, so that changing a width never recompiles a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from snnlib.errors import InputError


class _Step(torch.autograd.Function):
    """Heaviside step (1 at u = 0) whose backward is the surrogate; differentiable again, for second order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, surrogate: Surrogate) -> Tensor:
        return (u >= 0).to(u.dtype)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        u, ctx.surrogate = inputs
        ctx.save_for_backward(u)
        ctx.save_for_forward(u)

    @staticmethod
    def jvp(ctx, change: Tensor, _: None) -> Tensor:
        (u,) = ctx.saved_tensors
        return change * ctx.surrogate(u)

    @staticmethod
    def backward(ctx, grad_spikes: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grad_spikes * ctx.surrogate(u), None


@dataclass(frozen=True)
class Surrogate:
    """One pseudo-derivative: a family's formula with its coefficients. Hashable, comparable, printable."""

    name: str
    parameters: tuple[tuple[str, float], ...]
    formula: Callable[..., Tensor]
    coefficients: tuple[float, ...]

    def __call__(self, u: Tensor) -> Tensor:
        """Pseudo-derivative at `u` (any shape); same shape and dtype."""
        return self.formula(u, *self.coefficients)

    def spike(self, u: Tensor) -> Tensor:
        """1 where `u >= 0`, else 0; its gradient is `self(u)`."""
        return _Step.apply(u, self)

    def __repr__(self) -> str:
        # Python's shortest spelling that reads back as the same number, 2 and not 2.0.
        return f"{self.name}({', '.join(f'{key}={value!r}'.removesuffix('.0') for key, value in self.parameters)})"


def _positive(family: str, **parameters: float) -> tuple[tuple[str, float], ...]:
    for key, value in parameters.items():
        if isinstance(value, bool) or not (isinstance(value, Real) and math.isfinite(value) and value > 0):
            raise InputError(
                f"surrogates.{family}: {key} is {value!r}; expected a finite number above 0; use e.g. {key}=1.0"
            )
    return tuple((key, float(value)) for key, value in parameters.items())


def _atan(u: Tensor, height: float | Tensor, slope: float | Tensor) -> Tensor:
    scaled = slope * u
    return height / (1 + scaled * scaled)


def atan(alpha: float = 2.0) -> Surrogate:
    """(α/2) / (1 + (π α u / 2)²). Integral 1; peak α/2.

    **Source:** Fang et al. 2021 (PLIF), eq. for the arctangent surrogate; α = 2 in Luu et al. 2025.
    """
    return Surrogate("atan", _positive("atan", alpha=alpha), _atan, (alpha / 2, math.pi * alpha / 2))


def _triangle(u: Tensor, height: float | Tensor, slope: float | Tensor) -> Tensor:
    return height * torch.relu(1 - slope * u.abs())


def piecewise_linear(width: float = 1.0, height: float = 1.0) -> Surrogate:
    """height · max(0, 1 − |u| / width): a triangle of half-width `width`. Integral height · width.

    **Source:** Bellec et al. 2018; Esser et al. 2016. Özdenizci & Legenstein 2024 vary the width.
    """
    named = _positive("piecewise_linear", width=width, height=height)
    return Surrogate("piecewise_linear", named, _triangle, (height, 1 / width))


def _box(u: Tensor, height: float | Tensor, half_width: float | Tensor) -> Tensor:
    return height * (u.abs() <= half_width).to(u.dtype)


def rectangular(width: float = 1.0) -> Surrogate:
    """(1 / width) where |u| <= width / 2, else 0. Integral 1.

    **Source:** Wu et al. 2018 (STBP), the rectangular curve h₁.
    """
    return Surrogate("rectangular", _positive("rectangular", width=width), _box, (1 / width, width / 2))


def _exponential(u: Tensor, height: float | Tensor, rate: float | Tensor) -> Tensor:
    return height * torch.exp(-rate * u.abs())


def exponential(height: float = 1.0, rate: float = 2.0) -> Surrogate:
    """height · exp(−rate · |u|). Integral 2 · height / rate.

    **Source:** Shrestha & Orchard 2018 (SLAYER), the spike escape rate.
    """
    named = _positive("exponential", height=height, rate=rate)
    return Surrogate("exponential", named, _exponential, (height, rate))


def _sigmoid(u: Tensor, slope: float | Tensor) -> Tensor:
    probability = torch.sigmoid(slope * u)
    return slope * probability * (1 - probability)


def sigmoid(slope: float = 4.0) -> Surrogate:
    """slope · σ(slope · u) · (1 − σ(slope · u)), the logistic density. Integral 1; peak slope / 4.

    **Source:** Zenke & Ganguli 2018; slope 4 as in Liu et al. 2024's attacker.
    """
    return Surrogate("sigmoid", _positive("sigmoid", slope=slope), _sigmoid, (slope,))


def _fast_sigmoid(u: Tensor, slope: float | Tensor) -> Tensor:
    reach = 1 + slope * u.abs()
    return 1 / (reach * reach)


def fast_sigmoid(slope: float = 25.0) -> Surrogate:
    """1 / (1 + slope · |u|)². Integral 2 / slope; peak 1.

    **Source:** Zenke & Ganguli 2018 (SuperSpike); the default slope is snnTorch's.
    """
    return Surrogate("fast_sigmoid", _positive("fast_sigmoid", slope=slope), _fast_sigmoid, (slope,))


def _gaussian(u: Tensor, height: float | Tensor, decay: float | Tensor) -> Tensor:
    return height * torch.exp(-decay * (u * u))


def gaussian(sigma: float = 0.5) -> Surrogate:
    """exp(−u² / (2σ²)) / (σ √(2π)), the normal density. Integral 1.

    **Source:** Yin et al. 2021.
    """
    named = _positive("gaussian", sigma=sigma)
    return Surrogate("gaussian", named, _gaussian, (1 / (sigma * math.sqrt(2 * math.pi)), 1 / (2 * sigma * sigma)))


def _constant(u: Tensor, height: float | Tensor) -> Tensor:
    return height * torch.ones_like(u)


def straight_through(height: float = 1.0) -> Surrogate:
    """`height` everywhere: the step is passed over as if it were linear.

    **Source:** Bengio et al. 2013.
    """
    return Surrogate("straight_through", _positive("straight_through", height=height), _constant, (height,))


FAMILIES: dict[str, Callable[..., Surrogate]] = {
    family.__name__: family
    for family in (atan, piecewise_linear, rectangular, exponential, sigmoid, fast_sigmoid, gaussian, straight_through)
}


def from_name(name: str, **parameters: float) -> Surrogate:
    """Build a surrogate from its family's name, as configurations spell it."""
    if name not in FAMILIES:
        raise InputError(f"surrogate is {name!r}; expected one of {', '.join(FAMILIES)}; choose one of these")
    return FAMILIES[name](**parameters)
