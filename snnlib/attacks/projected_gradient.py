"""Projected gradient descent on the ball of the budget."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count, check_length, check_restarts
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session, select
from snnlib.attacks.starts import check_start, starting_point
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    steps: int = 10,
    step_size: float | None = None,
    restarts: int = 1,
    start: str = "uniform",
    early_stop: bool = True,
    eot: int = 1,
) -> AttackResult:
    """Climb the loss by `steps` sign steps ("linf") or normalised steps ("l2"), projected after each.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. gradient, batch_norm: see `prepared`. loss: a key of
    `LOSSES`. step_size: in pixel units, None = 2.5 · eps / steps. start: "uniform" in the ball, "gaussian" =
    0.001·N(0, I) around the sample, "none"; `generator` gives the seed. eot: see `open_session`.
    A sample leaves at the first point that fools the model, and that point is returned; one that is never
    fooled gets the point of the highest loss. Restarts run on those left. A random start belongs to the first
    step of its restart.
    early_stop=False, the inner attack of adversarial training: every sample makes every step from its start, also the
    misclassified, and its last point is returned whatever the loss; `first_successful_step` is `steps` or -1.
    The same holds with `batch_norm` "train" or "train-and-keep" (the protocol of Luu et al. 2025: 7 steps of 0.01 from
    one random start). A vanishing gradient is reported as `zero_gradient`, whereas their code stops with an error.
    Cost of a sample that is never fooled: steps + 2 forwards and `steps` backwards per restart (one forward less with
    start="none" or early_stop=False), all times `eot`; one that leaves after k steps has paid for k.
    Errors: InputError for inputs or parameters that do not fit and for a model without gradient.
    **Source:** Madry et al. 2018, section 2.1; Zhang et al. 2019 (TRADES) for "gaussian" and "kl".

    >>> from snnlib import attacks, data, models
    >>> test = data.load_images("cifar10").test.first_per_class(1)
    >>> model = models.released("snn-conversion-from-trades-night-0")
    >>> result = attacks.pgd(model, test.batch(slice(None)), test.labels, attacks.Budget(eps=2 / 255), steps=3)
    >>> print(result)
    AttackResult on 10 samples, Budget(eps=0.00784313725490196, norm='linf', space='image')
          broken  ...
    >>> result.table()[["success", "linf", "forwards"]].shape
    (10, 3)
    """
    steps = check_count("steps", steps)
    restarts = check_restarts(restarts, batch_norm, early_stop)
    check_start(start, loss)
    if step_size is not None:
        step_size = check_length("step_size", step_size)
    if restarts > 1 and start == "none":
        raise InputError(f"restarts is {restarts} without a random start: all would be equal; set start='uniform'")
    with open_session(
        model, images, labels, budget, gradient, generator, batch_norm, loss, eot=eot, early_stop=early_stop
    ) as session:
        step_size = 2.5 * budget.eps / steps if step_size is None else step_size
        if start != "none" and not session.fixed_batch:
            session.record_clean()
        for restart in range(restarts):
            if len(session.active) == 0:
                break
            _climb(session, restart, steps, step_size, start)
        return session.result()


def _climb(session: Session, restart: int, steps: int, step_size: float, start: str) -> None:
    budget, earlier_steps = session.budget, restart * steps
    x = starting_point(session, start, draw=restart)
    for step in range(steps):
        stay, slope = session.record_with_gradient(x, earlier_steps + max(step, int(start != "none")))
        if len(stay) == 0:
            return
        x = budget.project(select(x, stay) + step_size * budget.steepest(slope), session.active_origin)
    if session.fixed_batch:
        session.settle(x, steps)
    else:
        session.record(x, earlier_steps + steps)
