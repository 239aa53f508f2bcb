"""Everything about a training run that decides its result, in plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real

from snnlib.errors import InputError
from snnlib.training.augmentation import AUGMENTATIONS
from snnlib.training.inner_attack import EXAMPLE, build_attack
from snnlib.training.objectives import build_objective, needs_attack
from snnlib.training.schedules import SCHEDULES

OPTIMISERS = ("adam", "sgd")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How to train; `Recipe(**recipe.as_config())` is the same recipe.

    batch_size: at most; an epoch is cut into batches that differ by one image at most, so none is tiny.
    optimiser: "adam" (weight decay added to the gradient as L2, not AdamW) or "sgd" (momentum 0.9, not
    Nesterov).
    learning_rate: the peak; schedule: a key of `SCHEDULES`, a factor on it per batch.
    augmentation: a key of `AUGMENTATIONS`.
    objective, objective_parameters: a key of `OBJECTIVES` and its keyword arguments.
    attack: the inner attack, see `build_attack` and `inner_attack`; None for objectives without one.
    weight_retraction: the beta of `retract_weights` (SNN-RAT) after every optimiser step; 0 leaves it out.
    project_mixing: whether `project_mixing` (SNN-RAT) follows every optimiser step.
    precision: "bfloat16" runs the objective under autocast, on CUDA only.
    seed: of the data order, augmentation, attack noise and random layers. Weights are initialised by the
    caller.
    Errors: InputError, naming the value.
    """

    epochs: int
    batch_size: int = 64
    optimiser: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "one-cycle"
    augmentation: str = "flip"
    objective: str = "natural"
    objective_parameters: Mapping = field(default_factory=dict)
    attack: Mapping | None = None
    weight_retraction: float = 0.0
    project_mixing: bool = False
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            _check_whole(name, getattr(self, name), least)
        _check_number("learning_rate", self.learning_rate, above_zero=True)
        for name in ("weight_decay", "weight_retraction"):
            _check_number(name, getattr(self, name), above_zero=False)
        if not isinstance(self.project_mixing, bool):
            raise InputError(f"project_mixing is {self.project_mixing!r}; expected True or False")
        _check_choice("optimiser", self.optimiser, OPTIMISERS)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        _check_choice("precision", self.precision, PRECISIONS)
        build_objective(self.objective, self.objective_parameters)
        if self.attack is not None:
            build_attack(self.attack, seed=0)
        elif needs_attack(self.objective, self.objective_parameters):
            raise InputError(
                f"objective is {self.objective!r} without an attack; expected one; give e.g. attack={EXAMPLE}"
            )

    def as_config(self) -> dict:
        """The fields as a dict of plain types."""
        config = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}


def _check_whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(
            f"{name} is {value!r}; expected a whole number of at least {least}; e.g. {name}={least + 10}"
        )


def _check_number(name: str, value: float, above_zero: bool) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (above_zero and value == 0):
        expected = "above 0" if above_zero else "of 0 or more"
        raise InputError(f"{name} is {value!r}; expected a finite number {expected}; e.g. {name}=0.001")


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(choices)}; choose one of these")
