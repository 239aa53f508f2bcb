"""Tables of the chapter: ours by hand-computed means, the published cells as printed, gaps named as gaps."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.ozdenizci2024 import tables
from snnlib.companion.published import NOT_AVAILABLE
from snnlib.companion.sizes import conversion_size

LEVELS = (4, 8)


@pytest.fixture
def by_attack() -> dict[str, pd.DataFrame]:
    columns = {"model": ["ANN, AT"] * 2 + ["SNN"], "seed": [0, 1, 0], "clean": [0.5, 0.7, 0.4]}
    return {
        "fgsm": pd.DataFrame({**columns, 4: [0.3, 0.5, 0.2], 8: [0.2, 0.2, 0.1]}),
        "pgd": pd.DataFrame({**columns, 4: [0.2, 0.3, 0.1], 8: [0.0, 0.1, 0.0]}),
    }


def test_cells_are_mean_lowest_and_highest_over_the_seeds(by_attack):
    table = tables.accuracy_table(by_attack, LEVELS).set_index("network")
    assert table.loc["ANN, AT"].tolist() == [
        *("60.0 [50.0, 70.0]", "40.0 [30.0, 50.0]", "20.0 [20.0, 20.0]", "25.0 [20.0, 30.0]", "5.0 [0.0, 10.0]"),
        2,
    ]
    assert table.columns.tolist() == [*tables.columns_of(LEVELS), "seeds"]
    assert table.loc["SNN", ["FGSM 4/255", "seeds"]].tolist() == ["20.0 [20.0, 20.0]", 1]


def test_published_cells_are_those_that_were_printed():
    table = tables.published_rows((2, 4, 8)).set_index("network")
    dense = table.loc["SNN, conversion, VGG-16, dense (table B1)"]
    assert dense.drop("source").tolist() == ["92.0", "76.3", "66.2", "45.8", "74.9", "59.8", "27.9"]
    sparse = table.loc["SNN, end to end, random connectivity, VGG-16, 90 % sparse (table 1)"]
    assert sparse.drop("source").tolist() == ["87.4", "65.6", "50.8", "27.8", "62.4", "42.2", "11.9"]
    ann = table.loc["ANN, plain attacks, VGG-16, dense (table B1)"]
    assert ann["PGD 8/255"] == "25.2" and ann["FGSM 8/255"] == tables.NOT_REPORTED


def test_cells_of_the_paper_itself_are_not_filled():
    row = tables.published_rows(LEVELS).set_index("source").loc[tables.PAPER]
    assert set(row.drop("network")) == {NOT_AVAILABLE}


def test_ours_and_theirs_share_columns_and_say_whose_they_are(by_attack):
    effort = pd.DataFrame({"epochs": ["1", "1 + 2"], "optimiser steps": ["9", "9 + 18"]}, index=["ANN, AT", "SNN"])
    table = tables.beside_published(tables.accuracy_table(by_attack, LEVELS), effort, LEVELS)
    assert table.source.unique().tolist() == [tables.OURS, tables.PAPER, tables.FOLLOW_UP]
    assert table.set_index("network").loc["SNN", "optimiser steps"] == "9 + 18"
    assert table.notna().all().all()
    assert set(table[table.source != tables.OURS].seeds) == {""}


def test_settings_stand_beside_the_authors():
    table = tables.recipe_table(conversion_size("quick")).set_index(["training", "setting"])
    assert table.loc[("ANN", "learning rate"), "authors' code"] == "0.1, cosine-per-epoch"
    assert table.loc[("ANN", "attack inside"), "authors' code"] == "pgd, steps: 10"
    assert table.loc[("SNN, fine-tuning", "epochs"), "authors' code"] == "60"
    assert table.loc[("SNN, fine-tuning", "network"), "this profile"].startswith("vgg11, width")
    assert ("ANN", "time steps") not in table.index
