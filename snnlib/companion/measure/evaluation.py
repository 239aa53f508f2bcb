"""Robustness as stored rows: one attack plan under one threat model gives one row per sample."""

from __future__ import annotations

import copy
import inspect
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor

from snnlib.attacks import ATTACKS, AttackResult, Budget
from snnlib.attacks.gradients import parse_gradient
from snnlib.companion.measure.rows import ROW_COLUMNS
from snnlib.data import ImageSet
from snnlib.encoding import encoder_gradient
from snnlib.errors import InputError
from snnlib.models import Model
from snnlib.neurons import kernel_name, neurons_of
from snnlib.progress import progress
from snnlib.training.accuracy import evaluating


@dataclass(frozen=True)
class ThreatModel:
    """What an attacker may touch, and in which state the network is attacked.

    space: "image", or "encoded" (the perturbation is added after the encoder, to each time step on its own).
    batch_norm: see `snnlib.attacks.prepared.prepared`. encoder_gradient: how an image-space attacker differentiates
    the encoder, "" where no encoder is crossed.
    """

    name: str
    space: str
    batch_norm: str = "eval"
    encoder_gradient: str = ""


AUTHORS = ThreatModel("authors", "encoded", batch_norm="train")
"""Luu et al. 2025, their code: perturbation on the bit planes, BatchNorm in train mode, scored in eval mode."""
AUTHORS_DRIFTING = ThreatModel("authors, drifting BN", "encoded", batch_norm="train-and-keep")
"""As `AUTHORS`, and the running statistics keep what the attacked test batches did to them, as in their code."""
ENCODED = ThreatModel("encoded, BN eval", "encoded")
"""As `AUTHORS`, on the function that is scored: BatchNorm in eval mode throughout."""
IMAGE = ThreatModel("image", "image", encoder_gradient="straight_through")
"""The threat model of the field: the image is perturbed and encoded anew, the network is the deployed one."""
IMAGE_SMOOTH = ThreatModel("image, smooth encoder", "image", encoder_gradient="smooth")
"""As `IMAGE`; the attacker differentiates the encoder by its smooth stand-in."""


@dataclass(frozen=True)
class AttackPlan:
    """One attack with its numbers. None: the attack's default.

    surrogate: how the attacker differentiates a spike, "own" or as `parse_gradient` reads it. loss: a key of
    `snnlib.attacks.losses.LOSSES`. eot: gradients averaged per step, for randomised encoders.
    """

    attack: str
    eps: float
    norm: str = "linf"
    steps: int | None = None
    step_size: float | None = None
    restarts: int | None = None
    surrogate: str = "own"
    loss: str | None = None
    eot: int | None = None

    def options(self) -> dict:
        """Keyword arguments that go to the attack beside the budget."""
        names = ("steps", "step_size", "restarts", "loss", "eot")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def check(self) -> None:
        """Errors: InputError for an unknown attack, or a number that this attack does not take."""
        if self.attack not in ATTACKS:
            raise InputError(f"attack is {self.attack!r}; expected one of {', '.join(ATTACKS)}; choose one of these")
        unknown = [name for name in self.options() if name not in inspect.signature(ATTACKS[self.attack]).parameters]
        if unknown:
            raise InputError(f"attack {self.attack!r} takes no {', '.join(unknown)}; expected None; leave it out")

    def repetitions(self, name: str) -> int:
        """The plan's "steps" or "restarts", else the attack's default; 1 for an attack that does not repeat."""
        parameter = inspect.signature(ATTACKS[self.attack]).parameters.get(name)
        return getattr(self, name) or (1 if parameter is None else parameter.default)

    def as_config(self) -> dict:
        return asdict(self)


def predictions(model: Model, image_set: ImageSet, batch_size: int = 256, device: str = "cpu") -> Tensor:
    """Predicted classes [N] int64 on the CPU, in eval mode."""
    with evaluating(model):
        batches = torch.arange(len(image_set)).split(batch_size)
        return torch.cat([model(image_set.batch(index, device)).argmax(1).cpu() for index in batches])


def run_attack(
    model: Model, images: Tensor, labels: Tensor, threat: ThreatModel, plan: AttackPlan, *, seed: int = 0
) -> AttackResult:
    """One batch of one plan under one threat model; the model comes back as it was, except for drifting BatchNorm."""
    plan.check()
    with encoder_gradient(model, crossed_by(model, threat)):
        return ATTACKS[plan.attack](
            model,
            images,
            labels,
            Budget(plan.eps, norm=plan.norm, space=threat.space),
            generator=torch.Generator().manual_seed(seed),
            gradient=parse_gradient(plan.surrogate),
            batch_norm=threat.batch_norm,
            **plan.options(),
        )


def crossed_by(model: Model, threat: ThreatModel) -> str | None:
    """The gradient by which the attacker crosses this model's encoder; None for the encoder's own.

    Straight through an encoder that has an exact gradient is that gradient. Raises InputError for any other gradient
    that the encoder does not declare.
    """
    wanted, declared = threat.encoder_gradient, model.encoder.gradients
    if not wanted or (wanted == "straight_through" and "exact" in declared):
        return None
    if wanted not in declared:
        raise InputError(
            f"threat model {threat.name!r} crosses the encoder by {wanted!r}; this one declares {', '.join(declared)}"
        )
    return wanted


def attack_rows(
    model: Model,
    image_set: ImageSet,
    threat: ThreatModel,
    plan: AttackPlan,
    *,
    run: str,
    model_name: str,
    dataset: str,
    seed: int = 0,
    split: str = "test",
    batch_size: int = 100,
    device: str = "cpu",
) -> pd.DataFrame:
    """Attack every image of `image_set` and return the rows of `ROW_SCHEMA`, in its order.

    `run` names the trained network; `seed` is that of its training and of the attack's noise.
    """
    clean_correct = predictions(model, image_set, batch_size, device) == image_set.labels
    if threat.batch_norm == "train-and-keep":
        model = copy.deepcopy(model)
    batches = torch.arange(len(image_set)).split(batch_size)
    parts = []
    for index in progress(batches, label=f"{plan.attack} {255 * plan.eps:g}/255 on {model_name}, {threat.name}"):
        images, labels = image_set.batch(index, device), image_set.labels[index].to(device)
        result = run_attack(model, images, labels, threat, plan, seed=seed)
        parts.append(measured(result, index))
    own = neurons_of(model)
    rows = pd.concat(parts, ignore_index=True).assign(
        run=run,
        model=model_name,
        dataset=dataset,
        split=split,
        label=image_set.labels.numpy(),
        seed=seed,
        steps=plan.repetitions("steps"),
        restarts=plan.repetitions("restarts"),
        surrogate=repr(own[0].surrogate) if plan.surrogate == "own" and own else plan.surrogate,
        clean_correct=clean_correct.numpy(),
        **described(model, threat, plan, device),
    )
    return rows[list(ROW_COLUMNS)]


def measured(result: AttackResult, index: Tensor) -> pd.DataFrame:
    """The columns of result rows that an attack measures, one row per sample; index: [n] which samples these are."""
    names = ("success", "first_successful_step", "loss", "linf", "l2", "forwards", "backwards")
    columns = {name: getattr(result, name).cpu().numpy() for name in names}
    return pd.DataFrame({"sample": index.numpy(), **columns})


def described(model: Model, threat: ThreatModel, plan: AttackPlan, device: str) -> dict:
    """The columns of result rows that say under what conditions a model was attacked."""
    return {
        "threat_model": threat.name,
        "attack": plan.attack,
        "space": threat.space,
        "batch_norm": threat.batch_norm,
        "norm": plan.norm,
        "eps": plan.eps,
        "step_size": float("nan") if plan.step_size is None else plan.step_size,
        "encoder_gradient": crossed_by(model, threat) or (model.encoder.gradient if threat.space == "image" else ""),
        "kernel": kernel_name(torch.device(device).type),
        "device": torch.device(device).type,
    }
