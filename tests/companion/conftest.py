"""Experiments at toy size: made-up images, a profile that trains in a moment, artifacts in a folder of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snnlib.companion import paths
from snnlib.companion.measure import networks as common
from snnlib.companion.sizes import PROFILES, Profile
from snnlib.data import ImageSet, ImageSplits
from snnlib.neurons import use_kernel
from snnlib.training import loop

CLASSES = ("dark", "grey", "bright")


def _image_set(count: int, seed: int) -> ImageSet:
    """16x16 images of three classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 120, (count, 3, 16, 16), generator=generator)
    return ImageSet((noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


@pytest.fixture
def splits() -> ImageSplits:
    return ImageSplits("made-up", _image_set(24, 1), _image_set(9, 2), _image_set(12, 3), 3, CLASSES)


@pytest.fixture
def profile() -> Profile:
    toy = {"width": 4, "time_steps": 4, "epochs": 2, "batch_size": 12, "attack_batch_size": 5, "steps": 2}
    return replace(PROFILES["smoke"], name="toy", **toy, inspected_per_class=1, eps_levels=(2, 6), depths=(18,))


@pytest.fixture
def artifacts(home: Path, splits: ImageSplits, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty artifacts folder, `splits` in the place of CIFAR-10, on the CPU."""
    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    monkeypatch.setattr(common, "load_profile_images", lambda profile, data_dir=None: splits)
    with use_kernel("reference"):
        yield paths.ARTIFACTS


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many epochs were trained and how many plans were attacked, as they happen."""
    counts = {"epochs": 0, "plans": 0}

    def counting(name: str, function: Callable) -> Callable:
        def wrapped(*arguments, **options):
            counts[name] += 1
            return function(*arguments, **options)

        return wrapped

    monkeypatch.setattr(loop, "train_epoch", counting("epochs", loop.train_epoch))
    monkeypatch.setattr(common, "attack_rows", counting("plans", common.attack_rows))
    return counts
