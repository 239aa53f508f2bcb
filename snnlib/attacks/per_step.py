"""TG-PGD: every time step of the code is perturbed by the gradient of what the network has read out up to that step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnlib.attacks.budget import Budget
from snnlib.attacks.gradients import SpikeGradient
from snnlib.attacks.inputs import check_count, check_length
from snnlib.attacks.result import AttackResult
from snnlib.attacks.session import Session, open_session
from snnlib.attacks.starts import check_start, starting_point
from snnlib.errors import InputError
from snnlib.neurons.surrogates import Surrogate


def tg_pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    gradient: Surrogate | SpikeGradient | None = None,
    generator: torch.Generator | None = None,
    batch_norm: str = "eval",
    loss: str = "ce",
    steps: int = 7,
    step_size: float | None = None,
    start: str = "none",
) -> AttackResult:
    """PGD on the code in which frame s_t climbs the loss of the read-out up to step t, by its own gradient::

        s_t ← P(s_t + a · steepest(∂L(mean of the read-out over steps 0..t) / ∂s_t)),   t = 0 .. T-1

    images: [N, C, H, W] in [0, 1]. labels: [N] class numbers. budget: space "encoded", for a model that keeps `encoder`
    and `body` apart; the body has to be causal and to take any number of steps, its logits a mean over time. gradient:
    see `prepared`; none with a state. step_size: None = 2.5 · eps / steps. start: as in `pgd`.
    The threat model is that of Luu et al. 2025, where every step of the code may change on its own, here published as
    an attack; with direct coding (T copies of the image) eps is in pixel units. `pgd` with the same budget perturbs as
    freely, by the gradient of the last read-out alone.
    Cost of a sample that is never fooled: T backwards and T + 1 forwards a step, and 1; the pass for step t runs t + 1
    of T time steps and counts as a whole one.
    Errors: InputError for inputs or parameters that do not fit, a budget on images, a `batch_norm` other than "eval".
    **Source:** Xu et al. 2026 (CVPR, "On the Role of Temporal Granularity in the Robustness of SNNs"), equations 7-9,
    as far as notes on it tell; 7 steps of 0.01 there.

    >>> from snnlib import attacks, data, models
    >>> test = data.load_images("cifar10").test.first_per_class(1)
    >>> model = models.released("snn-conversion-from-trades-night-0")  # direct coding, T = 4
    >>> budget = attacks.Budget(2 / 255, space="encoded")
    >>> found = attacks.tg_pgd(model, test.batch(slice(None)), test.labels, budget, steps=2)
    >>> found.adversarial.shape, found.backwards.max().item()
    (torch.Size([4, 10, 3, 32, 32]), 8)
    """
    steps = check_count("steps", steps)
    check_start(start, loss)
    step_size = 2.5 * budget.eps / steps if step_size is None else check_length("step_size", step_size)
    if budget.space != "encoded" or batch_norm != "eval":
        raise InputError(
            f"tg_pgd got space {budget.space!r} and batch_norm {batch_norm!r}; expected 'encoded' and 'eval': it "
            "perturbs each time step of the code; use pgd for images"
        )
    if isinstance(gradient, SpikeGradient) and gradient.stateful:
        raise InputError(f"gradient is {gradient}, with a state for T steps; expected one without; use its surrogate")
    with open_session(model, images, labels, budget, gradient, generator, batch_norm, loss) as session:
        session.record_clean()
        x = starting_point(session, start, draw=0)
        for step in range(1, steps + 1):
            if len(session.active) == 0:
                break
            moved = x + step_size * budget.steepest(_step_by_step(session, x))
            x = budget.project(moved, session.active_origin)
            x = x[session.record(x, step)]
        return session.result()


def _step_by_step(session: Session, x: Tensor) -> Tensor:
    """[n, T, ...] the gradient of each frame, of the loss of the read-out up to it."""
    return torch.stack([session.gradient(x[:, : t + 1])[:, t] for t in range(x.shape[1])], dim=1)
