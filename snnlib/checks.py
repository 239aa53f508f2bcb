"""Values from outside, checked by type and range in one place; each gives back a plain Python value or one line."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real

from snnlib.errors import InputError

LARGEST_SEED = 2**63 - 1
"""What every generator takes: PyTorch's are signed 64-bit numbers."""


def whole(name: str, value: object, *, at_least: int = 1, at_most: int | None = None) -> int:
    """A whole number, NumPy's included; True is none. Errors: InputError."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
        if at_least <= number and (at_most is None or number <= at_most):
            return number
    wanted = f"of at least {at_least}" if at_most is None else f"in {at_least}..{at_most}"
    raise InputError(f"{name} is {shown(value)}; expected a whole number {wanted}; e.g. {name}={at_least + 10}")


def seed(name: str, value: object) -> int:
    """A seed for PyTorch's generators. Errors: InputError."""
    return whole(name, value, at_least=0, at_most=LARGEST_SEED)


def number(name: str, value: object, *, above: float | None = None, at_least: float | None = None) -> float:
    """A finite number, NumPy's included, in its own type where it is Python's. Errors: InputError."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    try:
        fits = is_number and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        fits = False
    if fits and (above is None or value > above) and (at_least is None or value >= at_least):
        return value if isinstance(value, int | float) else float(value)
    wanted = f" above {above:g}" if above is not None else f" of {at_least:g} or more" if at_least is not None else ""
    raise InputError(f"{name} is {shown(value)}; expected a finite number{wanted}; e.g. {name}=0.001")


def flag(name: str, value: object) -> bool:
    """True or False; neither 0 nor "false". Errors: InputError."""
    if isinstance(value, bool):
        return value
    raise InputError(f"{name} is {shown(value)}; expected True or False")


def choice(name: str, value: object, choices: Iterable[str]) -> str:
    """One of `choices`. Errors: InputError."""
    choices = tuple(choices)
    if isinstance(value, str) and value in choices:
        return value
    raise InputError(f"{name} is {shown(value)}; expected one of {', '.join(choices)}; choose one of these")


def arguments_of(function: Callable, given: object, where: str) -> dict:
    """`given` as keyword arguments of `function`, by its names and annotations (str, bool, int, float, None of these).

    where: what holds them, for the message. Errors: InputError for what is no mapping, lacks an argument, has one that
    `function` does not know, or one of another type.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{where} holds {shown(given)}; expected an object of {function.__name__}'s arguments")
    known, hints = inspect.signature(function).parameters, typing.get_type_hints(function)
    unknown = sorted(str(name) for name in given.keys() - known.keys())
    missing = [name for name, each in known.items() if each.default is each.empty and name not in given]
    if unknown or missing:
        raise InputError(f"{where} has the unknown arguments {unknown} and lacks {missing}; see {function.__name__}")
    for name, value in given.items():
        kinds = typing.get_args(hints[name]) if isinstance(hints[name], types.UnionType) else (hints[name],)
        if not any(_is(value, kind) for kind in kinds):
            wanted = " or ".join(NAMES[kind] for kind in kinds)
            raise InputError(f"{where}: {name} is {shown(value)}; expected {wanted}")
    return dict(given)


def shown(value: object) -> str:
    """`repr` in one line of bearable length."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write whole numbers of thousands of digits
        return "a number of thousands of digits"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    types.NoneType: "null",
}


def _is(value: object, kind: type) -> bool:
    if kind is float:
        try:
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        except OverflowError:
            return False
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
