"""Learning-rate schedules as pure functions: (step, total steps) to a factor on the peak learning rate.

Steps count batches from 0. A function of the step needs no state, so nothing of it has to be saved. A schedule in
`PER_EPOCH` is asked once an epoch, at its first batch, and its factor holds until the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable

WARM_UP_SHARE = 0.3
FIRST_FACTOR = 1 / 25
LAST_FACTOR = FIRST_FACTOR / 1e4


def constant(step: int, total_steps: int) -> float:
    """1 at every step."""
    return 1.0


def cosine(step: int, total_steps: int) -> float:
    """½·(1 + cos(π·step/total)): from 1 towards 0, which would be reached one step after the last.

    **Source:** Loshchilov & Hutter 2017, without restarts. "cosine" takes a step per batch; "cosine-per-epoch" one per
    epoch, ½·(1 + cos(π·(epoch − 1)/epochs)), as PyTorch's CosineAnnealingLR does in Özdenizci & Legenstein's code.
    """
    return _half_wave(1.0, 0.0, step / total_steps)


def one_cycle(step: int, total_steps: int) -> float:
    """Half a cosine wave up from 1/25 to 1 over the first 30 % of the steps, another down to 1/250,000.

    **Source:** Smith & Topin 2018; the same numbers as PyTorch's OneCycleLR by default, without its momentum
    cycle. Runs of three steps or fewer have no rise.
    """
    peak = max(WARM_UP_SHARE * total_steps - 1, 0.0)
    if step < peak:
        return _half_wave(FIRST_FACTOR, 1.0, step / peak)
    if step == peak:
        return 1.0
    return _half_wave(1.0, LAST_FACTOR, (step - peak) / (total_steps - 1 - peak))


def _half_wave(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "cosine-per-epoch": cosine,
    "one-cycle": one_cycle,
}
PER_EPOCH = frozenset({"cosine-per-epoch"})


def factor_at(schedule: str, epoch: int, step: int, epochs: int, per_epoch: int) -> float:
    """The factor of a step; epoch and step count from 1, `per_epoch` steps in each of `epochs`."""
    first_of_epoch = (epoch - 1) * per_epoch
    done = first_of_epoch if schedule in PER_EPOCH else first_of_epoch + step - 1
    return SCHEDULES[schedule](done, epochs * per_epoch)
