"""What attacks without a gradient share: points that are tried and counted before one of them is recorded.

A model that draws random numbers draws them anew at every query. A point that seemed to fool is therefore judged by a
pass of its own (`record_some`), so that one lucky draw among many queries is no success.
"""

from __future__ import annotations

import torch
from torch import Tensor

from snnlib.attacks.losses import Context, find_loss
from snnlib.attacks.session import Session, select
from snnlib.errors import InputError
from snnlib.runtime import sent

QUERIES_AT_ONCE = 64
"""Queries for which a sample's random numbers are drawn together."""


def check_query_attack(attack: str, batch_norm: str, loss: str = "margin") -> None:
    """Errors: InputError unless the attack asks the deployed network, for a loss made of logits and labels alone."""
    if batch_norm != "eval":
        raise InputError(f'batch_norm is {batch_norm!r}; {attack} only asks the deployed network; use "eval"')
    found = find_loss(loss)
    if found.needs_clean or found.needs_targets:
        raise InputError(f"loss is {loss!r}; {attack} expected one that needs only logits and labels; use 'margin'")


def query(session: Session, x: Tensor, positions: Tensor | None = None) -> Tensor:
    """Logits [len(x), classes] at points that are tried and not recorded; each counts as a forward pass of its sample.

    x: [n, ...], which may lie outside the ball. positions: [n] places in `session.active`, repeats allowed; None = one
    point for each active sample.
    """
    everyone, counted = session.active, session.forwards.clone()
    asked = everyone if positions is None else everyone[positions]
    session.active = asked
    try:
        logits = session._logits(x, draw=0)
    finally:
        session.active = everyone
    session.forwards = counted.index_add(0, asked, torch.ones_like(asked))
    return logits


def losses_of(session: Session, logits: Tensor, loss: str, positions: Tensor | None = None) -> Tensor:
    """[n] the loss of each point from its logits; positions as in `query`."""
    return find_loss(loss).function(logits, labels_of(session, positions), Context()).to(session.origin.dtype)


def labels_of(session: Session, positions: Tensor | None = None) -> Tensor:
    """[n] the labels of the points; positions as in `query`."""
    return session.labels[session.active if positions is None else session.active[positions]]


def record_some(session: Session, x: Tensor, positions: Tensor, step: int | Tensor) -> Tensor:
    """`Session.record` for the active samples at `positions` (ascending, no repeats) alone; step may be one for each.

    Returns the places in `session.active`, as it was before, of everyone who stays.
    """
    everyone = session.active
    stays = torch.ones_like(everyone, dtype=torch.bool)
    stays[positions] = False
    session.active = everyone[positions]
    stays[positions[session.record(x, step)]] = True
    places = stays.nonzero().squeeze(1)
    session.active = everyone[places]
    return places


def uniform(session: Session, shape: tuple[int, ...], draw: int) -> Tensor:
    """[len(active), *shape] numbers in [0, 1) for the draw number `draw`, float64, keyed by sample as all noise."""
    draws = [torch.rand(shape, dtype=torch.float64, generator=each) for each in session.generators(draw)]
    return sent(torch.stack(draws), session.origin.device)


class Noise:
    """Numbers in [0, 1) for each query of each active sample; the draws from `first_draw` on are its own."""

    def __init__(self, session: Session, per_query: int, first_draw: int) -> None:
        self._session, self._per_query, self._draw = session, per_query, first_draw
        self._block, self._used = None, QUERIES_AT_ONCE

    def next(self) -> Tensor:
        """[len(active), per_query] the numbers of the next query."""
        if self._used == QUERIES_AT_ONCE:
            self._block = uniform(self._session, (QUERIES_AT_ONCE, self._per_query), self._draw)
            self._used, self._draw = 0, self._draw + 1
        self._used += 1
        return self._block[:, self._used - 1]

    def keep(self, stay: Tensor) -> None:
        """Drop the numbers of the samples that left; stay: [len(active)] the places of the others."""
        if self._block is not None:
            self._block = select(self._block, stay)
