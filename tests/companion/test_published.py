"""Published numbers: complete, sourced, and empty where they are not known."""

from __future__ import annotations

import pandas as pd
import pytest

from snnlib.companion.published import NOT_AVAILABLE, load_reference, reference_names
from snnlib.errors import InputError

PROVENANCES = {
    "as published by the paper",
    "second-hand",
    "independent reference (not from Luu et al.)",
    "as in the released code",
    "as published by the follow-up",
}
WITH_SOURCES = [name for name in reference_names() if name != "sources"]


def lookup(table: pd.DataFrame, /, **cells) -> float:
    for column, value in cells.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.value.item()


@pytest.mark.parametrize("name", WITH_SOURCES)
def test_every_row_names_a_known_source_and_its_provenance(name):
    table, sources = load_reference(name), load_reference("sources")
    assert sources.key.is_unique
    assert set(table.source) <= set(sources.key)
    assert set(table.provenance) <= PROVENANCES
    assert not table.duplicated(table.columns.difference(["value", "note"]).tolist()).any()


@pytest.mark.parametrize("name", ["luu2025_tables", "competitors"])
def test_value_is_a_percentage_or_the_note_says_that_it_is_missing(name):
    table = load_reference(name)
    known = table.value.notna()
    assert table.value[known].between(0, 100).all()
    assert table.note[~known].str.startswith(NOT_AVAILABLE).all()
    assert not table.note[known].str.contains(NOT_AVAILABLE).any()
    assert set(table.unit[table.metric == "accuracy"]) == {"percent"}


def test_only_one_result_of_luu_is_known_and_it_is_second_hand():
    table = load_reference("luu2025_tables")
    known = table[table.value.notna()]
    assert known.value.tolist() == [16.03]
    assert known.provenance.tolist() == ["second-hand"]
    assert known.dataset.tolist() == [""]
    assert {"Table 1", "Table 2", "Table 3"} <= set(table.table[table.value.isna()])


def test_competitors_carry_the_published_values_when_looked_up():
    table = load_reference("competitors")
    assert lookup(table, source="MPD-SGR", training="adversarial", method="SR", attack="BIM") == 27.03
    assert lookup(table, source="TGO", dataset="CIFAR-10", method="RAT + TGO", steps=40.0) == 33.13
    assert lookup(table, source="TGO", dataset="CIFAR-10", training="natural", method="none", steps=40.0) == 0
    assert lookup(table, source="MPPD-TV", method="DLIF neurons + TV-l1", attack="AutoAttack") == 23.04
    assert set(table.provenance) == {"independent reference (not from Luu et al.)"}
    assert (table.eps255[table.attack == "none"] == 0).all()
    assert (table.eps255[(table.attack != "none") & (table.source != "TMI")] == 8).all()
    assert (table.eps255[(table.attack != "none") & (table.source == "TMI")] == 4).all()


def test_snn_rat_loses_to_pgd_what_every_source_says_it_loses():
    table = load_reference("competitors")
    rat = table[table.method.isin(["RAT", "SNN-RAT"]) & (table.dataset == "CIFAR-10")]
    assert rat.source[rat.attack == "FGSM"].nunique() == 4 and rat.source[rat.attack == "PGD"].nunique() == 3
    assert rat.value[rat.attack == "FGSM"].between(40, 46).all()
    assert rat.value[rat.attack == "PGD"].between(14, 23).all()
    line = rat[(rat.source == "SECOND-HAND") & (rat.attack == "FGSM")].iloc[0]
    assert line.value == 45.23 and "corrected" in line.note


def test_competitors_are_ordered_by_the_strength_of_the_attack():
    table = load_reference("competitors")
    for _, group in table.groupby(["source", "dataset", "architecture", "training", "method"]):
        value = group.groupby("attack").value.max()
        for weak, strong in zip(("none", "FGSM", "PGD"), ("FGSM", "PGD", "AutoAttack"), strict=True):
            assert weak not in value or strong not in value or value[weak] >= value[strong], (group.to_string(), weak)


def test_the_strongest_evaluation_is_stored_as_accuracy_though_printed_as_success():
    table = load_reference("competitors").query("source == 'ASSG' and dataset == 'CIFAR-10'")
    found = {
        method: lookup(table, method=method, attack="SA-PGD by ASSG") for method in ("none", "SR", "TRADES")
    }
    assert found == {"none": 11.56, "SR": 23.0, "TRADES": 20.44}
    assert table.note.str.contains("100 minus the printed attack success").all()


def test_follow_up_tables_say_what_the_source_says():
    table = load_reference("schmolli2025_tables")
    one = {"network": "SNN, conversion", "sparsity": 90, "variant": "uniform"}
    assert lookup(table, table="Table A1", attack="FGSM, EXP (.3,2)", **one) == 50.40
    assert lookup(table, table="Table A1", attack="FGSM ensemble", **one) == 41.1
    assert lookup(table, table="Table 1", attack="APGD-CE ensemble", eps255=8, **one) == 21.1
    dense = {"table": "Table B1", "variant": "dense", "eps255": 8}
    assert lookup(table, attack="PGD ensemble", **dense) == 27.9
    assert lookup(table, attack="PGD", **dense) == 25.2
    members = table[(table.table == "Table A1") & table.attack.str.startswith("FGSM,")]
    assert members.groupby("network").size().tolist() == [19, 19, 19]
    accuracies = table[table.metric == "accuracy"]
    assert accuracies.value.between(0, 100).all() and set(accuracies.unit) == {"percent"}
    assert (accuracies.eps255.isna() == (accuracies.attack == "none")).all()


def test_attacks_of_the_follow_up_get_stronger_with_eps_and_steps():
    table = load_reference("schmolli2025_tables").query("metric == 'accuracy' and attack != 'none'")
    key = ["table", "dataset", "variant", "sparsity", "network", "attack"]
    by_eps = table[table.attack != "Square"].sort_values("eps255").groupby([*key, "steps"], dropna=False).value
    assert by_eps.apply(lambda values: values.is_monotonic_decreasing).all()
    by_steps = table[table.table.isin(["Table 1", "Table B3"])].sort_values("steps").groupby([*key, "eps255"]).value
    assert (by_steps.diff().dropna() <= 0.1 + 1e-9).all()  # each number of steps has random starts of its own


def test_setup_numbers_agree_with_their_text():
    table = load_reference("luu2025_setup").set_index("item")
    assert table.number["PGD steps"] == 7
    assert table.number["PGD step"] == pytest.approx(float(table.value["PGD step"]) * 255)
    assert table.value["FGSM eps"] == "6/255" and table.number["FGSM eps"] == 6


def test_addresses_are_public_or_empty():
    assert load_reference("sources").address.str.match(r"^(https://\S+)?$").all()


def test_unknown_table_is_refused_with_the_names_that_exist():
    with pytest.raises(InputError, match="expected one of competitors, luu2025_setup, luu2025_tables, schmolli2025"):
        load_reference("luu2026")
