"""N-MNIST in its published folder layout: Train/<digit>/*.bin and Test/<digit>/*.bin, 34 × 34 pixels.

A file has 5 bytes per event: x; y; the polarity (1 = ON) in bit 7 of the third byte; in its other 23 bits the time,
in µs, highest byte first. An entry with y = 240 is no event: it says that 2^13 µs are to be added to all later times.

**Source:** Orchard et al., Converting static image datasets to spiking neuromorphic datasets using saccades, 2015, and
the format description that comes with the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from snnlib.data.events.recording import checked, recording
from snnlib.errors import InputError
from snnlib.files import write_atomic

SIDE = 34
BYTES_PER_EVENT = 5
OVERFLOW_ROW, OVERFLOW_TIME = 240, 2**13
LARGEST_TIME = 2**23
SPLITS = ("Train", "Test")
CLASS_NAMES = tuple(map(str, range(10)))


def read_recording(path: Path) -> np.ndarray:
    """One recording, checked. Errors: InputError, which names the file."""
    packed = np.frombuffer(path.read_bytes(), np.uint8)
    if not len(packed) or len(packed) % BYTES_PER_EVENT:
        raise InputError(f"{path} has {len(packed)} bytes, expected 5 per event: truncated or no N-MNIST file")
    x, y, high, middle, low = packed.reshape(-1, BYTES_PER_EVENT).T.astype(np.int64)
    overflow = y == OVERFLOW_ROW
    t = ((high & 127) << 16 | middle << 8 | low) + OVERFLOW_TIME * np.cumsum(overflow)
    events = recording(x, y, t, high >> 7)[~overflow]
    return checked(events, SIDE, SIDE, str(path))


def write_recording(path: Path, events: np.ndarray) -> None:
    """`events` in the published format; 2^13 µs overflow entries where a time does not fit into 23 bits.

    Errors: InputError as `checked`.
    """
    events = checked(events, SIDE, SIDE, f"what is to be {path.name}")
    marks = np.maximum(0, (events["t"] - LARGEST_TIME) // OVERFLOW_TIME + 1)
    before = np.diff(marks, prepend=0)
    place = np.repeat(np.arange(len(events)), before + 1)
    is_event = np.diff(place, append=-1) != 0  # the last of those at one place
    t = np.where(is_event, (events["t"] - OVERFLOW_TIME * marks)[place], 0)
    columns = [
        np.where(is_event, events["x"][place], 0),
        np.where(is_event, events["y"][place], OVERFLOW_ROW),
        np.where(is_event, events["p"][place], 0).astype(np.int64) << 7 | t >> 16,
        t >> 8 & 255,
        t & 255,
    ]
    write_atomic(path, np.stack(columns, axis=1).astype(np.uint8).tobytes())


def write_folder(folder: Path, split: str, labelled: Iterable[tuple[np.ndarray, int]]) -> None:
    """Recordings with their digits as `folder`/`split`/<digit>/<number>.bin, numbered from 1."""
    for number, (events, label) in enumerate(labelled, start=1):
        target = folder / split / str(label)
        target.mkdir(parents=True, exist_ok=True)
        write_recording(target / f"{number:05d}.bin", events)


def files_of(folder: Path, split: str) -> list[tuple[Path, int]]:
    """The files of a split with their digits, by digit and name. Errors: InputError for a missing one."""
    found = []
    for name in CLASS_NAMES:
        files = sorted((folder / split / name).glob("*.bin"))
        if not files:
            raise InputError(f"{folder / split / name} has no .bin files; expected N-MNIST: Train/0..9, Test/0..9")
        found += [(path, int(name)) for path in files]
    return found
