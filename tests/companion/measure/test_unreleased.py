"""Where all of a network is stored, its key and history stand for it; what needs its weights is one line."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from snnlib.companion import paths
from snnlib.companion.measure.networks import FROM_RELEASED, Network, accuracy_rows, trained
from snnlib.companion.measure.store import used_networks
from snnlib.companion.measure.unreleased import NOTES
from snnlib.errors import InputError
from snnlib.files import write_atomic

SEW = Network("SEW, small", "sew_resnet18")


@pytest.fixture
def without_weights(artifacts, profile, monkeypatch):
    """(rows of accuracy, the network that made them, profile) once its weights are gone and its note is published."""
    rounded = replace(profile, rounded=True)
    item = trained(SEW, rounded, 0)
    rows = accuracy_rows([item])
    (artifacts / "networks" / f"{item.key}.json").unlink()
    note = {"12": {"results": [], "networks": {item.key: used_networks[item.key]}}}
    write_atomic(paths.published_dir(rounded.name) / NOTES, json.dumps(note))
    monkeypatch.setenv(FROM_RELEASED, "1")
    return rows, item, rounded


def test_what_is_stored_of_it_is_found(without_weights, calls):
    rows, item, profile = without_weights
    epochs = calls["epochs"]
    again = trained(SEW, profile, 0)
    assert again.key == item.key and again.history.epochs == item.history.epochs
    assert accuracy_rows([again]).equals(rows) and calls["epochs"] == epochs


def test_a_call_of_it_or_of_a_part_is_one_line_and_a_copy_has_no_numbers(without_weights):
    _, item, profile = without_weights
    again = trained(SEW, profile, 0)
    images = item.splits.test.batch(slice(0, 2))
    assert again.model.encoder(images).shape[1] == 2, "coding an image needs no weights"
    for call in (again.model, copy.deepcopy(again.model), again.model.body.fc):
        with pytest.raises(InputError, match="the weights of SEW, small, seed 0 are not released.*start without"):
            call(images)
    state = again.model.state_dict().values()
    assert all(value.isnan().all() for value in state if value.is_floating_point())
    assert not any(value.isnan().any() for value in item.model.state_dict().values() if torch.is_floating_point(value))


def test_any_other_network_is_refused_as_before(without_weights):
    *_, profile = without_weights
    with pytest.raises(InputError, match="SEW, small, seed 1, is not among the released networks"):
        trained(SEW, profile, 1)
