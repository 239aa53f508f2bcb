"""Attacks of one gradient step: FGSM and R-FGSM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_length
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session
from snnlib.attacks.starts import check_slope_at_origin, normal_noise
from snnlib.neurons.surrogates import Surrogate


def fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    eot: int = 1,
    early_stop: bool = True,
) -> AttackResult:
    """Fast gradient sign method: x + eps · sign(g), clipped to the box; in "l2", x + eps · g / ‖g‖.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. gradient, batch_norm: see `prepared`. loss: a key of
    `LOSSES`, but for "kl", which is flat at the clean sample. eot: see `open_session`; `generator` seeds its draws.
    Samples already misclassified stay as they are; all others carry the one point tried, fooled or not.
    early_stop=False perturbs the misclassified ones too.
    Cost per sample: 2 forwards (1 if misclassified) and 1 backward, times `eot`.
    Errors: InputError for inputs or parameters that do not fit and for a model without gradient.
    **Source:** Goodfellow, Shlens & Szegedy 2015, section 4.
    """
    check_slope_at_origin(loss)
    with open_session(
        model, images, labels, budget, gradient, generator, batch_norm, loss, eot=eot, early_stop=early_stop
    ) as session:
        _, slope = session.record_with_gradient(session.origin, step=0)
        session.settle(_step(session, session.active_origin, slope, budget.eps), step=1)
        return session.result()


def r_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    alpha: float | None = None,
    eot: int = 1,
    early_stop: bool = True,
) -> AttackResult:
    """FGSM after a random step: x' = x + alpha · sign(N(0, I)), then x' + (eps − alpha) · sign(g(x')).

    alpha: length of the random step in pixel units, None = eps / 2; 0 makes it `fgsm`. In "l2" both lengths are
    Euclidean. `generator` gives the seed; everything else as in `fgsm`, also loss="kl".
    With loss="kl" and early_stop=False it is the inner attack of robust fine-tuning: every sample is perturbed.
    Cost per sample: 3 forwards (1 if misclassified) and 1 backward, times `eot`; early_stop=False saves the first
    forward, and "kl" adds none to 3.
    **Source:** Tramèr et al. 2018, section 4.1 (RAND+FGSM); Özdenizci & Legenstein 2024, fine-tuning, for "kl". We clip
    to the box after both steps, as in the code of the latter.
    """
    if alpha == 0:
        check_slope_at_origin(loss)
    with open_session(
        model, images, labels, budget, gradient, generator, batch_norm, loss, eot=eot, early_stop=early_stop
    ) as session:
        alpha = budget.eps / 2 if alpha is None else alpha
        alpha = check_length("alpha", alpha, at_most=budget.eps)
        if not session.fixed_batch:
            session.record_clean()
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
    return budget.project(origin + length * budget.steepest(normal_noise(session, draw=0)), origin)
