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
from snnlib.companion.verdicts.effects import EFFECTS
from snnlib.companion.verdicts.preconditions import FLOOR, not_learned
from snnlib.companion.verdicts.rules import Judgement, judge, of_counts, untestable

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
    lines = []
    for cell, group in _broken(rows).groupby(level=CELL):
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


def judge_gradient_free(rows: pd.DataFrame, accuracies: pd.DataFrame) -> Judgement:
    """Q2: gradient-free attacks break at most 0.2 % of the images beyond all white-box ones (the flag of AutoAttack).

    rows: of both sides. An image counts once per network and seed, as beyond where it is so at some eps. A network and
    eps at which the white-box attacks leave less than `FLOOR` says nothing, since hardly anybody is left to be found;
    without any other the claim is not testable.
    """
    sides = both_sides(rows)
    kept = sides.groupby(["model", "eps255"]).white_box_robust.mean().loc[lambda shares: shares >= FLOOR].index
    means = 100 * sides.groupby("eps255")[["white_box_robust", "gradient_free_robust"]].mean()
    left = "; ".join(
        f"at {eps}/255 {white:.1f} % white-box, {free:.1f} % gradient-free" for eps, white, free in means.itertuples()
    )
    weaker = ", ".join(f"{line.beyond} beyond {line.white_box_side}" for line in by_strength(rows).itertuples())
    evidence = f"{weaker}; robust accuracy {left}"
    size = {"seeds": sorted(int(seed) for seed in rows.seed.unique()), "samples": int(sides["samples"].max())}
    chosen = rows[pd.MultiIndex.from_frame(rows[["model", "eps255"]]).isin(kept)]
    if chosen.empty:
        return untestable("Q2", f"the white-box attacks leave {FLOOR:.0%} nowhere; {evidence}", **size)
    models = chosen.model.unique()
    broken = _broken(chosen)
    beyond = (broken.free & ~broken.white).groupby(["model", "seed", *SAMPLE_KEY]).any()
    counts = beyond.groupby("seed").agg(["sum", "size"])
    found = of_counts(EFFECTS["Q2"], counts["sum"].tolist(), counts["size"].tolist())
    evidence = f"{counts['sum'].sum()} of {counts['size'].sum()} images of {len(models)} networks; {evidence}"
    words = {"Q2": "broken without a gradient and by no white-box attack"}
    return judge({"Q2": found}, evidence, failures=not_learned(accuracies, models), words=words, **size)


def _broken(rows: pd.DataFrame) -> pd.DataFrame:
    """Per network, seed, eps and image that both sides attacked: columns white and free, whether it fell."""
    is_free, key = rows.access.isin(GRADIENT_FREE), [*CELL, *SAMPLE_KEY]
    sides = {"white": rows[~is_free].groupby(key).success.any(), "free": rows[is_free].groupby(key).success.any()}
    return pd.DataFrame(sides).dropna().astype(bool)


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
