"""Accuracy of a model on labelled images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

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


def predictions(
    model: nn.Module, image_set: ImageSet, batch_size: int = 256, device: torch.device | str = "cpu"
) -> Tensor:
    """Predicted classes [N] int64 on the CPU, in eval mode; `model` must be on `device`."""
    with evaluating(model):
        batches = torch.arange(len(image_set)).split(batch_size)
        return torch.cat([model(image_set.batch(index, device)).argmax(1) for index in batches]).cpu()


def evaluate_accuracy(
    model: nn.Module, image_set: ImageSet, batch_size: int = 256, device: torch.device | str = "cpu"
) -> float:
    """Share of `image_set` classified correctly, 0..1, in eval mode; `model` must be on `device`."""
    correct = predictions(model, image_set, batch_size, device) == image_set.labels
    return correct.sum().item() / len(image_set)
