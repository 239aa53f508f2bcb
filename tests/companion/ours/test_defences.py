"""Notebook 34's defences: recipes, what papers claim, how random networks are judged."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from snnlib.attacks.worst_case import SCHEDULE, planned
from snnlib.companion.ours import defences
from snnlib.companion.sizes import conversion_size, defence_size

SIZES = defence_size("smoke")


@pytest.fixture
def size(profile):
    fine_tuning = {"epochs": 1, "batch_size": 12, "learning_rate": 1e-3}
    return replace(conversion_size("smoke"), profile=profile, network="resnet20", finetune=fine_tuning)


@pytest.mark.parametrize("name", defences.DEFENCES)
def test_every_defence_trains_from_the_same_network(artifacts, size, name):
    item = defences.defended(name, size, SIZES, 0)
    assert item.label == name and item.model.config["time_steps"] == size.profile.time_steps
    assert len(item.history.epochs) == SIZES.epochs


def test_what_papers_claim_has_a_source_and_is_at_the_common_eps():
    table = defences.claimed()
    assert (table.source != "").all() and set(table.defence) <= set(defences.DEFENCES)
    line = table[(table.defence == "MPD-SGR") & (table.training == "natural")].iloc[0]
    assert (line.clean, line.FGSM, line.PGD) == (91.63, 47.59, 20.55)
    tgo = table[(table.defence == "TGO") & (table.training == "natural")].iloc[0]
    assert tgo.PGD == 6.14, "of several numbers of steps the fewest"


def test_a_random_network_is_judged_by_the_mean_over_draws_and_never_by_square(artifacts, size, monkeypatch):
    seen = []
    monkeypatch.setattr(defences, "attacked", lambda item, attacks, images, batch_size: seen.extend(attacks))
    long = replace(SIZES, passes=8000, eot=3)
    for name in ("Poisson", "none"):
        defences.worst_rows(defences.defended(name, size, SIZES, 0), size.profile, long, 2)
    random, plain = (attack.options for attack in seen)
    assert plain == {"passes": 8000, "schedule": SCHEDULE} and random["eot"] == 3
    turns = planned(random["schedule"], random["passes"], 3)
    assert len(turns) == 6 and all(turn.attack.startswith("apgd") for turn, _ in turns)


def test_the_table_has_a_line_per_network_with_the_audits_verdict(artifacts, size, monkeypatch):
    flagged = (SimpleNamespace(name="zero_gradients"), SimpleNamespace(name="ensemble_gain"))
    found = SimpleNamespace(verdict="masked", flagged=flagged)
    monkeypatch.setattr(defences, "audited", lambda item, size, defences: found)
    items = [defences.defended(name, size, SIZES, 0) for name in ("none", "MPD-SGR")]
    plain, line = defences.table(items, size, replace(SIZES, audited=("MPD-SGR",))).to_dict("records")
    assert 0 <= line["worst 2/255"] <= line["clean"] <= 1
    assert (line["audit"], line["checks"]) == ("masked", "zero_gradients, ensemble_gain")
    assert (plain["audit"], plain["checks"]) == ("not audited", "")
    points = defences.sparsity_rows(items[1:], "trained", size.profile, SIZES)
    assert points.network.tolist() == ["MPD-SGR"] and 0 <= points.zero_share.item() <= 1


def test_every_defence_says_where_it_is_from():
    table = defences.described()
    assert (table.source != "").all() and table.what.is_unique
    reconstructed = table[table.source.str.contains("reading notes")]
    assert reconstructed.ours.str.contains("reconstructed").all() and len(reconstructed) == 3
