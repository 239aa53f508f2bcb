"""Bit flip: changes single spikes of the encoded input, the L0 attack that a spike train calls for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session, select
from snnlib.attacks.starts import check_slope_at_origin
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate


def bit_flip(
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
    flips_per_round: int | None = None,
) -> AttackResult:
    """Flip the spikes whose gradient promises most, some at a time, and keep a round only where the loss grew.

    budget: `Budget(k, norm="l0", space="encoded")`, at most k entries of the 0/1 code [T, N, C, H, W] change. gradient:
    see `prepared`. generator: the random numbers of a randomised model. flips_per_round: at the start, None = k / 8,
    rounded up. A round that does not pay is undone and halves that number for its sample, down to single flips, which
    are not tried again at this point; one that pays doubles it. Once k are spent, better flips take the place of worse.
    A sample is done when it is fooled, or when no flip is left that the gradient speaks for. Every round is one forward
    pass, which judges it, and one backward. `first_successful_step` is the round; `l2`² is the number of flips.
    **Source:** ours. The idea, tested flips that agree with the gradient of a margin, is that of Lun et al. 2025 (SDA,
    for binary event frames), who test each flip, go on without a limit and in the end take needless flips back.
    Errors: InputError for inputs or parameters that do not fit, a code that is not 0/1, a model without gradient.
    """
    rounds = check_rounds(rounds, batch_norm, loss)
    if flips_per_round is not None:
        flips_per_round = check_count("flips_per_round", flips_per_round)
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        if budget.norm != "l0":
            raise InputError(f"bit_flip got norm {budget.norm!r}; expected Budget(k, norm='l0', space='encoded')")
        check_spikes(session)
        limit = min(int(budget.eps), session.origin[0].numel())
        if limit == 0:
            session.record_clean()
        else:
            search(session, partial(_flipped, limit=limit), rounds, flips_per_round or -(-limit // 8))
        return session.result()


def check_rounds(rounds: int, batch_norm: str, loss: str) -> int:
    """`rounds` as a Python int. Errors: InputError for what a search by tested rounds cannot have."""
    if batch_norm != "eval":
        raise InputError(f'batch_norm is {batch_norm!r}; each round is tested on the deployed network; use "eval"')
    check_slope_at_origin(loss)
    return check_count("rounds", rounds)


def check_spikes(session: Session) -> None:
    """Errors: InputError unless the attacked values are 0 and 1."""
    if not ((session.origin == 0) | (session.origin == 1)).all():
        raise InputError("the encoded values are not all 0 or 1; this attack needs an encoder that gives spikes")


def search(session: Session, propose: Callable[..., tuple[Tensor, Tensor]], rounds: int, at_once: int | Tensor) -> None:
    """Take the changes that `propose(x, origin, slope, barred, count)` names, a round at a time, where the loss grows.

    propose: gives the next code to test and where it has a new change, both [n, ...], at most `count` [n] of them and
    none of those `barred`. at_once: changes to begin with, for all or for each sample. x: the accepted code; slope,
    value: of the loss there.
    """
    stay, slope, value = session.visit(session.origin, 0)
    x = session.active_origin
    most = select(at_once, session.active) if isinstance(at_once, Tensor) else torch.full_like(stay, at_once)
    count, barred = most, torch.zeros_like(x, dtype=torch.bool)
    for number in range(1, rounds + 1):
        candidate, added = propose(x, session.active_origin, slope, barred, count)
        moving = added.flatten(1).any(1).nonzero().squeeze(1)
        session.active = select(session.active, moving)
        if len(moving) == 0:
            return
        states = [select(each, moving) for each in (x, slope, value, count, barred, candidate, added, most)]
        stay, slope_there, value_there = session.visit(states[5], number)
        x, slope, value, count, barred, candidate, added, most = (select(each, stay) for each in states)
        better = value_there > value
        at_spikes = better.view(-1, *[1] * (x.dim() - 1))
        single = (count == 1).view_as(at_spikes)
        x, slope = torch.where(at_spikes, candidate, x), torch.where(at_spikes, slope_there, slope)
        value = torch.where(better, value_there, value)
        barred = torch.where(at_spikes, False, barred | (added & single))
        count = torch.where(better, torch.minimum(2 * count, most), (count // 2).clamp(min=1))


def _flipped(
    x: Tensor, origin: Tensor, slope: Tensor, barred: Tensor, count: Tensor, limit: int
) -> tuple[Tensor, Tensor]:
    """The next code to test, and where it has a new flip; [n, ...] both.

    To first order, an entry that differs from `origin` is worth slope · (1 − 2 · origin). The `count` best of those not
    flipped yet join those that are, and the `limit` best of all of these make the code.
    """
    worth = (slope * (1 - 2 * origin)).flatten(1)
    flipped, free = (x != origin).flatten(1), ~barred.flatten(1) & (worth > 0)
    most = min(int(count.max()), worth.shape[1]) if len(count) else 0
    best = best_of(worth, free & ~flipped, most)
    added = torch.zeros_like(flipped).scatter(1, best.indices, best.there & (best.ranks < count[:, None]))
    best = best_of(worth, flipped | added, limit)
    chosen = torch.zeros_like(flipped).scatter(1, best.indices, best.there)
    code = torch.where(chosen.view_as(x), 1 - origin, origin)
    return code, (added & chosen).view_as(x)


class Best(NamedTuple):
    """The best entries of each sample, [n, k]; there: False where a sample has fewer. ranks: 0, 1, 2, ..."""

    indices: Tensor
    there: Tensor
    ranks: Tensor


def best_of(worth: Tensor, among: Tensor, most: int) -> Best:
    """The `most` entries of each sample with the highest worth [n, k], of those `among` [n, k]."""
    top = torch.where(among, worth, -torch.inf).topk(most, dim=1)
    return Best(top.indices, top.values.isfinite(), torch.arange(most, device=worth.device))
