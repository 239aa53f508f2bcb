"""The losses that a gradient attack climbs: `(logits [N, classes], labels [N]) -> [N]`, one per sample."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from snnlib.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """[N] cross-entropy in nats. Its gradient is exactly 0 where a sure network's softmax rounds to 1."""
    return F.cross_entropy(logits, labels, reduction="none")


LOSSES: dict[str, Loss] = {"ce": cross_entropy}


def find_loss(name: str) -> Loss:
    """The loss called `name`. Errors: InputError for an unknown name."""
    if name not in LOSSES:
        raise InputError(f"loss is {name!r}; expected one of {', '.join(LOSSES)}")
    return LOSSES[name]
