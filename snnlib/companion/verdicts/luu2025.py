"""From rows to verdicts on the claims L1-L4: each rule is stated, applied to every seed, and returns its numbers.

A verdict is "reproduced" when the claim holds for every seed, "not reproduced" when it holds for none, else "mixed".
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from snnlib.companion.luu2025.networks import HEADLINE_EPS, NETWORKS
from snnlib.companion.measure.attacked import AUTHORS, ENCODED, IMAGE, IMAGE_SMOOTH
from snnlib.companion.measure.rows import robust_accuracy
from snnlib.errors import InputError

SPARSE = 0.25
"""Mean share of exact zeros from which the blocks' gradients count as sparse; our choice, the paper names none."""
FLOOR = 0.05
"""Robust accuracy below which networks can no longer be told apart."""
MAX, AVERAGE, DEFENDED = (NETWORKS[key].label for key in ("sew_max", "sew_avg", "defended"))


@dataclass(frozen=True)
class Judgement:
    """A verdict with one line of evidence; `holds` says per seed whether the claim held."""

    verdict: str
    evidence: str
    holds: tuple[bool, ...]


def judge(holds: list[bool], evidence: str) -> Judgement:
    """All seeds, none, or some. Raises InputError where there is no seed to judge."""
    if not holds:
        raise InputError("no seed to judge; the rows lack this model or threat model: run the notebook that makes them")
    verdict = "reproduced" if all(holds) else "mixed" if any(holds) else "not reproduced"
    return Judgement(verdict, evidence, tuple(holds))


def block_sparsity(operations: pd.DataFrame) -> pd.DataFrame:
    """Mean exact-zero share of the input gradients inside residual blocks, per model, seed and BatchNorm mode.

    Three numbers: over all operations in blocks; without the strided 1x1 shortcut convolutions, whose 75 % zeros are
    a matter of their stride alone; and at the stem pool.
    """
    inside = operations[operations.inside_residual_block]
    is_shortcut = inside.operation.str.contains("downsample") & inside.kind.str.contains("Conv")
    pools = operations[operations.kind.str.contains("Pool2d") & ~operations.kind.str.contains("Adaptive")]
    key = ["model", "seed", "batch_norm"]
    return pd.DataFrame(
        {
            "in_blocks": inside.groupby(key).zero_share_grad_input.mean(),
            "in_blocks_without_strided_shortcuts": inside[~is_shortcut].groupby(key).zero_share_grad_input.mean(),
            "at_stem_pool": pools.groupby(key).zero_share_grad_input.mean(),
        }
    ).reset_index()


def _of(table: pd.DataFrame, model: str, column: str) -> pd.Series:
    return table[table.model == model].set_index("seed")[column].sort_index()


def _percent(values: pd.Series) -> str:
    return f"{100 * values.mean():.1f} ± {100 * values.std(ddof=0):.1f} %"


def judge_block_sparsity(sparsity: pd.DataFrame) -> Judgement:
    """L1: with max pool, operations in the blocks (strided shortcuts apart) have at least `SPARSE` exact zeros.

    Judged in the authors' mode, BatchNorm in train.
    """
    authors = sparsity[sparsity.batch_norm == "train"]
    clean = _of(authors, MAX, "in_blocks_without_strided_shortcuts")
    everything, pool = _of(authors, MAX, "in_blocks"), _of(authors, MAX, "at_stem_pool")
    evidence = (
        f"exact zeros in the blocks' gradients: {_percent(clean)} without the strided 1x1 shortcuts "
        f"({_percent(everything)} with them); at the stem's max pool {_percent(pool)}; claimed: high in the blocks"
    )
    return judge([bool(value >= SPARSE) for value in clean], evidence)


def judge_pool_effect(sparsity: pd.DataFrame) -> Judgement:
    """L2: average pool leaves less than half of the exact zeros that the blocks have with max pool.

    Strided shortcuts apart, as in L1. Not testable where max pool leaves no sparsity in the blocks to remove.
    """
    authors = sparsity[sparsity.batch_norm == "train"]
    column = "in_blocks_without_strided_shortcuts"
    with_max, with_average = _of(authors, MAX, column), _of(authors, AVERAGE, column)
    pool = _of(authors, MAX, "at_stem_pool"), _of(authors, AVERAGE, "at_stem_pool")
    evidence = (
        f"exact zeros in the blocks: {_percent(with_max)} with max pool, {_percent(with_average)} with average pool; "
        f"at the pool itself {_percent(pool[0])} against {_percent(pool[1])}"
    )
    holds = [bool(with_average[seed] < with_max[seed] / 2) for seed in with_max.index]
    if len(with_max) and (with_max < SPARSE).all():
        return Judgement("not testable", f"no sparsity in the blocks to remove; {evidence}", tuple(holds))
    return judge(holds, evidence)


def headline(rows: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy at 6/255 per model and seed: worst case over the attacks of each group of threat models."""
    at_eps = rows[(rows.eps - HEADLINE_EPS).abs() < 1e-9]
    groups = {
        "authors": (AUTHORS.name,),
        "encoded, BN eval": (ENCODED.name,),
        "image": (IMAGE.name, IMAGE_SMOOTH.name),
    }
    parts = []
    for name, members in groups.items():
        chosen = at_eps[at_eps.threat_model.isin(members)]
        parts.append(robust_accuracy(chosen, by=["model", "seed"]).assign(threat_model=name))
    return pd.concat(parts, ignore_index=True)


def judge_undefended_robustness(robust: pd.DataFrame) -> Judgement:
    """L3: on images, after the worst of all attacks, the vanilla network keeps up with the defended one to 2 points.

    Not testable where the defended network itself keeps less than `FLOOR`. The number under the authors' threat model
    stands beside it, as evidence of what that model measures.
    """
    image, authors = robust[robust.threat_model == "image"], robust[robust.threat_model == "authors"]
    vanilla, defended = (_of(image, model, "robust_accuracy") for model in (MAX, DEFENDED))
    theirs = [_of(authors, model, "robust_accuracy") for model in (MAX, DEFENDED)]
    evidence = (
        f"robust accuracy at 6/255 on images: {_percent(vanilla)} vanilla, {_percent(defended)} defended; "
        f"under the authors' threat model {_percent(theirs[0])} and {_percent(theirs[1])}"
    )
    holds = [bool(vanilla[seed] >= defended[seed] - 0.02) for seed in vanilla.index]
    if len(defended) and (defended < FLOOR).all():
        return Judgement("not testable", f"the defended network is not robust itself; {evidence}", tuple(holds))
    return judge(holds, evidence)


def robust_by_eps(curves: pd.DataFrame, threat_model: str) -> pd.DataFrame:
    """Worst case over FGSM and PGD under one threat model, per model, seed and eps (in 1/255)."""
    rows = curves[curves.threat_model == threat_model]
    rows = rows.assign(eps255=(255 * rows.eps).round().astype(int))
    return robust_accuracy(rows, by=["model", "seed", "eps255"])


def judge_trade_off(accuracies: pd.DataFrame, on_images: pd.DataFrame, authors: pd.DataFrame) -> Judgement:
    """L4: average pool has the higher clean accuracy and, on images, the lower robust accuracy.

    on_images, authors: from `robust_by_eps`. Judged at the largest eps at which, on images, one of the two networks
    keeps `FLOOR` on average, so that the comparison is not one of zeros.
    """
    pair = on_images[on_images.model.isin((MAX, AVERAGE))]
    kept = pair.groupby(["eps255", "model"]).robust_accuracy.mean().groupby("eps255").max()
    if not (kept >= FLOOR).any():
        return Judgement("not testable", f"neither network keeps {FLOOR:.0%} on images at any eps", ())
    eps = kept[kept >= FLOOR].index.max()
    clean = _of(accuracies, AVERAGE, "test_accuracy") - _of(accuracies, MAX, "test_accuracy")
    gains = []
    for table in (on_images, authors):
        at_eps = table[table.eps255 == eps]
        gains.append(_of(at_eps, AVERAGE, "robust_accuracy") - _of(at_eps, MAX, "robust_accuracy"))
    evidence = (
        f"average minus max pool, points per seed: clean {_points(clean)}; robust at {eps}/255 on images "
        f"{_points(gains[0])}, under the authors' threat model {_points(gains[1])}"
    )
    return judge([bool(clean[seed] > 0 and gains[0][seed] < 0) for seed in clean.index], evidence)


def _points(differences: pd.Series) -> str:
    return ", ".join(f"{100 * value:+.1f}" for value in differences)
