"""Event files of two published data sets: DVS-Gesture (AEDAT 3.1) and CIFAR10-DVS (AEDAT 2.0), 128 × 128 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snnlib.data.events.recording import checked, recording
from snnlib.errors import InputError

SIDE = 128
PACKET = np.dtype(
    [("type", "<i2"), ("source", "<i2"), ("size", "<i4"), ("offset", "<i4"), ("overflow", "<i4"),
     ("capacity", "<i4"), ("number", "<i4"), ("valid", "<i4")]
)  # fmt: skip
POLARITY = 1
"""Type of a packet of polarity events, 8 bytes each: 32 bits of data, 32 bits of time in µs."""
GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise",
    "left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip
CIFAR_TEST = 0.1
"""Share of each class that is our test split: CIFAR10-DVS comes without one."""


def read_aedat31(path: Path) -> np.ndarray:
    """All valid polarity events of an AEDAT 3.1 file; packets of other types are passed over.

    Data bits, from the lowest: valid, polarity, 15 of y, 15 of x; the time's upper bits are the packet's overflow
    counter. **Source:** the AEDAT 3.1 description of iniVation. Errors: InputError for a file that ends in a packet.
    """
    content, parts = path.read_bytes(), []
    place = _after_header(content, path)
    while place < len(content):
        if place + PACKET.itemsize > len(content):
            raise InputError(f"{path} ends inside a packet header at byte {place}: truncated")
        head = np.frombuffer(content, PACKET, 1, place)[0]
        place += PACKET.itemsize
        size, capacity, number = int(head["size"]), int(head["capacity"]), int(head["number"])
        if size <= 0 or not 0 <= number <= capacity:
            raise InputError(f"{path} has a packet of {number} of {capacity} events of {size} bytes: corrupt")
        if place + size * capacity > len(content):
            raise InputError(f"{path} ends inside a packet of {capacity} events at byte {place}: truncated")
        if head["type"] == POLARITY and number:
            if size != 8:
                raise InputError(f"{path} has polarity events of {size} bytes, expected 8: corrupt or another format")
            data, time = np.frombuffer(content, "<u4", 2 * number, place).reshape(-1, 2).T.astype(np.int64)
            parts.append(np.stack([data, time + (int(head["overflow"]) << 31)])[:, data & 1 == 1])
        place += size * capacity
    data, time = np.concatenate(parts or [np.zeros((2, 0), np.int64)], axis=1)
    return checked(recording(data >> 17 & 0x7FFF, data >> 2 & 0x7FFF, time, data >> 1 & 1), SIDE, SIDE, str(path))


def read_cifar10_dvs(path: Path) -> np.ndarray:
    """One recording of CIFAR10-DVS, AEDAT 2.0: big-endian pairs of address and time in µs.

    Address bits, from the lowest: polarity (0 = ON), 7 of x and, from bit 8, 7 of y, both counted from the far end.
    The order of arrival is not always that of time, so events are sorted, equal times left in their order.
    **Source:** jAER's format; the flips are those of the authors' conversion as SpikingJelly has it.
    Errors: InputError for a truncated or an empty file.
    """
    content = path.read_bytes()
    place = _after_header(content, path)
    if (len(content) - place) % 8:
        raise InputError(f"{path} has {len(content) - place} bytes of events, expected 8 each: truncated")
    address, time = np.frombuffer(content, ">u4", offset=place).reshape(-1, 2).T.astype(np.int64)
    x, y = SIDE - 1 - (address >> 8 & 0x7F), SIDE - 1 - (address >> 1 & 0x7F)
    order = np.argsort(time, kind="stable")
    return checked(recording(x, y, time, 1 - (address & 1))[order], SIDE, SIDE, str(path))


def gestures_of(folder: Path, split: str) -> list[tuple[np.ndarray, int]]:
    """The gestures of DVS-Gesture's "train" or "test" trials: events from a start to before an end, with their class.

    folder: with trials_to_train.txt, trials_to_test.txt, and per trial an .aedat file and its _labels.csv (header;
    class from 1, start, end in µs). Errors: InputError for what is missing, damaged or without events.
    """
    found = []
    for name in _lines(folder / f"trials_to_{split}.txt"):
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing, but named in trials_to_{split}.txt: unpack DVS-Gesture again")
        events, table = read_aedat31(path), path.with_name(f"{path.stem}_labels.csv")
        for line in _lines(table)[1:]:
            try:
                label, start, end = map(int, line.split(","))
            except ValueError:
                label, start, end = 0, 0, 0
            if not 1 <= label <= len(GESTURES):
                raise InputError(f"{table} has the line {line!r}; expected class 1..11, start, end in microseconds")
            first, last = np.searchsorted(events["t"], (start, end))
            found.append((checked(events[first:last], SIDE, SIDE, f"{path}, {start}..{end} us,"), label - 1))
    return found


def cifar_files(folder: Path, class_names: tuple[str, ...], split: str) -> list[tuple[Path, int]]:
    """CIFAR10-DVS's files <class>/*.aedat with their classes; the last tenth of each class by number is "test"."""
    found = []
    for label, name in enumerate(class_names):
        files = sorted((folder / name).glob("*.aedat"), key=lambda path: (len(path.stem), path.stem))
        if len(files) < 2:
            raise InputError(f"{folder / name} has {len(files)} .aedat files; expected CIFAR10-DVS, a folder per class")
        held_out = max(1, round(CIFAR_TEST * len(files)))
        found += [(path, label) for path in (files[-held_out:] if split == "test" else files[:-held_out])]
    return found


def _after_header(content: bytes, path: Path) -> int:
    """Where the lines that begin with # end."""
    if not content.startswith(b"#!AER-DAT"):
        raise InputError(f"{path} does not begin with #!AER-DAT; expected an AEDAT file: get it again")
    place = 0
    while content[place : place + 1] == b"#":
        end = content.find(b"\n", place)
        place = len(content) if end < 0 else end + 1
    return place


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path} is missing; expected DVS-Gesture's files in one folder: unpack it again")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
