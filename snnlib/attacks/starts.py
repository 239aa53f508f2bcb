"""Where an attack begins: near the clean sample, anywhere in the ball, or on its surface."""

from __future__ import annotations

import torch
from torch import Tensor

from snnlib.attacks.budget import unit_length
from snnlib.attacks.losses import find_loss
from snnlib.attacks.session import Session
from snnlib.errors import InputError
from snnlib.runtime import sent

STARTS = ("uniform", "gaussian", "none")
GAUSSIAN_SCALE = 0.001
"""In pixel units: the start of TRADES and MART."""


def starting_point(session: Session, start: str, draw: int) -> Tensor:
    """[len(active), ...] the point from which `session`'s active samples set out, inside ball and box.

    start: "uniform" in the ball; "gaussian" = the sample + 0.001·N(0, I), projected; "none" = the sample itself.
    draw: number of the draw; each sample's noise is its own (`KeyedNoise`).
    """
    origin = session.active_origin
    if start == "none" or len(origin) == 0:
        return origin
    if start == "uniform":
        return session.budget.random_start(origin, session.generators(draw))
    return session.budget.project(origin + GAUSSIAN_SCALE * normal_noise(session, draw), origin)


def surface_point(session: Session, draw: int) -> Tensor:
    """[len(active), ...] x + eps · t / ‖t‖, clipped to the box: t uniform in [-1, 1] ("linf") or normal ("l2").

    **Source:** Croce & Hein 2020 (AutoAttack), the authors' code.
    """
    origin, budget = session.active_origin, session.budget
    if len(origin) == 0:
        return origin
    if budget.norm == "l2":
        direction = unit_length(normal_noise(session, draw))
    else:
        draws = [torch.rand(origin.shape[1:], dtype=origin.dtype, generator=g) for g in session.generators(draw)]
        noise = 2 * sent(torch.stack(draws), origin.device) - 1
        direction = noise / noise.abs().amax(tuple(range(1, noise.dim())), keepdim=True)
    return budget.project(origin + budget.eps * direction, origin)


def normal_noise(session: Session, draw: int) -> Tensor:
    """[len(active), ...] numbers from N(0, 1); at least one active sample."""
    origin = session.active_origin
    draws = [torch.randn(origin.shape[1:], dtype=origin.dtype, generator=g) for g in session.generators(draw)]
    return sent(torch.stack(draws), origin.device)


def check_start(start: str, loss: str) -> None:
    """Errors: InputError for an unknown start, or for a loss that has no gradient where the attack begins."""
    if start not in STARTS:
        raise InputError(f"start is {start!r}; expected one of {', '.join(STARTS)}")
    if start == "none":
        check_slope_at_origin(loss)


def check_slope_at_origin(loss: str) -> None:
    """Errors: InputError for a loss whose gradient is 0 at the clean sample."""
    if find_loss(loss).flat_at_origin:
        raise InputError(
            f"loss {loss!r} has no gradient at the clean sample, where this attack begins; "
            "use pgd with start='gaussian' or r_fgsm with alpha above 0"
        )
