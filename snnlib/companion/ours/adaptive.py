"""Surrogates chosen during the attack against the fixed ensemble: who falls, at how many passes (claims Q1a, Q1b)."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from snnlib.attacks.adaptive import FIRST
from snnlib.companion.measure.attacked import Attack, attacked
from snnlib.companion.measure.networks import TrainedNetwork, attacked_images
from snnlib.companion.measure.rows import SAMPLE_KEY
from snnlib.companion.ozdenizci2024.attacks import ensemble
from snnlib.companion.sizes import ConversionSize

CELL = ["model", "seed", "eps255"]


def fixed(item: TrainedNetwork, size: ConversionSize, levels: tuple[int, ...]) -> pd.DataFrame:
    """Rows of the 19 members, each with PGD of the published number of steps, whatever the profile's tables use."""
    return ensemble(item, replace(size, ensemble_steps=size.fixed_steps), "pgd", levels)


def adaptive(
    item: TrainedNetwork, size: ConversionSize, levels: tuple[int, ...], only: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Rows of the adaptive ensemble on the chapter's attacked images, at each level of eps (1/255).

    only: names of the members that it may choose from; none named means all. With a single one nothing is left to
    choose, and what remains are its turns and steps.
    """
    options = {"steps": size.adaptive_steps}
    attacks = [Attack("adaptive_ensemble", level / 255, members=only, options=options) for level in levels]
    return attacked(item, attacks, attacked_images(size.profile, item.splits), size.profile.attack_batch_size)


def per_sample(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per network, eps and sample: whether any row broke it, and the passes of all its rows together.

    A pass is one forward or one backward of one sample. Samples that are wrong without attack count as broken.
    """
    table = rows.assign(eps255=(255 * rows.eps).round().astype(int), passes=rows.forwards + rows.backwards)
    grouped = table.groupby([*CELL, *SAMPLE_KEY], sort=True)
    return grouped.agg(broken=("success", "any"), passes=("passes", "sum")).reset_index()


def compare(fixed: pd.DataFrame, adaptive: pd.DataFrame) -> pd.DataFrame:
    """Per network, seed and eps: failures and passes of both ensembles, and who fell to one alone.

    Columns: model, seed, eps255, samples, fixed_broken, adaptive_broken, only_fixed, only_adaptive (counts),
    fixed_passes, adaptive_passes (sums), share_of_passes.
    """
    both = per_sample(fixed).merge(
        per_sample(adaptive), on=[*CELL, *SAMPLE_KEY], suffixes=("_fixed", "_adaptive"), validate="one_to_one"
    )
    lines = []
    for cell, group in both.groupby(CELL):
        passes = {name: int(group[f"passes_{name}"].sum()) for name in ("fixed", "adaptive")}
        lines.append(
            dict(zip(CELL, cell, strict=True))
            | {
                "samples": len(group),
                "fixed_broken": int(group.broken_fixed.sum()),
                "adaptive_broken": int(group.broken_adaptive.sum()),
                "only_fixed": int((group.broken_fixed & ~group.broken_adaptive).sum()),
                "only_adaptive": int((group.broken_adaptive & ~group.broken_fixed).sum()),
                "fixed_passes": passes["fixed"],
                "adaptive_passes": passes["adaptive"],
                "share_of_passes": passes["adaptive"] / passes["fixed"],
            }
        )
    return pd.DataFrame(lines)


def single_surrogates(item: TrainedNetwork, size: ConversionSize, level: int) -> dict[str, pd.DataFrame]:
    """Rows of the same turns with one of `FIRST` alone, by its name: nothing is left to choose."""
    return {f"{name} alone": adaptive(item, size, (level,), (name,)) for name in FIRST}


def choice_against_none(item: TrainedNetwork, size: ConversionSize, level: int) -> pd.DataFrame:
    """The control: the same turns with one of `FIRST` alone, beside the choice between them.

    One row per way to attack: model, seed, members, broken (count, misclassified samples too), passes (sum).
    """
    ways = {"chosen per image": adaptive(item, size, (level,)), **single_surrogates(item, size, level)}
    rows = []
    for members, found in ways.items():
        samples = per_sample(found)
        names = {"model": item.network.label, "seed": item.seed, "members": members}
        rows.append({**names, "broken": int(samples.broken.sum()), "passes": int(samples.passes.sum())})
    return pd.DataFrame(rows)


def broken_by_passes(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of samples broken within a number of passes: columns model, seed, eps255, passes, broken (0..1).

    A broken sample's passes are all that it took until it fell: in the fixed ensemble the members before the one that
    broke it, whole, and that one until its success.
    """
    samples = per_sample(rows)
    lines = []
    for cell, group in samples.groupby(CELL):
        needed = group[group.broken].passes.sort_values().to_numpy()
        lines += [
            dict(zip(CELL, cell, strict=True)) | {"passes": int(passes), "broken": (number + 1) / len(group)}
            for number, passes in enumerate(needed)
        ]
    return pd.DataFrame(lines, columns=[*CELL, "passes", "broken"])
