"""Encoders: images to what an SNN sees over time, each with a declared gradient back to the image.

Poisson, phase and latency coding are comparisons, so calculus gives them the gradient 0, and an attacker who
differentiates the image would see nothing. Every encoder therefore names the gradient that is used in its
place:

* `"exact"`: the true derivative (direct coding only),
* `"straight_through"`: the derivative of a simple stand-in, stated by each encoder,
* `"smooth"`: the derivative of a smooth curve that lies above ½ exactly where a spike is,
* `"none"`: no gradient reaches the image.

The forward pass gives the same spikes in all cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from snnlib.encoding.encoder import Encoder
from snnlib.encoding.events import POLARITIES, EventEncoder, I2EEncoder
from snnlib.encoding.frequency import FrequencyEncoder
from snnlib.encoding.images import (
    BITS,
    BRIGHTEST_LEVEL,
    DirectEncoder,
    LatencyEncoder,
    PhaseEncoder,
    PoissonEncoder,
    decode_phase,
)
from snnlib.errors import InputError

__all__ = [
    "BITS",
    "BRIGHTEST_LEVEL",
    "ENCODERS",
    "EVENT_ENCODERS",
    "POLARITIES",
    "DirectEncoder",
    "Encoder",
    "EventEncoder",
    "FILTERS",
    "FrequencyEncoder",
    "I2EEncoder",
    "LatencyEncoder",
    "PhaseEncoder",
    "PoissonEncoder",
    "build_encoder",
    "decode_phase",
    "encoder_gradient",
]

ENCODERS: dict[str, type[Encoder]] = {
    "direct": DirectEncoder,
    "poisson": PoissonEncoder,
    "phase": PhaseEncoder,
    "latency": LatencyEncoder,
}
FILTERS: dict[str, type[Encoder]] = {"frequency": FrequencyEncoder}
"""Front ends that make no spikes: they are built by name as the encoders are, and are none of the codes compared."""
EVENT_ENCODERS: dict[str, type[Encoder]] = {"events": EventEncoder, "i2e": I2EEncoder}
"""They give two channels, OFF and ON: "events" takes binned recordings, "i2e" images."""


def build_encoder(name: str, time_steps: int, gradient: str | None = None) -> Encoder:
    """The encoder of that name, a key of `ENCODERS`, `FILTERS` or `EVENT_ENCODERS`; gradient None = its first.

    Errors: InputError for an unknown name, a gradient that the encoder does not have, or `time_steps` < 1.
    """
    known = ENCODERS | FILTERS | EVENT_ENCODERS
    if name not in known:
        raise InputError(f"encoder is {name!r}; expected one of {', '.join(known)}; choose one of these")
    return known[name](time_steps, gradient)


@contextmanager
def encoder_gradient(model: nn.Module, gradient: str | None) -> Iterator[None]:
    """Inside, every encoder of `model` (or `model` itself) has this gradient; None: its own. Restored after.

    Errors: InputError if there is no encoder, or one that does not have this gradient.
    """
    encoders = [module for module in model.modules() if isinstance(module, Encoder)]
    changed = [] if gradient is None else encoders
    if gradient is not None and not encoders:
        raise InputError(
            f"gradient is {gradient!r}, but the {type(model).__name__} has no snnlib encoder; pass None"
        )
    own = [encoder.gradient for encoder in changed]
    try:
        for encoder in changed:
            encoder.gradient = gradient
        yield
    finally:
        for encoder, name in zip(changed, own, strict=True):
            encoder.gradient = name
