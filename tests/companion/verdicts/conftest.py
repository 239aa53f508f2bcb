"""Made-up rows: per network and seed, which of 1,000 images stand."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

IMAGES = 1000
LEVEL = 4


def made_up_rows(standing: dict[str, tuple[int, ...]], **columns) -> pd.DataFrame:
    """So many images of each network stand per seed, the first ones: networks differ on as few images as can be."""
    parts = []
    for model, counts in standing.items():
        for seed, count in enumerate(counts):
            images = range(IMAGES)
            table = pd.DataFrame({"sample": images, "success": [number >= count for number in images]})
            table["clean_correct"] = table["sample"] < 600
            parts.append(table.assign(model=model, seed=seed))
    names = {"dataset": "d", "split": "test", "eps": LEVEL / 255, "eps255": LEVEL, **columns}
    return pd.concat(parts, ignore_index=True).assign(**names)


def made_up_accuracies(clean: dict[str, tuple[float, ...]], entropy: float = 3.2) -> pd.DataFrame:
    rows = [
        {"model": model, "seed": seed, "test_accuracy": share, "class_entropy": entropy, "test_images": 10_000}
        for model, shares in clean.items()
        for seed, share in enumerate(shares)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def rows_of() -> Callable[..., pd.DataFrame]:
    return made_up_rows


@pytest.fixture
def accuracies_of() -> Callable[..., pd.DataFrame]:
    return made_up_accuracies
