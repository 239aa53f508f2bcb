"""Auto-PGD: projected gradient ascent whose step size is halved per sample where it has stopped to help.

With x_k the points, g the loss gradient, P the projection into ball and box, η the sample's step size:

    z_{k+1} = P(x_k + η · steepest(g(x_k)))                                  steepest: sign(g), or g / ‖g‖ in "l2"
    x_{k+1} = P(x_k + a · (z_{k+1} − x_k) + (1 − a) · (x_k − x_{k−1}))       a = 1 in the first step, then 0.75

η starts at 2·eps. At each checkpoint (`checkpoints`) it is halved, and the sample goes back to its best point, if

    1. in the window since the last checkpoint the loss rose in at most 0.75 of the steps, or
    2. η was not halved at the last checkpoint, and the best loss has not risen since.

**Source:** Croce & Hein 2020 (AutoAttack), algorithm 1 and section 3; details that the paper leaves open as in the
authors' code: the first step 2·eps, the start on the surface of the ball, the rounding of the checkpoints, and that the
first loss after a return is compared with the loss before it. The first loss of all is compared with that of the start,
as in the paper (their code compares it with 0).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count, check_restarts
from snnlib.attacks.losses import find_loss
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session, select
from snnlib.attacks.starts import surface_point
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate

MOMENTUM = 0.75
RHO = 0.75
TARGETS = 9


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    steps: int = 100,
    restarts: int = 1,
    eot: int = 1,
) -> AttackResult:
    """APGD-CE, or APGD-DLR with loss="dlr": PGD without a step size to choose (module docstring: the equations).

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. gradient, batch_norm: see `prepared`. loss: a key of
    `LOSSES`; "dlr" needs 3 classes. generator: gives the seed of the starts. eot: see `open_session`.
    A sample leaves at the first point that fools the model; one that is never fooled gets the point of the highest
    loss. Restarts run on those left, with a fresh start and step size. With `batch_norm` other than "eval" nobody
    leaves, and the point of the highest loss under attack is scored.
    Cost of a sample that is never fooled: 1 forward, and per restart steps + 1 forwards and `steps` backwards, all
    times `eot`. The device is waited for once a step; halving, returning and best points are masks.
    Errors: InputError for inputs or parameters that do not fit and for a model without gradient.
    **Source:** Croce & Hein 2020 (AutoAttack), algorithm 1.

    >>> from snnlib import attacks, data, models
    >>> test = data.load_images("cifar10").test.first_per_class(1)
    >>> model = models.released("ann-trades-night-0")
    >>> result = attacks.apgd(model, test.batch(slice(None)), test.labels, attacks.Budget(2 / 255), loss="dlr", steps=5)
    >>> result.adversarial.shape, bool((result.linf <= 2.0001 / 255).all())
    (torch.Size([10, 3, 32, 32]), True)
    """
    steps = check_count("steps", steps)
    restarts = check_restarts(restarts, batch_norm)
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss, eot=eot) as session:
        _climb_repeatedly(session, steps, restarts)
        return session.result()


def apgd_targeted(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "targeted_dlr",
    steps: int = 100,
    targets: int = TARGETS,
    eot: int = 1,
) -> AttackResult:
    """APGD-T: `apgd` towards each of the `targets` strongest wrong classes of the clean sample in turn.

    targets: at most that many; fewer where the model has fewer wrong classes. Any misclassification counts, not only as
    the target. `loss` and `first_successful_step` of a sample belong to the run it ended in, steps counted on over the
    targets. With `batch_norm` other than "eval" there is one start, so only the strongest wrong class is aimed at.
    Cost of a sample that is never fooled: `targets` times that of `apgd`. Everything else as there.
    Errors: as `apgd`, and for a loss without a target; "targeted_dlr" needs 4 classes.
    **Source:** Croce & Hein 2020 (AutoAttack), section 4.2; one restart per target as in the authors' standard version.
    """
    steps = check_count("steps", steps)
    targets = check_count("targets", targets)
    if not find_loss(loss).needs_targets:
        raise InputError(f"loss is {loss!r}; apgd_targeted expected 'targeted_dlr' or 'targeted_margin'; or use apgd")
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss, eot=eot) as session:
        reachable = 1 if session.fixed_batch else min(targets, session.classes - 1)
        _climb_repeatedly(session, steps, reachable, targeted=True)
        return session.result()


def checkpoints(steps: int) -> list[int]:
    """After which of `steps` steps the step size is reconsidered.

    The first window is 0.22 of the steps, each further one 0.03 shorter, none below 0.06; all rounded down, at least 1.
    For 100 steps: 22, 41, 57, 70, 80, 87, 93, 99.
    """
    window, shrinkage, shortest = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    marks, mark = [], window
    while mark <= steps:
        marks.append(mark)
        window = max(window - shrinkage, shortest)
        mark += window
    return marks


@dataclass
class _Climbers:
    """Where the active samples of one run are; every field is `[n, ...]`, one entry per sample."""

    x: Tensor
    x_before: Tensor
    slope: Tensor
    loss: Tensor
    step_size: Tensor
    best_x: Tensor
    best_slope: Tensor
    best_loss: Tensor
    rises: Tensor
    best_at_checkpoint: Tensor
    halved_at_checkpoint: Tensor

    @classmethod
    def at(cls, x: Tensor, slope: Tensor, loss: Tensor, step_size: float) -> _Climbers:
        return cls(
            x=x, x_before=x, slope=slope, loss=loss, step_size=torch.full_like(loss, step_size),
            best_x=x, best_slope=slope, best_loss=loss, rises=torch.zeros_like(loss),
            best_at_checkpoint=loss, halved_at_checkpoint=torch.ones_like(loss, dtype=torch.bool),
        )  # fmt: skip

    def move(self, budget: Budget, origin: Tensor, momentum: float) -> None:
        ahead = budget.project(self.x + _like(self.step_size, self.x) * budget.steepest(self.slope), origin)
        with_momentum = self.x + momentum * (ahead - self.x) + (1 - momentum) * (self.x - self.x_before)
        self.x_before, self.x = self.x, budget.project(with_momentum, origin)

    def keep(self, stay: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, select(getattr(self, field.name), stay))

    def arrive(self, slope: Tensor, loss: Tensor) -> None:
        """Take in gradient and loss at `x`."""
        self.rises = self.rises + (loss > self.loss)
        self.slope, self.loss = slope, loss
        better = loss > self.best_loss
        self.best_x = torch.where(_like(better, self.x), self.x, self.best_x)
        self.best_slope = torch.where(_like(better, self.x), slope, self.best_slope)
        self.best_loss = torch.where(better, loss, self.best_loss)

    def reconsider(self, window: int) -> None:
        """Checkpoint: halve the step size and go back to the best point, sample by sample."""
        stalled = self.rises <= RHO * window
        no_better = ~self.halved_at_checkpoint & (self.best_loss <= self.best_at_checkpoint)
        halve = stalled | no_better
        self.step_size = torch.where(halve, self.step_size / 2, self.step_size)
        self.x = torch.where(_like(halve, self.x), self.best_x, self.x)
        self.slope = torch.where(_like(halve, self.x), self.best_slope, self.slope)
        self.rises = torch.zeros_like(self.rises)
        self.best_at_checkpoint, self.halved_at_checkpoint = self.best_loss, halve


def _climb_repeatedly(session: Session, steps: int, runs: int, targeted: bool = False) -> None:
    if not session.fixed_batch:
        session.record_clean()
    for run in range(runs):
        if len(session.active) == 0:
            return
        if targeted:
            session.aim(run + 1)
        _climb(session, steps, run)


def _climb(session: Session, steps: int, run: int) -> None:
    budget, earlier_steps = session.budget, run * steps
    x = surface_point(session, draw=run)
    stay, slope, loss = session.visit(x, earlier_steps + 1)
    climbers = _Climbers.at(select(x, stay), slope, loss, step_size=2 * budget.eps)
    window_begins, marks = 0, checkpoints(steps)
    for step in range(1, steps + 1):
        if len(session.active) == 0:
            return
        climbers.move(budget, session.active_origin, momentum=1.0 if step == 1 else MOMENTUM)
        if step == steps and not session.fixed_batch:
            session.record(climbers.x, earlier_steps + step)
            return
        stay, slope, loss = session.visit(climbers.x, earlier_steps + step)
        climbers.keep(stay)
        climbers.arrive(slope, loss)
        if step in marks:
            climbers.reconsider(step - window_begins)
            window_begins = step
    session.settle(climbers.best_x, steps)


def _like(per_sample: Tensor, x: Tensor) -> Tensor:
    return per_sample.view(-1, *[1] * (x.dim() - 1))
