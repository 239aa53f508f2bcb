"""Özdenizci & Legenstein 2024: are the chapter's attacks strong enough for its robust accuracies to count?

Three things that an attack worth its name should show on the converted networks, each beside what was published: more
steps find little more, one gradient alone finds no more than all, and neither does a search without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from snnlib.companion.measure.attacked import Attack, attack_rows
from snnlib.companion.measure.networks import TrainedNetwork, attacked_images
from snnlib.companion.measure.rows import SAMPLE_KEY, robust_accuracy
from snnlib.companion.ozdenizci2024.attacks import ensemble
from snnlib.companion.published import load_reference
from snnlib.companion.sizes import ConversionSize

LEVEL = 8
"""eps, in 1/255, of all checks: that of the published steps and queries. (RGA was published at 2 and 4/255.)"""
ROUNDING = 1e-9
MUCH_MORE = 2.0
"""More steps take too much when they take over twice the largest published fall. Our choice."""
ALONE = "rate_gradient"
NETWORK = ["model", "seed"]


def by_steps(items: Sequence[TrainedNetwork], size: ConversionSize) -> pd.DataFrame:
    """Robust accuracy under the PGD ensemble for every number of steps in `size.check_steps`: model, seed, steps."""
    parts = [
        ensemble(item, replace(size, ensemble_steps=steps), "pgd", (LEVEL,))
        for item in items
        for steps in size.check_steps
    ]
    return robust_accuracy(pd.concat(parts, ignore_index=True), by=[*NETWORK, "steps"])


def published_by_steps() -> pd.DataFrame:
    """The same for the follow-up's converted VGG-16: variant, sparsity, steps, robust_accuracy (0..1).

    **Source:** Schmolli et al. 2025, table B3.
    """
    table = load_reference("schmolli2025_tables")
    chosen = table[(table.table == "Table B3") & (table.attack == "PGD ensemble") & (table.eps255 == LEVEL)]
    chosen = chosen.assign(robust_accuracy=chosen.value / 100, steps=chosen.steps.astype(int))
    return chosen[["variant", "sparsity", "steps", "robust_accuracy"]].reset_index(drop=True)


def one_gradient_rows(item: TrainedNetwork, size: ConversionSize) -> pd.DataFrame:
    """PGD by the rate gradient (RGA) alone, with the steps of the ensemble's members, on the same images."""
    return _on_attacked(item, size, Attack("pgd", LEVEL / 255, gradient=ALONE, options={"steps": size.ensemble_steps}))


def square_rows(item: TrainedNetwork, size: ConversionSize) -> pd.DataFrame:
    """Square with `size.square_queries` queries on the same images."""
    return _on_attacked(item, size, Attack("square", LEVEL / 255, options={"queries": size.square_queries}))


def check_attacks(items: Sequence[TrainedNetwork], size: ConversionSize) -> pd.DataFrame:
    """One row per check, model and seed: check, ours, beside (both accuracies, 0..1), only_ours, holds.

    "more steps": ours with the most steps, beside with the fewest. "one gradient": the rate gradient alone, beside the
    whole ensemble. "no gradient": Square, beside the ensemble. only_ours: samples that the weaker side alone broke, NaN
    for steps. A check holds where more steps take at most `MUCH_MORE` times the largest published fall, and where one
    gradient, or none, leaves at least as many standing as the ensemble.
    """
    steps = by_steps(items, size)
    rows = []
    for item in items:
        name = {"model": item.network.label, "seed": item.seed}
        own = steps[(steps.model == item.network.label) & (steps.seed == item.seed)].set_index("steps").robust_accuracy
        fewest, most = own[min(size.check_steps)], own[max(size.check_steps)]
        holds = bool(fewest - most <= MUCH_MORE * largest_published_fall() + ROUNDING)
        rows.append({"check": "more steps", **name, "ours": most, "beside": fewest, "holds": holds})
        together = ensemble(item, size, "pgd", (LEVEL,))
        for check, make in (("one gradient", one_gradient_rows), ("no gradient", square_rows)):
            rows.append({"check": check, **name, **_against(make(item, size), together)})
    return pd.DataFrame(rows)


def largest_published_fall() -> float:
    """Robust accuracy lost from 10 to 40 steps, the largest over the published networks: a share, 0..1."""
    table = published_by_steps().pivot(index=["variant", "sparsity"], columns="steps", values="robust_accuracy")
    return float((table[10] - table[40]).max())


def _on_attacked(item: TrainedNetwork, size: ConversionSize, attack: Attack) -> pd.DataFrame:
    images = attacked_images(size.profile, item.splits)
    return attack_rows(item, attack, images, batch_size=size.profile.attack_batch_size)


def _against(alone: pd.DataFrame, together: pd.DataFrame) -> dict:
    broken = pd.DataFrame(
        {"alone": alone.groupby(SAMPLE_KEY).success.any(), "all": together.groupby(SAMPLE_KEY).success.any()}
    )
    if broken.isna().any(axis=None):
        raise ValueError("the two attacks did not run on the same samples")
    broken = broken.astype(bool)
    ours, beside = (float((~broken[side]).mean()) for side in ("alone", "all"))
    only_ours = int((broken["alone"] & ~broken["all"]).sum())
    return {"ours": ours, "beside": beside, "only_ours": only_ours, "holds": ours >= beside}
