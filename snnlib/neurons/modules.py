"""Neurons as layers. They hold constants, never state: every call starts from the membrane that it is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from snnlib.neurons import kernels
from snnlib.neurons.autograd import lif_multi_step
from snnlib.neurons.surrogates import Surrogate, atan


class LIF(nn.Module):
    """Leaky integrate-and-fire layer: currents `[T, N, ...]` to spikes of the same shape.

    `threshold` may be a 0-dimensional `nn.Parameter`. The surrogate gradient exists in train and in eval mode.
    """

    def __init__(
        self,
        *,
        leak: float = 0.9,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate | None = None,
        reset: str = "hard",
        detach_reset: bool = True,
    ) -> None:
        super().__init__()
        self.leak = leak
        self.threshold = threshold
        self.surrogate = atan() if surrogate is None else surrogate
        self.reset = reset
        self.detach_reset = detach_reset

    def forward(self, currents: Tensor) -> Tensor:
        spikes, _ = lif_multi_step(
            currents,
            leak=self.leak,
            threshold=self.threshold,
            surrogate=self.surrogate,
            reset=self.reset,
            detach_reset=self.detach_reset,
            want_v_last=False,
        )
        return spikes

    def extra_repr(self) -> str:
        threshold = float(self.threshold)
        return (
            f"leak={self.leak:g}, threshold={threshold:g}, {self.surrogate}, {self.reset} reset"
            f"{' (detached)' if self.detach_reset else ''}, kernel={kernels.kernel_name()}"
        )


class IF(LIF):
    """Integrate-and-fire layer: `LIF` without leak (leak = 1), as in SEW-ResNet."""

    def __init__(self, **options) -> None:
        super().__init__(leak=1.0, **options)


def neurons_of(model: nn.Module) -> list[LIF]:
    """Every spiking layer of a model, in registration order."""
    return [module for module in model.modules() if isinstance(module, LIF)]


@contextmanager
def attacker_surrogate(model: nn.Module, surrogate: Surrogate | None) -> Iterator[None]:
    """Inside, every neuron of `model` is differentiated by `surrogate` (None: by its own); restored on exit."""
    changed = [] if surrogate is None else [(layer, layer.surrogate) for layer in neurons_of(model)]
    for layer, _ in changed:
        layer.surrogate = surrogate
    try:
        yield
    finally:
        for layer, own in changed:
            layer.surrogate = own
