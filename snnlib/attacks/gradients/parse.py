"""From a gradient's name, as result rows and plans carry it, back to the gradient."""

from __future__ import annotations

from collections.abc import Callable

from snnlib.attacks.gradients.adaptive_width import adaptive_sharpness, potential_dependent
from snnlib.attacks.gradients.base import SpikeGradient, bptt
from snnlib.attacks.gradients.proxy import relu_proxy
from snnlib.attacks.gradients.rates import backward_through_rate, hart, rate_gradient
from snnlib.errors import InputError
from snnlib.models.build import parse_surrogate
from snnlib.neurons.surrogates import FAMILIES

GRADIENTS: dict[str, Callable[..., SpikeGradient]] = {
    rule.__name__: rule
    for rule in (
        backward_through_rate,
        rate_gradient,
        hart,
        potential_dependent,
        adaptive_sharpness,
        relu_proxy,
    )
}


def parse_gradient(text: str) -> SpikeGradient | None:
    """Read a gradient's name: "own" (None: each neuron's own surrogate), a surrogate as its `repr` spells it (`bptt`
    with it), or a key of `GRADIENTS`, optionally with values: "adaptive_sharpness(surrogate=atan, a=0.87)".

    Errors: InputError for an unknown name or value.
    """
    name, _, inside = text.strip().removesuffix(")").partition("(")
    if name == "own":
        return None
    if name in FAMILIES:
        return bptt(parse_surrogate(text))
    if name not in GRADIENTS:
        known = ", ".join(("own", *GRADIENTS, *FAMILIES))
        raise InputError(f"gradient is {text!r}; expected one of {known}; choose one of these")
    try:
        pairs = [pair.split("=") for pair in inside.split(",") if pair.strip()]
        return GRADIENTS[name](**{key.strip(): _value(value.strip()) for key, value in pairs})
    except (TypeError, ValueError) as error:
        raise InputError(f"gradient is {text!r}; expected a name and values such as a=0.87; {error}") from None


def _value(text: str) -> float | str:
    return text if text[:1].isalpha() else float(text)
