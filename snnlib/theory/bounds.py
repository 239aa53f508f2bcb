"""Closed forms of the statements: numbers from a gradient's norms, from densities, from probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snnlib.errors import InputError
from snnlib.sparsity import l0, l1, l2

UNIFORM_VARIANCE = 1 / 3
"""Variance of one coordinate of the noise of Definition A.1, uniform on [−1, 1]; its inverse is the theorem's 3."""


def first_order_ratio(g: Tensor, norm: str = "linf") -> Tensor:
    """ρ_adv / ρ_rand of a function with gradient `g` [N, ...], to first order in eps: float64 [N].

    norm "linf": 3 ‖g‖₁² / ‖g‖₂² (Theorem 4.1). norm "l2": d + 2, whatever `g` is (O4). NaN where the gradient is
    zero: there the ratio is 0/0.
    """
    if norm not in ("linf", "l2"):
        raise InputError(f"norm is {norm!r}; expected 'linf' or 'l2'")
    length = l2(g)
    if norm == "l2":
        ratio = torch.full_like(length, g[0].numel() + 2)
    else:
        ratio = (l1(g) / torch.where(length == 0, 1, length)).square() / UNIFORM_VARIANCE
    return torch.where(length == 0, torch.nan, ratio)


def ratio_bounds(g: Tensor, constant: float = 3.0) -> tuple[Tensor, Tensor]:
    """Theorem 4.1's bounds on the ratio, `constant` and `constant` · ‖g‖₀: float64 [N] each; NaN for a zero gradient.

    Another `constant` than 3 is a wrong theorem, for the tests.
    """
    count = l0(g)
    low = torch.where(count == 0, torch.nan, constant)
    return low, low * count


def remainder_factor(adversarial: Tensor, random: Tensor) -> tuple[Tensor, Tensor]:
    """O1 (iv): factors that widen the first-order ratio to one that holds at finite eps.

    adversarial: largest remainder over eps·‖g‖₁, random: root mean square of the remainder over eps·‖g‖₂/√3, both ≥ 0,
    same shape. Returns (low, high): ratio / first_order_ratio lies in [low, high]; high is inf once random ≥ 1.
    """
    low = ((1 - adversarial).clamp_min(0) / (1 + random)).square()
    high = ((1 + adversarial) / (1 - random).clamp_min(0)).square()
    return low, torch.where(random < 1, high, torch.inf)


def thinned_snr(density: float, mean: float, deviation: float) -> float:
    """R-4.2: (E G')² / Var G' of a gradient thinned by independent zeros, q μ² / (σ² + (1 − q) μ²).

    Infinite for a noiseless gradient that is not thinned. Errors: InputError for a density outside (0, 1], or a mean
    and deviation that are both 0.
    """
    _check_density(density)
    noise = deviation**2 + (1 - density) * mean**2
    if noise == 0:
        if mean == 0:
            raise InputError("mean and deviation are both 0; expected a gradient: its signal-to-noise ratio is 0/0")
        return math.inf
    return density * mean**2 / noise


def guaranteed_progress(density: float, gradient_norm: float, smoothness: float, second_moment: float) -> float:
    """R-4.4: the best guaranteed decrease of the risk by one step, q ‖∇L‖⁴ / (2 H M).

    smoothness: H; second_moment: M = E‖G‖² of the unthinned gradient. Errors: InputError for H or M not above 0.
    """
    _check_density(density)
    if not (smoothness > 0 and second_moment > 0):
        raise InputError(f"smoothness is {smoothness}, second_moment {second_moment}; expected both above 0")
    return density * gradient_norm**4 / (2 * smoothness * second_moment)


def certified_vulnerability(density: float, size: int, norm2: float, eps: float) -> float:
    """R-4.4: what Theorem 4.1 bounds ρ_adv by to first order, eps² · q · d · ‖g‖₂², with ‖g‖₀ = q · d.

    norm2: ‖g‖₂ of the gradient that has this density. Linear in q only while it stays: zeros put into a given g shrink
    ‖g‖₂² by q too.
    """
    _check_density(density)
    return eps**2 * density * size * norm2**2


def poisson_distance(x: Tensor, other: Tensor, time_steps: int) -> Tensor:
    """O6: bounds on the total variation between the laws of Poisson codes of two images, float64 [2, N].

    x, other: [N, ...] in [0, 1]. First row, by coupling: 1 − Π (1 − |xᵢ − x'ᵢ|)^T. Second, by Bhattacharyya's
    coefficient B = Π (√(xᵢ x'ᵢ) + √((1−xᵢ)(1−x'ᵢ)))^T: √(1 − B²). Neither is the smaller one everywhere.
    """
    x, other = (image.detach().double().flatten(1) for image in (x, other))
    agree = time_steps * torch.log1p(-(x - other).abs()).sum(1)
    overlap = (x * other).sqrt() + ((1 - x) * (1 - other)).sqrt()
    log_b = time_steps * overlap.clamp(max=1).log().sum(1)
    return torch.stack([-torch.expm1(agree), (-torch.expm1(2 * log_b)).clamp_min(0).sqrt()])


def poisson_l1_radius(probability: Tensor, time_steps: int) -> Tensor:
    """O6: the L1 radius 1 − (3/2 − p)^(1/T) within which a class of probability above `p` stays the likeliest.

    probability: [N] lower bounds; NaN (abstain) where p ≤ ½. In pixel units, summed over all pixels.
    """
    p = probability.double()
    return torch.where(p > 0.5, -torch.expm1(torch.log(1.5 - p) / time_steps), torch.nan)


def _check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise InputError(f"density is {density!r}; expected a share of non-zeros in (0, 1]")
