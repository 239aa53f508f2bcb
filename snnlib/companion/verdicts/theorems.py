"""From the rows of the theorems to verdicts on the claims L5-L7; each rule is stated and returns its numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from snnlib.companion.luu2025.networks import HEADLINE_EPS
from snnlib.companion.luu2025.theorems import DEPLOYED, RELAXED
from snnlib.companion.verdicts.luu2025 import Judgement, judge
from snnlib.errors import InputError
from snnlib.theory.checks import INTEGRAL_UP_TO
from snnlib.theory.measured import BELOW, UNDEFINED_CONSTANT

TOLERATED = 0.05
"""Share of samples that may leave the bounds before a network counts as leaving them; our choice."""
BREAKDOWN = 0.1
"""Relative error of √ρ_adv = eps ‖g‖₁ from which the linearisation counts as broken."""
SPREAD = 0.05
"""Share of d by which ‖g‖₀ must vary (10th to 90th percentile) before a rank by it means something."""
FACTOR = 2.0
"""Ratio of 90th to 10th percentile from which vulnerability counts as varying."""
IDLE = 0.95
"""1 − S from which input-gradient sparsity contributes next to nothing to the bound of R-4.3."""
NORMS = ("l0", "l1_squared", "l2_squared")
RESAMPLES = 1000


def leaves(rows: pd.DataFrame) -> pd.Series:
    """Whether a row's ratio leaves the bounds of theorem 4.1, or is not defined."""
    return rows.verdict.eq(BELOW) | rows.verdict.str.startswith(("violated", "undefined"))


def breakdown(rows: pd.DataFrame) -> pd.DataFrame:
    """Per network, seed and kind: the largest eps (in 1/255) of the rows at which, and at all smaller ones, the median
    error of the linearisation stays below `BREAKDOWN`; 0 where it never does."""
    keys = ["model", "seed", "network_is"]
    errors = rows.groupby([*keys, "eps255"]).linear_error.median().reset_index()
    reach = []
    for key, group in errors.groupby(keys):
        fine = group.sort_values("eps255").linear_error.lt(BREAKDOWN).cummin()
        levels = group.sort_values("eps255").eps255[fine]
        reach.append({**dict(zip(keys, key, strict=True)), "linear_up_to": levels.max() if len(levels) else 0.0})
    return pd.DataFrame(reach)


def judge_ratio(rows: pd.DataFrame) -> Judgement:
    """L5: theorem 4.1 applies, its gradient being the derivative (`integral_error`), and 3 ≤ ratio ≤ 3‖g‖₀ is not
    refuted, for all but `TOLERATED` of the samples of each seed.

    Asked of the relaxation at its smallest eps, and of the deployed network at each of its eps from there on (below, it
    does not move at all: the ratio is 0/0). Both at every seed: reproduced. The relaxation alone: mixed, because the
    theorem then speaks of a network that nobody deploys. A lower bound within the noise's interval is not refuted.
    """
    relaxed, deployed = rows[rows.network_is == RELAXED], rows[rows.network_is == DEPLOYED]
    if relaxed.empty or deployed.empty:
        raise InputError("no rows of the relaxation or of the deployed network; expected both")
    smallest = relaxed[relaxed.eps255 == relaxed.eps255.min()]
    headline = deployed[(deployed.eps255 - 255 * HEADLINE_EPS).abs() < 1e-6]
    still = deployed[deployed.eps255 == deployed.eps255.min()]
    moved = deployed[deployed.eps255 >= smallest.eps255.iloc[0]]
    in_theory, in_use = (_applies_and_holds(part) for part in (smallest, moved))
    reach = breakdown(relaxed).linear_up_to
    off = [(part.ratio / part.first_order).median() for part in (smallest, headline)]
    refuted = [100 * leaves(part).mean() for part in (smallest, moved)]
    derivative = [100 * part.integral_error.le(INTEGRAL_UP_TO).mean() for part in (smallest, moved)]
    evidence = (
        f"relaxation at {smallest.eps255.iloc[0]:.2g}/255: gradient is the derivative for {derivative[0]:.0f} % of "
        f"samples, bounds refuted for {refuted[0]:.0f} %, ratio over its first order {off[0]:.2f} (median), linear up "
        f"to {reach.min():.2g}-{reach.max():.2g}/255; deployed: derivative for {derivative[1]:.0f} %, refuted for "
        f"{refuted[1]:.0f} %, ratio over first order {off[1]:.2g} at 6/255, 0/0 for "
        f"{100 * still.verdict.eq(UNDEFINED_CONSTANT).mean():.0f} % at {still.eps255.iloc[0]:.1g}/255; upper bound "
        f"over first order {(smallest.upper / smallest.first_order).median():.1f}"
    )
    holds = tuple(a and b for a, b in zip(in_theory, in_use, strict=True))
    if all(in_theory) and not all(holds):
        return Judgement("mixed", evidence, holds)
    return judge(list(holds), evidence)


def _applies_and_holds(rows: pd.DataFrame) -> list[bool]:
    """For each seed: at every eps, all but `TOLERATED` of the samples are within the theorem and not against it."""
    out = leaves(rows) | ~rows.integral_error.le(INTEGRAL_UP_TO)
    worst = rows.assign(out=out).groupby(["seed", "eps255"]).out.mean().groupby("seed").max()
    return [bool(share <= TOLERATED) for share in worst]


def rank_correlations(ranking: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Spearman's correlation of ρ_adv with each norm across the samples of a network, with a 95 % bootstrap interval.

    One row per model, seed and norm: correlation, low, high (percentiles over `RESAMPLES` resamples of the samples),
    samples, spread (10th to 90th percentile of the norm over its maximum). NaN where the norm or ρ_adv is constant.
    """
    random = np.random.default_rng(seed)
    rows = []
    for (model, number), group in ranking.groupby(["model", "seed"]):
        picks = random.integers(0, len(group), (RESAMPLES, len(group)))
        vulnerable = group.rho_adv.to_numpy()
        for norm in NORMS:
            values = group[norm].to_numpy()
            again = _spearman(values[picks], vulnerable[picks])
            again = again[~np.isnan(again)]
            low, high = np.percentile(again, [2.5, 97.5]) if len(again) else (np.nan, np.nan)
            spread = np.subtract(*np.percentile(values, [90, 10])) / max(np.abs(values).max(), np.finfo(float).tiny)
            row = {"correlation": _spearman(values[None], vulnerable[None])[0], "low": low, "high": high}
            rows.append({"model": model, "seed": number, "norm": norm, **row, "samples": len(group), "spread": spread})
    return pd.DataFrame(rows)


def dose_exponents(dose: pd.DataFrame) -> pd.DataFrame:
    """p of ρ_adv ∝ ‖g‖₀^p with ‖g‖₀ set by hand: one row per model, seed and kind of network; 1 would be linear.

    The slope of the mean of log ρ_adv over that of log ‖g‖₀; samples that some share does not move are left out.
    """
    keys = ["model", "seed", "network_is"]
    moved = dose[dose.groupby([*keys, "sample"]).rho_adv.transform("min") > 0]
    logs = moved.assign(x=np.log(moved.nonzeros.clip(lower=1)), y=np.log(moved.rho_adv))
    means = logs.groupby([*keys, "share"])[["x", "y"]].mean()
    rows = [
        {**dict(zip(keys, key, strict=True)), "exponent": np.polyfit(group.x, group.y, 1)[0]}
        for key, group in means.groupby(keys)
        if len(group) > 1
    ]
    return pd.DataFrame(rows, columns=[*keys, "exponent"])


def judge_scaling(ranking: pd.DataFrame, dose: pd.DataFrame) -> Judgement:
    """L6: within every network of a seed ‖g‖₀ varies (`SPREAD`) and ranks the samples by ρ_adv (interval above 0).

    Where ‖g‖₀ does not vary while ρ_adv does by `FACTOR`, the claim fails: equal counts, unequal vulnerability. Where
    neither varies: not testable.
    """
    ranks = rank_correlations(ranking)
    if ranks.empty:
        raise InputError("no samples to rank; expected rows of at least one network")
    count = ranks[ranks.norm == "l0"]
    varies = [_varies(group.rho_adv) for _, group in ranking.groupby(["model", "seed"])]
    holds = count.assign(ok=(count.spread >= SPREAD) & (count.low > 0)).groupby("seed").ok.all()
    middle = ranks.groupby("norm")[["correlation", "low", "high"]].median()
    by_norm = {norm: f"{row.correlation:.2f} [{row.low:.2f}, {row.high:.2f}]" for norm, row in middle.iterrows()}
    power = dose_exponents(dose).groupby("network_is").exponent.median()
    evidence = (
        f"‖g‖₀ varies by {100 * count.spread.min():.2g}-{100 * count.spread.max():.2g} % of d, ρ_adv by a factor of "
        f"{min(varies):.2g}-{max(varies):.2g} (10th to 90th percentile of a network); rank correlation with ρ_adv: "
        f"‖g‖₀ {by_norm['l0']}, ‖g‖₁² {by_norm['l1_squared']}, ‖g‖₂² {by_norm['l2_squared']} (95 % by bootstrap, "
        f"medians of networks); ‖g‖₀ set by hand: ρ_adv ∝ ‖g‖₀^{power.get(RELAXED, np.nan):.1f} at first order, "
        f"^{power.get(DEPLOYED, np.nan):.1f} deployed at 6/255"
    )
    if (count.spread < SPREAD).all() and max(varies) < FACTOR:
        return Judgement("not testable", f"neither varies; {evidence}", tuple(holds))
    return judge([bool(value) for value in holds], evidence)


def judge_density(rows: pd.DataFrame) -> Judgement:
    """L7: no layer's weight gradient is denser than (1 − S)·r, per sample and per batch with BatchNorm in eval mode.

    "mixed" where that holds while 1 − S is at least `IDLE` in the median layer: then spikes alone make the bound.
    """
    judged = rows[(rows.batch_norm == "eval") & rows.behind_neuron]
    if judged.empty:
        raise InputError("no layer with a neuron right behind it; expected rows of weight_gradient_density")
    broken = judged.density > judged.architecture_spikes * (1 + 1e-9)
    holds = (~broken).groupby(judged.seed).all()
    train = rows[(rows.batch_norm == "train") & rows.behind_neuron]
    sample = judged[judged.per == "sample"]
    evidence = (
        f"{int(broken.sum())} of {len(judged)} gradients above (1 − S)·r; per sample density "
        f"{100 * sample.density.mean():.1f} %, bound {100 * sample.architecture_spikes.mean():.1f} %, of which "
        f"1 − S = {100 * (1 - sample.S).mean():.1f} % and r = {100 * sample.r.mean():.1f} % (means over layers); pairs "
        f"of non-zeros give {100 * sample['union'].mean():.1f} %; BatchNorm in train mode, per batch: "
        f"{int((train.density > train.architecture_spikes * (1 + 1e-9)).sum())} of {len(train)} above"
    )
    if holds.all() and (1 - sample.S).median() >= IDLE:
        return Judgement("mixed", f"holds, but by spikes alone; {evidence}", tuple(bool(value) for value in holds))
    return judge([bool(value) for value in holds], evidence)


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation of each pair of rows of two [K, n] arrays; NaN where one of them is constant."""
    ranks = [stats.rankdata(values, axis=1) for values in (a, b)]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 0)


def _varies(values: pd.Series) -> float:
    low, high = np.percentile(values, [10, 90])
    return high / low if low > 0 else np.inf if high > 0 else 1.0
