"""The terms that objectives are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Parts = dict[str, Tensor]
InnerAttack = Callable[[nn.Module, Tensor, Tensor], Tensor]
Objective = Callable[[nn.Module, Tensor, Tensor, InnerAttack | None], tuple[Tensor, Parts]]


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Parts]:
    """Mean cross-entropy in nats of `[N, classes]` logits, with the accuracy as its part."""
    return F.cross_entropy(logits, labels), {"accuracy": accuracy(logits, labels)}


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the batch that the logits get right, detached."""
    return (logits.detach().argmax(1) == labels).float().mean()


def kl_divergence(first: Tensor, second: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q) per sample `[N]` in nats; p, q the softmax of the logits `[N, classes]`.

    The gradient flows through both: detach what is to stay fixed.
    """
    log_p, log_q = F.log_softmax(first, 1), F.log_softmax(second, 1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def strongest_wrong_class(logits: Tensor, labels: Tensor) -> Tensor:
    """`[N]`: the class of the highest logit beside the label."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    return logits.detach().masked_fill(own, -torch.inf).argmax(1)


def of_class(values: Tensor, classes: Tensor) -> Tensor:
    """`[N]`: the entry of `values` `[N, classes]` at the given class of each sample."""
    return values.gather(1, classes.unsqueeze(1)).squeeze(1)
