"""Published cells and ours: what is unknown stays unknown, what is ours lands in its row."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.luu2025.tables import (
    NOT_RUN,
    OURS,
    beside_published,
    competitor_table,
    headline_accuracies,
)
from snnlib.companion.measure.attacked import AUTHORS, IMAGE
from snnlib.companion.measure.rows import ROW_COLUMNS
from snnlib.companion.published import NOT_AVAILABLE
from snnlib.data import ImageSet
from snnlib.models import build_model

LABEL = "SEW-ResNet-18, max pool"


def rows_of(successes: dict[tuple[str, str, int], list[bool]]) -> pd.DataFrame:
    lines = [
        dict.fromkeys(ROW_COLUMNS, 0)
        | {"model": LABEL, "dataset": "cifar10", "split": "test", "sample": sample, "clean_correct": sample > 0}
        | {"threat_model": threat, "attack": attack, "seed": seed, "success": success, "eps": 6 / 255, "steps": 7}
        for (threat, attack, seed), flags in successes.items()
        for sample, success in enumerate(flags)
    ]
    return pd.DataFrame(lines)


@pytest.fixture
def measured() -> pd.DataFrame:
    weak, strong = [True, True, False, False], [True, True, True, False]
    return headline_accuracies(
        rows_of(
            {
                (threat.name, attack, seed): weak if seed == 0 else strong
                for threat in (AUTHORS, IMAGE)
                for attack in ("fgsm", "pgd")
                for seed in (0, 1)
            }
        )
    )


def test_headline_accuracies_are_mean_and_range_over_seeds(measured: pd.DataFrame) -> None:
    line = measured.set_index(["threat_model", "attack"]).loc[("image", "pgd")]
    assert (line["mean"], line.shown, line.seeds, line.images) == (0.375, "37.5 [25.0, 50.0]", 2, 4)
    assert measured[measured.attack == "none"]["mean"].tolist() == [0.75, 0.75]


def test_beside_published_fills_only_the_row_of_the_measured_network(measured: pd.DataFrame) -> None:
    table = beside_published("Table 1", measured).set_index(["data set", "network", "variant"])
    mine = table.loc[("CIFAR-10", "SEW-ResNet-18", "max pool")]
    assert mine["ours clean"] == "75.0 [75.0, 75.0]" and mine["ours PGD, images"] == "37.5 [25.0, 50.0]"
    assert mine["seeds × images"] == "2 × 4"
    others = table.drop(("CIFAR-10", "SEW-ResNet-18", "max pool"))
    assert (others[list(OURS)] == NOT_RUN).all(axis=None)
    assert (table.filter(like="published") == NOT_AVAILABLE).all(axis=None)


def test_the_one_known_number_stands_under_pgd_and_nowhere_else(measured: pd.DataFrame) -> None:
    (line,) = beside_published("abstracted result", measured, not_run="none").to_dict("records")
    assert (line["published PGD"], line["published clean"], line["ours clean"]) == ("16.03", NOT_AVAILABLE, "none")


def test_extra_networks_follow_as_rows_of_their_own(measured: pd.DataFrame) -> None:
    table = beside_published("Table 3", measured, extra=(LABEL,))
    assert table.iloc[-1]["ours clean"] == "75.0 [75.0, 75.0]" and len(table) == 2


def test_competitors_keep_steps_and_never_name_luu() -> None:
    table = competitor_table()
    line = table[(table.method == "RAT + TGO")].iloc[0]
    assert line["PGD"] == "10: 47.69, 20: 38.07, 40: 33.13" and line["other attacks"] == "R-FGSM 79.28"
    assert table.provenance.str.contains("not from Luu et al.", regex=False).all()


def test_one_per_class_prefers_correct_images_when_there_are_any() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([1, 0, 0, 0, 2])
    assert luu2025.one_per_class(predicted, labels, 3) == [1, 2, 4]
    assert luu2025.one_per_class(predicted, labels, 2) == [1, 4]


def test_pixel_levels_obey_the_one_sided_bound_when_planes_are_attacked(wrap) -> None:
    model = build_model("sew_resnet18", 3, 8, width=4, seed=0).eval()
    batch = ImageSet(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1, 2, 0]))
    item = wrap(model, batch)
    examples = luu2025.attacked_examples(item, batch, luu2025.authors_fgsm(AUTHORS))
    levels = luu2025.pixel_levels(item, batch, examples)
    assert levels["may_rise"] + levels["may_fall"] == pytest.approx(6)
    assert levels["bits_flipped_per_pixel"] == 0
    assert levels["linf_of_the_code"] == pytest.approx(6 / 255)
    images = batch.batch(slice(None))
    moved = examples.pictures - images
    bound = 6 / 255 * torch.where(moved > 0, 1 - images, images)
    assert (moved.abs() <= bound + 1e-6).all()
    assert torch.equal(examples.result.success, examples.predicted != batch.labels)
