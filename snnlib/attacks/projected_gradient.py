"""Projected gradient descent on the ball of the budget."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.inputs import check_count, check_length
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
) -> AttackResult:
    """Climb the loss by `steps` sign steps ("linf") or normalised steps ("l2"), projected after each.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. gradient, batch_norm: see `prepared`.
    step_size: in pixel units, None = 2.5 · eps / steps. generator: gives the seed of the random starts.
    A sample leaves at the first point that fools the model, and that point is returned; one that is never
    fooled gets the point of the highest loss. Restarts run on those left. A random start belongs to the first
    step of its restart.
    With `batch_norm` "train" or "train-and-keep" (the protocol of Luu et al. 2025: 7 steps of 0.01 from one
    random start) nobody leaves and only the last point is scored: `first_successful_step` is `steps` or -1.
    A vanishing gradient is reported as `zero_gradient`, whereas the authors' code stops with an error.
    Errors: InputError for inputs or parameters that do not fit and for a model without gradient.
    **Source:** Madry et al. 2018, section 2.1.
    """
    _check_parameters(steps, step_size, restarts, random_start, batch_norm)
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        step_size = 2.5 * budget.eps / steps if step_size is None else step_size
        if random_start and not session.fixed_batch:
            session.record(session.origin, step=0)
        for restart in range(restarts):
            if len(session.active) == 0:
                break
            _climb(session, restart, steps, step_size, random_start)
        return session.result()


def _climb(session: Session, restart: int, steps: int, step_size: float, random_start: bool) -> None:
    budget, origin = session.budget, session.active_origin
    x = budget.random_start(origin, session.generators(restart)) if random_start else origin
    earlier_steps = restart * steps
    for step in range(steps):
        stay, slope = session.record_with_gradient(x, earlier_steps + max(step, int(random_start)))
        if len(stay) == 0:
            return
        x = budget.project(x[stay] + step_size * budget.steepest(slope), session.active_origin)
    if session.fixed_batch:
        session.settle(x, steps)
    else:
        session.record(x, earlier_steps + steps)


def _check_parameters(
    steps: int, step_size: float | None, restarts: int, random_start: bool, batch_norm: str
) -> None:
    check_count("steps", steps)
    check_count("restarts", restarts)
    if step_size is not None:
        check_length("step_size", step_size)
    if restarts > 1 and not random_start:
        raise InputError(
            f"restarts is {restarts} without a random start: all would be equal; set random_start=True"
        )
    if restarts > 1 and batch_norm != "eval":
        raise InputError(
            f'restarts is {restarts} with batch_norm="{batch_norm}"; that protocol has one start; set 1'
        )
