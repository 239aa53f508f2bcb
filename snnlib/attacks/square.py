"""Square: a random search over square windows, guided by the margin alone."""

from __future__ import annotations

import functools
import math
from numbers import Real

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget, unit_length
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count
from snnlib.attacks.queries import Noise, check_query_attack, labels_of, losses_of, query, record_some, uniform
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate
from snnlib.runtime import sent

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which the share of the image that a window covers is halved."""


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "margin",
    queries: int = 5000,
    p_init: float = 0.8,
) -> AttackResult:
    """Score-based random search: repaint a random square of the perturbation, keep it where the loss grows.

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. generator: gives the seed. gradient: unused, accepted so
    that all attacks are called alike. queries: points tried per sample. p_init: share of the image that the first
    windows cover. In encoded space the frames are further channels: one window for all, a sign for each.
    `first_successful_step` is the number of the query that fooled. A query that fooled is judged by one pass more, on
    a fresh draw of a randomised model, and so is the best point in the end: who holds out takes `queries` + 2 forwards.
    **Source:** Andriushchenko et al. 2020: algorithm 1 with 2 ("linf": vertical stripes first, then windows at ±eps) or
    3 ("l2": a grid of bumps first, then one window's length goes to another). Where we differ: windows also reach the
    lower and right border; a bump's orientation is drawn once per sample for the whole first grid; `HALVINGS` are
    scaled to `queries`, as AutoAttack does; the windows of an image of less than 3 x 3 pixels are single pixels.
    Errors: InputError for inputs or parameters that do not fit.
    """
    queries = check_count("queries", queries)
    check_query_attack("square", batch_norm, loss)
    if isinstance(p_init, bool) or not isinstance(p_init, Real) or not 0 < p_init <= 1:
        raise InputError(f"p_init is {p_init!r}; expected a share above 0 and at most 1; the paper has 0.8")
    with open_session(model, images, labels, budget, None, generator, batch_norm, loss) as session:
        if images.dim() < 4 or budget.norm not in ("linf", "l2"):
            raise InputError(
                f"square got images {list(images.shape)} and norm {budget.norm!r}; "
                "expected [N, C, H, W] and 'linf' or 'l2'; use another attack"
            )
        session.record_clean()
        _search(session, loss, queries, p_init)
        return session.result()


def window_share(tried: int, queries: int, p_init: float) -> float:
    """Share of the image that a window covers after `tried` of `queries` queries."""
    of_ten_thousand = tried * 10_000 // queries
    return p_init / 2 ** sum(of_ten_thousand > halving for halving in HALVINGS)


def _search(session: Session, loss: str, queries: int, p_init: float) -> None:
    """Random search: `x` is the accepted point, `best` its loss; whoever is fooled leaves."""
    if len(session.active) == 0:
        return
    budget, norm = session.budget, session.budget.norm
    repaint = _repainted if norm == "linf" else _moved_bump
    channels = session.origin.flatten(1, -3).shape[1]
    noise = Noise(session, per_query=channels + 5, first_draw=1)
    x, best = session.active_origin, torch.full_like(session.active, -torch.inf, dtype=session.origin.dtype)
    for tried in range(queries):
        origin, share = session.active_origin, window_share(tried, queries, p_init)
        if tried == 0:
            changed = (_stripes if norm == "linf" else _bumps)(session)
        else:
            changed = repaint(x.flatten(1, -3), origin.flatten(1, -3), budget.eps, share, noise.next().to(x.dtype))
        candidate = budget.project(changed.view_as(x), origin)
        logits = query(session, candidate)
        loss_there = losses_of(session, logits, loss)
        accepted = loss_there > best
        x = torch.where(accepted.view(-1, *[1] * (x.dim() - 1)), candidate, x)
        best = torch.where(accepted, loss_there, best)
        fooled = (logits.argmax(1) != labels_of(session)).nonzero().squeeze(1)
        if len(fooled):
            stay = record_some(session, candidate[fooled], fooled, tried + 1)
            if len(stay) == 0:
                return
            x, best = x[stay], best[stay]
            noise.keep(stay)
    session.record(x, queries)


# Below, points are seen as pictures [n, channels, H, W]; `numbers` are uniform in [0, 1).


def _stripes(session: Session) -> Tensor:
    """The start in "linf": every column of every channel at +eps or -eps."""
    origin = session.active_origin.flatten(1, -3)
    numbers = uniform(session, (origin.shape[1], 1, origin.shape[3]), draw=0)
    return origin + session.budget.eps * _signs(numbers).to(origin.dtype)


def _repainted(x: Tensor, origin: Tensor, eps: float, share: float, numbers: Tensor) -> Tensor:
    """One square window at +eps or -eps from the original, a sign for each channel."""
    height, width = x.shape[2:]
    side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
    window = _window(*_corner(numbers[:, :2], side, height, width), side, height, width)
    return torch.where(window, origin + eps * _signs(numbers[:, 2 : 2 + x.shape[1], None, None]), x)


def _bumps(session: Session) -> Tensor:
    """The start in "l2": bumps side by side on a grid of about 5 x 5, a sign for each and each channel, length eps."""
    origin = session.active_origin.flatten(1, -3)
    channels, height, width = origin.shape[1:]
    side = max(min(height, width) // 5, 1)
    grid = (height // side, width // side)
    numbers = uniform(session, (channels * grid[0] * grid[1] + 1,), draw=0)
    signs = _signs(numbers[:, 1:]).view(-1, channels, *grid).to(origin)
    tiles = _bump_on(side, origin)[(numbers[:, 0] < 0.5).long()].repeat(1, *grid).unsqueeze(1)
    bumps = tiles * signs.repeat_interleave(side, 2).repeat_interleave(side, 3)
    top, left = (height - side * grid[0]) // 2, (width - side * grid[1]) // 2
    delta = torch.zeros_like(origin)
    delta[:, :, top : top + side * grid[0], left : left + side * grid[1]] = bumps
    return origin + session.budget.eps * unit_length(delta)


def _moved_bump(x: Tensor, origin: Tensor, eps: float, share: float, numbers: Tensor) -> Tensor:
    """A bump is added in one window, another is emptied; the first takes the length of both and what is unused."""
    channels, height, width = x.shape[1:]
    side = min(max(round(math.sqrt(share * height * width)), 3), height, width)
    side -= 1 - side % 2
    delta, (top, left) = x - origin, _corner(numbers[:, :2], side, height, width)
    target = _window(top, left, side, height, width)
    emptied = _window(*_corner(numbers[:, 2:4], side, height, width), side, height, width)
    rows, columns = (_within(corner, side, length) for corner, length in ((top, height), (left, width)))
    pictures = _bump_on(side, x)[(numbers[:, 4] < 0.5).long()[:, None, None], rows[:, :, None], columns[:, None]]
    bump = pictures.unsqueeze(1) * _signs(numbers[:, 5 : 5 + channels, None, None])
    direction = torch.where(target, bump + _unit(delta * target), 0.0)
    unused = (eps**2 - (delta**2).sum((1, 2, 3), keepdim=True)).clamp_min(0)
    length = (unused / channels + (delta * (target | emptied)).square().sum((2, 3), keepdim=True)).sqrt()
    return origin + torch.where(target, _unit(direction) * length, torch.where(emptied, 0.0, delta))


def _bump_on(side: int, like: Tensor) -> Tensor:
    return sent(_bump(side).to(like.dtype), like.device)


@functools.lru_cache(maxsize=64)
def _bump(side: int) -> Tensor:
    """[2, side, side] the bump of length 1, float64, upright and lying: one half a pyramid up, the other one down.

    **Source:** Andriushchenko et al. 2020, equation 2: 1/(n+1-k)² summed over k, the wider the ring the fewer terms.
    """

    def pyramid(height: int) -> Tensor:
        rings = max(height, side) // 2
        heights = (1 / torch.arange(1, rings + 2, dtype=torch.float64) ** 2).flip(0).cumsum(0).flip(0)
        rows = (torch.arange(height) - height // 2).abs()
        columns = (torch.arange(side) - side // 2).abs()
        return heights[torch.maximum(rows[:, None], columns[None])]

    bump = torch.cat([pyramid(side // 2), -pyramid(side - side // 2)])
    bump = bump / torch.linalg.vector_norm(bump)
    return torch.stack([bump, bump.T])


def _signs(numbers: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0).to(numbers.dtype)


def _corner(numbers: Tensor, side: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """[n] top and left of a window of this side, everywhere that it fits."""
    top, left = numbers.unbind(1)
    top, left = (top * (height - side + 1)).long(), (left * (width - side + 1)).long()
    return top.clamp_max(height - side), left.clamp_max(width - side)


def _window(top: Tensor, left: Tensor, side: int, height: int, width: int) -> Tensor:
    """[n, 1, H, W] bool, the pixels of the window."""
    rows = torch.arange(height, device=top.device) - top[:, None]
    columns = torch.arange(width, device=left.device) - left[:, None]
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None]
    return inside.unsqueeze(1)


def _within(corner: Tensor, side: int, length: int) -> Tensor:
    """[n, length] for each row (or column) of the picture the nearest one of the window, counted from its corner."""
    return (torch.arange(length, device=corner.device) - corner[:, None]).clamp(0, side - 1)


def _unit(delta: Tensor) -> Tensor:
    """Each channel scaled to length 1; zero stays zero."""
    length = torch.linalg.vector_norm(delta, dim=(2, 3), keepdim=True)
    return delta / length.clamp_min(torch.finfo(delta.dtype).tiny)
