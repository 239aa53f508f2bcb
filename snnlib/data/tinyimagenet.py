"""TinyImageNet (200 classes, 64 × 64) from the folder layout of its archive.

    tiny-imagenet-200/wnids.txt                       one class id per line: the order of the labels
                      words.txt                       class id, tab, names separated by commas
                      train/<id>/images/*.JPEG        500 per class
                      val/images/*.JPEG, val/val_annotations.txt   50 per class: file, class id, box

The labels of its test folder are not public, so its val folder is our test split, as usual in the literature.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from snnlib import checks
from snnlib.data.image_set import ImageSet
from snnlib.data.torchvision_sets import Originals
from snnlib.errors import InputError
from snnlib.progress import progress

FOLDER_NAME = "tiny-imagenet-200"
ARCHIVE_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
SIDE = 64
PUBLISHED_SIZE = (100_000, 10_000)


def read_tinyimagenet(root: Path, published_size: tuple[int, int] = PUBLISHED_SIZE) -> Originals:
    """Read `root`/tiny-imagenet-200 (or `root` itself where it has that layout): (train, test, class names).

    Grey images become RGB. Files are taken in the order of their names, class after class. The archive has no
    published checksum, so completeness is judged by the number of images.
    Raises InputError where the folder, a file or an image is missing or cannot be decoded.
    """
    folder = root if (root / "wnids.txt").is_file() else root / FOLDER_NAME
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: unzip {ARCHIVE_URL} into {root}")
    class_ids = _class_ids(folder / "wnids.txt")
    label_of = {class_id: label for label, class_id in enumerate(class_ids)}
    train = _training_files(folder, label_of)
    test = _annotated_files(folder, label_of)
    for split, files, expected in zip(("training", "val"), (train, test), published_size, strict=True):
        if len(files) != expected:
            raise InputError(f"{folder} has {len(files)} {split} images, expected {expected}: {_REMEDY}")
    class_names = _class_names(folder, class_ids)
    return _decode(train, "TinyImageNet training"), _decode(test, "TinyImageNet val"), class_names


_REMEDY = f"unzip {ARCHIVE_URL} again"
_LabelledFiles = list[tuple[Path, int]]


def _class_ids(path: Path) -> list[str]:
    class_ids = _lines(path)
    wrong = next((line for line in class_ids if not re.fullmatch(r"n\d{8}", line)), None)
    if wrong is not None or not class_ids:
        raise InputError(f"{path} has the line {checks.shown(wrong)}, expected ids such as n01443537: {_REMEDY}")
    if len(set(class_ids)) < len(class_ids):
        twice = next(line for line in class_ids if class_ids.count(line) > 1)
        raise InputError(f"{path} has {twice} twice, expected every class once: {_REMEDY}")
    return class_ids


def _training_files(folder: Path, label_of: dict[str, int]) -> _LabelledFiles:
    files = []
    for class_id, label in label_of.items():
        images = folder / "train" / class_id / "images"
        if not images.is_dir():
            raise InputError(f"{images} is missing: {_REMEDY}")
        files += [(path, label) for path in sorted(images.glob("*.JPEG"))]
    return files


def _annotated_files(folder: Path, label_of: dict[str, int]) -> _LabelledFiles:
    annotations = folder / "val" / "val_annotations.txt"
    files = []
    for line in _lines(annotations):
        name, class_id, *_ = [*line.split("\t"), ""]
        if class_id not in label_of:
            raise InputError(f"{annotations} has the line {checks.shown(line)}, expected file and class: {_REMEDY}")
        files.append((folder / "val" / "images" / name, label_of[class_id]))
    return files


def _decode(files: _LabelledFiles, label: str) -> ImageSet:
    images = np.empty((len(files), 3, SIDE, SIDE), dtype=np.uint8)
    for slot, (path, _) in zip(images, progress(files, label=label), strict=True):
        slot[...] = _decode_image(path)
    return ImageSet(torch.from_numpy(images), torch.tensor([label for _, label in files], dtype=torch.int64))


def _decode_image(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image ({type(error).__name__}): {_REMEDY}") from error
    if pixels.shape != (SIDE, SIDE, 3):
        width, height = pixels.shape[1::-1]
        raise InputError(f"{path} is {width} × {height}, expected {SIDE} × {SIDE}: {_REMEDY}")
    return pixels.transpose(2, 0, 1)


def _class_names(folder: Path, class_ids: list[str]) -> tuple[str, ...]:
    words = dict(line.split("\t", 1) for line in _lines(folder / "words.txt") if "\t" in line)
    return tuple(words.get(class_id, class_id).split(",")[0] for class_id in class_ids)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path} is missing: {_REMEDY}")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text ({error.reason} at byte {error.start}): {_REMEDY}") from None
