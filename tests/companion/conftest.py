"""Experiments at toy size: made-up images, a profile that trains in a moment, artifacts in a folder of the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snnlib.companion import paths
from snnlib.companion.measure import networks as common
from snnlib.companion.measure.networks import Network, TrainedNetwork
from snnlib.companion.measure.store import Artifact, name_of
from snnlib.companion.sizes import PROFILES, Profile
from snnlib.data import ImageSet, ImageSplits
from snnlib.models import Model
from snnlib.neurons import use_kernel
from snnlib.tensor_files import state_digest
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
    return replace(PROFILES["smoke"], **toy, inspected_per_class=1, eps_levels=(2, 6), depths=(18,))


@pytest.fixture
def artifacts(home: Path, splits: ImageSplits, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty artifacts folder, `splits` in the place of CIFAR-10, on the CPU."""
    monkeypatch.setenv("SNNLIB_DEVICE", "cpu")
    monkeypatch.setattr(common, "load_profile_images", lambda profile, data_dir=None: splits)
    with use_kernel("reference"):
        yield paths.ARTIFACTS


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many epochs were trained, and by kind how many results were made, as it happens."""
    counts: Counter[str] = Counter()
    train_epoch, complete = loop.train_epoch, Artifact.complete

    def counted_epoch(*arguments, **options):
        counts["epochs"] += 1
        return train_epoch(*arguments, **options)

    def counted_result(self: Artifact, *arguments) -> None:
        counts[self.kind] += 1
        complete(self, *arguments)

    monkeypatch.setattr(loop, "train_epoch", counted_epoch)
    monkeypatch.setattr(Artifact, "complete", counted_result)
    return counts


@pytest.fixture
def wrap() -> Callable[..., TrainedNetwork]:
    """A function that makes a `TrainedNetwork` of a model that nobody trained and the images it is tested on."""

    def wrapped(model: Model, test: ImageSet, label: str = "toy", seed: int = 0, key: str = "") -> TrainedNetwork:
        key = key or name_of({"model": repr(model), "weights": state_digest(model.state_dict())})
        classes = int(test.labels.max()) + 1
        splits = ImageSplits("made-up", test, test, test, classes, CLASSES[:classes])
        return TrainedNetwork(Network(label, "toy"), seed, model, None, key, splits, "cpu")

    return wrapped
