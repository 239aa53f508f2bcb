"""The event chapter (notebook 17): the first paper's question on event data whose origin is clear.

Nothing of the paper's own event-based set-up could be read, so all of it is ours: CIFAR-10 as events by the I2E rule,
made inside the network, so that one network is attacked on the image and on the events; and a second set of images that
move before a simulated camera.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from snnlib.attacks import AttackResult, Budget, bit_flip, pgd, random_noise
from snnlib.attacks.events import Retiming, changes, inject, retime
from snnlib.companion.luu2025.networks import input_rows, operation_rows
from snnlib.companion.measure.networks import (
    Network,
    TrainedNetwork,
    attacked_images,
    fitted,
    load_profile_images,
    trained,
    variant,
)
from snnlib.companion.measure.store import stored
from snnlib.companion.sizes import EventSize, Profile
from snnlib.data import ImageSet, ImageSplits, events
from snnlib.encoding import encoder_gradient
from snnlib.models import build_model
from snnlib.models.event_filters import BackgroundActivity, HotPixels, filtered
from snnlib.progress import progress
from snnlib.training import Recipe
from snnlib.training.accuracy import evaluating, predictions

I2E = {"encoder": "i2e", "in_channels": 2, "time_steps": 8}
NETWORKS = {
    "max": Network("SEW-ResNet-18 on events, max pool", "sew_resnet18", {**I2E, "pool": "max"}),
    "average": Network("SEW-ResNet-18 on events, average pool", "sew_resnet18", {**I2E, "pool": "avg"}),
    "spiking": Network("Spiking-ResNet-18 on events, max pool", "spiking_resnet18", {**I2E, "pool": "max"}),
    "small": Network("small VGG on events", "vgg11", {**I2E, "pool": "avg", "width": 4}),
}
COMPARED = ("max", "average")
"""Trained for every seed; the others for the first, as company."""
FILTERS = {"background activity": BackgroundActivity(), "hot pixels": HotPixels()}
RUNNERS = {"random": random_noise, "greedy flips": bit_flip, "retiming": retime, "inject": inject, "pgd": pgd}
BATCH = 32
"""Recordings of a training step on the second set."""
NMNIST_STEPS = 270
"""Training steps on N-MNIST for each of the profile's epochs on the set that takes its place."""
OF_DIGITS = {"stem": "3x3"}, {"augmentation": "event-affine"}
"""Options of network and recipe for N-MNIST, chosen on validation recordings that were themselves turned and shifted:
as they are, nine in ten are right for every choice."""
IN_EVENTS = ("l0", "retiming")
"""Kinds of budget that leave a recording a recording; the amount is the number of cells that may change."""


@dataclass(frozen=True)
class EventAttack:
    """One attack as plain data. name: as shown. runner: a key of `RUNNERS`. kind: "l0" or "retiming" (amount: cells
    that may change; a retimed event changes two, and is shifted by `jitter` bins at most), "float frames" or "image"
    (amount: eps in 1/255). gradient: of the encoder, where an image is attacked; "" for its own."""

    name: str
    runner: str
    kind: str
    amount: float
    jitter: int = 0
    gradient: str = ""
    options: Mapping = field(default_factory=dict)

    @property
    def budget(self) -> Budget:
        if self.kind == "retiming":
            return Retiming(self.jitter, moves=int(self.amount) // 2)
        if self.kind == "l0":
            return Budget(self.amount, "l0", "encoded")
        return Budget(self.amount / 255, "linf", "encoded" if self.kind == "float frames" else "image")


def event_attacks(size: EventSize, cells: int) -> list[EventAttack]:
    """All attacks on recordings that may change so many cells; the two random ones are the control."""
    greedy, retimed = {"rounds": size.rounds}, ("retiming", cells, size.jitter)
    return [
        EventAttack("random flips", "random", "l0", cells, options={"draws": size.draws}),
        EventAttack("random moves", "random", *retimed, options={"draws": size.draws}),
        EventAttack("greedy flips", "greedy flips", "l0", cells, options=greedy),
        EventAttack("retiming", "retiming", *retimed, options=greedy),
        *(
            EventAttack(name, "inject", "l0", cells, options={"pattern": name, "tries": size.tries})
            for name in ("dash", "corner")
        ),
    ]


def pixel_attacks(size: EventSize) -> list[EventAttack]:
    """PGD on the image through both gradients of the encoder, and on the events as if they were floats."""
    options, found = {"steps": size.steps}, []
    for level in size.eps_levels:
        found += [
            EventAttack(f"PGD on the image, {name}", "pgd", "image", level, gradient=gradient, options=options)
            for name, gradient in (("straight-through", "straight_through"), ("smooth", "smooth"))
        ]
        found.append(EventAttack("PGD on float frames", "pgd", "float frames", level, options=options))
    return found


def trained_networks(size: EventSize, data_dir: str | None = None) -> list[TrainedNetwork]:
    """Max and average pool for every seed, then the other networks for the first."""
    profile = size.profile
    compared = [trained(NETWORKS[key], profile, seed, data_dir) for key in COMPARED for seed in profile.seeds]
    others = [key for key in NETWORKS if key not in COMPARED]
    return compared + [trained(NETWORKS[key], profile, profile.seeds[0], data_dir) for key in others]


def run(item: TrainedNetwork, attack: EventAttack, images: Tensor, labels: Tensor) -> AttackResult:
    """One batch of one attack."""
    options = {"generator": torch.Generator().manual_seed(item.seed), **attack.options}
    with encoder_gradient(item.model, attack.gradient or None):
        return RUNNERS[attack.runner](item.model, images, labels, attack.budget, **options)


def on_attacked(item: TrainedNetwork, attacks: Iterable[EventAttack], profile: Profile) -> pd.DataFrame:
    """Rows of the attacks on the profile's attacked images."""
    chosen = attacked_images(profile, item.splits)
    tables = [_rows(item, attack, chosen, profile.attack_batch_size) for attack in attacks]
    return pd.concat(tables, ignore_index=True).assign(model=item.label)


@stored("event_rows", unnamed=("batch_size",))
def _rows(item: TrainedNetwork, attack: EventAttack, images: ImageSet, batch_size: int) -> pd.DataFrame:
    """A row per recording: success, the budget, and what was changed in the events (`changes`)."""
    clean = predictions(item.model, images, batch_size, item.device) == images.labels
    parts = []
    for batch in progress(torch.arange(len(images)).split(batch_size), label=f"{attack.name} on {item.label}"):
        pixels, labels = images.batch(batch, item.device), images.labels[batch].to(item.device)
        result = run(item, attack, pixels, labels)
        before, after = events_of(item, pixels), result.adversarial
        after = events_of(item, after) if attack.kind == "image" else after.transpose(0, 1)
        columns = ("success", "first_successful_step", "linf", "forwards", "backwards")
        measured = pd.DataFrame({name: getattr(result, name).cpu().numpy() for name in columns})
        parts.append(pd.concat([measured, changes(before, after)], axis=1).assign(sample=batch.numpy()))
    rows = pd.concat(parts, ignore_index=True)
    about = {"attack": attack.name, "kind": attack.kind, "amount": float(attack.amount), "jitter_bound": attack.jitter}
    names = {"run": item.key, "dataset": item.splits.name, "split": "test", "seed": item.seed}
    return rows.assign(clean_correct=clean.numpy()[rows["sample"]], label=images.labels.numpy()[rows["sample"]],
                       **about, **names)  # fmt: skip


def events_of(item: TrainedNetwork, images: Tensor) -> Tensor:
    """The events [N, T, 2, H, W] that the network sees of these images."""
    with evaluating(item.model):
        return item.model.encoder(images).transpose(0, 1)


def sparsity_rows(item: TrainedNetwork, size: EventSize) -> pd.DataFrame:
    """As figures 3 and 5: the loss gradient at every operation, BatchNorm in train and in eval mode."""
    return pd.concat([operation_rows(item, size.profile, mode) for mode in ("train", "eval")], ignore_index=True)


def at_input(item: TrainedNetwork, size: EventSize) -> pd.DataFrame:
    """The gradient of the true class's probability at the events and, through the encoder, at the image."""
    cases = [("encoded", "train"), ("encoded", "eval"), ("image", "eval")]
    return pd.concat([input_rows(item, size.profile, *case) for case in cases], ignore_index=True)


def filter_rows(item: TrainedNetwork, size: EventSize, cells: int) -> pd.DataFrame:
    """Each filter before the network: accuracy without attack, under flips found without the filter, and under flips
    found through it, greedy, so many cells. One row per filter; accuracies over all attacked images."""
    greedy = EventAttack("greedy flips", "greedy flips", "l0", cells, options={"rounds": size.rounds})
    lines = []
    for name, one in {"none": None, **FILTERS}.items():
        behind = item
        if one is not None:
            behind = variant(item, filtered(item.model, one), f"{item.label}, {name} filter", {"filter": repr(one)})
        adaptive = on_attacked(behind, [greedy], size.profile)
        unaware = _unaware(item, behind, greedy, attacked_images(size.profile, item.splits))
        lines.append(
            {
                "filter": name,
                "model": item.label,
                "seed": item.seed,
                "cells": cells,
                "images": len(adaptive),
                "clean": adaptive.clean_correct.mean(),
                "unaware": unaware.accuracy.item(),
                "adaptive": (~adaptive.success.astype(bool)).mean(),
            }
        )
    return pd.DataFrame(lines)


@stored("event_filters")
def _unaware(item: TrainedNetwork, behind: TrainedNetwork, attack: EventAttack, images: ImageSet) -> pd.DataFrame:
    """What `behind` gets right of the images whose events were attacked on `item`."""
    pixels, labels = images.batch(slice(None), item.device), images.labels.to(item.device)
    crafted = run(item, attack, pixels, labels).adversarial
    with evaluating(behind.model):
        predicted = behind.model.body(crafted).argmax(1)
    return pd.DataFrame({"accuracy": [(predicted == labels).double().mean().item()]})


def second_set(size: EventSize, data_dir: str | None = None) -> ImageSplits:
    """Recordings: N-MNIST where `data_dir`, or N-MNIST in it, has its published layout; else `moving_splits`."""
    for folder in (Path(data_dir), Path(data_dir) / "N-MNIST") if data_dir else ():
        if (folder / "Train" / "0").is_dir():
            return events.load_events("nmnist", folder, bins=I2E["time_steps"])
    return moving_splits(size)


def moving_splits(size: EventSize) -> ImageSplits:
    """Embedded images that move before a simulated camera, binned into 8 steps."""
    splits = load_profile_images(replace(size.profile, subset="embedded"), None)
    few = {"train": size.moving_per_class, "validation": max(1, size.moving_per_class // 6)}
    parts = {name: getattr(splits, name).first_per_class(count) for name, count in few.items()}
    parts["test"] = attacked_images(replace(size.profile, attacked_per_class=few["validation"]), splits)
    made = {name: events.saccade_events(images, I2E["time_steps"]) for name, images in parts.items()}
    return ImageSplits("cifar10-saccades", **made, num_classes=splits.num_classes, class_names=splits.class_names)


def on_recordings(size: EventSize, splits: ImageSplits, epochs: int) -> TrainedNetwork:
    """SEW-ResNet-18 with max pool, trained on recordings themselves (encoder "events")."""
    profile, seed = size.profile, size.profile.seeds[0]
    bins = splits.train.images.shape[1]
    network = Network(f"SEW-ResNet-18 on {splits.name}, max pool", "sew_resnet18", {"encoder": "events"})
    options, more = OF_DIGITS if splits.name == "nmnist" else ({}, {"augmentation": "none"})
    model = build_model("sew_resnet18", splits.num_classes, bins, encoder="events", pool="max", in_channels=2,
                        width=profile.width, seed=seed, **options)  # fmt: skip
    recipe = Recipe(epochs=epochs, batch_size=min(BATCH, profile.batch_size), learning_rate=4e-3, weight_decay=5e-4,
                    schedule="one-cycle", seed=seed, **more)  # fmt: skip
    named = replace(splits, name=f"{splits.name}-{splits.train.key}")
    item = fitted(network, model, recipe, named, profile, seed)
    return replace(item, splits=splits)


def second_epochs(size: EventSize, splits: ImageSplits) -> int:
    """Epochs on the second set: as many optimiser steps, however many recordings a folder holds."""
    if splits.name != "nmnist":
        return size.moving_epochs
    return math.ceil(NMNIST_STEPS * size.moving_epochs / math.ceil(len(splits.train) / BATCH))


def second_profile(size: EventSize, splits: ImageSplits) -> Profile:
    """The shared profile, with as many attacked recordings of a class as the rarest has at most."""
    rarest = int(splits.test.labels.bincount(minlength=splits.num_classes).min())
    return replace(size.profile, attacked_per_class=min(size.profile.attacked_per_class or rarest, rarest))
