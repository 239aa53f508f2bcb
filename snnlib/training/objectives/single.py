"""Cross-entropy at one point per sample: the image itself, or an adversarial one."""

from __future__ import annotations

from torch import Tensor, nn

from snnlib.training.objectives.terms import InnerAttack, Parts, cross_entropy


def natural(
    model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack | None = None
) -> tuple[Tensor, Parts]:
    """Cross-entropy on the images as they are."""
    return cross_entropy(model(images), labels)


def adversarial(
    model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack
) -> tuple[Tensor, Parts]:
    """Standard adversarial training: cross-entropy on adversarial images only.

    `accuracy` is that on the adversarial images. BatchNorm is in eval during the attack and in train for the
    loss. The inner attack makes every step on every sample, as in Madry et al. (see `build_attack`);
    `"early_stop": True` in the recipe's attack stops a sample at the first point that fools the model instead,
    the inner maximisation of Zhang et al. 2020 with τ = 0: cheaper, gentler on clean accuracy, less robust.
    **Source:** Madry et al. 2018, equation 2.1.
    """
    return cross_entropy(model(attack(model, images, labels)), labels)
