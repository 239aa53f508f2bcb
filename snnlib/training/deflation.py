"""What DSD does to the gradients before every optimiser step."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def deflate_gradients(model: nn.Module) -> None:
    """Take the first singular pair out of the gradient of every weight, in place: G ← G − σ₁ u₁ v₁ᵀ.

    G is a weight's gradient as `[out, rest]`; gradients of fewer than two dimensions stay. The step stays one of
    descent: ⟨G, G − σ₁ u₁ v₁ᵀ⟩ = ‖G‖² − σ₁² ≥ 0.
    **Source:** Zhang et al. 2026 (DSD, ICLR; arXiv 2505.11134 as DEP), authors' code (train.py).
    """
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.ndim > 1:
            parameter.grad.copy_(deflated(parameter.grad.flatten(1)).view_as(parameter.grad))


def deflated(matrix: Tensor) -> Tensor:
    """`matrix` `[m, n]` without its first singular pair."""
    if len(matrix) > matrix.shape[1]:
        return deflated(matrix.T).T
    # u₁ is the last eigenvector of the smaller Gram matrix, and σ₁ v₁ᵀ = u₁ᵀ G.
    direction = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -1:]
    return matrix - direction @ (direction.T @ matrix)
