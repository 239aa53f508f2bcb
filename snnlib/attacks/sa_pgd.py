"""SA-PGD: steps that adapt to each pixel, with a step size on a fixed schedule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.apgd import checkpoints
from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count, check_restarts
from snnlib.attacks.momentum import unit_mean
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session, select
from snnlib.attacks.starts import surface_point
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate

FIRST_DECAY, SECOND_DECAY = 0.5, 0.8
GUARD = 1e-12


def sa_pgd(
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
    """Stable adaptive PGD, "linf" only; η = eps at first, m = v = 0, and for each step, all operations per pixel,

        m ← 0.5 · m + g / mean|g|,    v ← 0.8 · v + g² / mean(g²),    x ← P(x + clip(η · m / (√v + 10⁻¹²), −η, η))

    with P the projection into ball and box and the means over all pixels of a sample. η is halved for everybody at the
    `checkpoints` of APGD; there is no test for it and no return to a best point. The start lies on the surface of the
    ball, as in APGD. Arguments, cost and what is returned as in `apgd`; where the source returns the last point that
    fools, we return the first, and where it returns a clean sample that was never fooled, the point of highest loss.
    Errors: InputError for inputs or parameters that do not fit, a norm other than "linf", a model without gradient.
    **Source:** the ASSG authors' code ("Towards Reliable Evaluation of Adversarial Robustness for SNNs", 2025).
    """
    steps = check_count("steps", steps)
    restarts = check_restarts(restarts, batch_norm)
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss, eot=eot) as session:
        if budget.norm != "linf":
            raise InputError(f"norm is {budget.norm!r}; sa_pgd is defined for 'linf' alone; use apgd")
        if not session.fixed_batch:
            session.record_clean()
        for restart in range(restarts):
            if len(session.active) == 0:
                break
            _climb(session, steps, restart)
        return session.result()


def _climb(session: Session, steps: int, restart: int) -> None:
    budget, earlier_steps, marks = session.budget, restart * steps, checkpoints(steps)
    x, step_size = surface_point(session, draw=restart), budget.eps
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(steps):
        stay, slope = session.record_with_gradient(x, earlier_steps + max(step, 1))
        if len(stay) == 0:
            return
        slope = unit_mean(slope)
        power = slope.square()
        mean_power = power.mean(tuple(range(1, power.dim())), keepdim=True)
        first = FIRST_DECAY * select(first, stay) + slope
        second = SECOND_DECAY * select(second, stay) + power / mean_power.clamp_min(torch.finfo(power.dtype).tiny)
        move = (step_size * first / (second.sqrt() + GUARD)).clamp(-step_size, step_size)
        x = budget.project(select(x, stay) + move, session.active_origin)
        if step + 1 in marks:
            step_size /= 2
    if session.fixed_batch:
        session.settle(x, steps)
    else:
        session.record(x, earlier_steps + steps)
