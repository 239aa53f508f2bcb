"""Retiming: events keep pixel and polarity and come earlier or later."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.bit_flip import check_rounds, check_spikes, search
from snnlib.attacks.budget import Budget
from snnlib.attacks.events.budget import Retiming
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import open_session
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate


def retime(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "margin",
    rounds: int = 50,
    moves_per_round: int | None = None,
) -> AttackResult:
    """Move the events whose gradient promises most, some at a time, and keep a round only where the loss grew.

    budget: a `Retiming`; every point that is tried lies inside it. moves_per_round: at the start, None = an eighth of
    the moves allowed (or of the events), rounded up. Rounds, costs and `first_successful_step` are those of `bit_flip`;
    `l2`² is twice the number of events moved. An event may move again, and home, while the budget allows it.
    **Source:** the threat model of the retiming attack of ICLR 2026, which learns logits over the shifts and projects
    them strictly in its forward pass; the search, over such projected points alone, is ours.
    Errors: InputError for inputs or parameters that do not fit, a raster that is not 0/1, a model without gradient.
    """
    rounds = check_rounds(rounds, batch_norm, loss)
    if moves_per_round is not None:
        moves_per_round = check_count("moves_per_round", moves_per_round)
    if not isinstance(budget, Retiming):
        raise InputError(f"retime got {budget!r}; expected attacks.events.Retiming(jitter in bins, moves=...)")
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        check_spikes(session)
        limit = session.origin.flatten(1).sum(1).long()
        if budget.moves is not None:
            limit = limit.clamp(max=budget.moves)
        if budget.eps == 0 or limit.max() == 0:
            session.record_clean()
        else:
            search(session, budget.moved, rounds, moves_per_round or (limit + 7) // 8)
        return session.result()
