"""Neurons as layers. They hold constants, never state: every call starts from the membrane that it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real

import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.neurons import kernels
from snnlib.neurons.autograd import lif_multi_step
from snnlib.neurons.foreign import exchanged_surrogates
from snnlib.neurons.reference import as_floats
from snnlib.neurons.surrogates import Surrogate, atan


class LIF(nn.Module):
    """Leaky integrate-and-fire layer: currents `[T, N, ...]` to spikes of the same shape; integers count as float32.

    `threshold` may be a 0-dimensional tensor; `trainable_threshold` makes one `nn.Parameter` of it. The neuron compares
    with `effective_threshold`, never below `threshold_floor`; its gradient is that of `torch.clamp`. In train mode a
    trainable threshold that an optimiser took below the floor is first put on it: left below, its gradient would be 0
    and it would stay there for ever. The surrogate gradient exists in train and in eval mode.

    `rule`: None, or `rule(layer, currents) -> spikes`, which then stands in for the whole forward of this layer. An
    attacker sets it to differentiate spikes in another way than by a surrogate, and takes it away again.
    Raises `InputError` for a floor that is negative or not finite.

    **Source:** threshold per layer, trainable and floored: Özdenizci & Legenstein 2024, authors' code.
    """

    def __init__(
        self,
        *,
        leak: float = 0.9,
        threshold: float | Tensor = 1.0,
        surrogate: Surrogate | None = None,
        reset: str = "hard",
        detach_reset: bool = True,
        trainable_threshold: bool = False,
        threshold_floor: float = 0.0,
    ) -> None:
        super().__init__()
        if not (isinstance(threshold_floor, Real) and math.isfinite(threshold_floor) and threshold_floor >= 0):
            raise InputError(
                f"threshold_floor is {threshold_floor!r}; expected a finite number of at least 0; use 0.0 for no floor"
            )
        if trainable_threshold:
            threshold = nn.Parameter(torch.as_tensor(threshold).detach().to(torch.float32, copy=True))
        self.leak = leak
        self.threshold = threshold
        self.threshold_floor = threshold_floor
        self.surrogate = atan() if surrogate is None else surrogate
        self.reset = reset
        self.detach_reset = detach_reset
        self.rule: Callable[[LIF, Tensor], Tensor] | None = None

    @property
    def effective_threshold(self) -> float | Tensor:
        """`threshold`, or the floor where the threshold has fallen below it."""
        if self.threshold_floor == 0:
            return self.threshold
        if isinstance(self.threshold, Tensor):
            return self.threshold.clamp(min=self.threshold_floor)
        return max(self.threshold, self.threshold_floor)

    def _lift_threshold(self) -> None:
        if self.training and self.threshold_floor and isinstance(self.threshold, nn.Parameter):
            # Through `.data`: a graph that still holds the threshold saw the floor already, and must stay usable.
            self.threshold.data.clamp_(min=self.threshold_floor)

    def forward(self, currents: Tensor) -> Tensor:
        self._lift_threshold()
        if self.rule is not None:
            return self.rule(self, as_floats(currents))
        spikes, _ = lif_multi_step(
            currents,
            leak=self.leak,
            threshold=self.effective_threshold,
            surrogate=self.surrogate,
            reset=self.reset,
            detach_reset=self.detach_reset,
            want_v_last=False,
        )
        return spikes

    def extra_repr(self) -> str:
        threshold = torch.as_tensor(self.effective_threshold).item()
        return (
            f"leak={self.leak:g}, threshold={threshold:g}{self._threshold_notes()}, {self.surrogate}, "
            f"{self.reset} reset{' (detached)' if self.detach_reset else ''}, kernel={kernels.kernel_name()}"
        )

    def _threshold_notes(self) -> str:
        notes = ["trainable"] if isinstance(self.threshold, Tensor) and self.threshold.requires_grad else []
        if self.threshold_floor:
            notes.append(f"floor {self.threshold_floor:g}")
        return f" ({', '.join(notes)})" if notes else ""


class IF(LIF):
    """Integrate-and-fire layer: `LIF` without leak (leak = 1), as in SEW-ResNet."""

    def __init__(self, **options) -> None:
        super().__init__(leak=1.0, **options)


def neurons_of(model: nn.Module) -> list[LIF]:
    """Every spiking layer of a model, in registration order."""
    return [module for module in model.modules() if isinstance(module, LIF)]


def call_name(name: str, call: int) -> str:
    """What a table calls a layer in its `call`-th use within one pass: layers hold no state, so each is a place."""
    return name if call == 1 else f"{name} (call {call})"


@contextmanager
def attacker_surrogate(model: nn.Module, surrogate: Surrogate | None) -> Iterator[None]:
    """Inside, every neuron of `model` is differentiated by `surrogate` (None: by its own); restored on exit.

    Those of other frameworks too, as far as `neurons.foreign` knows them.
    """
    changed = [] if surrogate is None else [(layer, layer.surrogate) for layer in neurons_of(model)]
    for layer, _ in changed:
        layer.surrogate = surrogate
    try:
        with exchanged_surrogates(model, surrogate):
            yield
    finally:
        for layer, own in changed:
            layer.surrogate = own
