"""From the rows of the theorems to verdicts on the claims L5, L6a and L7."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from snnlib.companion.luu2025.networks import HEADLINE_EPS
from snnlib.companion.luu2025.theorems import DEPLOYED, RELAXED
from snnlib.companion.verdicts.effects import EFFECTS
from snnlib.companion.verdicts.preconditions import not_learned
from snnlib.companion.verdicts.rules import Estimate, Judgement, estimate, judge, of_counts, untestable
from snnlib.errors import InputError
from snnlib.theory.checks import INTEGRAL_UP_TO
from snnlib.theory.measured import BELOW, UNDEFINED_CONSTANT

BREAKDOWN = 0.1
"""Relative error of √ρ_adv = eps ‖g‖₁ from which the linearisation counts as broken."""
SPREAD = 0.05
"""Share of d by which ‖g‖₀ must vary (10th to 90th percentile) before a rank by it means something."""
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
    refuted, for all but the share of samples that `EFFECTS` leaves.

    Asked of the relaxation at its smallest eps, and of the deployed network at the worst of its eps from there on
    (below, it does not move at all: the ratio is 0/0). Where only the first holds the theorem speaks of a network that
    nobody deploys: mixed. A lower bound within the noise's interval is not refuted.
    """
    relaxed, deployed = rows[rows.network_is == RELAXED], rows[rows.network_is == DEPLOYED]
    if relaxed.empty or deployed.empty:
        raise InputError("no rows of the relaxation or of the deployed network; expected both")
    smallest = relaxed[relaxed.eps255 == relaxed.eps255.min()]
    headline = deployed[(deployed.eps255 - 255 * HEADLINE_EPS).abs() < 1e-6]
    still = deployed[deployed.eps255 == deployed.eps255.min()]
    moved = deployed[deployed.eps255 >= smallest.eps255.iloc[0]]
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
    counts = {"L5/relaxation": _outside(smallest), "L5/deployed": _outside(moved)}
    parts = {name: of_counts(EFFECTS["L5"], table["sum"], table["size"]) for name, table in counts.items()}
    words = {"L5/relaxation": "samples outside, relaxation", "L5/deployed": "samples outside, deployed"}
    table = counts["L5/deployed"]
    size = {"seeds": [int(seed) for seed in table.index], "samples": int(table["size"].min())}
    return judge(parts, evidence, words=words, **size)


def _outside(rows: pd.DataFrame) -> pd.DataFrame:
    """Per seed, at the eps at which most are: how many samples are outside the theorem or against it, of how many."""
    rows = rows.assign(out=leaves(rows) | ~rows.integral_error.le(INTEGRAL_UP_TO))
    worst = rows.groupby("eps255").out.mean().idxmax()
    return rows[rows.eps255 == worst].groupby("seed").out.agg(["sum", "size"])


def rank_correlations(ranking: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Spearman's correlation of ρ_adv with each norm across the samples of a network, with a 95 % bootstrap interval.

    One row per model, seed and norm: correlation, low, high (percentiles over `RESAMPLES` resamples of the samples),
    samples, spread (10th to 90th percentile of the norm over its maximum). NaN where the norm or ρ_adv is constant.
    """
    rows = []
    for (model, number), group in ranking.groupby(["model", "seed"]):
        for norm in NORMS:
            point, again = _resampled(group, norm, seed)
            again = again[~np.isnan(again)]
            low, high = np.percentile(again, [2.5, 97.5]) if len(again) else (np.nan, np.nan)
            row = {"correlation": point, "low": low, "high": high, "samples": len(group)}
            rows.append({"model": model, "seed": number, "norm": norm, **row, "spread": _spread(group[norm])})
    return pd.DataFrame(rows)


def _resampled(group: pd.DataFrame, norm: str, seed: int = 0) -> tuple[float, np.ndarray]:
    """Spearman's correlation of a norm with ρ_adv within a network, and the same over resamples of its samples."""
    picks = np.random.default_rng(seed).integers(0, len(group), (RESAMPLES, len(group)))
    values, vulnerable = group[norm].to_numpy(), group.rho_adv.to_numpy()
    return _spearman(values[None], vulnerable[None])[0], _spearman(values[picks], vulnerable[picks])


def _spread(values: pd.Series) -> float:
    """10th to 90th percentile, over the maximum."""
    return float(np.subtract(*np.percentile(values, [90, 10])) / max(np.abs(values).max(), np.finfo(float).tiny))


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


def judge_scaling(ranking: pd.DataFrame, dose: pd.DataFrame, accuracies: pd.DataFrame) -> Judgement:
    """L6a: within a network ‖g‖₀ ranks the samples by ρ_adv (Spearman, mean over the networks of each seed).

    Not testable where ‖g‖₀ varies by less than `SPREAD` within some network: equal counts rank nothing.
    """
    ranks = rank_correlations(ranking)
    if ranks.empty:
        raise InputError("no samples to rank; expected rows of at least one network")
    spread = ranks[ranks.norm == "l0"].spread
    middle = ranks.groupby("norm").correlation.median()
    power = dose_exponents(dose).groupby("network_is").exponent.median()
    evidence = (
        f"‖g‖₀ varies by {100 * spread.min():.2g}-{100 * spread.max():.2g} % (10th to 90th percentile of a network); "
        f"rank correlation of ρ_adv with ‖g‖₁² {middle['l1_squared']:.2f}, with ‖g‖₂² {middle['l2_squared']:.2f} "
        f"(medians of networks); ‖g‖₀ set by hand: ρ_adv ∝ ‖g‖₀^{power.get(RELAXED, np.nan):.1f} at first order, "
        f"^{power.get(DEPLOYED, np.nan):.1f} deployed at 6/255"
    )
    size = {"seeds": sorted(int(seed) for seed in ranking.seed.unique()), "samples": int(ranks["samples"].min())}
    if spread.min() < SPREAD:
        return untestable("L6a", f"‖g‖₀ does not vary (expected {SPREAD:.0%}); {evidence}", **size)
    failures = not_learned(accuracies, ranking.model.unique())
    words = {"L6a": "rank correlation of ρ_adv with ‖g‖₀"}
    return judge({"L6a": correlation(ranking)}, evidence, failures=failures, words=words, **size)


def correlation(ranking: pd.DataFrame) -> Estimate:
    """Spearman's correlation of ‖g‖₀ with ρ_adv, mean over the networks of a seed and over seeds."""
    points, draws = [], []
    for _, networks in ranking.groupby("seed"):
        found = [_resampled(group, "l0") for _, group in networks.groupby("model")]
        points.append(np.mean([point for point, _ in found]))
        draws.append(np.nanmean([again for _, again in found], axis=0))
    return estimate(EFFECTS["L6a"], points, np.array(draws).T)


def judge_density(rows: pd.DataFrame) -> Judgement:
    """L7: no layer's weight gradient is denser than (1 − S)·r, per sample and per batch with BatchNorm in eval mode.

    Not testable where 1 − S is at least `IDLE` in the median layer: then spikes alone make the bound, and the input
    gradient's sparsity, of which the claim speaks, is not there.
    """
    judged = rows[(rows.batch_norm == "eval") & rows.behind_neuron]
    if judged.empty:
        raise InputError("no layer with a neuron right behind it; expected rows of weight_gradient_density")
    broken = judged.density > judged.architecture_spikes * (1 + 1e-9)
    counts = broken.groupby(judged.seed).agg(["sum", "size"])
    train = rows[(rows.batch_norm == "train") & rows.behind_neuron]
    sample = judged[judged.per == "sample"]
    evidence = (
        f"{int(broken.sum())} of {len(judged)} gradients above (1 − S)·r; per sample density "
        f"{100 * sample.density.mean():.1f} %, bound {100 * sample.architecture_spikes.mean():.1f} %, of which "
        f"1 − S = {100 * (1 - sample.S).mean():.1f} % and r = {100 * sample.r.mean():.1f} % (means over layers); pairs "
        f"of non-zeros give {100 * sample['union'].mean():.1f} %; BatchNorm in train mode, per batch: "
        f"{int((train.density > train.architecture_spikes * (1 + 1e-9)).sum())} of {len(train)} above"
    )
    failures = []
    if (1 - sample.S).median() >= IDLE:
        failures = ["the input gradient has no zeros to bound anything by"]
    return judge(
        {"L7": of_counts(EFFECTS["L7"], counts["sum"], counts["size"])},
        evidence,
        seeds=[int(seed) for seed in counts.index],
        samples=int(counts["size"].min()),
        failures=failures,
        words={"L7": "gradients above the bound"},
    )


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation of each pair of rows of two [K, n] arrays; NaN where one of them is constant."""
    ranks = [stats.rankdata(values, axis=1) for values in (a, b)]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 0)
