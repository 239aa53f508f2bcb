"""The regulariser of Xu et al.: what each time step's own input moves, step by step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.errors import InputError
from snnlib.models.convertible import ConvertibleBody
from snnlib.runtime import running_sum, sent
from snnlib.training.objectives.terms import InnerAttack, Parts, cross_entropy, of_class


def step_slopes(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: InnerAttack | None = None,
    *,
    weight: float,
) -> tuple[Tensor, Parts]:
    """TG-Reg: CE + weight · Σ over steps t of the sensitivity TSV(s_t), mean over the batch.

        TSV(s_t) = E over y ~ f_t of  Σ_ij [g gᵀ]_ij  =  E (Σ_i g_i)²,   g = ∇ log f_t(y) by the frame s_t

    s_t: the encoded frame of step t; f_t: the softmax of the read-out's mean up to t. The expectation is estimated with
    one class per image and step, drawn from f_t by PyTorch's global generator. Second derivatives are taken, so a step
    costs several times a plain one. With an `attack` everything happens at its adversarial images. Parts: `accuracy`,
    `sensitivity` (the sum, without weight).
    Errors: InputError for a model without a read-out at every step (those of the conversion chapter have one).
    **Source:** Xu et al. 2026 (TG-Reg, CVPR), equations 15 to 21, reconstructed from public reading notes; there weight
    100. One draw of y is ours.
    """
    if not isinstance(getattr(model, "body", None), ConvertibleBody):
        raise InputError(f"{type(model).__name__} has no read-out per step; expected e.g. a 'vgg11' of build_model")
    images = images if attack is None else attack(model, images, labels)
    frames = [frame.detach().clone().requires_grad_(True) for frame in model.encoder(images).unbind(0)]
    read_out = model.body.read_out(torch.stack([model.body.normalise(frame) for frame in frames]))
    counts = torch.arange(1, len(frames) + 1, device=read_out.device).view(-1, 1, 1)
    logits = running_sum(read_out) / counts
    loss, parts = cross_entropy(logits[-1], labels)
    sensitivity = torch.stack([_sensitivity(at_step, frame) for at_step, frame in zip(logits, frames, strict=True)])
    return loss + weight * sensitivity.sum(), parts | {"sensitivity": sensitivity.sum().detach()}


def _sensitivity(logits: Tensor, frame: Tensor) -> Tensor:
    """Mean over the batch of (Σ_i ∂ log f(y) / ∂ frame_i)², with y drawn from f for each image."""
    drawn = torch.multinomial(logits.detach().cpu().softmax(1), 1).squeeze(1)
    log_likelihood = of_class(logits.log_softmax(1), sent(drawn, logits.device)).sum()
    (slope,) = torch.autograd.grad(log_likelihood, frame, create_graph=True)
    return slope.flatten(1).sum(1).square().mean()
