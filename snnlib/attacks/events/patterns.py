"""Injected patterns: events added without any gradient, within an L0 budget."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib import checks
from snnlib.attacks.bit_flip import check_spikes
from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import open_session
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate
from snnlib.runtime import sent


def inject(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    pattern: str = "dash",
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "margin",
    tries: int = 4,
) -> AttackResult:
    """Add a pattern of events where the recording has none, k of them, at one place after the other.

    budget: `Budget(k, norm="l0", space="encoded")`, for rasters [T, N, 2, H, W]. pattern: "dash", a line that moves by
    a pixel per bin; "corner", a square that stands in a corner; "frame", the border. All grow until k
    cells have changed: pixel by pixel, each in all bins and both polarities. tries: of "dash", places and directions
    drawn for each sample; of "corner", corners (4 at most); "frame" has one. gradient: unused, as in `random_noise`.
    **Source:** the dash, corner and frame attacks of DVS-Attacks (Marchisio et al. 2021), which have no budget; growth
    up to a budget and the draw of the place are ours.
    Errors: InputError for inputs or parameters that do not fit, or a raster that is not 0/1.
    """
    checks.choice("pattern", pattern, PATTERNS)
    tries = min(check_count("tries", tries), {"corner": 4, "frame": 1}.get(pattern, tries))
    if batch_norm != "eval":
        raise InputError(f'batch_norm is {batch_norm!r}; a pattern is tested on the deployed network; use "eval"')
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        if budget.norm != "l0" or session.origin.dim() != 5:
            raise InputError(
                f"inject got norm {budget.norm!r} and {list(session.origin.shape)}; expected Budget(k, norm='l0', "
                "space='encoded') and events [T, N, 2, H, W]"
            )
        check_spikes(session)
        session.record_clean()
        for number in range(tries):
            if len(session.active) == 0:
                break
            origin = session.active_origin
            cells = [_cells(pattern, number, origin.shape[1:], one) for one in session.generators(number)]
            session.record(_added(origin, sent(torch.stack(cells), origin.device), int(budget.eps)), step=number + 1)
        return session.result()


def _added(origin: Tensor, cells: Tensor, most: int) -> Tensor:
    """`origin` [n, ...] with events in the first `most` empty ones of `cells` [n, k], flat places."""
    flat = origin.flatten(1)
    there = flat.gather(1, cells)
    new = (1 - there).cumsum(1) <= most
    return flat.scatter(1, cells, torch.where(new, torch.ones_like(there), there)).view_as(origin)


def _cells(pattern: str, number: int, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Flat places in [T, 2, H, W] in the order in which the pattern grows."""
    time_steps, polarities, height, width = shape
    row, column = PATTERNS[pattern](number, time_steps, height, width, generator)
    step = torch.arange(time_steps)
    places = (step[:, None] * polarities + torch.arange(polarities)) * height  # [T, 2]
    return ((places + row[..., None]) * width + column[..., None]).flatten()


def _dash(number: int, time_steps: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """[L, T] rows and columns: a column of pixels from a random place on, that moves left or right, around the edge."""
    start, first, side = (int(torch.randint(0, end, (), generator=generator)) for end in (height, width, 2))
    row = (start + torch.arange(height)).remainder(height)[:, None].expand(height, time_steps)
    column = (first + (2 * side - 1) * torch.arange(time_steps)).remainder(width).expand(height, time_steps)
    return row, column


def _corner(number: int, time_steps: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """[L, T]: the pixels by their distance from a corner."""
    row, column = _grid(height, width)
    down, right = height - 1 - row if number & 1 else row, width - 1 - column if number & 2 else column
    return _nearest_first(torch.maximum(down, right), time_steps)


def _frame(number: int, time_steps: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """[L, T]: the pixels by their distance from the border."""
    row, column = _grid(height, width)
    across, along = torch.minimum(row, height - 1 - row), torch.minimum(column, width - 1 - column)
    return _nearest_first(torch.minimum(across, along), time_steps)


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    return torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")


def _nearest_first(distance: Tensor, time_steps: int) -> tuple[Tensor, Tensor]:
    order = distance.flatten().argsort(stable=True)
    row, column = (place.flatten()[order][:, None].expand(-1, time_steps) for place in _grid(*distance.shape))
    return row, column


PATTERNS = {"dash": _dash, "corner": _corner, "frame": _frame}
