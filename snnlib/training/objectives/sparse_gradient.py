"""The regulariser of Liu et al.: make the input gradient small in the 1-norm, by a finite difference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.training.objectives.terms import InnerAttack, Parts, cross_entropy, of_class, strongest_wrong_class


def sparse_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: InnerAttack | None = None,
    *,
    weight: float,
    h: float = 0.01,
) -> tuple[Tensor, Parts]:
    """CE + weight · mean[ ((f(x + h · sign ∇f(x)) − f(x)) / h)² ], an estimate of mean ‖∇f‖₁².

    f = e^{z_y} / (e^{z_y} + e^{z_j}); j, the strongest wrong class at x, stays fixed for the second point, which
    may lie outside the box. The sign is detached, so no second derivative is taken; both passes are in train mode
    and carry gradient. With an `attack` everything happens at its adversarial images, as in the authors' code.
    weight: λ, to be chosen for the network and the data. h: in pixel units.
    An encoder that draws noise (Poisson) draws anew for the second pass, and the difference holds that noise.
    Parts: `accuracy` at x, `squared_slope` (the mean without the weight).
    Errors: InputError for h = 0.
    **Source:** Liu et al. 2024 (sparse gradients), authors' code, whose second choice of direction, ∇f/‖∇f‖₂, we
    leave out.
    """
    if h == 0:
        raise InputError("h is 0; expected a step above 0 in pixel units; e.g. h=0.01")
    images = images if attack is None else attack(model, images, labels)
    images = images.detach().requires_grad_(True)
    logits = model(images)
    loss, parts = cross_entropy(logits, labels)
    rival = strongest_wrong_class(logits, labels)
    here = _confidence(logits, labels, rival)
    (slope,) = torch.autograd.grad(here.sum(), images, retain_graph=True)
    there = _confidence(model(images.detach() + h * slope.sign()), labels, rival)
    squared_slope = ((there - here) / h).square().mean()
    parts["squared_slope"] = squared_slope.detach()
    return loss + weight * squared_slope, parts


def _confidence(logits: Tensor, labels: Tensor, rival: Tensor) -> Tensor:
    """`[N]`: the label's probability against the rival class alone."""
    return torch.sigmoid(of_class(logits, labels) - of_class(logits, rival))
