"""Checks of the statements about networks: do the assumptions hold here, and then, does the conclusion?"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor, nn

from snnlib.theory.bounds import UNIFORM_VARIANCE, remainder_factor
from snnlib.theory.constancy import NoRadius, front_radius
from snnlib.theory.density import weight_gradient_density
from snnlib.theory.functions import LocalFunction, TrueClassProbability, inner
from snnlib.theory.measured import vulnerability_table
from snnlib.theory.vulnerability import adversarial_vulnerability, random_vulnerability

LINEAR_UP_TO = 0.1
"""Largest remainder, relative to the first-order change, at which eps counts as small."""
INTEGRAL_UP_TO = 0.1
"""Largest gap between a change of f and the line integral of its gradient at which the gradient counts as one."""
CURVATURE_SLACK = 1.1
"""A maximum over nodes misses a little of the supremum in L(δ)."""
EXISTS, NONZERO, POSITIVE_EPS, SMALL_EPS = (
    "the gradient is the derivative of f",
    "the gradient is not zero",
    "eps is above 0",
    "eps is small enough",
)
BEHIND_NEURON, AFFINE_FRONT = "only coordinatewise maps lie before the neuron", "the path to the first neuron is affine"
NO_BYPASS = "nothing but the first neuron's spikes carries the input on"


@dataclass(frozen=True)
class Finding:
    """Whether one assumption holds on what was given, and why it does not."""

    assumption: str
    holds: bool
    reason: str = ""


@dataclass(frozen=True)
class CheckResult:
    """What a check found. conclusion: whether the statement's conclusion holds on the numbers, None if undefined."""

    statement: str
    findings: tuple[Finding, ...]
    conclusion: bool | None
    evidence: str
    table: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def failed(self) -> tuple[str, ...]:
        """Assumptions that do not hold."""
        return tuple(finding.assumption for finding in self.findings if not finding.holds)

    @property
    def holds(self) -> bool | None:
        """True or False for a statement put to the test; None where an assumption fails or nothing is defined."""
        return None if self.failed else self.conclusion

    @property
    def verdict(self) -> str:
        """One line: what the check says."""
        if self.failed:
            first = next(finding for finding in self.findings if not finding.holds)
            also = {True: "it holds all the same", False: "the conclusion fails", None: "nothing to compare"}
            return f"says nothing here: not so that {first.assumption} ({first.reason}); {also[self.conclusion]}"
        words = {True: "holds", False: "VIOLATED", None: "undefined"}
        return f"{words[self.conclusion]}: {self.evidence}"

    def __str__(self) -> str:
        return f"{self.statement}: {self.verdict}"


def found(assumption: str, holds: bool, reason: str) -> Finding:
    """A finding whose reason is kept where the assumption fails."""
    return Finding(assumption, bool(holds), "" if holds else reason)


def check_definitions(function: LocalFunction, eps: float, **options) -> CheckResult:
    """A.1 and A.2: 0 ≤ ρ_rand ≤ ρ_adv ≤ 1, up to the noise's interval. options: draws, steps, generator."""
    draws, generator = options.get("draws", 32), options.get("generator")
    random = random_vulnerability(function, eps, draws=draws, generator=generator)
    adversarial = adversarial_vulnerability(function, eps, steps=options.get("steps", 8), generator=generator)
    # The supremum is at least what any point gives, so the noise's worst point counts too.
    supremum = torch.maximum(adversarial.value, random.worst)
    ordered = bool((random.value >= 0).all() and (random.low <= supremum).all() and (supremum <= 1).all())
    gap = float((supremum - random.value).amin())
    return CheckResult("A.1, A.2", (), ordered, f"ρ_adv − ρ_rand is at least {gap:.3g}")


def check_ratio(function: LocalFunction, eps: float, *, constant: float = 3.0, **options) -> CheckResult:
    """Theorem 4.1 and O1 at finite eps: the ratio of the vulnerabilities against its bounds, sample by sample.

    The first-order ratio c·‖g‖₁²/‖g‖₂², c = `constant`, widened by the remainder that the measured curvature allows (O1
    (iv)), but by no more than `LINEAR_UP_TO` allows, must meet the interval of the measured ratio for an f without
    jumps; so must c and c·‖g‖₀. options: those of `vulnerability_table`. Columns added to the table: within (all
    assumptions hold for this sample), inside (the conclusion does); where the gradient is zero both are False, and the
    conclusion leaves it out.
    """
    table = vulnerability_table(function, [eps], **options)
    findings = [found(POSITIVE_EPS, eps > 0, f"eps is {eps:g}"), _nonzero(table)]
    defined = torch.tensor((table.l0 > 0).to_list())
    if eps == 0 or not defined.any():
        return CheckResult("4.1", tuple(findings), None, "", table.assign(within=False, inside=False))
    adversarial, sign, random = _relative_curvature(table)
    largest = torch.maximum(torch.maximum(adversarial, sign), random)
    worst = 100 * float(largest[defined].amax())
    findings += [
        _gradient_is_derivative(function, table),
        found(SMALL_EPS, worst <= 100 * LINEAR_UP_TO, f"curvature may change f by {worst:.0f} % of first order"),
    ]
    within = defined & (largest <= LINEAR_UP_TO) & (_column(table, "integral_error") <= INTEGRAL_UP_TO)
    adversarial, sign, random = (part.clamp(max=LINEAR_UP_TO) for part in (adversarial, sign, random))
    low, high = remainder_factor(sign, random)[0], remainder_factor(adversarial, random)[1]
    measured_low, measured_high, first = (_column(table, name) for name in ("smooth_low", "smooth_high", "first_order"))
    first = first * constant * UNIFORM_VARIANCE
    count = _column(table, "l0")
    slack = 1 + 32 * torch.finfo(function.x.dtype).eps
    inside = (measured_low <= first * high * slack) & (measured_high * slack >= first * low)
    bounded = (measured_low <= constant * count * high * slack) & (measured_high * slack >= constant * low)
    inside &= bounded
    table = table.assign(within=within.numpy(), inside=inside.numpy())
    evidence = (
        f"{100 * float(inside[defined].double().mean()):.0f} % of {int(defined.sum())} samples inside; ratio "
        f"{table.ratio.median():.4g} (median), first order {table.first_order.median():.4g}, bound "
        f"{table.upper.median():.4g}"
    )
    return CheckResult("4.1", tuple(findings), bool(inside[defined].all()), evidence, table)


def check_remainder(function: LocalFunction, eps: float, **options) -> CheckResult:
    """O1 (i), (ii) and O2 (i): |f(x + eps δ) − f(x) − eps g·δ| ≤ eps² L(δ)/2 along the found and the signed direction,
    and eps ‖g‖₁ − eps² L(sign g)/2 ≤ √ρ_adv ≤ eps ‖g‖₁ + eps² L(δ*)/2. options and columns: as in `check_ratio`."""
    table = vulnerability_table(function, [eps], **options)
    findings = [found(POSITIVE_EPS, eps > 0, f"eps is {eps:g}")]
    if eps == 0:
        return CheckResult("O1", tuple(findings), None, "", table.assign(within=False, inside=False))
    findings.append(_gradient_is_derivative(function, table))
    rounding = 32 * torch.finfo(function.x.dtype).eps
    inside = torch.ones(len(table), dtype=torch.bool)
    reach = {name: CURVATURE_SLACK * eps**2 * _column(table, f"curvature_{name}") / 2 for name in ("adv", "sign")}
    for name, allowed in reach.items():
        inside &= _column(table, f"remainder_{name}") <= allowed + rounding
    root, first = _column(table, "rho_adv").sqrt(), eps * _column(table, "l1")
    # ρ_adv may stem from the noise, whose direction has no curvature of its own in the table.
    by_attack = torch.from_numpy(table.attacker.to_numpy(copy=True)) >= 0
    inside &= (root >= first - reach["sign"] - rounding) & (~by_attack | (root <= first + reach["adv"] + rounding))
    used = _column(table, "remainder_adv") / (eps**2 * _column(table, "curvature_adv") / 2).clamp_min(1e-300)
    evidence = (
        f"{100 * float(inside.double().mean()):.0f} % of {len(table)} samples inside; √ρ_adv / (eps ‖g‖₁) = "
        f"{float((root / first.clamp_min(1e-300)).median()):.3g}, remainder / allowed = {float(used.median()):.2g}"
    )
    within = (_column(table, "integral_error") <= INTEGRAL_UP_TO).numpy()
    table = table.assign(within=within, inside=inside.numpy())
    return CheckResult("O1", tuple(findings), bool(inside.all()), evidence, table)


def check_circulation(function: LocalFunction, eps: float, *, nodes: int = 16, seed: int = 0) -> CheckResult:
    """O5: the line integral of the gradient around a triangle x, x + eps a, x + eps b, over its absolute parts' sum.

    0 for the gradient of any function, up to the quadrature. a, b are random signs. conclusion: below `INTEGRAL_UP_TO`.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = function.x.shape
    a, b = (
        (2 * torch.randint(0, 2, shape, generator=generator) - 1).to(function.x.device, torch.float64) for _ in range(2)
    )
    corners = [torch.zeros_like(a), a, b]
    total, size = 0.0, 0.0
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        middles = [start + (end - start) * (node + 0.5) / nodes for node in range(nodes)]
        points = torch.cat([function.x + (eps * middle).to(function.x.dtype) for middle in middles])
        _, gradient = function.slope(points)
        parts = inner(gradient, (end - start).repeat(nodes, *[1] * (a.dim() - 1))).view(nodes, -1) * eps / nodes
        total, size = total + parts.sum(0), size + parts.abs().sum(0)
    relative = total.abs() / torch.where(size > 0, size, 1)
    evidence = f"circulation is {100 * float(relative.median()):.2g} % of its parts (median of {len(relative)} samples)"
    closed = bool((relative <= INTEGRAL_UP_TO).all())
    findings = (found(POSITIVE_EPS, eps > 0, f"eps is {eps:g}"), found(EXISTS, closed, evidence))
    table = pd.DataFrame({"circulation": relative.cpu().numpy()})
    return CheckResult("O5", findings, closed if eps > 0 else None, evidence, table)


def check_density(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    bound: str = "architecture_spikes",
    batch_norm: str = "eval",
    per: str = "batch",
    space: str = "image",
    table: pd.DataFrame | None = None,
) -> CheckResult:
    """R-4.3 and O3: the density of every layer's weight gradient against a bound of `weight_gradient_density`.

    bound: a column of that table, or of `table` where one is given. (1 − S)·r needs the neuron right behind the layer.
    """
    options = {"batch_norm": batch_norm, "per": per, "space": space}
    table = weight_gradient_density(model, images, labels, **options) if table is None else table
    findings = []
    if bound == "architecture_spikes":
        odd = table[~table.behind_neuron]
        reason = "" if odd.empty else f"{odd.layer.iloc[0]}: {odd.reason.iloc[0]}"
        findings.append(found(BEHIND_NEURON, odd.empty, reason))
    beyond = table[table.density > table[bound] * (1 + 1e-9)]
    worst = "" if beyond.empty else f", first {beyond.layer.iloc[0]}"
    evidence = (
        f"{len(table) - len(beyond)} of {len(table)} gradients below {bound}{worst}; density "
        f"{table.density.mean():.3f}, bound {table[bound].mean():.3f} (means)"
    )
    return CheckResult("4.3", tuple(findings), beyond.empty, evidence, table)


def check_constancy(
    model: nn.Module, images: Tensor, labels: Tensor, *, space: str = "image", share: float = 0.9, draws: int = 8
) -> CheckResult:
    """P4: within `share` of its constancy radius no attack and no noise moves the deployed network at all.

    Where the path to the first neuron is not affine there is no radius, and nothing is measured. Where something goes
    around that neuron, the radius measured in is that of its spikes.
    """
    try:
        radius, bypass = front_radius(model, images, labels, space=space)
    except NoRadius as error:
        return CheckResult("P4", (found(AFFINE_FRONT, False, str(error)),), None, "")
    findings = (found(AFFINE_FRONT, True, ""), found(NO_BYPASS, bypass == "", bypass))
    moved, change = 0, 0.0
    for number, eps in enumerate((share * radius).tolist()):
        one = slice(number, number + 1)
        function = TrueClassProbability(model, images[one], labels[one], space=space)
        adversarial = adversarial_vulnerability(function, eps, steps=3)
        random = random_vulnerability(function, eps, draws=draws)
        largest = float(torch.maximum(adversarial.value, random.worst).amax())
        moved, change = moved + (largest > 0), max(change, largest**0.5)
    evidence = (
        f"{moved} of {len(images)} samples moved within {share:g} of their radius, by up to {change:.2g}; radius "
        f"{255 * float(radius.median()):.2g}/255 (median)"
    )
    table = pd.DataFrame({"radius": radius.cpu().numpy()})
    return CheckResult("P4", findings, moved == 0, evidence, table)


def _nonzero(table: pd.DataFrame) -> Finding:
    zero = int((table.l0 == 0).sum())
    return found(NONZERO, zero == 0, f"it is zero for {zero} of {len(table)} samples: the ratio is 0/0")


def _gradient_is_derivative(function: LocalFunction, table: pd.DataFrame) -> Finding:
    error = table.integral_error.max()
    reasons = [f"its line integral misses the change of f by up to {100 * error:.0f} %", *function.roughness()]
    return found(EXISTS, bool(error <= INTEGRAL_UP_TO), "; ".join(reasons))


def _relative_curvature(table: pd.DataFrame) -> tuple[Tensor, Tensor, Tensor]:
    """eps² L/2 over the first-order change: for the direction found, for sign(g), and for noise."""
    eps = _column(table, "eps")
    first, spread = (torch.where(size > 0, size, torch.nan) for size in (_column(table, "l1"), _column(table, "l2")))
    spread = spread * UNIFORM_VARIANCE**0.5
    return tuple(
        CURVATURE_SLACK * eps * _column(table, name) / 2 / size
        for name, size in (("curvature_adv", first), ("curvature_sign", first), ("curvature_random", spread))
    )


def _column(table: pd.DataFrame, name: str) -> Tensor:
    return torch.tensor(table[name].to_list(), dtype=torch.float64)
