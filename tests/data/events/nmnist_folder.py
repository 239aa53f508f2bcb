"""`python tests/data/events/nmnist_folder.py recordings.npz.xz folder`: recordings in one archive to N-MNIST's layout.

The archive is an .npz, or one compressed by xz, with all events one after the other: x, y, p, dt (µs since the event
before; the first counts from 0) and per recording offset (one more than recordings), label and split (0 = train).
"""

from __future__ import annotations

import io
import lzma
import sys
from pathlib import Path

import numpy as np

from snnlib.data.events import nmnist, recording


def convert(archive: Path, folder: Path) -> None:
    packed = lzma.decompress(archive.read_bytes()) if archive.suffix == ".xz" else archive.read_bytes()
    with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
        columns = {name: stored[name] for name in stored.files}
    for number, split in enumerate(nmnist.SPLITS):
        labelled = []
        for place in np.flatnonzero(columns["split"] == number):
            part = slice(*columns["offset"][place : place + 2])
            times = np.cumsum(columns["dt"][part], dtype=np.int64)
            events = recording(columns["x"][part], columns["y"][part], times, columns["p"][part])
            labelled.append((events, int(columns["label"][place])))
        nmnist.write_folder(folder, split, labelled)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
