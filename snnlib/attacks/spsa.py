"""SPSA: climbs a loss by a gradient that is estimated from scores alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count, check_length
from snnlib.attacks.queries import check_query_attack, losses_of, query
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session, select
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate
from snnlib.runtime import sent

PAIRS_AT_ONCE = 8
"""Pairs of probes per sample and forward pass; a number of the batch would make a sample's result depend on it."""
FIRST_DECAY, SECOND_DECAY, GUARD = 0.9, 0.999, 1e-8
"""Adam's numbers."""


def spsa(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "margin",
    steps: int = 100,
    directions: int = 64,
    delta: float = 0.01,
    step_size: float = 0.01,
) -> AttackResult:
    """Adam on gradients estimated by finite differences along random directions of ±1, projected after each step.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. generator: gives the seed. gradient: unused, accepted so
    that all attacks are called alike. directions: pairs of probes x ± delta · v behind each estimate. delta, step_size:
    in pixel units. delta has to carry the model over the flat pieces of its scores: a phase code does not see less than
    one grey level, 1/255.
    Probes may lie outside the ball and count as queries; only the points stepped to are judged, each by a pass of its
    own, on a fresh draw of a randomised model. A sample that holds out takes steps · (2 · directions + 1) + 1 forwards.
    **Source:** Uesato et al. 2018, section 3.2 and algorithm 1 (SPSA with Adam, the margin as loss). Probes are
    clipped to [0, 1], there they are not.
    Errors: InputError for inputs or parameters that do not fit.
    """
    steps = check_count("steps", steps)
    directions = check_count("directions", directions)
    step_size = check_length("step_size", step_size)
    delta = check_length("delta", delta, at_most=1.0)
    if delta == 0:
        raise InputError("delta is 0: probes would not differ; expected a length above 0, such as 0.01")
    check_query_attack("spsa", batch_norm, loss)
    with open_session(model, images, labels, budget, None, generator, batch_norm, loss) as session:
        session.record_clean()
        x = session.active_origin
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        for step in range(steps):
            if len(x) == 0:
                break
            slope = estimated_gradient(session, x, loss, directions, delta, draw=step)
            mean = FIRST_DECAY * mean + (1 - FIRST_DECAY) * slope
            square = SECOND_DECAY * square + (1 - SECOND_DECAY) * slope**2
            unbiased = mean / (1 - FIRST_DECAY ** (step + 1)), square / (1 - SECOND_DECAY ** (step + 1))
            x = budget.project(x + step_size * unbiased[0] / (unbiased[1].sqrt() + GUARD), session.active_origin)
            stay = session.record(x, step + 1)
            x, mean, square = (select(values, stay) for values in (x, mean, square))
        return session.result()


def estimated_gradient(session: Session, x: Tensor, loss: str, directions: int, delta: float, draw: int) -> Tensor:
    """[len(active), ...] mean over directions v of (L(x + delta · v) − L(x − delta · v)) / (2 · delta) · v."""
    total = torch.zeros_like(x)
    everyone = torch.arange(len(x), device=x.device)
    generators = session.generators(draw)
    for first in range(0, directions, PAIRS_AT_ONCE):
        count = min(PAIRS_AT_ONCE, directions - first)
        bits = [torch.randint(0, 2, (count, *x.shape[1:]), dtype=torch.int8, generator=each) for each in generators]
        signs = (2 * sent(torch.stack(bits, 1), x.device) - 1).to(x.dtype)
        probes = torch.cat([x + delta * signs, x - delta * signs]).clamp(0, 1).flatten(0, 1)
        places = everyone.repeat(2 * count)
        value = losses_of(session, query(session, probes, places), loss, places).view(2, count, len(x))
        difference = (value[0] - value[1]) / (2 * delta)
        total += (signs * difference.view(*difference.shape, *[1] * (x.dim() - 1))).sum(0)
    return total / directions
