"""`load_images`: one call for every image data set, always split into train, validation and test."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from snnlib import checks
from snnlib.data.cifar10 import CLASS_NAMES, read_cifar10
from snnlib.data.embedded import read_embedded
from snnlib.data.image_set import ImageSet, ImageSplits, check_labels, split_train_validation
from snnlib.data.tinyimagenet import read_tinyimagenet
from snnlib.data.torchvision_sets import Originals, read_cifar100, read_svhn
from snnlib.errors import InputError
from snnlib.files import user_path

__all__ = ["DATA_SETS", "SUBSETS", "ImageSet", "ImageSplits", "load_images", "split_train_validation"]

DATA_SETS: dict[str, Callable[[Path], Originals]] = {
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "svhn": read_svhn,
    "tinyimagenet": read_tinyimagenet,
}
SUBSETS = ("embedded", "whole")


def load_images(
    name: str = "cifar10",
    *,
    subset: str = "embedded",
    data_dir: Path | str | None = None,
    validation_fraction: float = 0.1,
    train_per_class: int | None = None,
    test_per_class: int | None = None,
    seed: int = 0,
) -> ImageSplits:
    """Load a data set and hold out validation images from its training images, class by class.

    name: "cifar10", "cifar100", "svhn" or "tinyimagenet".
    subset: "whole", or "embedded" (CIFAR-10 only, 500 + 100 images per class, no download).
    data_dir: folder with the whole data set, or for its download; `default_folder()` otherwise.
    validation_fraction, seed: how many training images per class are held out, and which.
    train_per_class, test_per_class: keep only the first images of each class, before anything is held out.

    The test split is the published one and plays no part in the choice of validation images.
    Raises InputError: unknown name or subset, missing folder, damaged files, no network.

    >>> splits = load_images("cifar10")
    >>> len(splits.train), len(splits.validation), len(splits.test)
    (4500, 500, 1000)
    >>> few = splits.test.first_per_class(2)
    >>> few.batch(slice(None)).shape, few.labels.bincount().tolist()
    (torch.Size([20, 3, 32, 32]), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    checks.choice("data set", name, DATA_SETS)
    checks.choice("subset", subset, SUBSETS)
    if train_per_class is not None:
        checks.whole("train_per_class", train_per_class)
    if test_per_class is not None:
        checks.whole("test_per_class", test_per_class)
    folder = None if data_dir is None else user_path(data_dir)
    if folder is not None and not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise InputError(f"data folder {data_dir} {what}: correct the path or create it")
    train, test, class_names = _originals(name, subset, folder)
    for split in (train, test):  # before the hold-out, which looks at every class by itself
        check_labels(split, len(class_names), f"labels of {name}")
    train = train if train_per_class is None else train.first_per_class(train_per_class)
    test = test if test_per_class is None else test.first_per_class(test_per_class)
    train, validation = split_train_validation(train, validation_fraction, seed)
    return ImageSplits(name, train, validation, test, len(class_names), class_names)


def default_folder() -> Path:
    """Where whole data sets are kept: `SNNLIB_DATA`, else `snnlib/data` in the user's cache (`XDG_CACHE_HOME`)."""
    if os.environ.get("SNNLIB_DATA"):
        return user_path(os.environ["SNNLIB_DATA"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snnlib" / "data"


def _originals(name: str, subset: str, folder: Path | None) -> Originals:
    if subset == "whole":
        return DATA_SETS[name](folder or default_folder())
    if name != "cifar10":
        raise InputError(f"data set {name!r} has no embedded subset, only cifar10 has: use subset='whole'")
    return *read_embedded(), CLASS_NAMES
