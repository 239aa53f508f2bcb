"""Surrogates of other frameworks, exchanged while the spikes stay: snnTorch's `spike_grad`, SpikingJelly's
`surrogate_function`. Both are called with u = membrane − threshold and return the spikes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snnlib.neurons import LIF, Surrogate

ATTRIBUTES = ("surrogate_function", "spike_grad")
Spike = Callable[[Tensor], Tensor]


class _Exchanged(torch.autograd.Function):
    """The spikes of `own`, differentiated by `surrogate`."""

    @staticmethod
    def forward(ctx, u: Tensor, own: Spike, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return own(u)

    @staticmethod
    def backward(ctx, g_spikes: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        return g_spikes * ctx.surrogate(u), None, None


class _AsModule(nn.Module):
    """For SpikingJelly, whose neurons keep their surrogate as a submodule."""

    def __init__(self, spike: Spike) -> None:
        super().__init__()
        self._spike = (spike,)  # in a tuple, so that it is no submodule: the model's state keeps its names

    def forward(self, u: Tensor) -> Tensor:
        return self._spike[0](u)


def foreign_neurons(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Every neuron of another framework whose surrogate can be exchanged, with the name of the attribute."""
    return [
        (module, name)
        for module in model.modules()
        for name in ATTRIBUTES
        if not isinstance(module, LIF) and callable(getattr(module, name, None))
    ]


@contextmanager
def exchanged_surrogates(model: nn.Module, surrogate: Surrogate) -> Iterator[None]:
    """Inside, every foreign neuron of `model` fires as before and is differentiated by `surrogate`; then restored."""
    found = [(module, name, getattr(module, name)) for module, name in foreign_neurons(model)]
    try:
        for module, name, own in found:
            spike = _with(own, surrogate)
            setattr(module, name, _AsModule(spike) if isinstance(own, nn.Module) else spike)
        yield
    finally:
        for module, name, own in found:
            setattr(module, name, own)


def _with(own: Spike, surrogate: Surrogate) -> Spike:
    return lambda u: _Exchanged.apply(u, own, surrogate)
