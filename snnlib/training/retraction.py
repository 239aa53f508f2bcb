"""What SNN-RAT does to the weights after every optimiser step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.models.convertible import MixedBranches
from snnlib.runtime import running_sum, sent

MANY_ROWS = 200
SHARE_OF_ROWS = 0.3


@torch.no_grad()
def retract_weights(model: nn.Module, beta: float, generator: torch.Generator) -> None:
    """One step towards orthonormal rows for every trainable weight of a convolution or linear layer, in place.

    W ← (1 + beta) W − beta W Wᵀ W, with W as `[out, in · kernel area]`: a gradient step on ‖W Wᵀ − I‖² that brings the
    singular values, and with them the layer's Lipschitz constant, closer to 1. Of a linear layer with 200 outputs or
    more only 30 % of the rows, drawn from `generator`, take part, as if they were the whole matrix.
    **Source:** Ding et al. 2022 (SNN-RAT), authors' code (utils.py, `orthogonal_retraction`), after Cissé et al. 2017
    (Parseval networks). There weight decay is 0 beside it. We leave frozen weights alone.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or not module.weight.requires_grad:
            continue
        weight = module.weight
        count = len(weight)
        if isinstance(module, nn.Linear) and count >= MANY_ROWS:
            chosen = sent(torch.randperm(count, generator=generator)[: int(SHARE_OF_ROWS * count)], weight.device)
            weight[chosen] = _retracted(weight[chosen], beta)
        else:
            weight.copy_(_retracted(weight.flatten(1), beta).view(weight.shape))


@torch.no_grad()
def project_mixing(model: nn.Module) -> None:
    """Bring the two weights of every `MixedBranches` to the nearest point with weights of 0 or more that sum to 1.

    **Source:** Ding et al. 2022 (SNN-RAT), authors' code (`convex_constraint`); the algorithm is that of Michelot 1986.
    Özdenizci & Legenstein leave the weights free.
    """
    for module in model.modules():
        if isinstance(module, MixedBranches) and module.weight.requires_grad:
            module.weight.copy_(nearest_on_simplex(module.weight))


def nearest_on_simplex(vector: Tensor) -> Tensor:
    """The point of the probability simplex nearest to `[n]`, in the Euclidean norm: max(vector − γ, 0)."""
    falling = vector.sort(descending=True).values
    counts = torch.arange(1, len(vector) + 1, device=vector.device)
    excess = (running_sum(falling) - 1) / counts
    kept = (falling > excess).sum()
    return (vector - excess[kept - 1]).clamp_min(0)


def _retracted(weight: Tensor, beta: float) -> Tensor:
    return (1 + beta) * weight - beta * (weight @ weight.T) @ weight
