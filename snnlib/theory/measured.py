"""Both vulnerabilities, the ratio, its bounds and the remainder, per sample and eps: the rows behind L5 and L6."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from snnlib.errors import InputError
from snnlib.sparsity import l0, l1, l2
from snnlib.theory.bounds import first_order_ratio, ratio_bounds
from snnlib.theory.functions import LocalFunction, inner
from snnlib.theory.vulnerability import (
    Segment,
    adversarial_vulnerability,
    random_vulnerability,
    segment,
    uniform_noise,
)

UNDEFINED_EPS = "undefined: eps is 0"
UNDEFINED_GRADIENT = "undefined: the gradient is zero"
UNDEFINED_CONSTANT = "undefined: nothing moved f, 0/0"
HOLDS = "holds"
ABOVE = "violated: above 3·‖g‖₀"
BELOW = "below 3, by the attacks at hand"
OPEN = "open: the interval of the noise holds a bound"


def vulnerability_table(
    function: LocalFunction,
    eps_values: Sequence[float],
    *,
    attackers: Sequence[LocalFunction] | None = None,
    draws: int = 32,
    steps: int = 8,
    restarts: int = 1,
    nodes: int = 8,
    curvature_draws: int = 2,
    confidence: float = 0.95,
    generator: torch.Generator | None = None,
) -> pd.DataFrame:
    """Measure Definitions A.1 and A.2 around every sample, at every eps: one row per eps and sample.

    Columns: sample, eps (pixel units); l0, l1, l2 of the gradient; rho_rand with rand_low, rand_high and draws;
    rho_adv (worst of attack and noise: a lower bound of the supremum), attacker (index; −1: the noise, or nothing),
    raised; ratio with ratio_low, ratio_high (of the noise's interval) and smooth_low, smooth_high (of its narrower one,
    for an f without jumps); first_order = 3 ‖g‖₁²/‖g‖₂²; upper = 3 ‖g‖₀; verdict on 3 ≤ ratio ≤ 3 ‖g‖₀ by the wider
    interval (see the constants of this module).
    Around the segments of the point found (adv), of sign(g) (sign) and of noise (random; root mean square): curvature_*
    = L(δ) of O1 and remainder_* = |f(x + eps δ) − f(x) − eps g·δ|. integral_error: how far the change along the first
    two is from the line integral of the gradient, relative to the larger of the change and eps |g·δ|; the worse of
    both; 0 where the gradient is the derivative, up to the trapezoidal rule. linear_error = |√ρ_adv / (eps ‖g‖₁) − 1|.
    Where a quantity is 0/0 it is NaN, and the verdict says why; nothing is divided by zero.
    Errors: InputError for numbers that do not fit.
    """
    if not eps_values:
        raise InputError("eps_values is empty; expected at least one, such as [6/255]")
    options = {"attackers": attackers, "steps": steps, "restarts": restarts, "generator": generator}
    parts = []
    for eps in eps_values:
        random = random_vulnerability(function, eps, draws=draws, generator=generator, confidence=confidence)
        adversarial = adversarial_vulnerability(function, eps, **options)
        by_noise = random.worst > adversarial.value
        columns = {
            "rho_rand": random.value,
            "rand_low": random.low,
            "rand_high": random.high,
            "smooth_rand_low": random.smooth_low,
            "smooth_rand_high": random.smooth_high,
            "rho_adv": torch.maximum(adversarial.value, random.worst),
            "attacker": torch.where(by_noise, -1, adversarial.attacker),
            "raised": adversarial.raised,
            "remainder_random": random.remainder,
            **_along_segments(function, adversarial.direction, eps, nodes, curvature_draws, generator),
        }
        parts.append(_with_ratio(function, eps, columns).assign(draws=draws))
    return pd.concat(parts, ignore_index=True)


def _along_segments(
    function: LocalFunction,
    found: Tensor,
    eps: float,
    nodes: int,
    curvature_draws: int,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    names = ("curvature_adv", "remainder_adv", "curvature_sign", "remainder_sign", "curvature_random", "integral_error")
    if eps == 0:
        return dict.fromkeys(names, torch.full((len(found),), torch.nan, dtype=torch.float64))
    along = segment(function, found, eps, nodes)
    sign = function.gradient.sign()
    signed = segment(function, sign, eps, nodes)
    squares = [
        segment(function, noise, eps, nodes).curvature.square()
        for noise in uniform_noise(function.x, curvature_draws, generator, at_once=1)
    ]
    error = torch.maximum(_integral_error(function, found, eps, along), _integral_error(function, sign, eps, signed))
    return {
        "curvature_adv": along.curvature,
        "remainder_adv": along.remainder.abs(),
        "curvature_sign": signed.curvature,
        "remainder_sign": signed.remainder.abs(),
        "curvature_random": torch.stack(squares).mean(0).sqrt(),
        "integral_error": error,
    }


def _integral_error(function: LocalFunction, direction: Tensor, eps: float, along: Segment) -> Tensor:
    linear = eps * inner(function.gradient, direction)
    scale = torch.maximum(linear.abs(), (along.remainder + linear).abs())
    return (along.remainder - along.integral).abs() / torch.where(scale > 0, scale, 1)


def _with_ratio(function: LocalFunction, eps: float, columns: dict[str, Tensor]) -> pd.DataFrame:
    g = function.gradient
    adv, upper = columns["rho_adv"], ratio_bounds(g)[1]
    size = eps * l1(g)
    smooth = [columns.pop(f"smooth_rand_{end}") for end in ("low", "high")]
    ratio = {
        "ratio": torch.where(columns["rho_rand"] > 0, adv / columns["rho_rand"], torch.nan),
        **dict(zip(("ratio_low", "ratio_high"), _over(adv, columns["rand_low"], columns["rand_high"]), strict=True)),
        **dict(zip(("smooth_low", "smooth_high"), _over(adv, *smooth), strict=True)),
    }
    table = {
        "l0": l0(g),
        "l1": l1(g),
        "l2": l2(g),
        **columns,
        **ratio,
        "first_order": first_order_ratio(g),
        "upper": upper,
        "linear_error": torch.where(size > 0, (adv.sqrt() / torch.where(size > 0, size, 1) - 1).abs(), torch.nan),
    }
    frame = pd.DataFrame({name: values.cpu().numpy() for name, values in table.items()})
    frame.insert(0, "sample", range(len(frame)))
    frame.insert(1, "eps", eps)
    return frame.assign(verdict=[_verdict(row) for row in frame.to_dict("records")])


def _over(adv: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Interval of adv / ρ for ρ in [low, high]: reaches infinity where low is 0, and is NaN where all are 0."""
    return torch.where(high > 0, adv / high, torch.nan), torch.where((low > 0) | (adv > 0), adv / low, torch.nan)


def _verdict(row: dict) -> str:
    if row["eps"] == 0:
        return UNDEFINED_EPS
    if row["l0"] == 0:
        return UNDEFINED_GRADIENT
    if row["rho_adv"] == 0:
        return UNDEFINED_CONSTANT
    if row["ratio_low"] > row["upper"]:
        return ABOVE
    if row["ratio_high"] < 3:
        return BELOW
    return HOLDS if row["ratio_low"] >= 3 and row["ratio_high"] <= row["upper"] else OPEN
