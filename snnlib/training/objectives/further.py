"""Further robust objectives: clean plus adversarial loss, SCORE, HAT with a helper, adversarial weight perturbation.

The first three are sums of losses; `weight_perturbed` takes any registered objective at worse weights. All attack after
the clean pass, as `paired` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from snnlib.training.accuracy import evaluating
from snnlib.training.objectives.terms import InnerAttack, Objective, Parts, accuracy, cross_entropy, kl_divergence


def clean_and_adversarial(
    model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack, *, clean_weight: float = 0.5
) -> tuple[Tensor, Parts]:
    """w · CE(x) + (1 − w) · CE(x~), with w = `clean_weight`, both passes in train mode.

    Parts: `accuracy` on clean images, `adversarial_accuracy`, `adversarial_loss`.
    **Source:** Goodfellow et al. 2015, section 6 (α = 0.5), there with x~ by FGSM, here by the recipe's attack.
    """
    loss, parts = cross_entropy(model(images), labels)
    adversarial, adversarial_parts = cross_entropy(model(attack(model, images, labels)), labels)
    parts |= {"adversarial_accuracy": adversarial_parts["accuracy"], "adversarial_loss": adversarial.detach()}
    return clean_weight * loss + (1 - clean_weight) * adversarial, parts


def score(
    model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack, *, beta: float = 4.0
) -> tuple[Tensor, Parts]:
    """The self-consistent robust error, SCORE: mean ‖p(x) − y‖² + beta · mean ‖p(x~) − p(x)‖².

    p: softmax; y: the label as a unit vector. TRADES with a squared distance, which obeys the triangle inequality, in
    the place of cross-entropy and KL. Parts: `accuracy` on clean images, `adversarial_accuracy`, `distance` (the second
    mean, without beta).
    **Source:** Pang et al. 2022 (SCORE), the variant with squared error, authors' code; without its clipping and label
    smoothing, and with the recipe's attack (`inner_attack("trades", eps)` climbs KL) in the place of one that climbs
    the distance.
    """
    clean = model(images)
    adversarial = model(attack(model, images, labels))
    p, q = clean.softmax(1), adversarial.softmax(1)
    distance = (q - p).square().sum(1).mean()
    loss = (p - F.one_hot(labels, p.shape[1])).square().sum(1).mean()
    parts = {"accuracy": accuracy(clean, labels), "adversarial_accuracy": accuracy(adversarial, labels)}
    return loss + beta * distance, parts | {"distance": distance.detach()}


def with_helper(helper: nn.Module) -> Callable[..., tuple[Tensor, Parts]]:
    """HAT with this helper: an objective to register under a name of its own (`register_objective`).

        CE(f(x)) + beta · mean KL(f(x) ‖ f(x~)) + gamma · CE(f(x + factor · (x~ − x)), argmax helper(x~))

    helper: images to logits, trained without attacks; it is asked in eval mode and stays as it is. Beyond the
    adversarial point the network is told what the helper sees there, so that its margin does not grow further than
    needed. The third point may lie outside the box. Parts: `accuracy` on clean images, `divergence`, `helper_loss`.
    **Source:** Rade & Moosavi-Dezfooli 2022 (HAT): beta 2.5, gamma 0.5, factor 2.
    """

    def helped(
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        attack: InnerAttack,
        *,
        beta: float = 2.5,
        gamma: float = 0.5,
        factor: float = 2.0,
    ) -> tuple[Tensor, Parts]:
        clean = model(images)
        adversarial = attack(model, images, labels)
        with evaluating(helper):
            seen = helper(adversarial).argmax(1)
        loss, parts = cross_entropy(clean, labels)
        divergence = kl_divergence(clean, model(adversarial)).mean()
        beyond = F.cross_entropy(model(images + factor * (adversarial - images)), seen)
        parts |= {"divergence": divergence.detach(), "helper_loss": beyond.detach()}
        return loss + beta * divergence + gamma * beyond, parts

    return helped


def at_worse_weights(
    objective: Objective, model: nn.Module, images: Tensor, labels: Tensor, attack: InnerAttack | None, gamma: float
) -> tuple[Tensor, Parts]:
    """`objective` at w + v, where v climbs the same loss: v_l = gamma · ‖w_l‖ · g_l / ‖g_l‖ in every layer l.

    g is the loss's gradient by the weights of more than one dimension; thresholds, biases and BatchNorm's are not
    moved. The gradient that training sees is that at w + v. Its own pass does not move BatchNorm's running statistics.
    """
    weights = {name: w for name, w in model.named_parameters() if w.ndim > 1 and w.requires_grad}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def passes(state: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda pixels: functional_call(model, dict(state), (pixels,))

    at_own_weights = None if attack is None else lambda _, *batch: attack(model, *batch)
    loss, _ = objective(passes(buffers), images, labels, at_own_weights)
    slopes = torch.autograd.grad(loss, list(weights.values()))
    moved = {
        name: w + (gamma * w.norm() / slope.norm().clamp_min(torch.finfo(slope.dtype).tiny) * slope).detach()
        for (name, w), slope in zip(weights.items(), slopes, strict=True)
    }
    return objective(passes(moved), images, labels, at_own_weights)
