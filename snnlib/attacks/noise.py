"""Noise without a gradient: the floor that every attack must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import open_session
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate


def random_noise(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    draws: int = 1,
) -> AttackResult:
    """Uniform noise in the ball, clipped to the box: of `draws` tries the first that fools, else the worst.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. generator: gives the seed. gradient: unused,
    accepted so that all attacks are called alike. With `batch_norm` other than "eval": one draw, scored
    whatever its loss. A gradient attack that finds less than this is blind, not the model robust.
    Errors: InputError for inputs or parameters that do not fit.
    """
    draws = check_count("draws", draws)
    if draws > 1 and batch_norm != "eval":
        raise InputError(
            f'draws is {draws} with batch_norm="{batch_norm}"; that protocol has one start; set 1'
        )
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        if session.fixed_batch:
            session.settle(budget.random_start(session.origin, session.generators(0)), step=1)
            return session.result()
        session.record_clean()
        for draw in range(draws):
            if len(session.active) == 0:
                break
            x = budget.random_start(session.active_origin, session.generators(draw))
            session.record(x, step=draw + 1)
        return session.result()
