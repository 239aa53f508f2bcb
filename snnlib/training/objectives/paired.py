"""Objectives on pairs of a clean and an adversarial image: TRADES, MART, and the conversion paper's fine-tuning.

All three take the order of Özdenizci & Legenstein's code: the clean pass first, in train mode, then the attack,
which sees the running statistics that this pass has moved, then the adversarial pass, in train mode. TRADES and
MART as first published attack before the clean pass. Gradients flow through the logits of both passes; the
attack holds its clean probabilities fixed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from snnlib.training.objectives.terms import (
    InnerAttack,
    Parts,
    accuracy,
    cross_entropy,
    kl_divergence,
    of_class,
    strongest_wrong_class,
)

Direction = Literal["clean||adversarial", "adversarial||clean"]
MARGIN_OFFSET = 1.0001
"""Keeps the logarithm of MART's margin term finite where a wrong class has probability 1."""


def trades(
    model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack, *, beta: float = 6.0
) -> tuple[Tensor, Parts]:
    """TRADES: CE(clean) + beta · mean KL(p(x) ‖ p(x~)), both passes in train mode.

    x~ climbs the same divergence: `inner_attack("trades", eps)`. Parts: `accuracy` on clean images,
    `adversarial_accuracy`, `divergence` (the mean KL in nats, without beta).
    **Source:** Zhang et al. 2019, equation 5, with beta = 1/λ; beta 6 as in Özdenizci & Legenstein's code.
    """
    clean, adversarial = _both_logits(model, images, labels, attack)
    return _loss_and_divergence(clean, adversarial, labels, beta, kl_divergence(clean, adversarial))


def consistency(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: InnerAttack,
    *,
    beta: float = 2.0,
    direction: Direction = "clean||adversarial",
) -> tuple[Tensor, Parts]:
    """Robust fine-tuning after conversion: CE(clean) + beta · mean KL(p(x) ‖ p(x~)).

    TRADES with a weaker, one-step adversary, `inner_attack("consistency", eps)`, and a smaller beta. Parts as in
    `trades`.
    direction: the authors' code computes KL(clean ‖ adversarial), in the attack as in the loss, and so do we; the
    follow-up's text writes KL(adversarial ‖ clean), which "adversarial||clean" gives, in the loss alone.
    **Source:** Özdenizci & Legenstein 2024, authors' code; Schmolli et al. 2025, algorithm 1.
    """
    clean, adversarial = _both_logits(model, images, labels, attack)
    pair = (clean, adversarial) if direction == "clean||adversarial" else (adversarial, clean)
    return _loss_and_divergence(clean, adversarial, labels, beta, kl_divergence(*pair))


def mart(
    model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack, *, beta: float = 4.0
) -> tuple[Tensor, Parts]:
    """MART: misclassified images count more in the divergence.

        CE(x~) − mean log(1.0001 − max_{k≠y} p_k(x~)) + beta · mean[ KL(p(x) ‖ p(x~)) · (1 − p_y(x)) ]

    x~ climbs the cross-entropy: `inner_attack("mart", eps)`. Nothing is detached, the weight 1 − p_y(x) included.
    Parts: `accuracy` on the adversarial images, `margin` and `divergence` (second and third term, without beta).
    **Source:** Wang et al. 2020, equation 10 and its released code for the offset; beta 4 as in Özdenizci &
    Legenstein's code. Their further offsets of 1e-12 and 1e-7 only guard logarithms that we do not take.
    """
    clean, adversarial = _both_logits(model, images, labels, attack)
    loss, parts = cross_entropy(adversarial, labels)
    wrong = of_class(adversarial.softmax(1), strongest_wrong_class(adversarial, labels))
    margin = -torch.log(MARGIN_OFFSET - wrong).mean()
    doubt = 1 - of_class(clean.softmax(1), labels)
    divergence = (kl_divergence(clean, adversarial) * doubt).mean()
    parts |= {"margin": margin.detach(), "divergence": divergence.detach()}
    return loss + margin + beta * divergence, parts


def _both_logits(
    model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack
) -> tuple[Tensor, Tensor]:
    clean = model(images)
    return clean, model(attack(model, images, labels))


def _loss_and_divergence(
    clean: Tensor, adversarial: Tensor, labels: Tensor, beta: float, divergences: Tensor
) -> tuple[Tensor, Parts]:
    loss, parts = cross_entropy(clean, labels)
    divergence = divergences.mean()
    parts |= {"adversarial_accuracy": accuracy(adversarial, labels), "divergence": divergence.detach()}
    return loss + beta * divergence, parts
