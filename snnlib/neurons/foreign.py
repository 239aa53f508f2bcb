"""Surrogates of other frameworks, exchanged while the spikes stay.

A neuron is known by the attribute that holds its surrogate, so that none of the frameworks has to be there:

* snnTorch's `spike_grad` and SpikingJelly's `surrogate_function`, called with u = membrane − threshold, give spikes;
* sinabs' `surrogate_grad_fn`, called with membrane and threshold in the backward pass, gives ds/du;
* Norse's `activation`, a step that fires by its module's function `threshold(u, method, alpha)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Slope = Callable[[Tensor], Tensor]
"""ds/du for u = membrane − threshold before the reset, both `[N, ...]`: these neurons fire step by step."""


class _Exchanged(torch.autograd.Function):
    """The spikes of `own`, differentiated by `slope`."""

    @staticmethod
    def forward(ctx, u: Tensor, own: Callable[[Tensor], Tensor], slope: Slope) -> Tensor:
        ctx.save_for_backward(u)
        ctx.slope = slope
        return own(u)

    @staticmethod
    def backward(ctx, g_spikes: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        return g_spikes * ctx.slope(u), None, None


class _AsModule(nn.Module):
    """For neurons that keep their surrogate as a submodule."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self._function = (function,)  # in a tuple, so that it is no submodule: the model's state keeps its names

    def forward(self, *arguments):
        return self._function[0](*arguments)


def _spike(own: Callable, slope: Slope) -> Callable:
    return lambda u: _Exchanged.apply(u, own, slope)


def _derivative(own: Callable, slope: Slope) -> Callable:
    return lambda membrane, threshold: slope(membrane - threshold)


def _step(own: Callable, slope: Slope) -> Callable:
    scope = own.__globals__

    def step(*arguments, **options):
        fire = scope["threshold"]
        scope["threshold"] = lambda u, method, alpha: _Exchanged.apply(u, lambda u: fire(u, method, alpha), slope)
        try:
            return own(*arguments, **options)
        finally:
            scope["threshold"] = fire

    return step


EXCHANGES = {
    "surrogate_function": _spike,
    "spike_grad": _spike,
    "surrogate_grad_fn": _derivative,
    "activation": _step,
}


def foreign_neurons(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Every neuron of another framework whose surrogate can be exchanged, with the name of the attribute."""
    return [(module, name) for module in model.modules() for name in EXCHANGES if _is_exchangeable(module, name)]


@contextmanager
def exchanged_surrogates(model: nn.Module, slope: Slope | None) -> Iterator[None]:
    """Inside, every foreign neuron of `model` fires as before and is differentiated by `slope`; then restored.

    A `Surrogate` is a slope; None changes nothing.
    """
    found = [] if slope is None else [(module, name, getattr(module, name)) for module, name in foreign_neurons(model)]
    try:
        for module, name, own in found:
            other = EXCHANGES[name](own, slope)
            setattr(module, name, _AsModule(other) if isinstance(own, nn.Module) else other)
        yield
    finally:
        for module, name, own in found:
            setattr(module, name, own)


def _is_exchangeable(module: nn.Module, name: str) -> bool:
    own = getattr(module, name, None)
    if name == "activation":  # many modules call something so
        from_norse = any(kind.__module__ == "norse.torch.module.snn" for kind in type(module).__mro__)
        return from_norse and "threshold" in getattr(own, "__globals__", ())
    return callable(own)
