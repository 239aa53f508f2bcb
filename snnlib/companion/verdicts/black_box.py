"""From rows to tables and to the verdict on claim Q2: do attacks without a gradient beat those with one?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from snnlib.companion.measure.rows import (
    SAMPLE_KEY,
    attack_success_rate_among_correct,
    clean_accuracy,
    robust_accuracy,
    wilson_interval,
)
from snnlib.companion.published import load_reference
from snnlib.companion.verdicts.luu2025 import Judgement, judge

LIMIT = 0.002
"""Share of samples that gradient-free attacks may break beyond the white-box ones; the flag of AutoAttack."""
GRADIENT_FREE = ("nothing", "score", "decision", "transfer")
CELL = ["model", "seed", "eps255"]
STRENGTHS = {
    "APGD-CE": ("apgd ce",),
    "APGD-CE and the ensemble": ("apgd ce", "ensemble"),
    "APGD-CE, the ensemble and APGD-margin": ("apgd ce", "ensemble", "apgd margin"),
}
"""White-box sides from weak to strong. Square and SPSA work on the margin, and of these only the last side does."""


def both_sides(rows: pd.DataFrame) -> pd.DataFrame:
    """Per network, seed and eps: robust accuracy of each side with its 95 % interval, and who fell to one side alone.

    rows: of `black_box`, white-box and gradient-free together. only_gradient_free: share of the samples that some
    gradient-free attack breaks and no white-box one; only_white_box the other way round; counts beside them.
    """
    is_free = rows.access.isin(GRADIENT_FREE)
    key = [*CELL, *SAMPLE_KEY]
    broken = pd.DataFrame(
        {
            "white": rows[~is_free].groupby(key).success.any(),
            "free": rows[is_free].groupby(key).success.any(),
        }
    )
    lines = []
    for cell, group in broken.dropna().astype(bool).groupby(level=CELL):
        line = dict(zip(CELL, cell, strict=True)) | {"samples": len(group)}
        for name, column in (("white_box", group.white), ("gradient_free", group.free), ("all", group.any(axis=1))):
            low, high = wilson_interval(int((~column).sum()), len(column))
            line |= {f"{name}_robust": (~column).mean(), f"{name}_low": low, f"{name}_high": high}
        beyond = int((group.free & ~group.white).sum())
        line |= {"only_gradient_free": beyond / len(group), "beyond": beyond}
        line |= {"only_white_box": (group.white & ~group.free).mean()}
        lines.append(line)
    return pd.DataFrame(lines)


def by_strength(rows: pd.DataFrame) -> pd.DataFrame:
    """What gradient-free attacks find beyond ever stronger white-box sides (`STRENGTHS`), over all cells together."""
    free = rows[rows.access.isin(GRADIENT_FREE)]
    lines = []
    for name, attacks in STRENGTHS.items():
        sides = both_sides(pd.concat([free, rows[rows.attack.isin(attacks)]], ignore_index=True))
        beyond, samples = int(sides.beyond.sum()), int(sides.samples.sum())
        low, high = wilson_interval(beyond, samples)
        line = {"white_box_side": name, "robust_accuracy": (sides.white_box_robust * sides.samples).sum() / samples}
        lines.append(line | {"samples": samples, "beyond": beyond, "share": beyond / samples, "low": low, "high": high})
    return pd.DataFrame(lines)


def judge_gradient_free(sides: pd.DataFrame, strengths: pd.DataFrame) -> Judgement:
    """Q2: per network and seed, at no eps do gradient-free attacks break more than `LIMIT` beyond the white-box ones.

    sides: from `both_sides`, of the strongest white-box side. strengths: from `by_strength`, told as evidence. A
    network and seed of which the white-box attacks leave nobody at any eps says nothing, since nobody is left to be
    found; if that is so for all, the claim is not testable. With fewer than 500 samples `LIMIT` means: not one.
    """
    holds, kept = [], []
    for _, group in sides.groupby(["model", "seed"]):
        if (group.white_box_robust > 0).any():
            holds.append(bool((group.only_gradient_free <= LIMIT).all()))
            kept.append(group)
    beyond, pairs = int(sides.beyond.sum()), int(sides.samples.sum())
    low, high = wilson_interval(beyond, pairs)
    means = sides.groupby("eps255")[["white_box_robust", "gradient_free_robust"]].mean()
    accuracies = "; ".join(
        f"at {eps}/255 {100 * white:.1f} % white-box, {100 * free:.1f} % gradient-free"
        for eps, white, free in means.itertuples()
    )
    weaker = ", ".join(f"{line.beyond} beyond {line.white_box_side} alone" for line in strengths.iloc[:-1].itertuples())
    evidence = (
        f"broken without a gradient and by no white-box attack: {beyond} of {pairs} samples over all networks, seeds "
        f"and eps ({100 * low:.1f} to {100 * high:.1f} %); {weaker}; robust accuracy {accuracies}"
    )
    if len(sides) and not kept:
        return Judgement("not testable", f"the white-box attacks leave nobody to find; {evidence}", ())
    return judge(holds, evidence)


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in which the samples of different seeds are different samples, so that groups without seed pool them."""
    return rows.assign(split=rows.split + " " + rows.seed.astype(str))


def by_attack(rows: pd.DataFrame, by: Sequence[str] = CELL) -> pd.DataFrame:
    """Robust accuracy with its interval under each attack alone, and the forwards that it spent on a correct sample.

    by: what tells groups apart beside the attack; without "seed", give the rows `pooled`. The ensemble ran on those
    that APGD-CE left, so it stands with it as "apgd ce + ensemble"; "all white-box" is the whole side. Transfer from
    several sources counts as one attack.
    """
    key = [*by, "access", "attack"]
    with_ensemble = rows[rows.attack.isin(("apgd ce", "ensemble"))].assign(attack="apgd ce + ensemble")
    whole_side = rows[rows.access == "white-box"].assign(attack="all white-box")
    rows = pd.concat([rows[rows.attack != "ensemble"], with_ensemble, whole_side], ignore_index=True)
    table = robust_accuracy(rows, by=key)
    per_sample = rows[rows.clean_correct].groupby([*key, "split", "sample"]).queries.sum()
    return table.merge(per_sample.groupby(key).mean().rename("mean_forwards").reset_index(), on=key, how="left")


def standing_by_queries(rows: pd.DataFrame, points: int = 40) -> pd.DataFrame:
    """Share of all samples that still stand after so many queries, per network, attack and eps; seeds are pooled.

    Wrong without attack: fallen at the first query. One line per number of queries on a grid from 1 to the largest.
    """
    lines = []
    for (model, attack, eps255), group in rows.groupby(["model", "attack", "eps255"]):
        most = int(group.queries.max())
        grid = sorted({round(most ** (step / (points - 1))) for step in range(points)})
        for queries in grid:
            standing = int((~(group.success & (group.queries <= queries))).sum())
            low, high = wilson_interval(standing, len(group))
            line = {"model": model, "attack": attack, "eps255": eps255, "queries": queries}
            lines.append(line | {"robust_accuracy": standing / len(group), "low": low, "high": high})
    return pd.DataFrame(lines)


def transfer_matrix(rows: pd.DataFrame) -> pd.DataFrame:
    """Success among the samples that the target gets right, per target and source; seeds are pooled."""
    return attack_success_rate_among_correct(pooled(rows), by=["model", "source", "eps255"])


def standing_by_flips(rows: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy per network, attack and number of flips allowed; seeds are pooled."""
    return robust_accuracy(pooled(rows), by=["model", "attack", "flips"])


def square_beside_published(rows: pd.DataFrame, queries: int) -> pd.DataFrame:
    """Square at 8/255, accuracies in percent: the follow-up's published rows, then ours with `queries` queries.

    **Source:** Schmolli et al. 2025, table 1: VGG-16 with 90 % of the weights pruned, whole CIFAR-10.
    """
    published = load_reference("schmolli2025_tables")
    square = published[(published.attack == "Square") & (published.variant == "uniform")]
    lines = [
        {"network": f"{name} ({group.architecture.iloc[0]}, pruned)", "whose": "published by the follow-up"}
        | {f"{steps:.0f} queries": value for steps, value in zip(group.steps, group.value, strict=True)}
        for name, group in square.groupby("network", sort=False)
    ]
    clean = published[(published.table == "Table 1") & (published.attack == "none")].set_index("network").value
    for line, name in zip(lines, square.network.unique(), strict=True):
        line["clean"] = clean[name]
    ours = rows[(rows.attack == "square") & (rows.eps255 == 8)]
    for model, group in ours.groupby("model", sort=False):
        seeds = pooled(group)
        line = {"network": model, "whose": "ours", "clean": 100 * clean_accuracy(seeds).clean_accuracy.iloc[0]}
        lines.append(line | {f"{queries} queries": 100 * robust_accuracy(seeds).robust_accuracy.iloc[0]})
    table = pd.DataFrame(lines)
    by_number = sorted((name for name in table if name.endswith("queries")), key=lambda name: int(name.split()[0]))
    return table[["network", "whose", "clean", *by_number]]
