"""Train a network or load it: what was trained is never trained again."""

from __future__ import annotations

import functools
import inspect
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pandas as pd

from snnlib.companion import paths
from snnlib.companion.measure.release import from_released, round_weights
from snnlib.companion.measure.store import Artifact, name_of, note_use, stored, used_networks
from snnlib.companion.measure.time_limit import OutOfTime, seconds_left
from snnlib.companion.measure.unreleased import published_history, take_weights_away
from snnlib.companion.sizes import Profile
from snnlib.data import ImageSet, ImageSplits, load_images
from snnlib.errors import InputError
from snnlib.models import Model, build_model
from snnlib.runtime import default_device
from snnlib.training import History, Recipe, fit, load_weights
from snnlib.training.accuracy import predictions
from snnlib.training.checkpoint import state_digest

CURVE_COLUMNS = ("epoch", "loss", "train_accuracy", "validation_accuracy", "learning_rate")
TRAINING_VERSION = 1
"""Raised when the same arguments would give another trained network."""
FROM_RELEASED = "SNNLIB_FROM_RELEASED"
"""Set by `run_all.sh --from-released`: a profile whose networks are released trains none."""


@dataclass(frozen=True)
class Network:
    """A network to train: arguments of `build_model` and of `Recipe`, beside those that the profile sets."""

    label: str
    name: str
    model: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network at its best epoch on validation. key: names it in rows and on disk."""

    network: Network
    seed: int
    model: Model
    history: History
    key: str
    splits: ImageSplits
    device: str

    @property
    def label(self) -> str:
        return self.network.label


@functools.lru_cache(maxsize=4)
def load_profile_images(profile: Profile, data_dir: str | None = None) -> ImageSplits:
    """CIFAR-10 at the size of the profile, loaded once per process."""
    if profile.subset == "whole" and data_dir is None:
        data_dir = paths.ARTIFACTS / "data"
        data_dir.mkdir(parents=True, exist_ok=True)
    return load_images(
        "cifar10",
        subset=profile.subset,
        data_dir=data_dir,
        train_per_class=profile.train_per_class,
        test_per_class=profile.test_per_class,
    )


def build_network(network: Network, profile: Profile, num_classes: int, seed: int) -> Model:
    """The untrained network, with weights drawn by `seed`."""
    options = {"time_steps": profile.time_steps, "width": profile.width, **network.model}
    return build_model(network.name, num_classes, seed=seed, **options)


def build_recipe(network: Network, profile: Profile, seed: int) -> Recipe:
    """The profile's recipe with the network's own changes."""
    options = {
        "epochs": profile.epochs,
        "batch_size": profile.batch_size,
        "learning_rate": profile.learning_rate,
        "weight_decay": profile.weight_decay,
        "schedule": profile.schedule,
        "augmentation": "flip",
        **network.recipe,
    }
    return Recipe(seed=seed, **options)


def trained(network: Network, profile: Profile, seed: int, data_dir: str | None = None) -> TrainedNetwork:
    """Train the network at the profile's size, or take it from the artifacts; killed runs go on where they stopped."""
    splits = load_profile_images(profile, data_dir)
    model = build_network(network, profile, splits.num_classes, seed)
    return fitted(network, model, build_recipe(network, profile, seed), splits, profile, seed)


def fitted(
    network: Network,
    model: Model,
    recipe: Recipe,
    splits: ImageSplits,
    profile: Profile,
    seed: int,
    origin: dict | None = None,
) -> TrainedNetwork:
    """Train `model` from the weights that it has, or take it from the artifacts. origin: what made those weights.

    With `FROM_RELEASED` set, one that a published notebook used and that is not released comes without weights.
    Errors: InputError where a network would be trained although it is set.
    """
    artifact, device = network_artifact(model, recipe, splits.name, profile, origin), default_device()
    # Of a profile that is not rounded, what is released is not quite what its figures were made with.
    wanted = profile.rounded and not artifact.is_whole()
    history = from_released(artifact.name, model) if wanted else None
    if history is None and wanted and os.environ.get(FROM_RELEASED):
        name = f"{network.label}, seed {seed}"
        history = published_history(profile.name, artifact.name)
        if history is None:
            raise InputError(
                f"{name}, is not among the released networks of profile {profile.name}; "
                "expected one of those; start without --from-released to train it"
            )
        take_weights_away(model, name)
    if history is None:
        # Another notebook may be training it, which takes longer than `fit` waits for its folder.
        with artifact.lock():
            started = time.monotonic()
            history = fit(model, splits, recipe, directory=artifact.path(""), device=device, time_limit=seconds_left())
        if not history.finished:
            done = f"{len(history.epochs)} of {recipe.epochs} epochs"
            raise OutOfTime(f"{network.label}, seed {seed}: {done} are done; start again to go on")
        if not artifact.is_whole():
            artifact.complete("snnlib.training.loop", time.monotonic() - started, "/best.safetensors")
        load_weights(history.best, model)
        if profile.rounded:
            round_weights(model)
        note_use(artifact)
    model.to(device).eval()
    used_networks[artifact.name] = list(history.epochs)
    return TrainedNetwork(network, seed, model, history, artifact.name, splits, device)


def network_artifact(
    model: Model, recipe: Recipe, dataset: str, profile: Profile, origin: dict | None = None
) -> Artifact:
    """Where `fitted` keeps the network that these make; asking for it writes nothing."""
    images = {"name": dataset, "subset": profile.subset, "train_per_class": profile.train_per_class}
    defaults = inspect.signature(build_model).parameters
    chosen = {name: value for name, value in model.config.items() if value != defaults[name].default}
    arguments = {"model": chosen, "recipe": recipe, "data": images, "origin": origin}
    return Artifact("networks", arguments, TRAINING_VERSION)


def variant(item: TrainedNetwork, model: Model, label: str, told_apart: dict | None = None) -> TrainedNetwork:
    """Another network made of a trained one, such as a step of its conversion.

    told_apart: what names it among those made of `item`; None for its weights and configuration.
    """
    what = told_apart or {"weights": state_digest(model.state_dict()), "model": model.config}
    key = name_of({"of": item.key, **what})
    return replace(item, network=replace(item.network, label=label), model=model, key=key)


def attacked_images(profile: Profile, splits: ImageSplits) -> ImageSet:
    """The test images that attacks run on: the first of each class."""
    if profile.attacked_per_class is None:
        return splits.test
    return splits.test.first_per_class(profile.attacked_per_class)


@stored("accuracies")
def accuracy(network: TrainedNetwork, images: ImageSet) -> pd.DataFrame:
    """One row: test_accuracy, and class_entropy of the predicted classes in bits (0 for a constant classifier)."""
    predicted = predictions(network.model, images, device=network.device)
    shares = (predicted.bincount() / len(images)).tolist()
    correct = (predicted == images.labels).sum().item() / len(images)
    entropy = -sum(share * math.log2(share) for share in shares if share)
    return pd.DataFrame([{"test_accuracy": correct, "class_entropy": entropy, "test_images": len(images)}])


def accuracy_rows(networks: Iterable[TrainedNetwork]) -> pd.DataFrame:
    """One row per trained network: best epoch, accuracy on validation and on the whole test set, class entropy."""
    parts = []
    for item in networks:
        best = item.history.epochs[item.history.best_epoch - 1]
        names = {"model": item.label, "seed": item.seed, "run": item.key, "best_epoch": item.history.best_epoch}
        names["validation_accuracy"] = best["validation_accuracy"]
        parts.append(pd.DataFrame([names]).join(accuracy(item, item.splits.test)))
    return pd.concat(parts, ignore_index=True)


def training_curves(networks: Iterable[TrainedNetwork]) -> pd.DataFrame:
    """One row per epoch of each network: loss, training and validation accuracy, learning rate.

    The columns are named one by one: a history that was read back from a checkpoint has its keys in another order.
    """
    return pd.DataFrame(
        [
            {"model": item.label, "seed": item.seed, **{name: epoch[name] for name in CURVE_COLUMNS}}
            for item in networks
            for epoch in item.history.epochs
        ]
    )
