"""Labelled images in memory, and the split that every training set goes through."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from snnlib import checks
from snnlib.errors import InputError
from snnlib.runtime import sent

Index = slice | Sequence[int] | Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images uint8 [N, C, H, W] with labels int64 [N], kept on the CPU in the order of their source."""

    images: Tensor
    labels: Tensor
    layout: ClassVar[str] = "[N, C, H, W]"

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != self.layout.count(",") + 1:
            found = f"{self.images.dtype} {list(self.images.shape)}"
            raise InputError(f"images are {found}, expected torch.uint8 {self.layout}: pass the stored bytes")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise InputError(f"labels are {found}, expected torch.int64 [{len(self.images)}]: one per image")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def key(self) -> str:
        """16 hex digits over pixels and labels: which images these are."""
        digest = hashlib.sha256(f"{list(self.images.shape)}".encode())
        digest.update(self.images.contiguous().numpy())
        digest.update(self.labels.contiguous().numpy())
        return digest.hexdigest()[:16]

    def batch(self, index: Index, device: torch.device | str = "cpu") -> Tensor:
        """Images float32 [n, C, H, W] in [0, 1] on `device`: byte / 255, the same floats on every device."""
        levels = sent(self.images[as_index(index)], device).to(torch.float32)
        # A tensor as divisor: CUDA divides by a Python number through its rounded inverse.
        return levels / torch.full((1,), 255.0, device=device)

    def take(self, index: Index) -> ImageSet:
        """The images and labels at `index` as a new set."""
        chosen = as_index(index)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def first_per_class(self, count: int) -> ImageSet:
        """The first `count` images of every class present, in the order of this set.

        Raises InputError where a class has fewer than `count` images.
        """
        count = checks.whole("count", count)
        labels = self.labels.numpy()
        positions = []
        for label in np.unique(labels):
            of_class = np.flatnonzero(labels == label)
            if len(of_class) < count:
                raise InputError(
                    f"{count} images per class asked for, class {label} has {len(of_class)}: lower the number"
                )
            positions.append(of_class[:count])
        return self.take(torch.from_numpy(np.sort(np.concatenate(positions))))


@dataclass(frozen=True, eq=False)
class ImageSplits:
    """A data set ready for use: train and validation are its training images, test is its own test split."""

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    num_classes: int
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for split in ("train", "validation", "test"):
            check_labels(getattr(self, split), self.num_classes, f"{split} labels of {self.name}")


def check_labels(images: ImageSet, num_classes: int, what: str) -> None:
    """Errors: InputError unless all labels are in 0..num_classes - 1."""
    if len(images) and not (images.labels.amin() >= 0 and images.labels.amax() < num_classes):
        found = f"{int(images.labels.amin())}..{int(images.labels.amax())}"
        raise InputError(
            f"the {what} are {found}, expected 0..{num_classes - 1}: the files are damaged or others, get them again"
        )


def split_train_validation(images: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split into (train, validation): `fraction` of each class, at least one image, goes to validation.

    Both keep the order of `images`. Raises InputError where a class is too small to give to both.
    """
    if not 0 < checks.number("validation_fraction", fraction) < 1:
        raise InputError(f"validation_fraction={fraction} is outside (0, 1): use for example 0.1")
    seed = checks.whole("seed", seed, at_least=0, at_most=2**32 - 1)
    labels = images.labels.numpy()
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(of_class)))
        if count >= len(of_class):
            raise InputError(
                f"class {label} has {len(of_class)} training images, of which validation_fraction={fraction}"
                " leaves none to train on: use more images per class or a smaller fraction"
            )
        # RandomState, because its stream is frozen: stored results keep their split when NumPy moves on.
        order = np.random.RandomState([seed, label]).permutation(of_class)
        held_out[order[:count]] = True
    positions = torch.from_numpy(held_out)
    return images.take(~positions), images.take(positions)


def as_index(index: Index) -> slice | Tensor:
    """What a tensor on the CPU can be indexed with."""
    return index if isinstance(index, slice) else torch.as_tensor(index).cpu()
