"""How long a training run will take, before it starts."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable

import torch
from torch import nn

from snnlib.data.image_set import ImageSplits
from snnlib.training.accuracy import evaluate_accuracy
from snnlib.training.epoch import augmented_batches, batches_per_epoch, build_optimiser, train_step
from snnlib.training.randomness import global_randomness_at
from snnlib.training.recipe import Recipe

SCORED_IMAGES = 512


def estimate_training_seconds(
    model: nn.Module, splits: ImageSplits, recipe: Recipe, device: torch.device | str = "cpu", *, batches: int = 3
) -> float:
    """Seconds that `fit` with these arguments would take from its first epoch to its last.

    Times `batches` training steps and the scoring of a part of the validation images on a copy of the model, each
    after an untimed round in which kernels are compiled. The model, its gradients and the global generators stay as
    they are. Not counted: that first compilation, writing checkpoints, and that an early-stopped inner attack gets
    slower as the network gets harder to fool.
    """
    device = torch.device(device)
    probe = copy.deepcopy(model).to(device)
    optimiser = build_optimiser(probe, recipe)
    for group in optimiser.param_groups:
        group["lr"] = 0.0  # the copy stays as sound as the model: a step of the full rate might break it
    scored = splits.validation.take(slice(0, SCORED_IMAGES))
    endless = itertools.chain.from_iterable(
        augmented_batches(splits.train, recipe, epoch, device) for epoch in itertools.count(1)
    )

    def train(count: int) -> None:
        for step, images, labels in itertools.islice(endless, count):
            train_step(probe, optimiser, images, labels, recipe, 1, step)

    with global_randomness_at(device, "estimate", recipe.seed):
        probe.train()
        train(1)
        per_step = _seconds(lambda: train(batches), device) / batches
        evaluate_accuracy(probe, scored, device=device)
        per_image = _seconds(lambda: evaluate_accuracy(probe, scored, device=device), device) / len(scored)
    steps = batches_per_epoch(recipe, splits.train)
    return recipe.epochs * (steps * per_step + len(splits.validation) * per_image)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
