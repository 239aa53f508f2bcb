"""Özdenizci & Legenstein 2024: the chapter's table of accuracies, and the published rows beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from snnlib.companion.measure.networks import Network, TrainedNetwork, build_recipe
from snnlib.companion.measure.rows import mean_and_range
from snnlib.companion.ozdenizci2024.networks import ann_network, end_to_end_network, finetune_recipe
from snnlib.companion.published import NOT_AVAILABLE, load_reference
from snnlib.companion.sizes import ConversionSize, conversion_size
from snnlib.training.epoch import batches_per_epoch

ATTACKS = {"fgsm": "FGSM", "pgd": "PGD"}
NOT_REPORTED = "not reported"
PAPER, FOLLOW_UP, OURS = "the paper itself", "follow-up", "ours"
PUBLISHED = {("Table 1", "uniform"): "VGG-16, 90 % sparse (table 1)", ("Table B1", "dense"): "VGG-16, dense (table B1)"}
"""Rows of the follow-up that stand beside ours: table and variant, and how their networks are called there."""


def recipe_table(size: ConversionSize) -> pd.DataFrame:
    """Settings of the three kinds of training, one row each: the authors' (profile "paper") beside this size's."""
    columns = {"authors' code": _settings(conversion_size("paper")), "this profile": _settings(size)}
    table = pd.DataFrame(columns).rename_axis(["training", "setting"]).reset_index()
    return table[["training", "setting", *columns]]


def columns_of(levels: Iterable[int]) -> list[str]:
    """Names of the columns of accuracies: "clean", "FGSM 2/255", ..., "PGD 8/255"."""
    return ["clean", *(f"{attack} {level}/255" for attack in ATTACKS.values() for level in levels)]


def accuracy_table(by_attack: Mapping[str, pd.DataFrame], levels: Iterable[int]) -> pd.DataFrame:
    """One row per network: accuracies in percent, mean [lowest, highest] of the seeds, and number of seeds.

    by_attack: for each key of `ATTACKS` the table of `by_network`. SNNs under the ensemble and ANNs under the plain
    attack may stand in the same table: `model` tells them apart.
    """
    first = next(iter(by_attack.values()))
    cells = {"clean": _over_seeds(first, "clean")}
    for attack, name in ATTACKS.items():
        cells |= {f"{name} {level}/255": _over_seeds(by_attack[attack], level) for level in levels}
    table = pd.DataFrame(cells)[columns_of(levels)].assign(seeds=first.groupby("model", sort=False).seed.nunique())
    return table.rename_axis("network").reset_index()


def training_effort(networks: Iterable[TrainedNetwork], size: ConversionSize) -> pd.DataFrame:
    """Epochs and optimiser steps of each network (index: its label); for a conversion those of its ANN come first.

    A step is not worth the same everywhere: an SNN's passes take `time_steps` steps of time, an ANN's robust objective
    `size.inner_steps` more passes than a natural one.
    """
    rows = {}
    for item in networks:
        stages = [item.network]
        if item.network.label.startswith("SNN, conversion"):
            stages.insert(0, ann_network("natural", size))  # all objectives train for as many epochs
        recipes = [build_recipe(stage, size.profile, item.seed) for stage in stages]
        steps = [recipe.epochs * batches_per_epoch(recipe, item.splits.train) for recipe in recipes]
        rows[item.network.label] = {
            "epochs": " + ".join(str(recipe.epochs) for recipe in recipes),
            "optimiser steps": " + ".join(f"{count:,}" for count in steps),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def published_rows(levels: Iterable[int]) -> pd.DataFrame:
    """Rows in the form of `accuracy_table`: the paper's own cells, which we do not have, then those of its follow-up.

    The follow-up trains 90 % sparse or dense VGG-16 on all of CIFAR-10 with additional pseudo-labelled images, TRADES
    for the ANN, T = 8. Its ANNs stand under plain attacks, its SNNs under the ensembles; PGD has 10 steps.
    **Source:** Schmolli et al. 2025, tables 1 and B1.
    """
    reference = load_reference("schmolli2025_tables")
    columns = columns_of(levels)
    rows = [{"source": PAPER, "network": "all rows of its tables", **dict.fromkeys(columns, NOT_AVAILABLE)}]
    for (name, variant), network in PUBLISHED.items():
        chosen = reference[(reference.table == name) & (reference.variant == variant)]
        for label, group in chosen.groupby("network", sort=False):
            attack = group.attack.str.removesuffix(" ensemble")
            keys = attack.where(attack != "none", "clean") + group.eps255.map(_level)
            values = group.value.map("{:.1f}".format).set_axis(keys)
            cells = {column: values.get(column, NOT_REPORTED) for column in columns}
            rows.append({"source": FOLLOW_UP, "network": f"{label}, {network}", **cells})
    return pd.DataFrame(rows)


def beside_published(ours: pd.DataFrame, effort: pd.DataFrame, levels: Iterable[int]) -> pd.DataFrame:
    """`accuracy_table` with its training effort, then the published rows; a column says whose they are."""
    mine = ours.merge(effort, left_on="network", right_index=True, validate="one_to_one").assign(source=OURS)
    table = pd.concat([mine, published_rows(levels)], ignore_index=True)
    order = ["source", "network", *columns_of(levels), "seeds", "epochs", "optimiser steps"]
    return table[order].astype(object).fillna("")


def _settings(size: ConversionSize) -> dict[tuple[str, str], str]:
    networks = {
        "ANN": ann_network("trades", size),
        "SNN, fine-tuning": Network("SNN", size.network, {}, finetune_recipe(size)),
        "SNN, end to end": end_to_end_network("equal time", size),
    }
    settings = {}
    for training, network in networks.items():
        recipe = build_recipe(network, size.profile, 0)
        values = {
            "network": f"{size.network}, width {size.profile.width}",
            "time steps": "" if training == "ANN" else f"{size.profile.time_steps}",
            "epochs": f"{recipe.epochs}",
            "batch size": f"{recipe.batch_size}",
            "optimiser": recipe.optimiser,
            "learning rate": f"{recipe.learning_rate:g}, {recipe.schedule}",
            "weight decay": f"{recipe.weight_decay:g}",
            "augmentation": recipe.augmentation,
            "attack inside": f"{recipe.attack['name']}, steps: {recipe.attack.get('steps', 1)}",
        }
        settings |= {(training, setting): value for setting, value in values.items() if value}
    return settings


def _over_seeds(table: pd.DataFrame, column: object) -> pd.Series:
    return table.groupby("model", sort=False)[column].agg(mean_and_range)


def _level(eps255: float) -> str:
    return "" if pd.isna(eps255) else f" {eps255:g}/255"
