"""MI-FGSM: iterated sign steps along a momentum of normalised gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count, check_length
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import open_session, select
from snnlib.attacks.starts import check_start, starting_point
from snnlib.neurons.surrogates import Surrogate


def mi_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    start: str = "none",
    eot: int = 1,
) -> AttackResult:
    """Momentum iterative FGSM; m_0 = 0 and for each step

        m ← decay · m + g / ‖g‖₁,        x ← P(x + step_size · steepest(m))

    with P the projection into ball and box, and steepest(m) = sign(m), in "l2" m / ‖m‖.
    step_size: in pixel units, None = eps / steps as in the source. The comparison of the ASSG authors has
    step_size = eps / 16 and decay = 0.6. start: as in `pgd`. Everything else, and the cost, as in `pgd` with one start.
    Errors: InputError for inputs or parameters that do not fit and for a model without gradient.
    **Source:** Dong et al. 2018, algorithm 1; "l2" its equation 8.
    """
    steps = check_count("steps", steps)
    check_start(start, loss)
    decay = check_length("decay", decay, unit="")
    if step_size is not None:
        step_size = check_length("step_size", step_size)
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss, eot=eot) as session:
        step_size = budget.eps / steps if step_size is None else step_size
        if start != "none" and not session.fixed_batch:
            session.record_clean()
        x = starting_point(session, start, draw=0)
        momentum = torch.zeros_like(x)
        for step in range(steps):
            stay, slope = session.record_with_gradient(x, max(step, int(start != "none")))
            if len(stay) == 0:
                return session.result()
            momentum = decay * select(momentum, stay) + unit_mean(slope)
            x = budget.project(select(x, stay) + step_size * budget.steepest(momentum), session.active_origin)
        if session.fixed_batch:
            session.settle(x, steps)
        else:
            session.record(x, steps)
        return session.result()


def unit_mean(gradient: Tensor) -> Tensor:
    """Each sample of `[N, ...]` divided by the mean of its absolute entries; zero stays zero.

    Divided by its largest entry first: what is done with the result (squares) must not vanish in float32.
    """
    pixels = tuple(range(1, gradient.dim()))
    tiny = torch.finfo(gradient.dtype).tiny
    scaled = gradient / gradient.abs().amax(pixels, keepdim=True).clamp_min(tiny)
    return scaled / scaled.abs().mean(pixels, keepdim=True).clamp_min(tiny)
