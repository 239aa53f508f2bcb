"""`load_events`: published event data sets from a folder, binned and split like images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from snnlib import checks
from snnlib.data.cifar10 import CLASS_NAMES as CIFAR10_NAMES
from snnlib.data.events import aedat, nmnist
from snnlib.data.events.event_set import EventSet
from snnlib.data.events.recording import recording, to_bins
from snnlib.data.image_set import ImageSplits, split_train_validation
from snnlib.errors import InputError
from snnlib.files import user_path
from snnlib.progress import progress

Labelled = Iterable[tuple[np.ndarray, int]]


def _nmnist(folder: Path, split: str) -> Labelled:
    files = nmnist.files_of(folder, {"train": "Train", "test": "Test"}[split])
    return ((nmnist.read_recording(path), label) for path, label in progress(files, label=f"N-MNIST, {split}"))


def _cifar10_dvs(folder: Path, split: str) -> Labelled:
    files = aedat.cifar_files(folder, CIFAR10_NAMES, split)
    return ((aedat.read_cifar10_dvs(path), label) for path, label in progress(files, label=f"CIFAR10-DVS, {split}"))


SETS: dict[str, tuple[Callable[[Path, str], Labelled], int, tuple[str, ...]]] = {
    "nmnist": (_nmnist, nmnist.SIDE, nmnist.CLASS_NAMES),
    "dvs-gesture": (aedat.gestures_of, aedat.SIDE, aedat.GESTURES),
    "cifar10-dvs": (_cifar10_dvs, aedat.SIDE, CIFAR10_NAMES),
}
"""Name: reader of a split, pixels of a side, class names."""


def load_events(
    name: str,
    data_dir: Path | str,
    *,
    bins: int = 8,
    rule: str = "time",
    shrink: int = 1,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> ImageSplits:
    """Binned recordings, 0 or 1 per cell, split into train, validation (by class, from train) and test.

    name: "nmnist", "dvs-gesture" or "cifar10-dvs", whose published layout `data_dir` has. bins, rule: see
    `bin_numbers`. shrink: x and y are divided by it, so that 4 makes 128 pixels 32 (their number need not divide).
    Errors: InputError for an unknown name, a missing folder, damaged files.
    """
    checks.choice("event data set", name, SETS)
    shrink = checks.whole("shrink", shrink)
    folder, (read, side, class_names) = user_path(data_dir), SETS[name]
    if not folder.is_dir():
        raise InputError(f"data folder {data_dir} is no folder: unpack {name} and give its folder")
    side = -(-side // shrink)
    train, test = (event_set(read(folder, split), bins, side, rule, shrink) for split in ("train", "test"))
    train, validation = split_train_validation(train, validation_fraction, seed)
    return ImageSplits(name, train, validation, test, len(class_names), class_names)


def event_set(labelled: Labelled, bins: int, side: int, rule: str = "time", shrink: int = 1) -> EventSet:
    """Recordings with their labels as one `EventSet` of `side` × `side` pixels; coordinates divided by `shrink`."""
    rasters, labels = [], []
    for events, label in labelled:
        if shrink > 1:
            events = recording(events["x"] // shrink, events["y"] // shrink, events["t"], events["p"])
        rasters.append(to_bins(events, bins, side, side, rule=rule))
        labels.append(label)
    if not rasters:
        raise InputError("no recordings; expected one or more with their labels")
    return EventSet(torch.stack(rasters), torch.tensor(labels, dtype=torch.int64))
