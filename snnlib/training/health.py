"""What can go wrong inside a network while it trains, noticed while it happens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnlib.neurons import LIF


class TrainingDiverged(RuntimeError):
    """A loss, weight or threshold went wrong: one line with epoch, step, learning rate and what to do."""


@dataclass(frozen=True)
class Step:
    """A step that was taken, with what it left on the device: reading a number there waits for the device.

    loss: scalar. thresholds: `[layers]` after the step, in the order of `layers_with_thresholds`.
    """

    epoch: int
    number: int
    learning_rate: float
    loss: Tensor
    thresholds: Tensor

    def check(self, layers: dict[str, LIF]) -> None:
        """Errors: TrainingDiverged for a loss that is not finite, or a threshold that is not above 0."""
        self.check_finite("the loss", self.loss)
        for name, threshold in zip(layers, self.thresholds.tolist(), strict=True):
            if not (math.isfinite(threshold) and threshold > 0):
                raise TrainingDiverged(
                    f"the threshold of {name} became {threshold:.3g} {self.place}; expected a finite number above 0; "
                    "lower learning_rate or set a threshold_floor; finished epochs are kept, see last.safetensors"
                )

    def check_finite(self, what: str, value: Tensor) -> None:
        """Errors: TrainingDiverged."""
        if not math.isfinite(number := value.item()):
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


def thresholds_of(layers: dict[str, LIF], device: torch.device) -> Tensor:
    """`[layers]` float32: what each layer compares its membrane with, its floor included; a copy."""
    values = [layer.effective_threshold.detach().float() for layer in layers.values()]
    return torch.stack(values) if values else torch.zeros(0, device=device)


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
