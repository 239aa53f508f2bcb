"""Bit flip: changes single spikes of the encoded input, the L0 attack that a spike train calls for."""

from __future__ import annotations

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
    rounds = check_count("rounds", rounds)
    if flips_per_round is not None:
        flips_per_round = check_count("flips_per_round", flips_per_round)
    if batch_norm != "eval":
        raise InputError(f'batch_norm is {batch_norm!r}; bit_flip tests each round on the deployed network; use "eval"')
    check_slope_at_origin(loss)
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        if budget.norm != "l0":
            raise InputError(f"bit_flip got norm {budget.norm!r}; expected Budget(k, norm='l0', space='encoded')")
        if not ((session.origin == 0) | (session.origin == 1)).all():
            raise InputError("the encoded values are not all 0 or 1; bit_flip needs an encoder that gives spikes")
        limit = min(int(budget.eps), session.origin[0].numel())
        if limit == 0:
            session.record_clean()
        else:
            _search(session, limit, rounds, flips_per_round or -(-limit // 8))
        return session.result()


def _search(session: Session, limit: int, rounds: int, at_once: int) -> None:
    """x: the accepted code; slope, value: of the loss there; count: flips to try; barred: flips not to try again."""
    stay, slope, value = session.visit(session.origin, 0)
    x = session.active_origin
    count, barred = torch.full_like(stay, at_once), torch.zeros_like(x, dtype=torch.bool)
    for number in range(1, rounds + 1):
        candidate, added = _flipped(x, session.active_origin, slope, barred, count, limit)
        moving = added.flatten(1).any(1).nonzero().squeeze(1)
        session.active = select(session.active, moving)
        if len(moving) == 0:
            return
        states = [select(each, moving) for each in (x, slope, value, count, barred, candidate, added)]
        stay, slope_there, value_there = session.visit(states[5], number)
        x, slope, value, count, barred, candidate, added = (select(each, stay) for each in states)
        better = value_there > value
        at_spikes = better.view(-1, *[1] * (x.dim() - 1))
        single = (count == 1).view_as(at_spikes)
        x, slope = torch.where(at_spikes, candidate, x), torch.where(at_spikes, slope_there, slope)
        value = torch.where(better, value_there, value)
        barred = torch.where(at_spikes, False, barred | (added & single))
        count = torch.where(better, (2 * count).clamp(max=at_once), (count // 2).clamp(min=1))


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
    best = _best(worth, free & ~flipped, most)
    added = torch.zeros_like(flipped).scatter(1, best.indices, best.there & (best.ranks < count[:, None]))
    best = _best(worth, flipped | added, limit)
    chosen = torch.zeros_like(flipped).scatter(1, best.indices, best.there)
    code = torch.where(chosen.view_as(x), 1 - origin, origin)
    return code, (added & chosen).view_as(x)


class _Best(NamedTuple):
    """The best entries of each sample, [n, k]; there: False where a sample has fewer. ranks: 0, 1, 2, ..."""

    indices: Tensor
    there: Tensor
    ranks: Tensor


def _best(worth: Tensor, among: Tensor, most: int) -> _Best:
    top = torch.where(among, worth, -torch.inf).topk(most, dim=1)
    return _Best(top.indices, top.values.isfinite(), torch.arange(most, device=worth.device))
