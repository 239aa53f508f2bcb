"""The smooth relaxation: the network whose forward pass is made of the curves that the surrogates are slopes of.

A deployed spiking network is piecewise constant in its input (P4), so a theorem about its derivative has nothing to
speak of. Here the step H(u) gives way to Φ(u) = ½ + ∫₀ᵘ σ, with σ the surrogate: the gradient of this network is
computed from the surrogate and is the true derivative of its own forward pass. It is another network than the
deployed one: its membranes, and so the points at which σ is read, differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.neurons import LIF, Surrogate, neurons_of
from snnlib.neurons.reference import membrane_dtype

Primitive = Callable[..., Tensor]


def _atan(u: Tensor, height: float, slope: float) -> Tensor:
    return height / slope * torch.atan(slope * u)


def _triangle(u: Tensor, height: float, slope: float) -> Tensor:
    reach = u.abs().clamp(max=1 / slope)
    return height * u.sign() * (reach - slope * reach * reach / 2)


def _box(u: Tensor, height: float, half_width: float) -> Tensor:
    return height * u.clamp(-half_width, half_width)


def _exponential(u: Tensor, height: float, rate: float) -> Tensor:
    return -height / rate * u.sign() * torch.expm1(-rate * u.abs())


def _sigmoid(u: Tensor, slope: float) -> Tensor:
    return torch.sigmoid(slope * u) - 0.5


def _fast_sigmoid(u: Tensor, slope: float) -> Tensor:
    return u / (1 + slope * u.abs())


def _gaussian(u: Tensor, height: float, decay: float) -> Tensor:
    return height * math.sqrt(math.pi / decay) / 2 * torch.erf(math.sqrt(decay) * u)


def _constant(u: Tensor, height: float) -> Tensor:
    return height * u


PRIMITIVES: dict[str, Primitive] = {
    "atan": _atan,
    "piecewise_linear": _triangle,
    "rectangular": _box,
    "exponential": _exponential,
    "sigmoid": _sigmoid,
    "fast_sigmoid": _fast_sigmoid,
    "gaussian": _gaussian,
    "straight_through": _constant,
}
"""∫₀ᵘ σ for each family of `snnlib.neurons.surrogates`, called with the family's coefficients."""
ROUGH = ("rectangular",)
"""Families whose surrogate jumps: the relaxation is continuous, its gradient is not."""


class _Soft(torch.autograd.Function):
    """Φ(u), differentiated by the surrogate itself: what backpropagation reads is σ, not a rewriting of it."""

    @staticmethod
    def forward(ctx, u: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return 0.5 + PRIMITIVES[surrogate.name](u, *surrogate.coefficients)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return upstream * ctx.surrogate(u), None


def soft_spike(u: Tensor, surrogate: Surrogate) -> Tensor:
    """Φ(u) = ½ + ∫₀ᵘ σ, for `u` = membrane − threshold of any shape; its gradient is `surrogate(u)`.

    Runs from 0 to 1 for a surrogate of integral 1, over a shorter or longer range for another one; without bound for
    `straight_through`. Errors: InputError for a family without a primitive.
    """
    if surrogate.name not in PRIMITIVES:
        raise InputError(f"surrogate {surrogate} has no primitive; expected one of {', '.join(PRIMITIVES)}")
    return _Soft.apply(u, surrogate)


def relaxed_lif(layer: LIF, currents: Tensor) -> Tensor:
    """Soft spikes `[T, N, ...]` of a layer: the equations of `lif_reference` with Φ in the place of the step.

    The reset is never detached here, whatever the layer says: a detached reset would make the gradient another one
    than the derivative of this forward pass.
    """
    dtype = membrane_dtype(currents)
    threshold = torch.as_tensor(layer.effective_threshold, dtype=dtype, device=currents.device)
    v = torch.zeros_like(currents[0], dtype=dtype)
    spikes = []
    for x in currents.unbind(0):
        h = layer.leak * v + x.to(dtype)
        s = soft_spike(h - threshold, layer.surrogate)
        v = h * (1 - s) if layer.reset == "hard" else h - threshold * s
        spikes.append(s.to(currents.dtype))
    return torch.stack(spikes)


@contextmanager
def relaxed(model: nn.Module) -> Iterator[None]:
    """Inside, every neuron of `model` gives soft spikes; on leaving, also by an exception, it is what it was.

    A model without spiking neurons stays as it is.
    """
    changed = [(layer, layer.rule) for layer in neurons_of(model)]
    for layer, _ in changed:
        layer.rule = relaxed_lif
    try:
        yield
    finally:
        for layer, own in changed:
            layer.rule = own
