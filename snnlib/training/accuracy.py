"""Accuracy of a model on labelled images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from snnlib.data.image_set import ImageSet


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, eval mode and no gradients; the training flag of every module is restored after."""
    training_flags = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in training_flags.items():
            module.training = training


def evaluate_accuracy(
    model: nn.Module, image_set: ImageSet, batch_size: int = 256, device: torch.device | str = "cpu"
) -> float:
    """Share of `image_set` classified correctly, 0..1, in eval mode; `model` must be on `device`."""
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with evaluating(model):
        for index in torch.arange(len(image_set)).split(batch_size):
            predicted = model(image_set.batch(index, device)).argmax(1)
            correct += (predicted == image_set.labels[index].to(device)).sum()
    return correct.item() / len(image_set)
