"""Luu et al. 2025: their set-up and their tables, as far as known, with ours beside them."""

from __future__ import annotations

import pandas as pd

from snnlib.companion.measure.attacked import AUTHORS, IMAGE
from snnlib.companion.measure.networks import TrainedNetwork, build_recipe
from snnlib.companion.measure.rows import clean_accuracy, mean_and_range, robust_accuracy
from snnlib.companion.published import NOT_AVAILABLE, load_reference
from snnlib.companion.sizes import Profile

NOT_RUN = "not run at this profile"
NO_SUCH_ROW = "no such row known"
PRINTED = {"none": "clean", "FGSM": "FGSM", "PGD": "PGD"}
OURS = {
    "ours clean": (AUTHORS.name, "none"),
    "ours FGSM, authors'": (AUTHORS.name, "fgsm"),
    "ours PGD, authors'": (AUTHORS.name, "pgd"),
    "ours FGSM, images": (IMAGE.name, "fgsm"),
    "ours PGD, images": (IMAGE.name, "pgd"),
}
KEPT = ("augmentation", "encoder", "stem", "neuron", "threshold", "surrogate", "read-out", "loss", "optimiser")
"""Settings of the authors that no profile changes."""


def recipe_beside_authors(item: TrainedNetwork, profile: Profile) -> pd.DataFrame:
    """The authors' set-up and this profile's, setting by setting.

    **Source:** the table `luu2025_setup`; the width is that of SpikingJelly's definition, which the authors use.
    """
    setup = load_reference("luu2025_setup").set_index("item")
    recipe, config, splits = build_recipe(item.network, profile, item.seed), item.model.config, item.splits
    ours = dict.fromkeys(KEPT, "the same") | {
        "seed": ", ".join(map(str, profile.seeds)),
        "data set": f"CIFAR-10, {len(splits.train):,} images to train on",
        "validation split": f"{len(splits.validation):,} training images held out",
        "time steps": f"{config['time_steps']}",
        "networks": f"depth {', '.join(map(str, profile.depths))}",
        "learning rate": f"{recipe.learning_rate:g}, {recipe.schedule}",
        "weight decay": f"{recipe.weight_decay:g}",
        "batch size": f"{recipe.batch_size}",
        "epochs": f"{recipe.epochs}",
    }
    lines = [(name, authors, ours[name]) for name, authors in setup.value.items() if name in ours]
    lines += [
        ("channels after the stem", "64", f"{config['width']}"),
        ("choice of the epoch", "lowest loss on the test set", "highest accuracy on the validation split"),
        ("use of the test set", "after every epoch, attacks too", "once, after training"),
    ]
    return pd.DataFrame(lines, columns=["setting", "authors' code", "this profile"])


def headline_accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy without attack ("none") and under each, as shares: mean over the seeds.

    rows: of `luu2025.headline_rows`. images: per seed.
    """
    key = ["model", "threat_model", "attack", "eps", "steps"]
    robust = robust_accuracy(rows, by=[*key, "seed"]).rename(columns={"robust_accuracy": "accuracy"})
    clean = clean_accuracy(rows, by=["model", "threat_model", "seed"]).rename(columns={"clean_accuracy": "accuracy"})
    each = pd.concat([clean.assign(attack="none", eps=0.0, steps=0), robust], ignore_index=True)
    columns = {
        "mean": ("accuracy", "mean"),
        "shown": ("accuracy", mean_and_range),
        "seeds": ("seed", "nunique"),
        "images": ("samples", "max"),
    }
    return each.groupby(key).agg(**columns).reset_index()


def beside_published(
    table: str, measured: pd.DataFrame, *, extra: tuple[str, ...] = (), not_run: str = NOT_RUN
) -> pd.DataFrame:
    """A table of the paper, one row per network: published cells, and ours in percent: mean [lowest, highest]
    of the seeds.

    table: its name in the reference `luu2025_tables`. measured: from `headline_accuracies`. extra: labels of our
    networks that the paper's configurations do not have; they follow as rows of their own. not_run: what stands in
    cells of ours that were not measured.
    """
    published = load_reference("luu2025_tables")
    published = published[published.table == table]
    lines = []
    for key, group in published.groupby(["dataset", "architecture", "variant", "method"], sort=False):
        dataset, architecture, variant, method = key
        label = f"{architecture}, {variant}" if dataset == "CIFAR-10" else ""
        cells = group.set_index("attack").value
        lines.append(
            {
                "data set": dataset or "not named",
                "network": architecture or "not named",
                "variant": variant or ("not named" if method == "none" else method),
                **{f"published {name}": _printed(cells.get(attack)) for attack, name in PRINTED.items()},
                **_measured(measured, label, not_run),
            }
        )
    for label in extra:
        architecture, variant = label.split(", ")
        named = {"data set": "CIFAR-10", "network": architecture, "variant": variant}
        absent = {f"published {name}": NO_SUCH_ROW for name in PRINTED.values()}
        lines.append({**named, **absent, **_measured(measured, label, not_run)})
    return pd.DataFrame(lines)


def _printed(value: float | None) -> str:
    return NOT_AVAILABLE if value is None or pd.isna(value) else f"{value:.2f}"


def _measured(measured: pd.DataFrame, label: str, not_run: str) -> dict[str, str]:
    mine = measured[measured.model == label].set_index(["threat_model", "attack"])
    if mine.empty:
        return {**dict.fromkeys(OURS, not_run), "seeds × images": ""}
    line = {name: mine.loc[place, "shown"] for name, place in OURS.items()}
    return {**line, "seeds × images": f"{mine.seeds.iloc[0]} × {mine.images.iloc[0]}"}


def competitor_table() -> pd.DataFrame:
    """Published numbers of other papers in percent, one row per method. None is of Luu et al.

    An attack of several steps names them: "7: 22.95, 20: 14.41".
    """
    table = load_reference("competitors")
    lines = []
    for key, group in table.groupby(
        ["dataset", "architecture", "time_steps", "training", "method", "source"], sort=False, dropna=False
    ):
        dataset, architecture, time_steps, training, method, source = key
        others = group[~group.attack.isin(PRINTED)]
        lines.append(
            {
                "data set": dataset,
                "network": architecture or "not named",
                "T": "" if pd.isna(time_steps) else f"{time_steps:.0f}",
                "training": training or "not named",
                "method": method,
                **{name: _by_steps(group[group.attack == attack]) for attack, name in PRINTED.items()},
                "other attacks": "; ".join(
                    f"{attack} {_by_steps(part)}" for attack, part in others.groupby("attack", sort=False)
                ),
                "eps (1/255)": "" if group.eps255.max() == 0 else f"{group.eps255.max():g}",
                "source": source,
                "provenance": group.provenance.iloc[0],
            }
        )
    return pd.DataFrame(lines)


def _by_steps(rows: pd.DataFrame) -> str:
    cells = [
        f"{value:g}" if pd.isna(steps) or steps == 1 else f"{steps:.0f}: {value:g}"
        for steps, value in zip(rows.steps, rows.value, strict=True)
    ]
    return ", ".join(cells)
