"""One event recording: its form, what is checked, and how it becomes a tensor of bins.

A recording is a structured array with the fields x, y (pixels), t (whole numbers, by convention microseconds, in
ascending order) and p (0 = OFF, 1 = ON), one entry per event: tonic's convention, so that its data sets plug in. No
event is dropped or clipped anywhere without a word.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from snnlib import checks
from snnlib.errors import InputError

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.int8)])
LATEST = 2**53
"""Of a time stamp: times stay exact in float64, and products with a number of bins in int64."""
MOST_BINS = 2**10
RULES = ("time", "count")


def recording(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The columns as one structured array of `EVENT`, as they are; see `checked` for what must hold."""
    columns = [np.asarray(column) for column in (x, y, t, p)]
    events = np.empty(len(columns[0]), EVENT)
    for name, column in zip(EVENT.names, columns, strict=True):
        if len(column) and not np.can_cast(column.dtype, EVENT[name]):
            limits = np.iinfo(EVENT[name])
            if column.min() < limits.min or column.max() > limits.max:
                raise InputError(f"{name} reaches {column.max()}; expected at most {limits.max}; a -1 that wrapped?")
        events[name] = column
    return events


def checked(events: np.ndarray, height: int, width: int, name: str = "the recording") -> np.ndarray:
    """The recording as `EVENT`, of any structured array with these fields.

    Errors: InputError, one line that begins with `name`, for missing fields, no events, coordinates outside of the
    sensor (65535 is a -1 that wrapped), polarities other than 0 and 1, and times that are negative, beyond `LATEST`,
    or go back (a counter that overflowed).
    """
    fields = getattr(events, "dtype", np.dtype(float)).names or ()
    if missing := [field for field in EVENT.names if field not in fields]:
        raise InputError(f"{name} has no field {', '.join(missing)}; expected a structured array of x, y, t, p")
    if events.ndim != 1 or not len(events):
        raise InputError(f"{name} has {events.size} events in shape {list(events.shape)}; expected a row of some")
    if unfit := [field for field in EVENT.names if events[field].dtype.kind not in "iub"]:
        raise InputError(f"{name} has {unfit[0]} of type {events[unfit[0]].dtype}; expected whole numbers: convert it")
    for field, end in (("x", width), ("y", height)):
        lowest, highest = int(events[field].min()), int(events[field].max())
        if lowest < 0 or highest >= end:
            raise InputError(f"{name} has {field} in {lowest}..{highest}; expected 0..{end - 1}: the sensor is {width}"
                             f" x {height}")  # fmt: skip
    polarities = np.unique(events["p"])
    if not np.isin(polarities, (0, 1)).all():
        raise InputError(f"{name} has polarities {polarities[:4].tolist()}; expected 0 (OFF) and 1 (ON): map them")
    times = events["t"]
    if int(times.min()) < 0 or int(times.max()) > LATEST:
        raise InputError(f"{name} has times {times.min()}..{times.max()}; expected 0..2**53, in microseconds")
    times = times.astype(np.int64)  # before any difference: unsigned ones wrap
    if (back := np.flatnonzero(np.diff(times) < 0)).size:
        place = int(back[0])
        raise InputError(
            f"{name} goes back from t = {times[place]} to {times[place + 1]} at event {place + 1}; expected ascending "
            "times: sort them, or undo the overflow of the counter"
        )
    return recording(events["x"], events["y"], times, events["p"])


def bin_numbers(times: np.ndarray, bins: int, rule: str = "time") -> np.ndarray:
    """The bin of each event, 0..bins − 1. times: ascending.

    "time": with first and last time a and b, D = b − a + 1, an event at t is in bin ⌊(t − a)·bins / D⌋, in whole
    numbers: bins are half-open, an event on an edge belongs to the later one, and the last event to the last bin but
    where D < bins. "count": event number i of n is in bin ⌊i·bins / n⌋: bins differ by one event at most.
    """
    bins = checks.whole("bins", bins, at_most=MOST_BINS)
    checks.choice("rule", rule, RULES)
    if rule == "count":
        return np.arange(len(times)) * bins // max(1, len(times))
    since = times.astype(np.int64) - int(times[0])
    return since * bins // (int(since[-1]) + 1)


def to_bins(
    events: np.ndarray, bins: int, height: int, width: int, *, rule: str = "time", binary: bool = True
) -> Tensor:
    """The recording as `[bins, 2, height, width]`; channel 0 is OFF, 1 is ON.

    rule: "time" or "count", with the edges of `bin_numbers`. binary: uint8, 1 where a cell has an event or more; else
    int32 counts, whose sum is the number of events. Errors: InputError as `checked`.
    """
    events = checked(events, height, width)
    number = bin_numbers(events["t"], bins, rule)
    cell = ((number * 2 + events["p"]) * height + events["y"]) * width + events["x"]
    counts = np.bincount(cell, minlength=bins * 2 * height * width).reshape(bins, 2, height, width)
    return torch.from_numpy((counts > 0).astype(np.uint8) if binary else counts.astype(np.int32))


def from_bins(raster: Tensor, bin_time: int = 1000) -> np.ndarray:
    """A recording of a binned tensor [T, 2, H, W] of whole counts: each event in the middle of its bin.

    bin_time: length of a bin in the unit of t. For pictures, and to hand an attacked raster to other tools.
    """
    cells = raster.nonzero().numpy()
    bins, polarity, row, column = np.repeat(cells, raster[tuple(cells.T)].long().numpy(), axis=0).T
    return recording(column, row, bins * bin_time + bin_time // 2, polarity)
