"""How an attacker differentiates a spike: the interface, and what every rule is made of.

A `SpikeGradient` is a plain description: hashable, comparable, with a `name` that `parse_gradient` reads back. While it
is `applied` to a model, each of the model's neurons hands its forward to a `SpikeRule`, which makes the spikes that the
neuron itself would make and differentiates them its own way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snnlib.errors import InputError
from snnlib.neurons import (
    LIF,
    Surrogate,
    attacker_surrogate,
    exchanged_surrogates,
    foreign_neurons,
    lif_multi_step,
    neurons_of,
    surrogates,
)
from snnlib.neurons.foreign import Slope
from snnlib.neurons.reference import membrane_dtype

PulledBack = Callable[[Tensor], Tensor]
"""From the derivative of the loss by the spikes `[T, N, ...]` to that by the currents, of the same shape."""


class _Differentiated(torch.autograd.Function):
    """Given spikes forward; backward whatever `pull_back` makes of their gradient. No second order."""

    @staticmethod
    def forward(ctx, currents: Tensor, spikes: Tensor, pull_back: PulledBack) -> Tensor:
        ctx.pull_back = pull_back
        return spikes

    @staticmethod
    @once_differentiable
    def backward(ctx, g_spikes: Tensor) -> tuple[Tensor, None, None]:
        return ctx.pull_back(g_spikes), None, None


class SpikeRule:
    """What stands in a neuron's forward during one attack; state, if any, is born and ends with it."""

    def __call__(self, layer: LIF, currents: Tensor) -> Tensor:
        """The spikes of `layer` for `currents`, both `[T, N, ...]`, with this rule's gradient."""
        detached = currents.detach()
        with torch.no_grad():
            spikes = own_spikes(layer, detached)
            if not currents.requires_grad:
                return spikes
            pull_back = self.pull_back(layer, detached, spikes)
        return _Differentiated.apply(currents, spikes, pull_back)

    def pull_back(self, layer: LIF, currents: Tensor, spikes: Tensor) -> PulledBack:
        """The rule itself. Called in each forward pass that will be differentiated; all tensors `[T, N, ...]`."""
        raise NotImplementedError

    def active(self, index: Tensor, repeat: bool) -> None:
        """See `PreparedModel.active`; only rules with a state per sample need it."""


class MembraneRule(SpikeRule):
    """Backpropagation through time: spike by `slope`, membrane by its own equations.

    Per step, backwards, with g_ a derivative of the loss, u = h − θ and φ = slope(u)::

        g_s[t] = g_s[t] − g_v[t] h[t]  (hard)  or  − g_v[t] θ  (soft)      only where the layer's reset is not detached
        g_h[t] = φ[t] g_s[t] + g_v[t] (1 − s[t])  (hard)  or  + g_v[t]  (soft)
        g_x[t] = g_h[t],   g_v[t−1] = λ g_h[t]

    **Source:** the derivative of `snnlib.neurons.reference.lif_reference`.
    """

    def slope(self, layer: LIF, u: Tensor) -> Tensor:
        """ds/du for u = membrane − threshold before the reset, both `[T, N, ...]`."""
        raise NotImplementedError

    def pull_back(self, layer: LIF, currents: Tensor, spikes: Tensor) -> PulledBack:
        u = distance_to_threshold(layer, currents, spikes)
        slope = self.slope(layer, u)
        return lambda g_spikes: through_membrane(layer, u, spikes, slope, g_spikes)


def own_spikes(layer: LIF, currents: Tensor) -> Tensor:
    """What `layer` fires without a rule."""
    spikes, _ = lif_multi_step(
        currents, leak=layer.leak, threshold=layer.effective_threshold, reset=layer.reset, want_v_last=False
    )
    return spikes


def threshold_of(layer: LIF) -> Tensor | float:
    """The threshold that the layer's forward uses, detached."""
    threshold = layer.effective_threshold
    return threshold.detach() if isinstance(threshold, Tensor) else threshold


def distance_to_threshold(layer: LIF, currents: Tensor, spikes: Tensor) -> Tensor:
    """u = h − θ, `[T, N, ...]`: the charged membrane of each step, given the spikes that the layer fired."""
    threshold = threshold_of(layer)
    dtype = membrane_dtype(currents)
    u, v = torch.empty_like(spikes, dtype=dtype), None
    for t, (x, s) in enumerate(zip(currents.to(dtype).unbind(0), spikes.to(dtype).unbind(0), strict=True)):
        h = x if v is None else layer.leak * v + x
        torch.sub(h, threshold, out=u[t])
        v = h * (1 - s) if layer.reset == "hard" else h - threshold * s
    return u


def through_membrane(layer: LIF, u: Tensor, spikes: Tensor, slope: Tensor, g_spikes: Tensor) -> Tensor:
    """Derivative by the currents, all `[T, N, ...]`; the equations are those of `MembraneRule`."""
    threshold, hard = threshold_of(layer), layer.reset == "hard"
    g_currents, g_v = torch.empty_like(g_spikes), None
    for t in reversed(range(len(u))):
        g_s = g_spikes[t].to(u.dtype)
        if g_v is not None and not layer.detach_reset:
            g_s = g_s - g_v * (u[t] + threshold if hard else threshold)
        g_h = g_s * slope[t]
        if g_v is not None:
            g_h = g_h + (g_v * (1 - spikes[t].to(u.dtype)) if hard else g_v)
        g_currents[t] = g_h
        g_v = layer.leak * g_h
    return g_currents


def check_above(name: str, value: float, bound: float = 0.0) -> None:
    """Errors: InputError unless `value` is a finite number above `bound`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value <= bound:
        raise InputError(f"{name} is {value!r}; expected a finite number above {bound:g}; e.g. {name}={bound + 1:g}")


@dataclass(frozen=True)
class SpikeGradient:
    """An attacker's way to differentiate a spike.

    same_forward: inside `applied` the model computes the function that is deployed, spike for spike. False: a stand-in
    with other values, good for gradients alone.
    stateful: its rule remembers earlier passes, sample by sample.
    """

    same_forward: ClassVar[bool] = True
    stateful: ClassVar[bool] = False
    family: ClassVar[str] = ""

    @property
    def name(self) -> str:
        """One line that `parse_gradient` reads back, as result rows carry it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        inside = ", ".join(f"{key}={value}".removesuffix(".0") for key, value in values.items())
        return f"{self.family}({inside})" if inside else self.family

    def __str__(self) -> str:
        return self.name

    def new_rule(self) -> SpikeRule:
        """A rule without a past."""
        raise NotImplementedError

    @property
    def foreign_slope(self) -> Slope | None:
        """What differentiates neurons of other frameworks; None for a rule that stands in a neuron's whole forward."""
        return None

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[SpikeRule]:
        """Inside, every neuron of `model` follows one new rule, which is yielded; restored on exit.

        Neurons of other frameworks follow `foreign_slope`. Errors: InputError for a model without neurons to follow.
        """
        self.check(model)
        rule, own = self.new_rule(), [(layer, layer.rule) for layer in neurons_of(model)]
        for layer, _ in own:
            layer.rule = rule
        try:
            with exchanged_surrogates(model, self.foreign_slope):
                yield rule
        finally:
            for layer, earlier in own:
                layer.rule = earlier

    def reaches(self, model: nn.Module) -> bool:
        """Whether the model has a neuron that this gradient differentiates."""
        return bool(neurons_of(model) or (self.foreign_slope and foreign_neurons(model)))

    def check(self, model: nn.Module) -> None:
        """Errors: InputError for a model that it does not reach."""
        if self.reaches(model):
            return
        if foreign_neurons(model):
            raise InputError(
                f"gradient is {self}, a rule for snnlib's neurons, and the model's are of another framework; expected "
                "a surrogate, such as surrogates.atan(alpha=2.0)"
            )
        raise InputError(f"gradient is {self}, but the model has no snnlib neuron; pass gradient=None")


class _SurrogateRule(MembraneRule):
    def __init__(self, surrogate: Surrogate) -> None:
        self._surrogate = surrogate

    def slope(self, layer: LIF, u: Tensor) -> Tensor:
        return self._surrogate(u)


@dataclass(frozen=True)
class BackpropagationThroughTime(SpikeGradient):
    """See `bptt`."""

    surrogate: Surrogate

    @property
    def name(self) -> str:
        return repr(self.surrogate)

    @property
    def foreign_slope(self) -> Slope:
        return self.surrogate

    def new_rule(self) -> SpikeRule:
        return _SurrogateRule(self.surrogate)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[SpikeRule]:
        # The neurons' own compiled backward knows surrogates: no rule has to stand in their way.
        self.check(model)
        with attacker_surrogate(model, self.surrogate):
            yield self.new_rule()


def bptt(surrogate: Surrogate) -> SpikeGradient:
    """Backpropagation through time with this surrogate in every neuron. Its name is the surrogate's own.

    **Source:** Neftci, Mostafa & Zenke 2019; members 1-17 of the ensemble of Özdenizci & Legenstein 2024.
    """
    if not isinstance(surrogate, Surrogate):
        raise InputError(f"surrogate is {surrogate!r}; expected e.g. surrogates.atan(alpha=2.0)")
    return BackpropagationThroughTime(surrogate)


def straight_through() -> SpikeGradient:
    """ds/du := 1, through the membrane's own equations: `bptt` with the constant surrogate.

    **Source:** Bengio et al. 2013; member 17 of Özdenizci & Legenstein 2024.
    """
    return bptt(surrogates.straight_through())
