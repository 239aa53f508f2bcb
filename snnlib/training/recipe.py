"""Everything about a training run that decides its result, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from snnlib import checks
from snnlib.errors import InputError
from snnlib.training.augmentation import AUGMENTATIONS
from snnlib.training.curriculum import check_curriculum
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
    learning_rate: the peak; schedule: a key of `SCHEDULES`, a factor on it per batch. threshold_learning_rate: the same
    for firing thresholds that are trained, whose gradients are small beside those of weights; None: `learning_rate`.
    augmentation: a key of `AUGMENTATIONS`.
    objective, objective_parameters: a key of `OBJECTIVES` and its keyword arguments.
    attack: the inner attack, see `build_attack` and `inner_attack`; None for objectives without one.
    weight_retraction: the beta of `retract_weights` (SNN-RAT) after every optimiser step; 0 leaves it out.
    project_mixing: whether `project_mixing` (SNN-RAT) follows every optimiser step.
    deflate_gradients: whether DSD's `deflate_gradients` comes before every optimiser step.
    curriculum: numbers that begin elsewhere and end at the recipe's own, `{"first": {"eps": 0.0, "steps": 1,
    "time_steps": 2, "weight": 0.0}, "ramp": "linear" or "cosine", "over": 0.5}`: the attack's, the objective's
    parameters, the model's time steps; see `stage_at`.
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
    threshold_learning_rate: float | None = None
    deflate_gradients: bool = False
    curriculum: Mapping | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        plain = {
            "epochs": checks.whole("epochs", self.epochs),
            "batch_size": checks.whole("batch_size", self.batch_size),
            "seed": checks.seed("seed", self.seed),
            "learning_rate": checks.number("learning_rate", self.learning_rate, above=0),
            "weight_decay": checks.number("weight_decay", self.weight_decay, at_least=0),
            "weight_retraction": checks.number("weight_retraction", self.weight_retraction, at_least=0),
            "project_mixing": checks.flag("project_mixing", self.project_mixing),
            "deflate_gradients": checks.flag("deflate_gradients", self.deflate_gradients),
            "optimiser": checks.choice("optimiser", self.optimiser, OPTIMISERS),
            "schedule": checks.choice("schedule", self.schedule, SCHEDULES),
            "augmentation": checks.choice("augmentation", self.augmentation, AUGMENTATIONS),
            "precision": checks.choice("precision", self.precision, PRECISIONS),
        }
        if self.threshold_learning_rate is not None:
            rate = checks.number("threshold_learning_rate", self.threshold_learning_rate, above=0)
            plain["threshold_learning_rate"] = rate
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        build_objective(self.objective, self.objective_parameters)
        if self.curriculum is not None:
            check_curriculum(self.curriculum, self.attack, self.objective_parameters)
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
