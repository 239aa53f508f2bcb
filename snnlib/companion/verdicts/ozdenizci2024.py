"""From rows to verdicts on the claims C1-C6: each rule is stated, applied to every seed, and returns its numbers.

A verdict is "reproduced" when the claim holds for every seed, "not reproduced" when it holds for none, else "mixed".
It is "not testable" where no network compared has learned (`LEARNED`) and, C2 apart, is robust as well (`FLOOR`).
Robust accuracy is the worst case per sample over the attacks that a notebook names, unless a rule says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from snnlib.companion.measure.rows import clean_accuracy, robust_accuracy
from snnlib.companion.verdicts.luu2025 import Judgement, judge
from snnlib.errors import InputError

HEADLINE = 4
"""eps, in 1/255, at which C1, C3, C5 and C6 are judged: the middle one of the published levels."""
CLOSE = 0.01
"""C2: "within about a point" of the ANN's clean accuracy."""
RELATIVE_GAIN = 0.2
"""C4: share of what the training surrogate leaves standing that the other members must break. The published gap of
11-14 points is 25-29 % of what was left there; a share can be compared across accuracies. Our choice."""
ROUNDING = 1e-9
"""Differences of shares that are exactly at a boundary count as on it, whatever binary fractions make of them."""
FLOOR = 0.05
"""Robust accuracy below which a gap can no longer be told from noise."""
LEARNED = 0.2
"""Clean accuracy below which a network does not count as trained: twice chance on ten classes. Our choice. A network
that gives all images the same class keeps 10 % under every attack."""


def by_network(rows: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """Table of the chapter: model, seed, clean accuracy, and robust accuracy per level of eps (columns by level).

    rows: of one attack or several, the worst case per sample counts. clean: columns model, seed, test_accuracy.
    """
    robust = robust_accuracy(rows.assign(eps255=(255 * rows.eps).round().astype(int)), by=["model", "seed", "eps255"])
    wide = robust.pivot(index=["model", "seed"], columns="eps255", values="robust_accuracy").reset_index()
    table = clean[["model", "seed", "test_accuracy"]].rename(columns={"test_accuracy": "clean"})
    return table.merge(wide.rename_axis(columns=None), on=["model", "seed"], validate="one_to_one")


def judge_against_end_to_end(table: pd.DataFrame, level: int) -> Judgement:
    """C1: per seed, conversion (mean over the robust objectives) leaves more standing at `level`/255 than both
    end-to-end trainings, with equal steps and with equal time.
    """
    ours, rivals = table[_is_robust_conversion(table)], table[table.model.str.startswith("SNN, end to end")]
    converted, best_rival = ours.groupby("seed")[level].mean(), rivals.groupby("seed")[level].max()
    seeds = _common_seeds(converted, best_rival)
    converted, best_rival = converted[seeds], best_rival[seeds]
    ratios = [converted[seed] / best_rival[seed] if best_rival[seed] > 0 else float("inf") for seed in seeds]
    evidence = (
        f"robust at {level}/255: conversion {_percent(converted)}, best end-to-end {_percent(best_rival)}; "
        f"ratio per seed {', '.join(f'{ratio:.2f}' for ratio in ratios)}; claimed: more, up to 2×"
    )
    holds = [bool(converted[seed] > best_rival[seed]) for seed in seeds]
    return _judge_robust(holds, evidence, pd.concat([ours, rivals]), level)


def judge_clean_accuracy(table: pd.DataFrame, objectives: Collection[str]) -> Judgement:
    """C2: per seed and robust objective, the fine-tuned SNN's clean accuracy is at most `CLOSE` below its ANN's.

    ANNs below `LEARNED` are not judged.
    """
    holds, gaps = [], []
    for name in objectives:
        ann, snn = (_by_seed(table, f"{kind}{name}", "clean") for kind in ("ANN, ", "SNN, conversion from "))
        for seed in _common_seeds(ann, snn):
            if ann[seed] >= LEARNED:
                holds.append(_keeps(snn[seed], ann[seed]))
            gaps.append(f"{name} {100 * (snn[seed] - ann[seed]):+.1f}")
    evidence = f"clean accuracy, SNN minus ANN, points per seed: {', '.join(gaps)}; claimed: within about one"
    if gaps and not holds:
        return Judgement("not testable", f"no ANN reaches {LEARNED:.0%} clean; {evidence}", ())
    return judge(holds, evidence)


def judge_transfer(table: pd.DataFrame, objectives: Collection[str], level: int) -> Judgement:
    """C3: per seed and robust objective, starting from the robust ANN leaves more standing at `level`/255 than starting
    from the natural one with the same robust fine-tuning.
    """
    models = {name: f"SNN, conversion from {name}" for name in ("natural", *objectives)}
    natural = _by_seed(table, models["natural"], level)
    holds, gains = [], []
    for name in objectives:
        robust = _by_seed(table, models[name], level)
        for seed in _common_seeds(natural, robust):
            holds.append(bool(robust[seed] > natural[seed]))
            gains.append(f"{name} {100 * (robust[seed] - natural[seed]):+.1f}")
    evidence = f"robust at {level}/255, points above a start from the natural ANN ({_percent(natural)})"
    compared = table[table.model.isin(models.values())]
    return _judge_robust(holds, f"{evidence}: {', '.join(gains)}", compared, level)


def judge_ensemble(rows: pd.DataFrame, training_surrogate: str) -> Judgement:
    """C4: the ensemble breaks at least `RELATIVE_GAIN` of what the training surrogate leaves standing, per network.

    rows: single members run `alone` on every sample, one eps. Networks that have not learned, or that the training
    surrogate leaves below `FLOOR`, are not judged.
    """
    networks = ["model", "seed"]
    alone = robust_accuracy(rows[rows.surrogate == training_surrogate], by=networks).set_index(networks).robust_accuracy
    together = robust_accuracy(rows, by=networks).set_index(networks).robust_accuracy
    clean = clean_accuracy(rows, by=networks).set_index(networks).clean_accuracy
    judged = alone[(alone >= FLOOR) & (clean >= LEARNED)].index
    gaps = 100 * (alone - together)
    if len(judged) == 0:
        return Judgement(
            "not testable",
            f"no network has {LEARNED:.0%} clean accuracy and keeps {FLOOR:.0%} under the training surrogate",
            (),
        )
    shares = ((alone - together) / alone)[judged]
    evidence = (
        f"the ensemble takes {gaps[judged].min():.1f} to {gaps[judged].max():.1f} points from what the training "
        f"surrogate leaves ({_percent(alone[judged])}), {shares.min():.0%} to {shares.max():.0%} of it; "
        "claimed: 11-14 points, 25-29 %"
    )
    return judge([bool(share >= RELATIVE_GAIN - ROUNDING) for share in shares], evidence)


def judge_ablation(
    table: pd.DataFrame, model: str, ablated: str, level: int, wording: str, *, ties_hold: bool = False
) -> Judgement:
    """C5, C6: per seed, the paper's way leaves more standing at `level`/255 than the ablated one, without losing more
    than `CLOSE` of clean accuracy. ties_hold: as much is enough (C6 claims no more than that nothing is lost).
    """
    ours, other = _by_seed(table, model, level), _by_seed(table, ablated, level)
    clean, other_clean = _by_seed(table, model, "clean"), _by_seed(table, ablated, "clean")
    seeds = _common_seeds(ours, other)
    ours, other = ours[seeds], other[seeds]
    robust_gain, clean_gain = 100 * (ours - other), 100 * (clean - other_clean)
    evidence = "; ".join(
        f"seed {seed}: robust {robust_gain[seed]:+.1f}, clean {clean_gain[seed]:+.1f}" for seed in seeds
    )
    holds = [
        bool(ours[seed] > other[seed] or (ties_hold and ours[seed] == other[seed]))
        and _keeps(clean[seed], other_clean[seed])
        for seed in seeds
    ]
    levels = f"robust at {level}/255 {_percent(ours)} against {_percent(other)}"
    compared = table[table.model.isin((model, ablated))]
    return _judge_robust(holds, f"{wording}: {levels}; points per seed: {evidence}", compared, level)


def rank_correlation(ours: pd.Series, published: pd.Series) -> float:
    """Spearman's rank correlation of two series over their common index; ties share their mean rank.

    Errors: InputError for fewer than three common entries.
    """
    common = ours.index.intersection(published.index)
    if len(common) < 3:
        raise InputError(f"{len(common)} common members; expected at least 3; check the names")
    return float(ours[common].rank().corr(published[common].rank()))


def _is_robust_conversion(table: pd.DataFrame) -> pd.Series:
    return table.model.isin([f"SNN, conversion from {name}" for name in ("AT", "TRADES", "MART")])


def _judge_robust(holds: list[bool], evidence: str, compared: pd.DataFrame, level: int) -> Judgement:
    """`judge`, unless no row of `compared` is of a trained network that is robust at `level`/255."""
    if holds and not ((compared.clean >= LEARNED) & (compared[level] >= FLOOR)).any():
        reason = f"no network compared has {LEARNED:.0%} clean and {FLOOR:.0%} robust accuracy"
        return Judgement("not testable", f"{reason}; {evidence}", tuple(holds))
    return judge(holds, evidence)


def _keeps(accuracy: float, reference: float) -> bool:
    """Whether at most `CLOSE` is lost."""
    return bool(accuracy - reference >= -CLOSE - ROUNDING)


def _by_seed(table: pd.DataFrame, model: str, column: object) -> pd.Series:
    return table[table.model == model].set_index("seed")[column]


def _common_seeds(first: pd.Series, second: pd.Series) -> list[int]:
    return sorted(set(first.index) & set(second.index))


def _percent(values: pd.Series) -> str:
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=0):.1f} %"
