"""The black-box chapter at toy size: what is run on what, and nothing twice."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from snnlib.companion.luu2025 import networks as luu2025
from snnlib.companion.measure.networks import trained
from snnlib.companion.ours import black_box
from snnlib.companion.ours.black_box import transfer_pairs
from snnlib.companion.sizes import BlackBoxSize
from snnlib.companion.verdicts.black_box import both_sides, by_strength, judge_gradient_free, standing_by_flips
from snnlib.training.accuracy import predictions


@pytest.fixture
def size(monkeypatch):
    """Two images of each class, attacks of a step or a few queries, the ensemble's last three members."""
    toy = BlackBoxSize(
        images_per_class=2,
        eps_levels=(8, 40),
        draws=2,
        queries=5,
        spsa=(1, 2),
        decisions=5,
        apgd_steps=1,
        ensemble_steps=1,
        transfer_steps=1,
        transfer_eps=8,
        flips=(1, 9),
        flip_rounds=2,
    )
    monkeypatch.setattr(black_box, "MEMBERS", list(black_box.MEMBERS)[-3:])
    monkeypatch.setattr(black_box, "black_box_size", lambda name: toy)
    return toy


@pytest.fixture
def network(artifacts, profile, size):
    return trained(luu2025.NETWORKS["sew_max"], replace(profile, epochs=1, time_steps=2), 0)


def test_every_attack_gives_one_row_per_image_and_eps_and_is_run_once(network, profile, calls):
    rows = black_box.gradient_free_rows(network, profile)
    counts = rows.groupby(["attack", "eps255"]).size()
    assert set(counts) == {6} and set(counts.index) == {(name, eps) for name in black_box.ACCESS for eps in (8, 40)}
    assert (rows[rows.attack == "square"].queries <= 7).all() and (rows.backwards == 0).all()
    assert rows[~rows.clean_correct].success.all()
    assert rows.groupby("attack").access.unique().map(list).to_dict() == {
        name: [access] for name, access in black_box.ACCESS.items()
    }
    assert black_box.gradient_free_rows(network, profile).equals(rows) and calls["rows"] == 2 * len(black_box.ACCESS)


def test_gradient_free_attacks_have_the_numbers_of_the_profile(profile, size):
    options = {attack.name: attack.options for attack in black_box.gradient_free_attacks(profile, 8 / 255)}
    assert options == {
        "random_noise": {"draws": 2},
        "square": {"queries": 5},
        "spsa": {"steps": 1, "directions": 2},
        "rays": {"queries": 5},
    }


def test_white_box_crosses_both_encoder_gradients_and_both_sides_meet_on_the_same_images(network, profile, size):
    rows = black_box.white_box_rows(network, profile)
    for _, at_eps in rows.groupby("eps255"):
        by_ce, by_margin, members = (at_eps[at_eps.attack == name] for name in ("apgd ce", "apgd margin", "ensemble"))
        for apgd in (by_ce, by_margin):
            assert set(apgd.threat_model) == {"image", "image, smooth encoder"} and len(apgd) == 12
        left = set(range(6)) - set(by_ce[by_ce.success]["sample"])
        assert set(members["sample"]) == left and left
        assert set(members.threat_model) == {"image, smooth encoder"}
        assert members.surrogate.nunique() == 3 or members.groupby("sample").success.any().all()
    rows = pd.concat([black_box.gradient_free_rows(network, profile), rows])
    sides = both_sides(rows)
    assert sides.eps255.tolist() == [8, 40] and (sides.samples == 6).all()
    judgement = judge_gradient_free(sides, by_strength(rows))
    assert judgement.verdict in ("reproduced", "not reproduced", "not testable") and "12 samples" in judgement.evidence


def test_transfer_rows_name_their_source(network, profile, size):
    source = replace(network, seed=1, key="another", network=luu2025.NETWORKS["sew_avg"])
    rows = black_box.transfer_rows(network, source, profile)
    assert set(rows.source) == {"SEW-ResNet-18, average pool"} and set(rows.eps255) == {8}
    assert (rows.access == "transfer").all() and (rows.queries <= 3).all()


def test_flips_are_counted_against_random_ones(network, profile, size):
    rows = black_box.flip_rows(network, profile)
    assert set(rows.groupby(["attack", "flips"]).size()) == {6} and rows.flips.unique().tolist() == [1, 9]
    assert rows.linf.isin([0, 1]).all() and (rows[rows.attack == "random_noise"].backwards == 0).all()
    assert set(standing_by_flips(rows).columns) >= {"model", "attack", "flips", "robust_accuracy", "low", "high"}


def test_pairs_are_of_different_networks_of_the_next_seed(network):
    labels = {"a": luu2025.NETWORKS["sew_max"], "b": luu2025.NETWORKS["sew_avg"]}
    items = [
        replace(network, network=each, seed=seed, key=f"{name}{seed}")
        for name, each in labels.items()
        for seed in (0, 1, 2)
    ]
    pairs = [(target.key, source.key) for target, source in transfer_pairs(items, {labels["a"].label})]
    assert pairs == [("a0", "a1"), ("a0", "b1"), ("a1", "a2"), ("a1", "b2"), ("a2", "a0"), ("a2", "b0")]
    alone = [(target.key, source.key) for target, source in transfer_pairs(items[::3], {labels["a"].label})]
    assert alone == [("a0", "b0")], "with one seed a network is never its own source"


def test_ensemble_is_left_out_where_apgd_left_nobody(network, profile, size, monkeypatch):
    images = black_box.chosen_images(network, profile)
    wrong = replace(images, labels=(predictions(network.model, images) + 1) % 3)
    monkeypatch.setattr(black_box, "chosen_images", lambda item, profile: wrong)
    rows = black_box.white_box_rows(network, profile)
    assert rows.success.all() and set(rows.attack) == {"apgd ce", "apgd margin"}
