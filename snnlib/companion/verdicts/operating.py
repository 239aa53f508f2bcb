"""How often the rules err: verdicts on simulated networks of which the truth is known, at the sizes of a night.

An image stands where a normal latent, partly the image's own and partly a training's, is below a threshold; the sides
of a comparison differ by a true effect, and each seed's difference is off by `seed_sd` (times `spread`). Rivals that
have not learned go through the whole rules, from rows: `operating_rivals`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from snnlib.companion.measure.store import stored
from snnlib.companion.verdicts.effects import EFFECTS, Effect
from snnlib.companion.verdicts.operating_rivals import RIVALS, judged_with_rival
from snnlib.companion.verdicts.rules import (
    ALPHA,
    REPRODUCED,
    VERDICTS,
    Estimate,
    Judgement,
    judge,
    of_counts,
    of_differences,
    of_images,
    of_seeds,
    of_shares,
)
from snnlib.companion.verdicts.theorems import correlation

SCENARIOS = {"claim just false": 0, "smallest effect": 1, "twice that": 2}
"""True values, in smallest effects beyond the effect's goal: a gain of none, of the smallest, of twice that. What is to
be as good is worse by all that is allowed, equal, or better; a share "at most" is the limit, a quarter of it, none."""
STRICTEST = ALPHA / 6
"""What Holm's method asks of the first of six claims of a paper."""
TEST_IMAGES = 10_000
BASE = 0.3
"""Robust accuracy, or share broken, of the other side."""


@dataclass(frozen=True)
class Case:
    """How a claim's rows look at night. parts: of `simulate`, given a generator, the true value and the sd of seeds.

    seeds, images: of the experiment. rate: share of the repetitions that it can afford.
    """

    claim: str
    parts: Callable[[np.random.Generator, float, float, int], dict[str, Estimate]]
    seeds: int
    images: int = 1000
    rate: float = 1.0


def operating_characteristics(
    repetitions: int = 150, claims: Iterable[str] = (), spreads: Iterable[float] = (1,)
) -> pd.DataFrame:
    """How often each verdict falls: one row per claim, scenario and spread of the seeds (1: as `EFFECTS` supposes).

    Columns: claim, seeds, images, spread, scenario, repetitions, a share per verdict, and reproduced_by_holm: the share
    that is reproduced even where it is the first of six claims. claims: some only; none named means all.
    """
    lines = []
    for case in (case for case in CASES if case.claim in (tuple(claims) or tuple(EFFECTS))):
        for spread in spreads:
            for scenario, size in SCENARIOS.items():
                random = np.random.default_rng([*case.claim.encode(), size, int(10 * spread)])
                count = max(1, int(case.rate * repetitions))
                found = [simulated(case, random, size, spread) for _ in range(count)]
                lines.append(_line(case, spread, scenario, found))
        for rival in RIVALS:
            found = [judged_with_rival(case.claim, rival, seed) for seed in range(2)]
            lines.append(_line(case, 1, f"{rival} rival", [one for one in found if one is not None]))
    return pd.DataFrame([line for line in lines if line["repetitions"]])


@stored("operating_characteristics")
def stored_characteristics(repetitions: int) -> pd.DataFrame:
    """`operating_characteristics` of all claims, made once."""
    return operating_characteristics(repetitions)


def simulated(case: Case, random: np.random.Generator, size: float, spread: float) -> Judgement:
    """The verdict on one simulated experiment."""
    effect = EFFECTS[case.claim]
    parts = case.parts(random, truth(effect, size), spread * effect.seed_sd, case.seeds)
    return judge(parts, "", seeds=range(case.seeds), samples=case.images)


def truth(effect: Effect, size: float) -> float:
    """The true value at so many smallest effects."""
    if effect.kind == "at most":
        return effect.smallest * (1, 0.25, 0)[int(size)]
    step = min(effect.smallest, (1 - effect.smallest) / 2) if effect.kind == "level" else effect.smallest
    return effect.goal + size * step


def standing(
    random: np.random.Generator, sides: Iterable[tuple[float, int]], sd: float, seeds: int, shared: float, images: int
) -> list[np.ndarray]:
    """[S, n] per side of (true share, networks): mean over its networks. shared: correlation of the latents.

    sd: of a seed's difference between two sides.
    """
    own, found = random.standard_normal(images), []
    for share, networks in sides:
        shares = np.clip(share + random.normal(0, sd / np.sqrt(2), seeds), 1e-3, 1 - 1e-3)
        noise = random.standard_normal((networks, seeds, images))
        latent = np.sqrt(shared) * own + np.sqrt(1 - shared) * noise
        found.append((latent < norm.ppf(shares)[:, None]).mean(axis=0))
    return found


def _line(case: Case, spread: float, scenario: str, found: list[Judgement]) -> dict:
    line = {"claim": case.claim, "seeds": case.seeds, "images": case.images, "spread": spread, "scenario": scenario}
    shares = {verdict: np.mean([one.verdict == verdict for one in found] or [0]) for verdict in VERDICTS[:-1]}
    strict = [one.verdict == REPRODUCED and one.p <= STRICTEST for one in found]
    return line | {"repetitions": len(found)} | shares | {"reproduced_by_holm": np.mean(strict or [0])}


def _compared(claim: str, ours: int = 1, theirs: int = 1, shared: float = 0.6) -> Callable:
    """So many networks against so many others, paired per image."""

    def parts(random: np.random.Generator, true: float, sd: float, seeds: int) -> dict[str, Estimate]:
        sides = ((BASE + true, ours), (BASE, theirs))
        first, second = standing(random, sides, sd, seeds, shared, 1000)
        return {claim: of_differences(EFFECTS[claim], first - second)}

    return parts


def _each_against_one(claim: str, others: int = 3) -> Callable:
    """So many networks, each against the same one, paired per image."""

    def parts(random: np.random.Generator, true: float, sd: float, seeds: int) -> dict[str, Estimate]:
        sides = ((BASE, 1), *((BASE + true, 1) for _ in range(others)))
        one, *rest = standing(random, sides, sd, seeds, 0.6, 1000)
        return {f"{claim}/{number}": of_differences(EFFECTS[claim], each - one) for number, each in enumerate(rest)}

    return parts


def _clean(claim: str, networks: int, true: float, sd: float, seeds: int, random: np.random.Generator) -> Estimate:
    """Accuracies of as many networks on both sides, each on all test images."""
    sides = [(0.6 + true, 1)] * networks + [(0.6, 1)] * networks
    shares = np.array([side.mean(axis=1) for side in standing(random, sides, sd, seeds, 0.6, TEST_IMAGES)]).T
    return of_shares(EFFECTS[claim], shares[:, :networks], shares[:, networks:], TEST_IMAGES)


def _kept(random: np.random.Generator, true: float, sd: float, seeds: int) -> dict[str, Estimate]:
    return {"C2": _clean("C2", 3, true, sd, seeds, random)}


def _trade(random: np.random.Generator, true: float, sd: float, seeds: int) -> dict[str, Estimate]:
    """Both halves true, or the robust one just not."""
    clean = max(true, EFFECTS["L4"].smallest) * EFFECTS["L4 clean"].smallest / EFFECTS["L4"].smallest
    spread = sd / EFFECTS["L4"].seed_sd * EFFECTS["L4 clean"].seed_sd
    halves = {"L4 clean": _clean("L4 clean", 1, clean, spread, seeds, random)}
    return halves | _compared("L4")(random, true, sd, seeds)


def _ensemble(random: np.random.Generator, true: float, sd: float, seeds: int) -> dict[str, Estimate]:
    """One network per seed: what the training surrogate leaves, and the share of it that the others break."""
    (left,) = standing(random, ((BASE, 1),), 0, seeds, 0.6, 1000)
    (falls,) = standing(random, ((true, 1),), np.sqrt(2) * sd, seeds, 0.6, 1000)
    columns = np.concatenate([left * falls, left]).T
    return {"C4": of_images(EFFECTS["C4"], columns, lambda means: means[:, :seeds] / means[:, seeds:])}


def _level(claim: str) -> Callable:
    def parts(random: np.random.Generator, true: float, sd: float, seeds: int) -> dict[str, Estimate]:
        return {claim: of_seeds(EFFECTS[claim], true + random.normal(0, sd, seeds))}

    return parts


def _counts(claim: str, samples: int, *good: str) -> Callable:
    """A share of `samples` per seed; good: further parts, in which nothing is out."""

    def parts(random: np.random.Generator, true: float, sd: float, seeds: int) -> dict[str, Estimate]:
        totals = [samples] * seeds
        found = {claim: of_counts(EFFECTS[claim], random.binomial(samples, true, seeds), totals)}
        return found | {name: of_counts(EFFECTS[claim], [0] * seeds, totals) for name in good}

    return parts


def _ranks(random: np.random.Generator, true: float, sd: float, seeds: int) -> dict[str, Estimate]:
    """Two networks of 100 samples per seed; the normal correlation that gives Spearman's."""
    tables = []
    for seed in range(seeds):
        weight = 2 * np.sin(np.pi * np.clip(true + random.normal(0, sd), -1, 1) / 6)
        for model in ("a", "b"):
            count, noise = random.standard_normal((2, 100))
            rho = weight * count + np.sqrt(1 - weight**2) * noise
            tables.append(pd.DataFrame({"model": model, "seed": seed, "l0": count, "rho_adv": rho}))
    return {"L6a": correlation(pd.concat(tables))}


CASES = (
    Case("L1", _level("L1"), 2),
    Case("L2", _level("L2"), 2),
    Case("L3", _compared("L3"), 2),
    Case("L4", _trade, 2),
    Case("L5", _counts("L5", 200, "L5/relaxation"), 2, 100),
    Case("L6a", _ranks, 2, 100, rate=0.2),
    Case("L6b", _compared("L6b", shared=0.9), 2),
    Case("L7", _counts("L7", 1000), 2, 100),
    Case("C1", _compared("C1", 3, 2), 3),
    Case("C2", _kept, 3, TEST_IMAGES, rate=0.5),
    Case("C3", _each_against_one("C3"), 3),
    Case("C4", _ensemble, 3, rate=0.5),
    Case("C5", _compared("C5"), 3),
    Case("C6", _compared("C6"), 3),
    Case("Q1a", _compared("Q1a", 2, 2, shared=0.95), 3),
    Case("Q1b", _compared("Q1b", 2, 2, shared=0.95), 3),
    Case("Q1c", _compared("Q1c", 2, 2, shared=0.95), 3),
    Case("Q2", _counts("Q2", 3000), 2),
    Case("Q3", _each_against_one("Q3", 4), 3),
    Case("Q4", _each_against_one("Q4"), 3),
)
