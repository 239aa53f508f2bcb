"""Claims C1-C6, from rows: means against means, paired per image, over networks that have all learned.

Robust accuracy is the worst case per image over the attacks that a notebook names. `accuracies` has the columns model,
seed, test_accuracy, class_entropy (`accuracy_rows`).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from snnlib.companion.measure.rows import robust_accuracy
from snnlib.companion.verdicts.effects import EFFECTS
from snnlib.companion.verdicts.preconditions import (
    at_level,
    mean_of,
    no_room,
    not_applied,
    not_learned,
    standing,
    told,
)
from snnlib.companion.verdicts.rules import Judgement, judge, of_differences, of_images, of_shares
from snnlib.errors import InputError

HEADLINE = 4
"""eps, in 1/255, at which C1, C3, C5 and C6 are judged: the middle one of the published levels."""
ROUNDING = 1e-9
"""Differences of shares that are exactly at a boundary count as on it, whatever binary fractions make of them."""
CONVERSION, END_TO_END = "SNN, conversion from ", "SNN, end to end"
ROBUST = tuple(f"{CONVERSION}{name}" for name in ("AT", "TRADES", "MART"))


def by_network(rows: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """Table of the chapter: model, seed, clean accuracy, and robust accuracy per level of eps (columns by level).

    rows: of one attack or several, the worst case per sample counts. clean: columns model, seed, test_accuracy.
    """
    robust = robust_accuracy(rows.assign(eps255=(255 * rows.eps).round().astype(int)), by=["model", "seed", "eps255"])
    wide = robust.pivot(index=["model", "seed"], columns="eps255", values="robust_accuracy").reset_index()
    table = clean[["model", "seed", "test_accuracy"]].rename(columns={"test_accuracy": "clean"})
    return table.merge(wide.rename_axis(columns=None), on=["model", "seed"], validate="one_to_one")


def judge_against_end_to_end(rows: pd.DataFrame, accuracies: pd.DataFrame, level: int) -> Judgement:
    """C1: conversion (mean of the robust objectives) leaves more standing at `level`/255 than training end to end
    (mean of equal steps and equal time, and of every other rival whose name begins so).
    """
    rivals = [name for name in rows.model.unique() if name.startswith(END_TO_END)]
    if not rivals:
        raise InputError("no rival trained end to end in the rows; expected at least one; run notebook 23 again")
    ours = [name for name in ROBUST if (rows.model == name).any()]
    return more_stands("C1", rows, accuracies, level, {"C1": (ours, rivals)}, ("conversion", "end to end"))


def judge_clean_accuracy(accuracies: pd.DataFrame, objectives: Collection[str]) -> Judgement:
    """C2: the fine-tuned SNNs' clean accuracy (mean of the objectives) is at most a point below that of their ANNs.

    On all test images (column test_images). The ANNs must have learned; an SNN that has not is a failure of the claim.
    """
    anns, snns = ([f"{kind}{name}" for name in objectives] for kind in ("ANN, ", CONVERSION))
    wide = accuracies.pivot(index="seed", columns="model", values="test_accuracy")
    missing = [name for name in (*anns, *snns) if name not in wide]
    wide = wide[[*anns, *snns]].dropna() if not missing else wide
    if missing or wide.empty:
        raise InputError(f"no seed to judge; missing: {missing or 'a common seed'}; run notebook 23 again")
    images = int(accuracies.test_images.min())
    found = of_shares(EFFECTS["C2"], wide[snns].to_numpy(), wide[anns].to_numpy(), images)
    gaps = {name: wide[snn] - wide[ann] for name, snn, ann in zip(objectives, snns, anns, strict=True)}
    each = ", ".join(f"{name} {100 * gap.mean():+.1f}" for name, gap in gaps.items())
    evidence = f"by objective {each}; ANNs {100 * wide[anns].mean(axis=None):.1f} % clean"
    options = {"seeds": [int(seed) for seed in wide.index], "samples": images, "words": {"C2": "SNN minus ANN"}}
    return judge({"C2": found}, evidence, failures=not_learned(accuracies, anns), **options)


def judge_transfer(rows: pd.DataFrame, accuracies: pd.DataFrame, objectives: Collection[str], level: int) -> Judgement:
    """C3: for each robust objective, starting from the robust ANN leaves more standing at `level`/255 than starting
    from the natural one with the same robust fine-tuning.
    """
    natural = [f"{CONVERSION}natural"]
    pairs = {f"C3/{name}": ([f"{CONVERSION}{name}"], natural) for name in objectives}
    return more_stands("C3", rows, accuracies, level, pairs, ("robust start", "natural start"))


def judge_ensemble(rows: pd.DataFrame, accuracies: pd.DataFrame, training_surrogate: str) -> Judgement:
    """C4: of what the training surrogate leaves standing, the other members break more than `EFFECTS` says (a share
    can be compared across accuracies; that some image more falls to 19 attacks than to one is no news).

    rows: single members run `alone` on every sample, one eps; mean over the networks of each seed.
    """
    models = list(rows.model.unique())
    alone, together = standing(rows[rows.surrogate == training_surrogate], models), standing(rows, models)
    left = np.concatenate([alone[model].to_numpy() for model in models])
    broken = left - np.concatenate([together[model].to_numpy() for model in models])
    seeds = alone[models[0]].index
    room = {model: float(alone[model].to_numpy().mean()) for model in models}
    failures = not_learned(accuracies, models)
    for model, share in room.items():
        failures += no_room({f"{model}, training surrogate": share})
    gap = 100 * broken.mean()
    evidence = f"{gap:.1f} points of {100 * left.mean():.1f} % left; claimed: 11-14 points, 25-29 %"

    def shares(means: np.ndarray) -> np.ndarray:
        found = means.reshape(len(means), 2, len(models), len(seeds))
        return (found[:, 0] / np.maximum(found[:, 1], ROUNDING)).mean(axis=1)

    found = of_images(EFFECTS["C4"], np.concatenate([broken, left]).T, shares)
    options = {"seeds": [int(seed) for seed in seeds], "samples": left.shape[1]}
    return judge({"C4": found}, evidence, failures=failures, words={"C4": "share that other members break"}, **options)


def judge_ablation(
    claim: str,
    rows: pd.DataFrame,
    accuracies: pd.DataFrame,
    model: str,
    ablated: str,
    level: int,
    moved: pd.Series,
    wording: str,
) -> Judgement:
    """C5: the paper's way leaves more standing at `level`/255 than the ablated one. C6: it leaves as much.

    moved: per seed, the mean relative change of what is ablated (thresholds by fine-tuning; BatchNorm's scale from 1).
    wording: the two sides, as "this against that".
    """
    what = {"C5": "fine-tuning moves the thresholds", "C6": "BatchNorm's scale differs from 1"}[claim]
    pairs, sides = {claim: ([model], [ablated])}, wording.split(" against ")
    return more_stands(claim, rows, accuracies, level, pairs, sides, not_applied(moved, what))


def rank_correlation(ours: pd.Series, published: pd.Series) -> float:
    """Spearman's rank correlation of two series over their common index; ties share their mean rank.

    Errors: InputError for fewer than three common entries.
    """
    common = ours.index.intersection(published.index)
    if len(common) < 3:
        raise InputError(f"{len(common)} common members; expected at least 3; check the names")
    return float(ours[common].rank().corr(published[common].rank()))


def more_stands(
    claim: str,
    rows: pd.DataFrame,
    accuracies: pd.DataFrame,
    level: int,
    pairs: dict[str, tuple[Collection[str], Collection[str]]],
    sides: Collection[str],
    failures: Collection[str] = (),
) -> Judgement:
    """Judge, for every part, the mean standing of its first models against that of its second, at one level."""
    rows = at_level(rows, level)
    first, second = (list(dict.fromkeys(name for pair in pairs.values() for name in pair[side])) for side in (0, 1))
    tables = standing(rows, [*first, *second])
    failures = [*failures, *not_learned(accuracies, [*first, *second])]
    parts, words = {}, {}
    for name, (plus, minus) in pairs.items():
        means = mean_of(tables, plus), mean_of(tables, minus)
        failures += no_room(dict(zip(sides, map(float, (means[0].mean(), means[1].mean())), strict=True)))
        parts[name] = of_differences(EFFECTS[claim], means[0] - means[1])
        words[name] = f"{name.partition('/')[2] or ' minus '.join(sides)}, standing at {level}/255"
    seeds = [int(seed) for seed in tables[first[0]].index]
    evidence = told(rows, dict(zip(sides, (first, second), strict=True)))
    return judge(parts, evidence, seeds=seeds, samples=tables[first[0]].shape[1], failures=failures, words=words)
