"""From numbers per seed and image to verdicts: one interval, one set of words, for every claim.

A claim is *reproduced* where its 95 % interval lies on the claimed side, *not reproduced* where the whole interval
falls short of the smallest effect that counts (`EFFECTS`), *mixed* where seeds or sub-claims are on both sides, *not
testable* where a precondition fails, and else *inconclusive at this size*. An effect shown to be too small is none.

The interval is a bootstrap on two levels. Images: resampled, the same ones for all seeds and networks, which saw the
same images. Seeds: two or three cannot be resampled (two that agree by accident would give no width at all), so a draw
adds Student's t for the mean over the seeds; its variance is what the seeds differ by beyond the images' noise, mixed
with the effect's `seed_sd` as if `PRIOR_SEEDS` more trainings had been seen. `operating` measures how often this errs.

**Source:** Owen, The pigeonhole bootstrap, 2007 (rows and columns that are crossed); Smyth, Linear models and empirical
Bayes methods, 2004 (the moderated variance); Schuirmann 1987 (two one-sided tests); Holm 1979; McNemar 1947.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from snnlib.companion.verdicts.effects import EFFECTS, SCALES, Effect
from snnlib.errors import InputError

REPRODUCED, NOT_REPRODUCED, MIXED = "reproduced", "not reproduced", "mixed"
INCONCLUSIVE, NOT_TESTABLE, NOT_RUN = "inconclusive at this size", "not testable", "not run yet"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, MIXED, INCONCLUSIVE, NOT_TESTABLE, NOT_RUN)
BY_HOLM = (REPRODUCED, INCONCLUSIVE)
"""Verdicts that are decided by p among the claims of a paper."""
ALPHA = 0.05
DRAWS = 2000
PRIOR_SEEDS = 4
"""Degrees of freedom that an effect's `seed_sd` is worth."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. p: two-sided, against the effect's goal, small where the claim is shown.

    seeds: the same for every seed by itself. mcnemar: exact p that a seed's pairs differ at all.
    """

    value: float
    low: float
    high: float
    p: float
    mcnemar: float = float("nan")
    seeds: tuple[Estimate, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on, in the unit shown; NaN where a precondition left nothing to estimate.

    would_count: what would have shown the claim. p: of the claim, for `holm`. seeds: their numbers. samples: images.
    """

    verdict: str
    estimate: float
    low: float
    high: float
    unit: str
    would_count: str
    evidence: str
    seeds: tuple[int, ...]
    samples: int
    p: float = float("nan")


def estimate(effect: Effect, points: Sequence[float], draws: np.ndarray) -> Estimate:
    """Mean over the seeds of a statistic, with its interval. points: [S], per seed; draws: [B, S], over images."""
    points = np.asarray(points, dtype=float)
    if points.size == 0 or not np.isfinite(points).all():
        raise InputError("no seed to judge; the rows lack this model or threat model: run the notebook that makes them")
    count = len(points)
    between = 0.0
    if count > 1:
        by_images = (draws - points).var(axis=1, ddof=1).mean()
        between = (count - 1) * max(0.0, points.var(ddof=1) - by_images)
    freedom = PRIOR_SEEDS + count - 1
    variance = (PRIOR_SEEDS * effect.seed_sd**2 + between) / freedom
    whole = draws.mean(axis=1) + np.sqrt(variance / count) * _student(freedom, len(draws))
    single = draws + effect.seed_sd * _student(PRIOR_SEEDS, len(draws))[:, None]
    seeds = tuple(_interval(effect, point, column) for point, column in zip(points, single.T, strict=True))
    return replace(_interval(effect, points.mean(), whole), seeds=seeds)


def of_images(effect: Effect, columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """`estimate` of a statistic of means over images. columns: [n, k]; statistic: means [B, k] to [B, S]."""
    columns = np.asarray(columns, dtype=np.float32)
    (points,) = statistic(columns.mean(axis=0, keepdims=True, dtype=float))
    return estimate(effect, points, statistic(_weights(len(columns)) @ columns))


def of_differences(effect: Effect, differences: np.ndarray) -> Estimate:
    """`estimate` of paired differences [S, n], with the exact McNemar test of every seed (ties apart, a sign test)."""
    found = of_images(effect, differences.T, lambda means: means)
    tests = [_sign_test(int((row > 0).sum()), max(1, int((row != 0).sum()))) for row in differences]
    return replace(found, seeds=tuple(replace(one, mcnemar=p) for one, p in zip(found.seeds, tests, strict=True)))


def _sign_test(plus: int, untied: int) -> float:
    """Exact, two-sided: at one half both tails are alike, and the generic test that adds up each is slow."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(plus, untied - plus), untied, 0.5)))


def of_shares(effect: Effect, plus: np.ndarray, minus: np.ndarray, images: int) -> Estimate:
    """`estimate` of the mean difference of two accuracies [S, m], of which only the shares of `images` are known.

    Each is taken as a draw of its own, which ignores that the images are the same: the interval errs on the wide side.
    """
    random = np.random.default_rng(0)
    again = [random.binomial(images, side, (DRAWS, *side.shape)) / images for side in (plus, minus)]
    return estimate(effect, (plus - minus).mean(axis=1), (again[0] - again[1]).mean(axis=2))


def of_seeds(effect: Effect, values: Sequence[float]) -> Estimate:
    """`estimate` of one number per seed that has no noise of its own (as far as is known)."""
    return estimate(effect, values, np.tile(np.asarray(values, dtype=float), (DRAWS, 1)))


def of_counts(effect: Effect, hits: Sequence[int], samples: Sequence[int]) -> Estimate:
    """A share with the exact interval of Clopper and Pearson, over all seeds together and for each."""
    from scipy.stats import binomtest
    from statsmodels.stats.proportion import proportion_confint

    if not len(hits) or not min(samples):
        raise InputError("no seed to judge; the rows are empty: run the notebook that makes them")

    def exact(count: int, total: int) -> Estimate:
        side = "less" if effect.sign < 0 else "greater"
        low, high = proportion_confint(count, total, ALPHA, method="beta")
        p = min(1.0, 2 * binomtest(count, total, effect.goal, alternative=side).pvalue)
        return Estimate(count / total, float(low), float(high), p)

    seeds = tuple(exact(int(count), int(total)) for count, total in zip(hits, samples, strict=True))
    return replace(exact(int(sum(hits)), int(sum(samples))), seeds=seeds)


def verdict_of(effect: Effect, found: Estimate) -> str:
    """The verdict on one quantity, from its interval and from those of its seeds."""
    if _seeds_disagree(effect, found):
        return MIXED
    return _by_interval(effect, found)


def judge(
    parts: Mapping[str, Estimate],
    evidence: str,
    *,
    seeds: Sequence[int],
    samples: int,
    failures: Sequence[str] = (),
    words: Mapping[str, str] | None = None,
) -> Judgement:
    """The verdict on a claim all of whose parts have to hold.

    parts: keys of `EFFECTS`, or such a key and "/" and a name, to estimates. failures: the preconditions that fail, in
    words. The number shown is that of the part that is furthest from being shown.
    """
    effects = {name: EFFECTS[name.split("/")[0]] for name in parts}
    verdicts = {verdict_of(effects[name], found) for name, found in parts.items()}
    if failures:
        verdict = NOT_TESTABLE
    elif MIXED in verdicts or {REPRODUCED, NOT_REPRODUCED} <= verdicts:
        verdict = MIXED
    elif NOT_REPRODUCED in verdicts:
        verdict = NOT_REPRODUCED
    else:
        verdict = INCONCLUSIVE if INCONCLUSIVE in verdicts else REPRODUCED
    told = [describe(effects[name], found, (words or {}).get(name, name)) for name, found in parts.items()]
    line = "; ".join([*failures, *told, evidence] if evidence else [*failures, *told])
    shown = min(parts, key=lambda name: _slack(effects[name], parts[name]))
    effect, found = effects[shown], parts[shown]
    numbers = [SCALES[effect.unit] * value for value in (found.value, found.low, found.high)]
    p = float("nan") if failures else max(part.p for part in parts.values())
    counts = effect.would_count()
    return Judgement(verdict, *numbers, effect.unit, counts, line, tuple(seeds), samples, p)


def untestable(claim: str, evidence: str, *, seeds: Sequence[int] = (), samples: int = 0) -> Judgement:
    """A claim of which a precondition leaves nothing to estimate."""
    effect, nothing = EFFECTS[claim], (float("nan"),) * 3
    return Judgement(
        NOT_TESTABLE, *nothing, effect.unit, effect.would_count(), evidence, tuple(map(int, seeds)), samples
    )


def describe(effect: Effect, found: Estimate, name: str) -> str:
    """One estimate in words: interval, and every seed's number (with McNemar's p where differences are paired)."""
    interval = f"{effect.number(found.value)} {effect.unit} [{effect.number(found.low)}, {effect.number(found.high)}]"
    by_seed = ", ".join(
        effect.number(one.value) + ("" if np.isnan(one.mcnemar) else f" (p = {one.mcnemar:.2g})") for one in found.seeds
    )
    equal = ""
    if effect.kind == "as good as" and found.low > effect.goal:
        equal = ", equal by both tests" if found.high < effect.smallest else ", as good or better"
    return f"{name}: {interval}{equal}" + (f"; per seed {by_seed}" if len(found.seeds) > 1 else "")


def holm(table: pd.DataFrame) -> pd.DataFrame:
    """Claims with p_holm, adjusted over the claims of a paper (the letter of `claim`), and the verdict that follows.

    table: columns claim, verdict, p (NaN where nothing was tested). Reproduced is what stays below `ALPHA`, else it is
    inconclusive; both are decided anew from p, so that the order in which claims were judged does not matter.
    """
    from statsmodels.stats.multitest import multipletests

    table = table.assign(p_holm=np.nan)
    for _, group in table[table.p.notna()].groupby(table.claim.str[0]):
        table.loc[group.index, "p_holm"] = multipletests(group.p, ALPHA, method="holm")[1]
    open_to_it = table.p.notna() & table.verdict.isin(BY_HOLM)
    verdicts = np.where(table.p_holm <= ALPHA, REPRODUCED, INCONCLUSIVE)
    return table.assign(verdict=table.verdict.where(~open_to_it, verdicts))


def _interval(effect: Effect, value: float, draws: np.ndarray) -> Estimate:
    low, high = np.quantile(draws, [ALPHA / 2, 1 - ALPHA / 2]).clip(effect.least, effect.most)
    short = np.count_nonzero(effect.sign * (draws - effect.goal) <= 0)
    return Estimate(float(value), float(low), float(high), min(1.0, 2 * (short + 1) / (len(draws) + 1)))


def _by_interval(effect: Effect, found: Estimate) -> str:
    far = found.high if effect.sign > 0 else found.low
    if effect.sign * (far - effect.bar) < 0:
        return NOT_REPRODUCED
    return REPRODUCED if found.p <= ALPHA else INCONCLUSIVE


def _seeds_disagree(effect: Effect, found: Estimate) -> bool:
    """Whether one seed shows the claim (a gain by McNemar's test too) and another refutes it, their intervals apart."""
    verdicts = [_by_interval(effect, one) for one in found.seeds]
    both = list(zip(found.seeds, verdicts, strict=True))
    refuted = [one for one, verdict in both if verdict == NOT_REPRODUCED]
    shown = [one for one, verdict in both if verdict == REPRODUCED]
    if effect.kind == "gain":
        shown = [one for one in shown if not one.mcnemar > ALPHA]
    return any(one.low > other.high or one.high < other.low for one in shown for other in refuted)


def _slack(effect: Effect, found: Estimate) -> float:
    """How far inside the claimed side the interval lies, in smallest effects."""
    near = found.low if effect.sign > 0 else found.high
    return effect.sign * (near - effect.goal) / effect.smallest


@functools.lru_cache(maxsize=8)
def _student(freedom: int, draws: int) -> np.ndarray:
    return np.random.default_rng(1).standard_t(freedom, draws)


@functools.lru_cache(maxsize=2)
def _weights(images: int) -> np.ndarray:
    """[B, n] shares of each image in `DRAWS` resamples: the same for all quantities of the same images."""
    random, weights = np.random.default_rng(0), np.empty((DRAWS, images), dtype=np.float32)
    for row in weights:
        row[:] = np.bincount(random.integers(0, images, images), minlength=images)
    return weights / images
