"""A released network is the rounded one, and is never trained again."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch

from snnlib.companion.measure import release as module
from snnlib.companion.measure.networks import FROM_RELEASED, Network, trained
from snnlib.errors import InputError

library = importlib.import_module("snnlib.models.released")  # the package's `released` is the function
SEW = Network("SEW, small", "sew_resnet18")


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """An empty folder in the place of the package's weights."""
    for each in (module, library):
        monkeypatch.setattr(each, "FOLDER", tmp_path)
    module.released_keys.cache_clear()
    yield tmp_path
    module.released_keys.cache_clear()


def _floats(model):
    return torch.cat([value.flatten() for value in model.state_dict().values() if value.is_floating_point()])


def test_released_network_is_the_rounded_one_and_its_card_says_what_it_is(artifacts, profile, weights):
    item = trained(SEW, profile, 1)
    name = module.release(item, "toy")
    assert library.released_names() == [name] == ["sew-small-toy-1"]
    assert torch.equal(_floats(library.released(name)), _floats(item.model).half().float())
    card = library.released_card(name)
    assert card["key"] == item.key and card["seed"] == 1 and len(card["history"]) == profile.epochs
    assert card["made"]["device"] and 0 <= card["test_accuracy"] <= 1


def test_network_that_is_released_is_not_trained_again(artifacts, profile, weights, calls):
    profile = replace(profile, rounded=True)
    item = trained(SEW, profile, 0)
    module.release(item, "toy")
    (artifacts / "networks" / f"{item.key}.json").unlink()
    before = calls["epochs"]
    again = trained(SEW, profile, 0)
    assert calls["epochs"] == before and again.key == item.key
    assert torch.equal(_floats(again.model), _floats(item.model))
    assert again.history.epochs == item.history.epochs


def test_network_that_is_not_released_is_refused_where_nothing_is_to_be_trained(
    artifacts, profile, weights, calls, monkeypatch
):
    rounded = replace(profile, rounded=True)
    monkeypatch.setenv(FROM_RELEASED, "1")
    with pytest.raises(InputError) as refused:
        trained(SEW, rounded, 0)
    line = str(refused.value)
    assert line.startswith("SEW, small, seed 0, is not among the released networks") and "\n" not in line
    assert line.endswith("start without --from-released to train it") and not calls["epochs"]

    monkeypatch.delenv(FROM_RELEASED)
    item = trained(SEW, rounded, 0)
    module.release(item, "toy")
    monkeypatch.setenv(FROM_RELEASED, "1")
    epochs = calls["epochs"]
    assert torch.equal(_floats(trained(SEW, rounded, 0).model), _floats(item.model)), "stored here"
    (artifacts / "networks" / f"{item.key}.json").unlink()
    assert torch.equal(_floats(trained(SEW, rounded, 0).model), _floats(item.model)), "released"
    assert calls["epochs"] == epochs
    trained(SEW, profile, 1)
    assert calls["epochs"] == epochs + profile.epochs, "of a profile that is not rounded none is released as measured"


def test_unknown_name_is_one_line(weights):
    with pytest.raises(ValueError, match="released network 'none'; expected one of: none yet"):
        library.released("none")
