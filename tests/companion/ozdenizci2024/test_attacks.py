"""Rows of the chapter: stored once, named by what decides them, right where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from snnlib.attacks.ensemble import MEMBERS
from snnlib.companion.measure import networks as common
from snnlib.companion.measure.networks import TrainedNetwork
from snnlib.companion.measure.rows import robust_accuracy
from snnlib.companion.ozdenizci2024 import attacks
from snnlib.companion.sizes import ConversionSize, conversion_size
from snnlib.conversion.statistics import batch_norms
from snnlib.data import ImageSplits
from snnlib.models import build_model

LINEAR, PROXY = TWO = ("piecewise_linear(width=1, height=1)", "relu_proxy")


@pytest.fixture
def size() -> ConversionSize:
    smoke = conversion_size("smoke")
    return replace(smoke, profile=replace(smoke.profile, attacked_per_class=2, attack_batch_size=4), ensemble_steps=2)


@pytest.fixture
def item(artifacts, splits: ImageSplits, wrap) -> TrainedNetwork:
    """A network that nobody trained."""
    model = build_model("resnet20", 3, 2, width=2, threshold_floor=0.03, trainable_threshold=True, seed=0).eval()
    return wrap(model, splits.test, "SNN, toy", seed=7)


@pytest.fixture
def two_members(monkeypatch):
    """The real ensemble costs 19 attacks; `alone` and what is stored can be seen with two."""
    monkeypatch.setattr(attacks, "MEMBERS", TWO)


def _always(model, label: int) -> None:
    """Let the network answer with one class whatever it sees: every neuron fires, and one class alone listens."""
    with torch.no_grad():
        for norm in batch_norms(model):
            norm.weight.zero_()
            norm.bias.fill_(5.0)
        read_out = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        read_out.weight.zero_()
        read_out.weight[label] = 1.0


def test_training_surrogate_is_the_first_member():
    assert attacks.TRAINING_SURROGATE == LINEAR == next(iter(MEMBERS))


def test_attacks_have_the_chapters_steps_and_no_step_where_none_is_taken(size):
    assert all(attacks.attack_at(name, 4, size).options == {} for name in ("fgsm", "r_fgsm"))
    attack = attacks.attack_at("pgd", 2, size, TWO, alone=True)
    assert (attack.eps, attack.options, attack.members, attack.alone) == (2 / 255, {"steps": 2}, TWO, True)


def test_ensemble_runs_all_nineteen_members(item, size, monkeypatch):
    asked = []
    monkeypatch.setattr(attacks, "attacked", lambda item, wanted, *_: asked.extend(wanted))
    attacks.ensemble(item, size, "fgsm", (4, 8))
    assert [attack.members for attack in asked] == [tuple(MEMBERS)] * 2 and len(MEMBERS) == 19


def test_ensemble_is_stored_per_level_and_mode(item, size, two_members, calls):
    rows = attacks.ensemble(item, size, "fgsm", (4, 8))
    assert calls["rows"] == 2
    assert set((255 * rows.eps).round()) == {4, 8} and set(rows.seed) == {7} and set(rows.model) == {"SNN, toy"}
    assert rows[rows.surrogate == LINEAR].groupby("eps")["sample"].nunique().tolist() == [6, 6]
    again = attacks.ensemble(item, size, "fgsm", (8,))
    assert calls["rows"] == 2
    assert again.equals(rows[rows.eps > 6 / 255].reset_index(drop=True))
    alone = attacks.ensemble(item, size, "fgsm", (8,), alone=True)
    assert calls["rows"] == 3
    assert len(alone) == 2 * 6 >= len(again)
    assert robust_accuracy(alone).robust_accuracy.item() <= robust_accuracy(again).robust_accuracy.item()


def test_members_after_the_first_only_see_what_still_stands(item, size, two_members):
    rows = attacks.ensemble(item, size, "pgd", (8,))
    fell = set(rows[(rows.surrogate == LINEAR) & rows.success]["sample"])
    assert fell, "an untrained network is wrong on some"
    assert not fell & set(rows[rows.surrogate == PROXY]["sample"])


def test_plain_attack_runs_on_the_attacked_images(item, size):
    rows = attacks.plain_rows(item, size, "fgsm", (4,))
    assert len(rows) == len(common.attacked_images(size.profile, item.splits)) == 6
    assert set(rows.surrogate) == {attacks.TRAINING_SURROGATE}, "a network's own gradient is the one it trained with"
    assert set(rows.threat_model) == {"image"}


def test_accuracy_of_a_network_that_always_says_the_same(item, size):
    _always(item.model, 1)
    table = attacks.accuracy_of_steps({"constant": item.model}, item, size, 8)
    assert table.to_dict("records") == [
        {"step": "constant", "seed": 7, "clean": pytest.approx(1 / 3), "robust": pytest.approx(1 / 3), "eps255": 8}
    ]


def test_accuracy_of_a_step_is_named_by_the_weights(item, size, calls):
    steps = {"one": item.model}
    first = attacks.accuracy_of_steps(steps, item, size)
    assert (calls["rows"], calls["accuracies"]) == (1, 1)
    assert attacks.accuracy_of_steps(steps, item, size).equals(first)
    assert (calls["rows"], calls["accuracies"]) == (1, 1)
    _always(item.model, 0)
    assert attacks.accuracy_of_steps(steps, item, size).clean.item() == pytest.approx(1 / 3)
    assert (calls["rows"], calls["accuracies"]) == (2, 2)


def test_spikes_and_operations_carry_the_networks_name_and_are_counted_once(item, size, calls):
    spikes, operations = attacks.spike_rows(item, size), attacks.operation_rows(item, size)
    assert len(spikes) == 19 and set(spikes.model) == set(operations.model) == {"SNN, toy"}
    assert set(spikes.seed) == {7} and (spikes.time_steps == 2).all()
    assert attacks.spike_rows(item, size).equals(spikes) and attacks.operation_rows(item, size).equals(operations)
    assert (calls["spikes"], calls["synaptic_operations"]) == (1, 1)
