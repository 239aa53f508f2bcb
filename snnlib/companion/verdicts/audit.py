"""Final verdicts on L3, L4 and L6: what is left after every attack, and what exact zeros have to do with it.

Verdicts as in `luu2025_verdicts`: "reproduced" where the claim holds for every seed, "not reproduced" where it holds
for none, else "mixed". L3 and L4 are judged on images, the threat model of the field; the code is evidence.
"""

from __future__ import annotations

import pandas as pd

from snnlib.companion.measure.rows import clean_accuracy, robust_accuracy
from snnlib.companion.verdicts.luu2025 import AVERAGE, DEFENDED, FLOOR, MAX, Judgement, judge
from snnlib.errors import InputError

TOLERANCE = 0.02
"""The vanilla network keeps up when it is at most this much below the defended one, as in notebook 12."""
SAME_NONZEROS = 0.01
"""Networks whose shares of non-zeros lie within this have the same number of them."""
SAME_SUCCESS = 0.05
SPACE_NAMES = {"image": "on images", "encoded": "on the code"}


def worst_case(rows: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy per threat model, model, seed and eps: per sample the worst of all rows."""
    return robust_accuracy(rows, by=["threat_model", "model", "seed", "eps255"])


def clean_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Clean accuracy per model and seed, on the images of these rows."""
    return clean_accuracy(rows, by=["model", "seed"])[["model", "seed", "clean_accuracy"]]


def success_among_correct(robust: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """`robust` (of `worst_case`) with the column success: share of the correct images that some attack fooled.

    clean: model, seed and clean_accuracy on the same images.
    """
    joined = robust.merge(clean, on=["model", "seed"], validate="many_to_one")
    return joined.assign(success=1 - joined.robust_accuracy / joined.clean_accuracy)


def deciding_level(robust: pd.DataFrame, space: str, models: tuple[str, ...]) -> int | None:
    """The largest eps (1/255) at which one of `models` keeps `FLOOR` on average; below it nothing can be compared."""
    rows = robust[(robust.threat_model == space) & robust.model.isin(models)]
    means = rows.groupby(["eps255", "model"]).robust_accuracy.mean().groupby("eps255").max()
    kept = means[means >= FLOOR]
    return None if kept.empty else int(kept.index.max())


def judge_undefended(robust: pd.DataFrame, protocol: pd.DataFrame) -> Judgement:
    """L3: on images, after the worst of all attacks, the vanilla network keeps up with the defended one to 2 points.

    Judged at the largest eps at which the defended network keeps `FLOOR`; not testable where it never does. robust: of
    `worst_case`. protocol: the same under the authors' protocol alone (model, seed, robust_accuracy), as evidence.
    """
    holds, sentences = [], []
    for space in SPACE_NAMES:
        level = deciding_level(robust, space, (DEFENDED,))
        if level is None:
            sentences.append(f"{SPACE_NAMES[space]} the defended network keeps {FLOOR:.0%} at no eps")
            continue
        vanilla, defended = (_at(robust, space, level, model) for model in (MAX, DEFENDED))
        sentences.append(
            f"{SPACE_NAMES[space]} at {level}/255 {_percent(vanilla)} vanilla, {_percent(defended)} defended"
        )
        if space == "image":
            holds = [bool(vanilla[seed] >= defended[seed] - TOLERANCE) for seed in vanilla.index]
    theirs = [_percent(_by_seed(protocol, model)) for model in (MAX, DEFENDED)]
    sentences.append(f"the authors' protocol alone left {theirs[0]} and {theirs[1]}")
    evidence = f"worst case of all attacks: {'; '.join(sentences)}"
    return judge(holds, evidence) if holds else Judgement("not testable", evidence, ())


def judge_trade(robust: pd.DataFrame, accuracies: pd.DataFrame) -> Judgement:
    """L4: average pool has the higher clean accuracy and, on images, the lower robust accuracy.

    Judged at the largest eps at which one of the two networks keeps `FLOOR`; not testable where neither does.
    """
    clean = _by_seed(accuracies, AVERAGE, "test_accuracy") - _by_seed(accuracies, MAX, "test_accuracy")
    sentences, holds = [f"clean {_points(clean)}"], []
    for space in SPACE_NAMES:
        level = deciding_level(robust, space, (MAX, AVERAGE))
        if level is None:
            sentences.append(f"{SPACE_NAMES[space]} neither keeps {FLOOR:.0%} at any eps")
            continue
        gain = _at(robust, space, level, AVERAGE) - _at(robust, space, level, MAX)
        sentences.append(f"worst case {SPACE_NAMES[space]} at {level}/255 {_points(gain)}")
        if space == "image":
            holds = [bool(clean[seed] > 0 and gain[seed] < 0) for seed in clean.index]
    evidence = f"average minus max pool, points per seed: {'; '.join(sentences)}"
    return judge(holds, evidence) if holds else Judgement("not testable", evidence, ())


def judge_nonzeros(
    nonzeros: pd.DataFrame, success: pd.DataFrame, seen: pd.DataFrame, filled: pd.DataFrame
) -> Judgement:
    """L6: networks with more non-zeros in the input gradient are more vulnerable, on images and on the code.

    nonzeros: model, seed, space, nonzero_share. success: of `success_among_correct`, one eps per threat model. Evidence
    from one function under other gradients: seen (keep, success of an attacker who sees that share of the pixels) and
    filled (space, zeros and PGD's remainder by the own and the dense gradient of the max pool). The claim holds for a
    seed where, in both threat models, shares differ by `SAME_NONZEROS` or more and order the networks as their success
    does. Not testable where for every seed neither shares nor success (`SAME_SUCCESS`) differ.
    """
    tables = {
        space: nonzeros[nonzeros.space == space].merge(success[success.threat_model == space], on=["model", "seed"])
        for space in SPACE_NAMES
    }
    seeds = sorted(set(nonzeros.seed))
    if not seeds or any(set(table.seed) != set(seeds) for table in tables.values()):
        raise InputError("non-zeros and success are of different seeds; expected both for each; run notebook 30 again")
    spreads = [
        tuple(_spread(table[table.seed == seed], name) for name in ("nonzero_share", "success"))
        for table in tables.values()
        for seed in seeds
    ]
    holds = [all(_scales(table[table.seed == seed]) for table in tables.values()) for seed in seeds]
    described = "; ".join(
        f"{SPACE_NAMES[space]} {100 * table.nonzero_share.min():.2f}-{100 * table.nonzero_share.max():.2f} % non-zeros "
        f"against {100 * table.success.min():.0f}-{100 * table.success.max():.0f} % success"
        for space, table in tables.items()
    )
    ends, means = seen.groupby("keep").success.mean(), filled.groupby("space").mean(numeric_only=True)
    moves = ", ".join(
        f"{SPACE_NAMES[space]} {100 * row.left_own:.1f} -> {100 * row.left_dense:.1f} %"
        for space, row in means.iterrows()
    )
    zeros = f"{100 * means.zeros_own.mean():.0f} -> {100 * means.zeros_dense.mean():.0f} %"
    evidence = (
        f"over networks and seeds, {described}; same weights, zeros at the max pool filled in ({zeros}): PGD leaves "
        f"{moves}; same weights, gradient at {ends.index.min():.0%} of the pixels: it leaves "
        f"{100 - 100 * ends.iloc[0]:.1f} instead of {100 - 100 * ends.iloc[-1]:.1f} %"
    )
    if all(shares < SAME_NONZEROS and successes < SAME_SUCCESS for shares, successes in spreads):
        return Judgement("not testable", f"nothing varies; {evidence}", tuple(holds))
    return judge(holds, evidence)


def _scales(table: pd.DataFrame) -> bool:
    """Whether shares of non-zeros differ, and order the networks as their success does."""
    by_nonzeros, by_success = (table.sort_values(name).model.tolist() for name in ("nonzero_share", "success"))
    return _spread(table, "nonzero_share") >= SAME_NONZEROS and by_nonzeros == by_success


def _spread(table: pd.DataFrame, column: str) -> float:
    return float(table[column].max() - table[column].min())


def _at(robust: pd.DataFrame, space: str, level: int, model: str) -> pd.Series:
    return _by_seed(robust[(robust.threat_model == space) & (robust.eps255 == level)], model)


def _by_seed(table: pd.DataFrame, model: str, column: str = "robust_accuracy") -> pd.Series:
    return table[table.model == model].set_index("seed")[column].sort_index()


def _percent(values: pd.Series) -> str:
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=0):.1f} %"


def _points(differences: pd.Series) -> str:
    return ", ".join(f"{100 * value:+.1f}" for value in differences)
