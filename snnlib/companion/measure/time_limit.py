"""`--time-limit`: the second after which nothing new starts, for this process and those that it starts."""

from __future__ import annotations

import os
import re
import time

from snnlib.errors import InputError

UNITS = {"s": 1, "m": 60, "h": 3600}
VARIABLE = "SNNLIB_DEADLINE"


class OutOfTime(Exception):
    """The time limit came before the work was done; what is finished is stored."""


def set_time_limit(text: str) -> None:
    """From now on; see `seconds_of`."""
    os.environ[VARIABLE] = str(time.time() + seconds_of(text))


def is_out_of_time() -> bool:
    """Whether the time limit of this run has passed."""
    return time.time() >= float(os.environ.get(VARIABLE, "inf"))


def seconds_left() -> float | None:
    """Seconds until the time limit; None without one. Raises OutOfTime when it has passed."""
    deadline = os.environ.get(VARIABLE)
    if deadline is None:
        return None
    if (left := float(deadline) - time.time()) <= 0:
        raise OutOfTime("the time limit has passed; start again to go on")
    return left


def seconds_of(text: str) -> float:
    """"90s", "100m" or "8h" in seconds. Raises InputError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found or float(found[1]) <= 0:
        raise InputError(f"time limit is {text!r}; expected a number and s, m or h, such as 100m")
    return float(found[1]) * UNITS[found[2]]
