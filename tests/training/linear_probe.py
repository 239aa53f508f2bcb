"""One pixel and three classes, which can be computed by hand; an attack that shifts; central differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

X, Y = np.array([0.2, 0.5]), np.array([0, 2])
SLOPES, OFFSETS = np.array([3.0, -2.0, 0.5]), np.array([0.1, 0.4, 0.0])
SHIFT = -0.3


class Probe(nn.Module):
    """Logits slope · x + offset of one pixel, three classes, in double; notes what every pass was."""

    def __init__(self, slopes=SLOPES, offsets=OFFSETS) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor(slopes))
        self.offsets = nn.Parameter(torch.tensor(offsets))
        self.norm = nn.BatchNorm2d(1, momentum=0.5).double()  # seen by no logit: it only counts
        self.passes: list[tuple[bool, bool]] = []

    def forward(self, images):
        self.passes.append((self.training, images.requires_grad))
        self.norm(images.detach())
        return images.flatten(1) * self.slopes + self.offsets


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(X).view(2, 1, 1, 1), torch.tensor(Y)


def shifted(model, images, labels):
    return images + SHIFT


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(np.outer(x, SLOPES) + OFFSETS)
    return e / e.sum(1, keepdims=True)


def cross_entropy(p: np.ndarray) -> float:
    return -np.log(p[[0, 1], Y]).mean()


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(1)


P, Q = softmax(X), softmax(X + SHIFT)


def numerical_gradient(objective: Callable, model: Probe, parameter: nn.Parameter) -> torch.Tensor:
    """Central differences of the loss: blind to what autograd was told to leave out."""
    found = torch.zeros_like(parameter)
    for index in range(len(parameter)):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[index] += sign * 1e-5
            losses.append(objective(model, *batch(), shifted)[0].item())
            with torch.no_grad():
                parameter[index] -= sign * 1e-5
        found[index] = (losses[0] - losses[1]) / 2e-5
    return found
