"""What has to be so before a comparison says anything, and the rows as one number per network, seed and image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd

from snnlib.companion.measure.rows import SAMPLE_KEY
from snnlib.errors import InputError

LEARNED = 0.3
"""Clean accuracy of a network that has learned: three times chance on ten classes, and more than the 20 % of a network
that tells two classes apart and knows no other."""
ENTROPY = 2.5
"""Bits of the predicted classes' entropy below which a network has collapsed: as if it knew fewer than six of ten."""
FLOOR = 0.1
"""Robust accuracy that one side has to keep, so that a difference of twice the smallest effect has room."""
COMPARATOR = 0.15
"""Robust accuracy from which a defended network counts as robust: three times what "as robust as" lets go."""
MOVED = 0.1
"""Relative change from which a treatment (thresholds, BatchNorm's scale, zeros filled in) counts as applied."""


def standing(rows: pd.DataFrame, models: Collection[str]) -> dict[str, pd.DataFrame]:
    """Per model a table [seeds, images]: 1 where no row broke the image. Errors: InputError, see `paired`."""
    return paired(rows.assign(stands=~rows.success.astype(bool)), "stands", models)


def paired(rows: pd.DataFrame, column: str, models: Collection[str]) -> dict[str, pd.DataFrame]:
    """Per model a table [seeds, images] of a column's smallest value, over the seeds that all have.

    Raises InputError where a model or a common seed is missing, or where not all saw the same images.
    """
    key = ["model", "seed", *SAMPLE_KEY]
    wide = rows[rows.model.isin(models)].groupby(key, sort=True)[column].min().astype(float).unstack(SAMPLE_KEY)
    missing = [model for model in models if model not in wide.index.get_level_values("model")]
    if missing:
        raise InputError(f"no rows of {missing}; expected each network compared; run the notebook that makes them")
    tables = {model: wide.loc[model] for model in models}
    seeds = sorted(set.intersection(*(set(table.index) for table in tables.values())))
    if not seeds:
        raise InputError(f"no seed to judge: {list(models)} have none in common; run the notebook that makes them")
    tables = {model: table.loc[seeds] for model, table in tables.items()}
    if any(table.isna().any(axis=None) for table in tables.values()):
        raise InputError(f"{list(models)} were not attacked on the same images; expected pairs; run the attacks again")
    return tables


def mean_of(tables: Mapping[str, pd.DataFrame], models: Iterable[str]) -> np.ndarray:
    """[S, n]: mean over the models of tables from `standing`."""
    return np.mean([tables[model].to_numpy() for model in models], axis=0)


def at_level(rows: pd.DataFrame, level: int) -> pd.DataFrame:
    """The rows at `level`/255."""
    return rows[(255 * rows.eps).round() == level]


def not_learned(accuracies: pd.DataFrame, models: Iterable[str]) -> list[str]:
    """In words, the networks below `LEARNED` or `ENTROPY`: a single one makes a comparison worthless.

    accuracies: columns model, seed, test_accuracy (or clean_accuracy) and class_entropy, in bits.
    """
    column = "test_accuracy" if "test_accuracy" in accuracies.columns else "clean_accuracy"
    if not {column, "class_entropy"} <= set(accuracies.columns):
        raise InputError("the accuracies lack clean accuracy or class_entropy; make them with `accuracy_rows`")
    found = []
    for model in dict.fromkeys(models):
        rows = accuracies[accuracies.model == model]
        if rows.empty:
            raise InputError(f"no accuracy of {model!r}; expected every network compared; make it with `accuracy_rows`")
        clean, entropy = rows[column].min(), rows.class_entropy.min()
        if not (clean >= LEARNED and entropy >= ENTROPY):
            found.append(
                f"{model} has not learned ({100 * clean:.0f} % clean, {entropy:.1f} bits of classes; expected "
                f"{LEARNED:.0%} and {ENTROPY:g} for every seed)"
            )
    return found


def no_room(sides: Mapping[str, float], floor: float = FLOOR) -> list[str]:
    """In words, that the best of several robust accuracies is below the floor, so that nothing can be compared."""
    if max(sides.values()) >= floor:
        return []
    kept = ", ".join(f"{name} {100 * value:.1f} %" for name, value in sides.items())
    return [f"nobody keeps {floor:.0%} under attack ({kept})"]


def not_applied(change: pd.Series, what: str) -> list[str]:
    """In words, that a treatment did not change its network by `MOVED` at some seed. change: per seed, relative."""
    if len(change) and change.min() >= MOVED:
        return []
    least = f"{100 * change.min():.1f} %" if len(change) else "nothing"
    return [f"{what} by {least} only (expected {MOVED:.0%} for every seed)"]


def told(rows: pd.DataFrame, sides: Mapping[str, Collection[str]], clean: pd.DataFrame | None = None) -> str:
    """Evidence: each side's robust and clean accuracy on these images, and the success among the correct ones.

    clean: rows of the same images that have clean_correct, where `rows` lack it.
    """
    key, parts = ["model", "seed", *SAMPLE_KEY], []
    clean = rows if clean is None else clean
    for name, models in sides.items():
        broken = rows[rows.model.isin(models)].groupby(key).success.any().astype(bool)
        correct = clean[clean.model.isin(models)].groupby(key).clean_correct.any().reindex(broken.index).astype(bool)
        success = f"{100 * broken[correct].mean():.0f} %" if correct.any() else "undefined"
        parts.append(
            f"{name} {100 * (1 - broken.mean()):.1f} % of {100 * correct.mean():.1f} % clean "
            f"(success among correct {success})"
        )
    return f"means of {', '.join(parts)}"
