"""What an attacker of event rasters may change, and what he did change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from snnlib import checks
from snnlib.attacks.bit_flip import best_of
from snnlib.attacks.budget import Budget
from snnlib.errors import InputError
from snnlib.runtime import sent


@dataclass(frozen=True)
class Retiming(Budget):
    """Events move in time alone: no pixel, polarity or number of events changes.

    eps: the largest shift of an event, in bins. moves: how many events may move, None = all. Events of one pixel and
    polarity look alike, so the k-th of them counts as the k-th afterwards: no other reading has a smaller largest
    shift; an event has moved where its cell is empty now. A cell holds one event at most.
    **Source:** the budgets B∞ (jitter) and B0 (moves) with capacity 1 of the retiming attack of ICLR 2026, by their
    description; its B1, the sum of all shifts, is left out.
    Errors: InputError for an eps or `moves` that is no whole number.
    """

    norm: str = "retiming"
    space: str = "encoded"
    moves: int | None = None

    def __post_init__(self) -> None:
        if self.norm != "retiming" or self.space != "encoded":
            raise InputError(f"a Retiming has norm {self.norm!r}, space {self.space!r}; leave both out")
        jitter = self.eps if isinstance(self.eps, bool) or self.eps != int(self.eps) else int(self.eps)
        object.__setattr__(self, "eps", float(checks.whole("eps", jitter, at_least=0)))
        if self.moves is not None:
            object.__setattr__(self, "moves", checks.whole("moves", self.moves, at_least=0))

    def project(self, x: Tensor, origin: Tensor) -> Tensor:
        """`x` as it is: every point that is tried is a raster inside the budget."""
        return x

    def steepest(self, gradient: Tensor) -> Tensor:
        """Errors: InputError."""
        raise InputError("a Retiming has no small steps: an event moves by whole bins; use attacks.events.retime")

    def random_start(self, origin: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Random moves: one at most per pixel and polarity, `moves` in all where there is that much to move."""
        draws = [torch.randn(origin.shape[1:], dtype=origin.dtype, generator=generator) for generator in generators]
        slope = sent(torch.stack(draws), origin.device)
        most = origin[0].numel() if self.moves is None else self.moves
        count = torch.full((len(origin),), most, device=origin.device)
        return self.moved(origin, origin, slope, torch.zeros_like(origin, dtype=torch.bool), count)[0]

    def inside(self, x: Tensor, origin: Tensor, tolerance: float = 1e-6) -> Tensor:
        """[N] bool: a 0/1 raster with the same events, none of them shifted too far, and few enough moved."""
        spikes = ((x == 0) | (x == 1)).flatten(1).all(1)
        vacated = ((origin == 1) & (x == 0)).flatten(1).sum(1)
        few = torch.ones_like(spikes) if self.moves is None else vacated <= self.moves
        return spikes & few & _shifted_by(x, origin, int(self.eps))

    def moved(self, x: Tensor, origin: Tensor, slope: Tensor, barred: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """The next raster to test, and the cells that it leaves; [n, T, ...] both. For `bit_flip.search`.

        To first order, a move from cell a to an empty cell b of its line (pixel and polarity) is worth slope_b −
        slope_a. Of every line the best admissible move is looked at; the `count` best of those are made.
        """
        left = None if self.moves is None else self.moves - ((origin == 1) & (x == 0)).flatten(1).sum(1)
        worth, shift = self._best_moves(x, origin, slope, barred, left)
        best, source = worth.max(1)  # one move per line and round, so that no two meet
        shift = shift.gather(1, source.unsqueeze(1)).squeeze(1)
        target = (source + shift).clamp(0, x.shape[1] - 1)
        lines, most = best.flatten(1), min(int(count.max()), best[0].numel()) if len(count) else 0
        top = best_of(lines, lines > 0, most)
        chosen = top.there & (top.ranks < count[:, None])
        if left is not None:
            costs = _at(origin, source) - _at(origin, target)
            costs = costs.flatten(1).gather(1, top.indices) * chosen
            chosen &= (costs.clamp(min=0).cumsum(1) <= left[:, None]) | (costs <= 0)
        move = torch.zeros_like(lines, dtype=torch.bool).scatter(1, top.indices, chosen).view_as(best).unsqueeze(1)
        steps = torch.arange(x.shape[1], device=x.device).view(1, -1, *[1] * (x.dim() - 2))
        leaves, enters = move & (steps == source.unsqueeze(1)), move & (steps == target.unsqueeze(1))
        return torch.where(enters, 1.0, torch.where(leaves, 0.0, x)).to(x.dtype), leaves

    def _best_moves(
        self, x: Tensor, origin: Tensor, slope: Tensor, barred: Tensor, left: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of each cell's event: worth of its best move (−inf: none) and by how many bins; [n, T, ...] both."""
        time_steps, jitter = x.shape[1], int(self.eps)
        low, high = _bounds(origin, jitter)
        counts = x.cumsum(1)
        worth, shift = torch.full_like(x, -torch.inf), torch.zeros_like(x, dtype=torch.int64)
        open_later, open_earlier = (torch.ones_like(x, dtype=torch.bool) for _ in range(2))
        free = (x == 1) & ~barred
        for distance in range(1, min(2 * jitter, time_steps - 1) + 1):
            # An event may pass a bin where the k-th events there have room left; see `_bounds`.
            open_later &= _seen((counts - low) >= 1, distance - 1)
            open_earlier &= _seen((high - counts) >= 1, -distance)
            for by, passes in ((distance, open_later), (-distance, open_earlier)):
                admissible = free & passes & _seen(x == 0, by)
                if left is not None:
                    cost = origin - _seen(origin, by)
                    admissible &= cost <= left.view(-1, *[1] * (x.dim() - 1))
                gain = torch.where(admissible, _seen(slope, by) - slope, -torch.inf)
                better = gain > worth
                worth, shift = torch.where(better, gain, worth), torch.where(better, by, shift)
        return worth, shift


def changes(before: Tensor, after: Tensor) -> pd.DataFrame:
    """What an attack did to rasters [N, T, ...], sample-first: a row each.

    events: cells with an event before. added, removed: cells that hold one afterwards alone, or before alone. changed:
    both together, the L0 distance; cells with a value between 0 and 1 count. fractional: cells of such a value, which
    no recording has. jitter: largest shift in bins where every pixel and polarity keeps its number of events, else −1.
    """
    fractional = (after != after.round()).flatten(1).sum(1)
    jitter = torch.full((len(before),), -1)
    for bins in reversed(range(before.shape[1])):
        jitter[_shifted_by(after, before, bins).cpu()] = bins
    counted = {
        "events": before > 0,
        "added": (before == 0) & (after > 0),
        "removed": (before > 0) & (after == 0),
        "changed": before != after,
    }
    sums = {name: cells.flatten(1).sum(1).cpu().numpy() for name, cells in counted.items()}
    return pd.DataFrame({**sums, "fractional": fractional.cpu().numpy(), "jitter": jitter.numpy()})


def _bounds(origin: Tensor, jitter: int) -> tuple[Tensor, Tensor]:
    """[n, T, ...] fewest and most events of a line up to each bin if none is shifted by more than `jitter`."""
    counts = origin.cumsum(1)
    whole = counts[:, -1:].expand_as(counts)
    later, earlier = counts[:, : max(0, origin.shape[1] - jitter)], counts[:, jitter:]
    low = torch.cat([torch.zeros_like(counts[:, : origin.shape[1] - later.shape[1]]), later], 1)
    return low, torch.cat([earlier, whole[:, : origin.shape[1] - earlier.shape[1]]], 1)


def _shifted_by(x: Tensor, origin: Tensor, jitter: int) -> Tensor:
    """[n] bool: every line has its number of events, the k-th of each within `jitter` bins of where it was."""
    low, high = _bounds(origin, jitter)
    counts = x.cumsum(1)
    fits = (counts >= low) & (counts <= high)
    return fits.flatten(1).all(1) & (counts[:, -1:] == origin.sum(1, keepdim=True)).flatten(1).all(1)


def _seen(values: Tensor, by: int) -> Tensor:
    """What lies `by` bins later (earlier, if negative) than each cell; beyond the ends 0."""
    if by == 0:
        return values
    gap = torch.zeros_like(values[:, : min(abs(by), values.shape[1])])
    return torch.cat([values[:, by:], gap], 1) if by > 0 else torch.cat([gap, values[:, :by]], 1)


def _at(values: Tensor, step: Tensor) -> Tensor:
    return values.gather(1, step.unsqueeze(1)).squeeze(1)
