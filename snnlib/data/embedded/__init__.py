"""Reads the embedded CIFAR-10 subset: lossless WebP mosaics, one per class and split (see ORIGIN.md)."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError

FOLDER = Path(__file__).parent
IMAGES_PER_CLASS = {"train": 500, "test": 100}
COLUMNS = 25
SIDE = 32
_REMEDY = "restore snnlib/data/embedded from the repository"


def mosaic_name(split: str, class_name: str) -> str:
    return f"{split}_{class_name}.webp"


def unpack_mosaic(packed: bytes) -> np.ndarray:
    """Images uint8 [N, 3, 32, 32] of a mosaic, read row by row."""
    with Image.open(io.BytesIO(packed), formats=["WEBP"]) as picture:
        mosaic = np.asarray(picture.convert("RGB"))
    rows = mosaic.shape[0] // SIDE
    tiles = mosaic.reshape(rows, SIDE, COLUMNS, SIDE, 3)
    return np.ascontiguousarray(tiles.transpose(0, 2, 4, 1, 3)).reshape(rows * COLUMNS, 3, SIDE, SIDE)


def read_embedded(folder: Path = FOLDER) -> tuple[ImageSet, ImageSet]:
    """The embedded CIFAR-10 images as (train, test): 500 and 100 per class, in the order of the original.

    Raises InputError where a file is missing or does not have its recorded checksum.
    """
    checksums = json.loads(_read(folder / "checksums.json"))
    selection = json.loads(_checked(folder / "selection.json", checksums))
    train, test = (_read_split(split, selection[split], folder, checksums) for split in ("train", "test"))
    return train, test


def _read_split(split: str, selected: dict[str, list[int]], folder: Path, checksums: dict) -> ImageSet:
    original_index, labels, images = [], [], []
    for label, (class_name, positions) in enumerate(selected.items()):
        original_index += positions
        labels += [label] * len(positions)
        images.append(unpack_mosaic(_checked(folder / mosaic_name(split, class_name), checksums)))
    order = torch.tensor(original_index).argsort()
    return ImageSet(torch.from_numpy(np.concatenate(images))[order], torch.tensor(labels)[order])


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path} is missing, expected the embedded CIFAR-10 subset: {_REMEDY}")
    return path.read_bytes()


def _checked(path: Path, checksums: dict) -> bytes:
    content = _read(path)
    found, expected = hashlib.sha256(content).hexdigest(), checksums[path.name]["sha256"]
    if found != expected:
        raise InputError(f"{path} has SHA-256 {found[:12]}…, expected {expected[:12]}…: {_REMEDY}")
    return content
