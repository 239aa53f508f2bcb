"""The worst case: one call that walks through attacks until a sample falls or its passes are spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.ensemble import EnsembleResult, MemberResult, joined, member_generator
from snnlib.attacks.gradients import parse_gradient
from snnlib.attacks.inputs import check_count, check_inputs
from snnlib.attacks.registry import ATTACKS
from snnlib.errors import InputError

PASSES = 1200
FEWEST = 22
"""Passes of the shortest turn: ten steps. What would be left for less goes to the turn before."""


@dataclass(frozen=True)
class Turn:
    """One attack of a schedule, on whoever still stands.

    attack: a key of `ATTACKS`. gradient: as `parse_gradient` reads it. passes: forwards and backwards of a sample at
    most; they set the steps (targets · steps, queries) of the attack. options: further keyword arguments of it.
    """

    attack: str
    passes: int
    gradient: str = "own"
    options: Mapping = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As `by_member` and `fooled_by` have it: "apgd ce by adaptive_sharpness(...)", "square"."""
        if self.attack in WITHOUT_GRADIENT:
            return self.attack
        words = [self.attack, *([self.options["loss"]] if "loss" in self.options else []), "by", self.gradient]
        return " ".join(words)

    def arguments(self, passes: int, eot: int) -> dict:
        """Keyword arguments of the attack that spend no more than `passes`."""
        if self.attack in WITHOUT_GRADIENT:
            return {**self.options, "queries": max(1, passes - 2)}
        runs = self.options.get("targets", self.options.get("restarts", 1))
        steps = max(1, ((passes // eot - 1) // runs - 1) // 2)
        return {**self.options, "steps": steps, "eot": eot, "gradient": parse_gradient(self.gradient)}


WITHOUT_GRADIENT = ("square", "rays")
LINF_ALONE = ("sa_pgd", "rays")
ADAPTIVE_WIDTH = "adaptive_sharpness(surrogate=atan, a=0.87)"
NARROW, WIDE = "piecewise_linear(width=0.5, height=2)", "exponential(height=1, rate=2)"
SCHEDULE = (
    Turn("apgd", 122, ADAPTIVE_WIDTH, {"loss": "ce"}),
    Turn("apgd", 122, ADAPTIVE_WIDTH, {"loss": "margin"}),
    Turn("sa_pgd", 204, ADAPTIVE_WIDTH, {"loss": "ce"}),
    Turn("apgd", 122, "own", {"loss": "margin"}),
    Turn("apgd", 122, WIDE, {"loss": "ce"}),
    Turn("apgd", 122, NARROW, {"loss": "ce"}),
    Turn("apgd_targeted", 184, ADAPTIVE_WIDTH, {"loss": "targeted_margin", "targets": 3}),
    Turn("square", 5000),
    Turn("rays", 2000),
)
"""The default order: APGD and SA-PGD by adaptive sharpness, then other surrogates, targets, and attacks without a
gradient, which are asked whether a gradient misled. SA-PGD comes with all its steps, on which its step size depends.
Which of the first three turns begins is asked in notebook 32, on *validation* images: of few passes SA-PGD makes more
of a converted VGG, APGD of a SEW-ResNet; within `PASSES` the order hardly matters."""


def worst_case(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    passes: int = PASSES,
    schedule: Sequence[Turn] = SCHEDULE,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    eot: int = 1,
) -> EnsembleResult:
    """What is left after everything: the turns of `schedule` one after the other, each on the samples that stand.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. passes: forwards and backwards of a sample, all turns
    together, at most: the schedule is cut where they end, and `FEWEST` left over make the last turn longer. generator:
    gives the seed; every turn has its own, derived from it, so that results depend neither on batch size nor on order.
    eot: draws of a randomised model that gradients and verdicts are averaged over; a turn takes eot times the passes.
    A turn whose surrogate does not reach the model's neurons goes by the model's own gradient, once per loss; a network
    without neurons, or of another framework, gets a schedule much like AutoAttack's. SA-PGD and RayS take part in
    "linf" alone.
    `by_member` of the answer says which turn broke which sample, `table()` as the column `fooled_by`. A survivor has
    the point of the largest loss that a turn reported; turns have different losses, so this is a try, no measure.

    Cost of a sample that survives: `passes`; by default seven gradient turns of 60 to 100 steps and Square with what is
    left; 8,000 passes give all of it. One that falls has paid until then. `ADAPTIVE_WIDTH` has no compiled
    kernel: a pass takes about half as long again.
    Errors: InputError for parameters that do not fit, fewer passes than one step takes,
    a `batch_norm` other than "eval", and norm "l0" (use `bit_flip`).
    **Source:** the members: Croce & Hein 2020 (APGD, targeted DLR), arXiv 2512.22522 (SA-PGD, adaptive sharpness),
    Özdenizci & Legenstein 2024 (worst case per sample over surrogates), Andriushchenko et al. 2020, Chen & Gu 2020.
    Order and lengths are ours.

    >>> from snnlib import attacks, data, models
    >>> test = data.load_images("cifar10").test.first_per_class(1)
    >>> model = models.released("snn-conversion-from-trades-night-0")
    >>> found = attacks.worst_case(model, test.batch(slice(None)), test.labels, attacks.Budget(2 / 255), passes=40)
    >>> list(found.by_member), bool((found.result.forwards + found.result.backwards <= 40).all())
    (['apgd ce by adaptive_sharpness(surrogate=atan, a=0.87)'], True)
    >>> sorted(found.table().columns)[:3]
    ['backwards', 'first_successful_step', 'fooled_by']
    """
    check_inputs(model, images, labels, budget, generator)
    passes, eot = check_count("passes", passes), check_count("eot", eot)
    if batch_norm != "eval":
        raise InputError(f"batch_norm is {batch_norm!r}; worst_case attacks the deployed network; use 'eval'")
    if passes < 4 * eot:
        raise InputError(f"passes is {passes}; expected at least {4 * eot}, one step of {eot} draws; try {PASSES}")
    if budget.norm == "l0":
        raise InputError("norm is 'l0'; expected 'linf' or 'l2', in which a gradient can step; use bit_flip")
    standing = torch.arange(len(images), device=images.device)
    by_member: dict[str, MemberResult] = {}
    for number, (turn, length) in enumerate(planned(reaching(schedule, model, budget), passes, eot)):
        if by_member and len(standing) == 0:
            break
        result = ATTACKS[turn.attack](
            model,
            images[standing],
            labels[standing],
            budget,
            generator=member_generator(generator, number),
            **turn.arguments(length, eot),
        )
        by_member[turn.name] = MemberResult(standing, result)
        standing = standing[~result.success]
    return EnsembleResult(joined(list(by_member.values())), by_member)


def reaching(schedule: Sequence[Turn], model: nn.Module, budget: Budget) -> list[Turn]:
    """The turns that this model and budget allow, each at most once.

    Errors: InputError for an empty schedule, or one with an attack that it cannot have.
    """
    found: dict[str, Turn] = {}
    for turn in schedule:
        if turn.attack not in TURNS:
            raise InputError(f"attack of a turn is {turn.attack!r}; expected one of {', '.join(TURNS)}")
        if turn.attack in LINF_ALONE and budget.norm != "linf":
            continue
        gradient = parse_gradient(turn.gradient)
        if gradient is not None and not gradient.reaches(model):
            turn = Turn(turn.attack, turn.passes, options=turn.options)
        found.setdefault(turn.name, turn)
    if not found:
        raise InputError(f"schedule has no turn for {budget}; expected at least one, such as SCHEDULE")
    return list(found.values())


def planned(turns: Sequence[Turn], passes: int, eot: int = 1) -> list[tuple[Turn, int]]:
    """Each turn that `passes` reach, with the passes that it may spend."""
    plan = []
    for turn in turns:
        wanted = turn.passes * (1 if turn.attack in WITHOUT_GRADIENT else eot)
        length = passes if passes - wanted < FEWEST * eot else wanted
        plan.append((turn, length))
        passes -= length
        if passes == 0:
            break
    return plan


TURNS = ("pgd", "apgd", "apgd_targeted", "sa_pgd", *WITHOUT_GRADIENT)
"""Attacks that a turn may have."""
