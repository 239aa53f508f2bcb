"""Claim L8: does what the first paper says of images hold on event data?

The effect has two halves; both have to hold: with max pool the gradients inside the residual blocks are sparse (L1),
and that network stands where the one with average pool falls (the robust half of L4). Each is judged by the smallest
effect of the claim on images, so that the error rates measured for those hold here.
"""

from __future__ import annotations

import pandas as pd

from snnlib.companion.luu2025.events import IN_EVENTS, NETWORKS
from snnlib.companion.measure.rows import robust_accuracy
from snnlib.companion.verdicts.effects import EFFECTS
from snnlib.companion.verdicts.luu2025 import WITHOUT_SHORTCUTS
from snnlib.companion.verdicts.preconditions import FLOOR, no_room, not_learned, standing, told
from snnlib.companion.verdicts.rules import Judgement, judge, of_differences, of_seeds

MAX, AVERAGE = NETWORKS["max"].label, NETWORKS["average"].label


def worst_of_events(rows: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy per model, seed and number of cells: per recording the worst of all attacks that leave one."""
    return robust_accuracy(rows[rows.kind.isin(IN_EVENTS)], by=["model", "seed", "amount"])


def deciding_cells(rows: pd.DataFrame) -> tuple[int, bool]:
    """The largest number of cells at which one of both networks keeps `FLOOR` on average, and whether there is one;
    else the smallest number measured."""
    robust = worst_of_events(rows[rows.model.isin((MAX, AVERAGE))])
    means = robust.groupby(["amount", "model"]).robust_accuracy.mean().groupby("amount").max()
    kept = means[means >= FLOOR]
    return int(means.index.min() if kept.empty else kept.index.max()), not kept.empty


def judge_events(rows: pd.DataFrame, sparsity: pd.DataFrame, accuracies: pd.DataFrame) -> Judgement:
    """L8 from the rows of all attacks on recordings, `block_sparsity` of both networks, and their accuracies.

    At the largest number of changed cells at which one network keeps `FLOOR`; not testable where none does, or where
    one has not learned.
    """
    cells, _ = deciding_cells(rows)
    chosen = rows[rows.kind.isin(IN_EVENTS) & (rows.amount == cells)]
    tables = standing(chosen, [MAX, AVERAGE])
    in_blocks = sparsity[(sparsity.model == MAX) & (sparsity.batch_norm == "train")].set_index("seed")
    seeds = [int(seed) for seed in tables[MAX].index]
    parts = {
        "L1/events": of_seeds(EFFECTS["L1"], in_blocks[WITHOUT_SHORTCUTS].loc[seeds]),
        "L4/events": of_differences(EFFECTS["L4"], (tables[MAX] - tables[AVERAGE]).to_numpy()),
    }
    kept = {"max pool": float(tables[MAX].mean(axis=None)), "average pool": float(tables[AVERAGE].mean(axis=None))}
    return judge(
        parts,
        told(chosen, {"max pool": [MAX], "average pool": [AVERAGE]}),
        seeds=seeds,
        samples=tables[MAX].shape[1],
        failures=[*not_learned(accuracies, [MAX, AVERAGE]), *no_room(kept)],
        words={
            "L1/events": "exact zeros in the blocks' gradients",
            "L4/events": f"max minus average pool, standing with {cells} cells changed",
        },
    )
