"""Make the embedded CIFAR-10 subset from the original binary files.

    python -m snnlib.data.embedded.make_embedded FOLDER_WITH_THE_SIX_BIN_FILES

Rule: of each class the first 500 images of the training files (data_batch_1 … data_batch_5, in this order)
and the first 100 of test_batch. Nothing is random: the same original files give the same pixels. The bytes of
the mosaics depend on the WebP encoder; the checksums of the decoded pixels do not.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from snnlib.data.checked_files import Checksums
from snnlib.data.cifar10 import BIN_MD5, CLASS_NAMES, read_bin_folder
from snnlib.data.embedded import COLUMNS, FOLDER, IMAGES_PER_CLASS, mosaic_name, unpack_mosaic
from snnlib.data.images import ImageSet
from snnlib.errors import InputError
from snnlib.files import write_atomic
from snnlib.progress import progress


def select(images: ImageSet, per_class: int) -> dict[str, list[int]]:
    """Positions in the original files of the first `per_class` images of each class, by class name."""
    labels = images.labels.numpy()
    return {
        name: np.flatnonzero(labels == label)[:per_class].tolist() for label, name in enumerate(CLASS_NAMES)
    }


def pack_mosaic(images: np.ndarray) -> bytes:
    """Lossless WebP of images uint8 [N, 3, 32, 32], laid out row by row, `COLUMNS` images wide."""
    count, channels, height, width = images.shape
    tiles = images.reshape(count // COLUMNS, COLUMNS, channels, height, width)
    mosaic = tiles.transpose(0, 3, 1, 4, 2).reshape(count // COLUMNS * height, COLUMNS * width, channels)
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(mosaic))
    picture.save(buffer, "WEBP", lossless=True, exact=True, method=6, quality=100)
    return buffer.getvalue()


def make(source: Path, target: Path, source_checksums: Checksums = BIN_MD5) -> None:
    """Write the twenty mosaics, selection.json and checksums.json into `target`."""
    originals = dict(zip(("train", "test"), read_bin_folder(source, source_checksums), strict=True))
    selection = {split: select(originals[split], count) for split, count in IMAGES_PER_CLASS.items()}
    checksums: dict[str, dict[str, str]] = {}
    jobs = [(split, name) for split in selection for name in CLASS_NAMES]
    for split, name in progress(jobs, label="packing mosaics"):
        pixels = originals[split].images[selection[split][name]].numpy()
        packed = pack_mosaic(pixels)
        if not np.array_equal(unpack_mosaic(packed), pixels):
            raise RuntimeError(f"the WebP encoder changed pixels of {split} {name}")
        file_name = mosaic_name(split, name)
        write_atomic(target / file_name, packed)
        checksums[file_name] = {
            "sha256": hashlib.sha256(packed).hexdigest(),
            "pixels_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        }
    listing = json.dumps(selection, separators=(",", ":")).replace("],", "],\n").replace("},", "},\n") + "\n"
    write_atomic(target / "selection.json", listing)
    checksums["selection.json"] = {"sha256": hashlib.sha256(listing.encode()).hexdigest()}
    write_atomic(target / "checksums.json", json.dumps(checksums, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with the six .bin files of CIFAR-10")
    parser.add_argument("--target", type=Path, default=FOLDER, help="folder to write into")
    arguments = parser.parse_args()
    try:
        make(arguments.source, arguments.target)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
