"""The adaptive ensemble: short trials of a few members, then long climbs by whichever came nearest on that sample.

The fixed ensemble gives each of its members the same whole attack, wherever it leads. But which surrogate shows the way
depends on the network and the sample, and a few steps tell: the passes go where the loss grew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.ensemble import EnsembleResult, MemberResult, members_for
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.gradients.per_sample import PerSample
from snnlib.attacks.inputs import check_count, check_inputs
from snnlib.attacks.session import Session, open_session, select
from snnlib.attacks.starts import starting_point
from snnlib.errors import InputError

ADAPTIVE = "adaptive"
"""The ensemble's name in `by_member` and in result rows."""
STEPS = 64
FIRST = ("piecewise_linear(width=0.5, height=2)", "exponential(height=1, rate=2)")
"""Members that are tried on every sample, a narrow and a wide one. Chosen, as the numbers below, on training images."""
TRIAL, CLIMB = 12, 20
"""Steps of a trial and of a climb."""
NEWCOMER_EVERY = 3
LONGEST_STEP, SHORTEST_STEP = 2.0, 0.25
MOMENTUM = 0.5


@dataclass(frozen=True, repr=False)
class AdaptiveResult(EnsembleResult):
    """An `EnsembleResult` whose one member is `ADAPTIVE`, with what was chosen.

    members: their names. pulls: [N, members] int64, the steps that each pushed. fooled_by: [N] int64, the member of the
    turn in which the sample fell, be it at the turn's random start; -1 for a sample that stands or was misclassified
    when clean. `zero_gradient` is about the first gradient of the first member alone.
    """

    members: tuple[str, ...]
    pulls: Tensor
    fooled_by: Tensor

    def table(self) -> pd.DataFrame:
        """As of every ensemble; `fooled_by` names the member of the turn."""
        names = [*self.members, ""]
        return self.result.table().assign(fooled_by=[names[number] for number in self.fooled_by.tolist()])


def adaptive_ensemble(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    steps: int = STEPS,
    members: Mapping[str, SpikeGradient] | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    eot: int = 1,
) -> AdaptiveResult:
    """Attack in turns: trials of two members, then climbs by the one that came higher on this sample.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. members: name to gradient; None = those of
    `members_for(model)` that share the network's forward, 18 of 19 for our neurons. steps: gradients per sample at
    most. generator: the seed of the starts.

    Turns start from random points. First come trials of 12 steps, one for each of `FIRST` (others in their order where
    `members` lacks them), then climbs of 20 steps by the member with the highest loss, on this sample, at any point
    that it stepped from. In place of every third climb the next member gets a trial, so that with enough steps all have
    had theirs; the default number of steps ends before the first of these.
    A step, with g the loss gradient by the member, as in MI-FGSM::

        m ← 0.5 m + g / mean|g|,   x ← project(x + a · steepest(m))

    where a falls from 2 eps towards eps / 4 within the turn: early steps go from corner to corner of the ball, late
    ones refine. A sample leaves at the first point that fools. Results do not depend on batch mates.
    Cost of a sample that survives: `steps` backwards and steps + turns + 1 forwards, times `eot` (the clean sample, a
    point per step, one at the end of each turn).
    Errors: InputError for parameters that do not fit, and a `batch_norm` other than "eval".
    """
    check_inputs(model, images, labels, budget, generator)
    if members is None:
        members = {name: member for name, member in members_for(model).items() if member.same_forward}
    steps = check_count("steps", steps)
    if batch_norm != "eval":
        raise InputError(f"batch_norm is {batch_norm!r}; the adaptive ensemble needs 'eval': its samples leave")
    gradient = PerSample(tuple(members.values()))
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss, eot=eot) as session:
        session.record_clean()
        turns, taken = _Turns(session, tuple(members)), 0
        while taken < steps and len(session.active):
            length = min(turns.begin(session.active), steps - taken)
            _climb(session, gradient, turns, taken, length)
            taken += length
        result = session.result()
    everyone = torch.arange(len(images), device=images.device)
    own = {ADAPTIVE: MemberResult(everyone, result)}
    fooled_by = torch.where(result.success & (result.first_successful_step > 0), turns.member, -1)
    return AdaptiveResult(result, own, tuple(members), turns.pulls, fooled_by)


class _Turns:
    """Whose turn it is for every sample, and how high each member came. Tensors are over the whole batch."""

    def __init__(self, session: Session, members: tuple[str, ...]) -> None:
        count, device = len(session.labels), session.origin.device
        favoured = [members.index(name) for name in FIRST if name in members]
        self._untried = [*favoured, *(number for number in range(len(members)) if number not in favoured)]
        self.number = -1
        self._highest = torch.full((count, len(members)), -torch.inf, device=device)
        self.member = torch.full((count,), -1, device=device)
        self.pulls = torch.zeros(count, len(members), dtype=torch.int64, device=device)

    def begin(self, samples: Tensor) -> int:
        """Choose the members of the next turn for `samples`; returns its number of steps."""
        self.number += 1
        since_trials = self.number - len(FIRST) + 1
        if self._untried and (since_trials <= 0 or since_trials % NEWCOMER_EVERY == 0):
            self.member[samples] = self._untried.pop(0)
            return TRIAL
        self.member[samples] = self._highest[samples].argmax(1)
        return CLIMB

    def pushed(self, samples: Tensor) -> None:
        self.pulls[samples, self.member[samples]] += 1

    def reached(self, samples: Tensor, loss: Tensor) -> None:
        """The turn's member has brought `samples` to this loss."""
        member = self.member[samples]
        self._highest[samples, member] = self._highest[samples, member].maximum(loss.to(self._highest.dtype))


def _climb(session: Session, gradient: PerSample, turns: _Turns, taken: int, length: int) -> None:
    """One turn of `length` steps; `taken`: steps before it."""
    budget = session.budget
    x = starting_point(session, "uniform", draw=turns.number)
    momentum, chosen = torch.zeros_like(x), None
    for step in range(length):
        if chosen is not session.active:
            chosen = session.active
            gradient.choose(turns.member[chosen])
        stay, slope, loss = session.visit(x, max(taken + step, 1))
        if len(stay) == 0:
            return
        if step > 0:
            turns.reached(session.active, loss)
        turns.pushed(session.active)
        momentum = MOMENTUM * select(momentum, stay) + _of_mean_one(slope)
        size = LONGEST_STEP + (SHORTEST_STEP - LONGEST_STEP) * step / length
        moved = select(x, stay) + size * budget.eps * budget.steepest(momentum)
        x = budget.project(moved, session.active_origin)
    session.record(x, taken + length)


def _of_mean_one(slope: Tensor) -> Tensor:
    mean = slope.abs().flatten(1).mean(1).view(-1, *[1] * (slope.dim() - 1))
    return slope / mean.clamp_min(torch.finfo(slope.dtype).tiny)
