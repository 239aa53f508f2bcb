"""Attacks of one gradient step: FGSM and R-FGSM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.inputs import check_length
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session
from snnlib.neurons.surrogates import Surrogate


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
) -> AttackResult:
    """Fast gradient sign method: x + eps · sign(g), clipped to the box; in "l2", x + eps · g / ‖g‖.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. gradient, batch_norm: see `prepared`.
    generator: unused, accepted so that all attacks are called alike.
    Samples already misclassified stay as they are; all others carry the one point tried, fooled or not.
    Errors: InputError for inputs that do not fit and for a model without gradient.
    **Source:** Goodfellow, Shlens & Szegedy 2015, section 4.
    """
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        _, slope = session.record_with_gradient(session.origin, step=0)
        session.settle(_step(session, session.active_origin, slope, budget.eps), step=1)
        return session.result()


def r_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    alpha: float | None = None,
) -> AttackResult:
    """FGSM after a random step: x' = x + alpha · sign(N(0, I)), then x' + (eps − alpha) · sign(g(x')).

    alpha: length of the random step in pixel units, None = eps / 2. In "l2" both lengths are Euclidean.
    Everything else as in `fgsm`; `generator` gives the seed.
    **Source:** Tramèr et al. 2018, section 4.1 (RAND+FGSM). We clip to the box after both steps.
    """
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        alpha = budget.eps / 2 if alpha is None else alpha
        check_length("alpha", alpha, at_most=budget.eps)
        if not session.fixed_batch:
            session.record(session.origin, step=0)
        start = _random_step(session, alpha)
        session.settle(_step(session, start, session.gradient(start), budget.eps - alpha), step=1)
        return session.result()


def _step(session: Session, x: Tensor, slope: Tensor, length: float) -> Tensor:
    budget = session.budget
    return budget.project(x + length * budget.steepest(slope), session.active_origin)


def _random_step(session: Session, length: float) -> Tensor:
    origin, budget = session.active_origin, session.budget
    if len(origin) == 0:
        return origin
    shape, dtype = origin.shape[1:], origin.dtype
    draws = [torch.randn(shape, dtype=dtype, generator=generator) for generator in session.generators(0)]
    direction = budget.steepest(torch.stack(draws).to(origin.device))
    return budget.project(origin + length * direction, origin)
