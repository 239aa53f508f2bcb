"""What can go wrong inside a network while it trains, noticed while it happens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnlib.neurons import LIF
from snnlib.runtime import reading


class TrainingDiverged(RuntimeError):
    """A loss, weight or threshold went wrong: one line with epoch, step, learning rate and what to do."""


@dataclass(frozen=True)
class Step:
    """A step that was taken, and its numbers on their way from the device.

    numbers: gives the loss, then the thresholds after the step in the order of `layers_with_thresholds`.
    """

    epoch: int
    number: int
    learning_rate: float
    numbers: Callable[[], list[float]]

    @classmethod
    def of(cls, epoch: int, number: int, learning_rate: float, loss: Tensor, layers: dict[str, LIF]) -> Step:
        """loss: scalar. Thresholds are what each layer compares its membrane with, its floor included."""
        thresholds = [layer.effective_threshold.detach() for layer in layers.values()]
        numbers = torch.stack([value.to(loss.device, torch.float32) for value in (loss, *thresholds)])
        return cls(epoch, number, learning_rate, reading(numbers))

    def check(self, layers: dict[str, LIF]) -> None:
        """Errors: TrainingDiverged for a loss that is not finite, or a threshold that is not above 0."""
        loss, *thresholds = self.numbers()
        self.check_finite("the loss", loss)
        for name, threshold in zip(layers, thresholds, strict=True):
            if not (math.isfinite(threshold) and threshold > 0):
                raise TrainingDiverged(
                    f"the threshold of {name} became {threshold:.3g} {self.place}; expected a finite number above 0; "
                    "lower learning_rate or set a threshold_floor; finished epochs are kept, see last.safetensors"
                )

    def check_finite(self, what: str, number: float) -> None:
        """Errors: TrainingDiverged."""
        if not math.isfinite(number):
            raise TrainingDiverged(
                f"{what} became {number} {self.place}; "
                "lower learning_rate or check the images; finished epochs are kept, see last.safetensors"
            )

    @property
    def place(self) -> str:
        return f"in epoch {self.epoch}, step {self.number}, at learning rate {self.learning_rate:.3g}"


def layers_with_thresholds(model: nn.Module) -> dict[str, LIF]:
    """The spiking layers whose threshold is a tensor and may therefore change, by name."""
    return {name: layer for name, layer in _spiking(model).items() if isinstance(layer.threshold, Tensor)}


@contextmanager
def silent_layers(model: nn.Module) -> Iterator[dict[str, LIF]]:
    """Inside, the yielded dict holds by name the spiking layers that have not fired since the start.

    Costs one look at a layer's spikes until it has fired, hence next to nothing where all do.
    """
    silent = _spiking(model)
    handles = {name: layer.register_forward_hook(_strike_off(silent, name)) for name, layer in silent.items()}
    try:
        yield silent
    finally:
        for handle in handles.values():
            handle.remove()


def _strike_off(silent: dict[str, LIF], name: str):
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
        if name in silent and spikes.any():
            del silent[name]

    return hook


def _spiking(model: nn.Module) -> dict[str, LIF]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LIF)}
