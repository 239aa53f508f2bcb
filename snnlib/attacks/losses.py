"""The losses that a gradient attack climbs: `(logits [N, classes], labels [N], context) -> [N]`, one per sample.

All grow as the attack gets closer to its aim. A further loss is one function and one line in `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from snnlib.errors import InputError

GUARD = 1e-12
"""Added to the denominators of the DLR losses, as in the authors' code."""


@dataclass(frozen=True)
class Context:
    """What a loss may ask for beside logits and labels, of the same samples in the same order.

    clean_logits: [N, classes], detached, of the unperturbed samples with BatchNorm in eval. targets: [N] int64.
    Both are there only for a loss that declares them.
    """

    clean_logits: Tensor | None = None
    targets: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """A loss and what it declares: what it needs of the context, the fewest classes that it can take, and whether its
    gradient is 0 at the clean sample."""

    function: Callable[[Tensor, Tensor, Context], Tensor]
    needs_clean: bool = False
    needs_targets: bool = False
    fewest_classes: int = 2
    flat_at_origin: bool = False


def cross_entropy(logits: Tensor, labels: Tensor, context: Context) -> Tensor:
    """[N] cross-entropy in nats. Its gradient is exactly 0 where a sure network's softmax rounds to 1."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor, context: Context) -> Tensor:
    """[N] strongest wrong logit minus the right one: above 0 exactly where the sample is misclassified.

    Its gradient does not fade as the network gets sure of itself.
    **Source:** Carlini & Wagner 2017, section IV.A, their f6 with κ = ∞ (never cut off), on logits.
    """
    return _strongest_wrong(logits, labels) - _at(logits, labels)


def difference_of_logits_ratio(logits: Tensor, labels: Tensor, context: Context) -> Tensor:
    """[N] DLR: −(z_y − max_{i≠y} z_i) / (z_π1 − z_π3), π the descending order. Blind to the scale of the logits.

    **Source:** Croce & Hein 2020 (AutoAttack), equation 6.
    """
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return (_strongest_wrong(logits, labels) - _at(logits, labels)) / (first - third + GUARD)


def targeted_dlr(logits: Tensor, labels: Tensor, context: Context) -> Tensor:
    """[N] −(z_y − z_t) / (z_π1 − ½(z_π3 + z_π4)), t the target: by default the clean sample's strongest wrong class.

    **Source:** Croce & Hein 2020 (AutoAttack), equation 7.
    """
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    return (_at(logits, context.targets) - _at(logits, labels)) / (first - 0.5 * (third + fourth) + GUARD)


def targeted_margin(logits: Tensor, labels: Tensor, context: Context) -> Tensor:
    """[N] z_t − z_y, t the target as in `targeted_dlr`, but for two classes or more."""
    return _at(logits, context.targets) - _at(logits, labels)


def divergence_from_clean(logits: Tensor, labels: Tensor, context: Context) -> Tensor:
    """[N] KL(p(clean) ‖ p(adversarial)) = Σ p(clean)·(log p(clean) − log p(adversarial)), in nats.

    The labels play no part. At the clean sample it is 0, and so is its gradient: an attack has to start elsewhere.
    **Source:** Zhang et al. 2019 (TRADES), equation 5, with p(clean) held fixed as in the authors' code.
    """
    clean = F.log_softmax(context.clean_logits, dim=1)
    return F.kl_div(F.log_softmax(logits, dim=1), clean, reduction="none", log_target=True).sum(1)


LOSSES: dict[str, Loss] = {
    "ce": Loss(cross_entropy),
    "margin": Loss(margin),
    "dlr": Loss(difference_of_logits_ratio, fewest_classes=3),
    "targeted_dlr": Loss(targeted_dlr, needs_clean=True, needs_targets=True, fewest_classes=4),
    "targeted_margin": Loss(targeted_margin, needs_clean=True, needs_targets=True),
    "kl": Loss(divergence_from_clean, needs_clean=True, flat_at_origin=True),
}


def find_loss(name: str) -> Loss:
    """The loss called `name`. Errors: InputError for an unknown name."""
    if name not in LOSSES:
        raise InputError(f"loss is {name!r}; expected one of {', '.join(LOSSES)}")
    return LOSSES[name]


def wrong_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """[N, classes - 1] int64: the classes other than the label, the strongest first."""
    order = logits.argsort(dim=1, descending=True, stable=True)
    others = order != labels.unsqueeze(1)
    # Ascending and stable: the label's place goes last, the others keep their order. A mask would wait for the device.
    places = (~others).to(logits.dtype).argsort(dim=1, stable=True)[:, :-1]
    return order.gather(1, places)


def _at(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1)


def _strongest_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels.unsqueeze(1), float("-inf")).amax(1)
