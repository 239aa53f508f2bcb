"""Several surrogates at once: one step along a weighted sum of their gradients, with weights that learn on the way."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.ensemble import members_for
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.gradients.per_sample import PerSample
from snnlib.attacks.inputs import check_count, check_inputs, check_length
from snnlib.attacks.momentum import unit_mean
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session, select
from snnlib.errors import InputError

MIXED = ("piecewise_linear(width=0.5, height=2)", "exponential(height=1, rate=2)", "rectangular(width=1)")
"""Members mixed by default: a narrow, a wide and a flat one."""
LEARNING_RATE = 0.3
"""η. On validation images of a released converted network 0, 0.1, 0.3, 1 and 3 broke as many."""


def mixed_surrogates(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    steps: int = 40,
    step_size: float | None = None,
    members: Mapping[str, SpikeGradient] | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
) -> AttackResult:
    """PGD along a mixture of surrogates, with a weight for each surrogate, pixel and sample::

        b(x) = Σ_m w_m ĝ_m(x),    x' = P(x + s · steepest(b)),    w_m ← w_m + η · ĝ_m(x) · Σ_k ĝ_k(x') / M · sech²(b)

    with ĝ_m the loss gradient by member m over its mean size, w = 1/M at first, and P the projection. A weight grows
    where its member had the sign that the gradient has one step later, and most where the mixture could not decide.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. step_size: in pixel units, None = 2.5 · eps / steps.
    members: name to gradient; None = `MIXED`. generator: unused, the attack starts at the sample.
    Cost of a sample that is never fooled: M gradients a step, so steps · M backwards and steps · (M + 1) + 1 forwards.
    Errors: InputError for inputs or parameters that do not fit, or a `batch_norm` other than "eval".
    **Source:** Xu et al. 2025 (MDSE, "Attacking the Spike", Neurocomputing) for the idea: weights of surrogates that
    adapt during the attack by the chain rule through tanh in the place of sign. Only its abstract and the code of its
    forerunner (Auto-SAGA) could be read. Ours: gradients of mean size 1, so that η has a scale; and what the weights
    learn from is the next iterate instead of a trial step, which halves the cost.
    """
    steps = check_count("steps", steps)
    step_size = 2.5 * budget.eps / steps if step_size is None else check_length("step_size", step_size)
    check_inputs(model, images, labels, budget, generator)
    if batch_norm != "eval":
        raise InputError(f"batch_norm is {batch_norm!r}; mixed_surrogates needs 'eval': its samples leave")
    if members is None:
        members = {name: member for name, member in members_for(model).items() if name in MIXED}
    gradient = PerSample(tuple(members.values()))
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        session.record_clean()
        _climb(session, gradient, steps, step_size)
        return session.result()


def _climb(session: Session, gradient: PerSample, steps: int, step_size: float) -> None:
    budget, x = session.budget, session.active_origin
    count = len(gradient.gradients)
    weights = torch.full((len(x), count, *x.shape[1:]), 1 / count, dtype=x.dtype, device=x.device)
    slopes = None
    for step in range(steps):
        if len(session.active) == 0:
            return
        before, slopes = slopes, _slopes(session, gradient, x)
        if before is not None:
            weights = weights + LEARNING_RATE * before * slopes.mean(1, keepdim=True) * _undecided(weights, before)
        moved = budget.project(x + step_size * budget.steepest((weights * slopes).sum(1)), session.active_origin)
        stay = session.record(moved, step + 1)
        x, weights, slopes = (select(values, stay) for values in (moved, weights, slopes))


def _slopes(session: Session, gradient: PerSample, x: Tensor) -> Tensor:
    """[n, members, ...] the loss gradients of all members at `x`, each of mean size 1."""
    found = []
    for number in range(len(gradient.gradients)):
        gradient.choose(torch.full_like(session.active, number))
        found.append(unit_mean(session.gradient(x)))
    return torch.stack(found, 1)


def _undecided(weights: Tensor, slopes: Tensor) -> Tensor:
    """sech² of the mixture: 1 where it is 0, and 0 where it is large. [n, 1, ...]"""
    return torch.cosh((weights * slopes).sum(1, keepdim=True).clamp(-20, 20)) ** -2
