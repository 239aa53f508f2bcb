"""The adaptive ensemble: one trajectory per sample, and at each step a surrogate chosen by what the last ones gained.

The fixed ensemble starts over for each of its members and hears nothing of the others. Here all members push the same
point, so that each step uses what was found before, whoever found it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.ensemble import MEMBERS, EnsembleResult, MemberResult
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.gradients.per_sample import PerSample
from snnlib.attacks.inputs import check_count
from snnlib.attacks.session import Session, open_session, select
from snnlib.attacks.starts import starting_point
from snnlib.errors import InputError

ADAPTIVE = "adaptive"
"""The ensemble's name in `by_member` and in result rows."""
STEPS = 44
CYCLE = 20
LONGEST_STEP, SHORTEST_STEP = 2.0, 0.25
MOMENTUM = 0.75
FORGETTING = 0.95
FAVOURED = (
    "piecewise_linear(width=1, height=1)",
    "piecewise_linear(width=0.5, height=2)",
    "exponential(height=1, rate=2)",
)
HEAD_START = 3.0
"""Score at first of the favoured members: e^3 times the chance of any other. Chosen on training images."""
CHOICES = 1 << 32


@dataclass(frozen=True)
class AdaptiveResult(EnsembleResult):
    """An `EnsembleResult` whose one member is `ADAPTIVE`, with what was chosen.

    members: their names. pulls: [N, members] int64, the steps that each pushed. fooled_by: [N] int64, the member of the
    step that fooled the sample; -1 for a sample that stands or was misclassified when clean.
    """

    members: tuple[str, ...]
    pulls: Tensor
    fooled_by: Tensor


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
    loss: str = "margin",
    eot: int = 1,
) -> AdaptiveResult:
    """Attack with one shared point per sample, differentiated at each step by the member that the sample's own history
    favours.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. members: name to gradient; None = those of `MEMBERS` that
    share the network's forward, 18 of 19. steps: gradients per sample at most. generator: the seed of the choices.

    A step, with g the loss gradient by the chosen member, as in MI-FGSM::

        m ← 0.75 m + g / mean|g|,   x ← project(x + a · steepest(m))

    a falls from 2 eps to eps / 4 within 20 steps: early steps go from corner to corner of the ball, late ones refine.
    Then m starts anew, and x from a random point (at first from the clean sample). After each step the point of the
    whole budget along m is scored too: one forward pass for a further chance. The member of the next step is drawn with
    probability ∝ exp(score). Three members have a head start; each step adds its gain in the loss, relative to the
    sample's usual step, to the scores of the members in the shares that they have in m, and what was added fades by
    0.95 per step. So members that climb are drawn more often, and all keep being drawn.
    A sample leaves at the first point that fools. Choices are keyed by sample: results do not depend on batch mates.
    Cost of a sample that survives: 2 · steps + 1 forwards and `steps` backwards, times `eot`
    (the clean sample, a point per step, one at the end of each cycle, a probe per step but the first of each cycle).
    Errors: InputError for parameters that do not fit, and a `batch_norm` other than "eval".
    """
    members = {name: member for name, member in MEMBERS.items() if member.same_forward} if members is None else members
    check_count("steps", steps)
    if batch_norm != "eval":
        raise InputError(f"batch_norm is {batch_norm!r}; the adaptive ensemble needs 'eval': its samples leave")
    gradient = PerSample(tuple(members.values()))
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss, eot=eot) as session:
        session.record_clean()
        choices = _Choices(session, steps, tuple(members))
        _climb(session, gradient, choices, steps)
        result = session.result()
    everyone = torch.arange(len(images), device=images.device)
    own = {ADAPTIVE: MemberResult(everyone, result)}
    fooled_by = torch.where(result.success & (result.first_successful_step > 0), choices.last, -1)
    return AdaptiveResult(result, own, tuple(members), choices.pulls, fooled_by)


class _Choices:
    """Scores of every sample's members, and the draws by them. Tensors are `[N, ...]` over the whole batch."""

    def __init__(self, session: Session, steps: int, members: tuple[str, ...]) -> None:
        count, device = len(session.labels), session.origin.device
        draws = [torch.rand(steps, generator=generator) for generator in session.generators(CHOICES)]
        self._draws = torch.zeros(count, steps)
        self._draws[session.active.cpu()] = torch.stack(draws) if draws else torch.zeros(0, steps)
        self._draws = self._draws.to(device)
        self._head_start = torch.tensor([HEAD_START * (name in FAVOURED) for name in members], device=device)
        self._score = torch.zeros(count, len(members), device=device)
        self._share = torch.zeros(count, len(members), device=device)
        self._loss = torch.zeros(count, device=device)
        self._usual_gain = torch.zeros(count, device=device)
        self.last = torch.full((count,), -1, device=device)
        self.pulls = torch.zeros(count, len(members), dtype=torch.int64, device=device)

    def draw(self, samples: Tensor, step: int) -> Tensor:
        """The member for the next step of each of `samples`."""
        chances = torch.softmax(self._head_start + self._score[samples], dim=1).cumsum(1)
        return (chances < self._draws[samples, step, None]).sum(1).clamp_max(chances.shape[1] - 1)

    def credit(self, samples: Tensor, loss: Tensor) -> None:
        """The last step led to this loss: share its gain among the members by their part in the momentum."""
        gain = loss.to(self._loss.dtype) - self._loss[samples]
        usual = 0.7 * self._usual_gain[samples] + 0.3 * gain.abs()
        relative = (gain / usual.clamp_min(1e-12)).clamp(-1, 1)
        self._score[samples] = FORGETTING * self._score[samples] + relative[:, None] * self._share[samples]
        self._usual_gain[samples] = usual

    def pushed(self, samples: Tensor, choice: Tensor, loss: Tensor) -> None:
        """The members `choice` push `samples` from points of this loss."""
        share = MOMENTUM * self._share[samples]
        share.scatter_add_(1, choice[:, None], torch.full_like(share[:, :1], 1 - MOMENTUM))
        self._share[samples] = share
        self._loss[samples] = loss.to(self._loss.dtype)
        self.last[samples] = choice
        self.pulls[samples, choice] += 1

    def forget_momentum(self) -> None:
        self._share.zero_()


def _climb(session: Session, gradient: PerSample, choices: _Choices, steps: int) -> None:
    budget, x = session.budget, session.active_origin
    momentum = torch.zeros_like(x)
    for step in range(steps):
        if step > 0 and step % CYCLE == 0:
            session.record(x, step)
            x = starting_point(session, "uniform", draw=step)
            momentum = torch.zeros_like(x)
            choices.forget_momentum()
        samples = session.active
        if len(samples) == 0:
            return
        choice = choices.draw(samples, step)
        gradient.choose(choice)
        stay, slope, loss = session.visit(x, max(step, 1))
        if len(stay) == 0:
            return
        if step % CYCLE > 0:
            choices.credit(session.active, loss)
        choices.pushed(session.active, select(choice, stay), loss)
        momentum = MOMENTUM * select(momentum, stay) + _of_mean_one(slope)
        moved = select(x, stay) + _step_size(step) * budget.eps * budget.steepest(momentum)
        x = budget.project(moved, session.active_origin)
        if step % CYCLE > 0:
            # The first step of a cycle is long enough to end there by itself.
            probe = session.active_origin + budget.eps * budget.steepest(momentum)
            stay = session.record(budget.project(probe, session.active_origin), step + 1)
            if len(stay) == 0:
                return
            x, momentum = select(x, stay), select(momentum, stay)
    session.record(x, steps)


def _step_size(step: int) -> float:
    """In units of eps."""
    return LONGEST_STEP + (SHORTEST_STEP - LONGEST_STEP) * (step % CYCLE) / CYCLE


def _of_mean_one(slope: Tensor) -> Tensor:
    mean = slope.abs().flatten(1).mean(1).view(-1, *[1] * (slope.dim() - 1))
    return slope / mean.clamp_min(torch.finfo(slope.dtype).tiny)
