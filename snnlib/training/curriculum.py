"""Numbers that change while a network trains: eps, steps of the attack, time steps, weights of an objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from snnlib import checks
from snnlib.encoding import Encoder
from snnlib.errors import InputError

RAMPS: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
}
"""How far a number has gone from its first value to its last, by the share of the ramp that is done."""
KEYS = ("first", "ramp", "over")
EXAMPLE = "{'first': {'eps': 0.0, 'steps': 1}, 'over': 0.5}"
COUNTED = ("steps", "time_steps")


@dataclass(frozen=True)
class Stage:
    """What holds at one optimiser step. time_steps: None where the model keeps its own."""

    attack: Mapping | None
    objective_parameters: Mapping
    time_steps: int | None


def check_curriculum(curriculum: Mapping, attack: Mapping | None, objective_parameters: Mapping) -> None:
    """Errors: InputError for an unknown key, a ramp, share or number that does not fit, or a number without its end."""
    for key in curriculum:
        if key not in KEYS:
            raise InputError(f"curriculum has the key {key!r}; expected {', '.join(KEYS)}; e.g. {EXAMPLE}")
    checks.choice("ramp of the curriculum", curriculum.get("ramp", "linear"), RAMPS)
    over = checks.number("over of the curriculum", curriculum.get("over", 1.0), above=0)
    if over > 1:
        raise InputError(f"over of the curriculum is {over}; expected a share of the training, above 0 and at most 1")
    ends = {**objective_parameters, **(attack or {})}
    for name, first in curriculum.get("first", {}).items():
        checks.number(f"{name} of the curriculum", first, at_least=0)
        if name != "time_steps" and not isinstance(ends.get(name), int | float):
            raise InputError(f"the curriculum begins {name!r}, which has no last value; expected it in the recipe")


def stage_at(
    curriculum: Mapping, attack: Mapping | None, objective_parameters: Mapping, time_steps: int | None, share: float
) -> Stage:
    """The recipe's numbers after `share` (0..1) of all optimiser steps.

    Each number of `curriculum["first"]` goes from there to the recipe's own value over the first `over` (default all)
    of the training, by `ramp`; steps and time steps are rounded. time_steps: the model's own.
    """
    done = RAMPS[curriculum.get("ramp", "linear")](min(1.0, share / curriculum.get("over", 1.0)))
    own = {**objective_parameters, **(attack or {}), "time_steps": time_steps}
    now = {name: first + done * (own[name] - first) for name, first in curriculum.get("first", {}).items()}
    now |= {name: max(1, round(now[name])) for name in COUNTED if name in now}

    def at(values: Mapping) -> dict:
        return {name: now.get(name, value) for name, value in values.items()}

    return Stage(None if attack is None else at(attack), at(objective_parameters), now.get("time_steps"))


def time_steps_of(model: nn.Module) -> int:
    """Time steps of the model's encoder. Errors: InputError for a model without one of snnlib's."""
    if not isinstance(getattr(model, "encoder", None), Encoder):
        raise InputError(f"{type(model).__name__} has no encoder of snnlib, so its time steps cannot be scheduled")
    return model.encoder.time_steps


@contextmanager
def running_for(model: nn.Module, time_steps: int | None) -> Iterator[None]:
    """Inside, the model's encoder gives so many time steps (None: its own); restored on exit."""
    if time_steps is None:
        yield
        return
    own = time_steps_of(model)
    try:
        model.encoder.time_steps = time_steps
        yield
    finally:
        model.encoder.time_steps = own
