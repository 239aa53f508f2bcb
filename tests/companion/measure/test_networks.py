"""Nothing that is stored is computed again; everything that decides a result is part of its name."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from snnlib.companion.measure import networks as common
from snnlib.companion.measure import rows as results
from snnlib.companion.measure.attacked import AUTHORS, ENCODED, Attack, attacked
from snnlib.companion.measure.networks import (
    Network,
    OutOfTime,
    accuracy_rows,
    attacked_images,
    build_network,
    build_recipe,
    trained,
    training_curves,
)
from snnlib.companion.measure.store import Artifact
from snnlib.companion.sizes import PROFILES
from snnlib.errors import InputError
from snnlib.files import file_lock
from snnlib.training import loop
from snnlib.training.checkpoint import read_checkpoint

SEW = Network("SEW", "sew_resnet18")
DEFENCE = {"name": "fgsm", "eps": 2 / 255}


def _weights(item) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in item.model.state_dict().values()])


def test_network_is_trained_once_when_asked_for_twice(artifacts, profile, calls):
    first = trained(SEW, profile, 0)
    assert calls["epochs"] == profile.epochs == 2
    again = trained(SEW, profile, 0)
    assert calls["epochs"] == 2
    assert again.key == first.key
    assert torch.equal(_weights(again), _weights(first))
    assert again.history.epochs == first.history.epochs
    assert not again.model.training
    assert (artifacts / "networks" / first.key / "best.safetensors").is_file()


def test_training_goes_on_when_the_last_run_was_cut_short(artifacts, profile, calls, monkeypatch):
    whole = loop.train_epoch

    def second_epoch_dies(model, optimiser, images, recipe, epoch, *rest):
        if epoch == 2:
            raise KeyboardInterrupt
        return whole(model, optimiser, images, recipe, epoch, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "train_epoch", second_epoch_dies)
        trained(SEW, profile, 0)
    assert calls["epochs"] == 1
    assert len(trained(SEW, profile, 0).history.epochs) == 2
    assert calls["epochs"] == 2, "only the epoch that was missing"


def test_a_network_that_is_being_trained_is_waited_for_however_long_that_takes(artifacts, profile, calls):
    key = trained(SEW, profile, 0).key
    shutil.rmtree(artifacts / "networks" / key)
    (artifacts / "networks" / f"{key}.json").unlink()
    held, order = threading.Event(), []

    def other_notebook():
        with file_lock(artifacts / "locks" / f"networks-{key}"):
            held.set()
            time.sleep(0.5)
            order.append(calls["epochs"])

    other = threading.Thread(target=other_notebook)
    other.start()
    assert held.wait(10)
    trained(SEW, profile, 0)
    other.join()
    assert order == [2] and calls["epochs"] == 4, "nothing was trained while the other held it"


def test_weights_are_those_of_the_best_epoch_on_validation(artifacts, profile, monkeypatch):
    scores = iter([0.9, 0.1])
    monkeypatch.setattr(loop, "evaluate_accuracy", lambda *_, **__: next(scores))
    item = trained(SEW, profile, 0)
    assert item.history.best_epoch == 1
    for path, same in ((item.history.best, True), (item.history.last, False)):
        stored = common.build_network(SEW, profile, 3, 0)
        read_checkpoint(path).restore_model(stored)
        found = torch.cat([value.flatten().double() for value in stored.state_dict().values()])
        assert torch.equal(found, _weights(item)) == same


@pytest.mark.parametrize(
    "network, changes, seed",
    [
        (SEW, {}, 1),
        (SEW, {"epochs": 1}, 0),
        (SEW, {"learning_rate": 1e-3}, 0),
        (SEW, {"time_steps": 2}, 0),
        (SEW, {"train_per_class": 7}, 0),
        (Network("SEW", "sew_resnet18", {"pool": "avg"}), {}, 0),
        (Network("SEW", "sew_resnet18", {}, {"augmentation": "none"}), {}, 0),
        (Network("SEW", "sew_resnet18", {}, {"objective": "adversarial", "attack": DEFENCE}), {}, 0),
    ],
)
def test_run_has_another_name_when_something_that_decides_it_differs(
    artifacts, profile, monkeypatch, network, changes, seed
):
    runs = _runs(monkeypatch, [(SEW, profile, 0), (network, replace(profile, **changes), seed)])
    assert runs[0] != runs[1]


@pytest.mark.parametrize(
    "network, changes",
    [
        (Network("Other words", "sew_resnet18"), {}),
        (Network("SEW", "sew_resnet18", {"width": 4}, {"epochs": 2}), {}),
        (SEW, {"name": "other", "eps_levels": (1,), "attack_batch_size": 2, "bench_repeats": 9, "seeds": (0,)}),
    ],
)
def test_run_has_the_same_name_when_nothing_that_decides_it_differs(artifacts, profile, monkeypatch, network, changes):
    runs = _runs(monkeypatch, [(SEW, profile, 0), (network, replace(profile, **changes), 0)])
    assert runs[0] == runs[1]


def _runs(monkeypatch: pytest.MonkeyPatch, wanted: list[tuple]) -> list[str]:
    """Names of the runs, without training."""
    history = SimpleNamespace(best="", finished=True, epochs=())
    monkeypatch.setattr(common, "fit", lambda *_, **__: history)
    monkeypatch.setattr(common, "load_weights", lambda path, model: {})
    monkeypatch.setattr(Artifact, "complete", lambda *_: None)
    monkeypatch.setattr(common, "note_use", lambda artifact: None)
    return [trained(*arguments).key for arguments in wanted]


def test_run_is_described_beside_its_folder(artifacts, profile):
    item = trained(SEW, replace(profile, epochs=1), 3)
    described = json.loads((artifacts / "networks" / f"{item.key}.json").read_text())
    arguments = described["arguments"]
    assert arguments["model"]["seed"] == arguments["recipe"]["seed"] == 3
    assert arguments["recipe"]["epochs"] == 1
    assert arguments["data"] == {"name": "made-up", "subset": "embedded", "train_per_class": profile.train_per_class}
    assert described["made"]["module"] == "snnlib.training.loop" and described["made"]["seconds"] > 0


def test_nothing_is_loaded_from_weights_that_were_damaged(artifacts, profile, calls):
    item = trained(SEW, replace(profile, epochs=1), 0)
    content = bytearray(item.history.best.read_bytes())
    content[-3] ^= 0x40
    item.history.best.write_bytes(content)
    with pytest.raises(InputError, match="best.safetensors is damaged .*delete"):
        trained(SEW, replace(profile, epochs=1), 0)


def test_a_time_limit_that_has_passed_stops_before_training_and_not_before_loading(
    artifacts, profile, calls, monkeypatch
):
    short = replace(profile, epochs=1)
    trained(SEW, short, 0)
    monkeypatch.setenv("SNNLIB_DEADLINE", "1.0")
    with pytest.raises(OutOfTime, match="start again"):
        trained(SEW, short, 1)
    assert calls["epochs"] == 1


def test_weights_are_those_of_half_precision_where_the_profile_rounds(artifacts, profile):
    short = replace(profile, epochs=1)
    plain, rounded = trained(SEW, short, 0), trained(SEW, replace(short, rounded=True), 0)
    for name, value in rounded.model.state_dict().items():
        exact = plain.model.state_dict()[name]
        assert torch.equal(value, exact.half().to(exact.dtype) if exact.is_floating_point() else exact), name


def test_rows_are_made_once_per_attack(artifacts, profile, calls):
    item = trained(SEW, profile, 0)
    images = attacked_images(profile, item.splits)
    fgsm, pgd = Attack("fgsm", 2 / 255), Attack("pgd", 2 / 255, options={"steps": 2})
    first = attacked(item, [fgsm], images, 5)
    assert calls["rows"] == 1
    both = attacked(item, [fgsm, pgd], images, 5)
    assert calls["rows"] == 2, "only the new attack"
    again = attacked(item, [fgsm, pgd], images, 5)
    assert calls["rows"] == 2
    pd.testing.assert_frame_equal(again, both)
    pd.testing.assert_frame_equal(both[both.attack == "fgsm"].reset_index(drop=True), first)
    attacked(item, [replace(fgsm, threat=ENCODED)], images, 5)
    attacked(item, [fgsm], images.take([0, 1]), 5)
    attacked(item, [replace(fgsm, threat=AUTHORS)], images, 4)
    attacked(trained(SEW, profile, 1), [fgsm], images, 5)
    assert calls["rows"] == 6


def test_rows_fit_the_schema_and_name_their_run(artifacts, profile):
    item = trained(SEW, profile, 1)
    images = attacked_images(profile, item.splits)
    rows = attacked(item, [Attack("fgsm", 2 / 255), Attack("fgsm", 6 / 255)], images, 5)
    results.check_rows(rows)
    assert len(rows) == 2 * 3 * profile.attacked_per_class
    assert set(zip(rows.run, rows.model, rows.seed, rows.dataset, strict=True)) == {(item.key, "SEW", 1, "made-up")}
    with torch.no_grad():
        correct = item.model(images.batch(slice(None))).argmax(1) == images.labels
    assert rows.clean_correct.tolist() == correct.tolist() * 2


def test_attacked_images_are_the_first_of_each_class(profile, splits):
    chosen = attacked_images(profile, splits)
    assert profile.attacked_per_class == 2
    assert chosen.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(chosen.images, splits.test.images[:6])
    assert attacked_images(replace(profile, attacked_per_class=None), splits) is splits.test


def test_accuracies_are_counted_on_the_whole_test_split(artifacts, profile, monkeypatch, splits):
    scores = iter([0.25, 0.75])
    monkeypatch.setattr(loop, "evaluate_accuracy", lambda *_, **__: next(scores))
    item = trained(SEW, profile, 0)
    (row,) = accuracy_rows([item]).to_dict("records")
    with torch.no_grad():
        answers = item.model(splits.test.batch(slice(None))).argmax(1)
    correct, shares = (answers == splits.test.labels).sum().item(), answers.bincount().double() / 12
    entropy = -sum(share * math.log2(share) for share in shares.tolist() if share)
    assert row == {
        "model": "SEW", "seed": 0, "run": item.key, "best_epoch": 2, "validation_accuracy": 0.75,
        "test_accuracy": correct / 12, "class_entropy": pytest.approx(entropy), "test_images": 12,
    }  # fmt: skip


def test_curves_have_one_row_per_epoch_and_network(artifacts, profile):
    items = [trained(SEW, profile, seed) for seed in (0, 1)]
    curves = training_curves(items)
    assert list(zip(curves.seed, curves.epoch, strict=True)) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert curves.loss.tolist() == [epoch["loss"] for item in items for epoch in item.history.epochs]
    assert {"train_accuracy", "validation_accuracy"} <= set(curves.columns) and "parts" not in curves.columns


def test_curves_of_a_network_just_trained_and_of_the_same_read_back_are_the_same_bytes(artifacts, profile):
    fresh, again = (training_curves([trained(SEW, profile, 0)]).to_csv() for _ in range(2))
    assert fresh == again


def test_network_and_recipe_override_the_profile(profile):
    own = Network("own", "sew_resnet18", {"time_steps": 2, "pool": "avg"}, {"learning_rate": 0.5})
    config = build_network(own, profile, 7, seed=3).config
    assert (config["time_steps"], config["width"], config["pool"]) == (2, profile.width, "avg")
    assert (config["num_classes"], config["seed"]) == (7, 3)
    recipe = build_recipe(own, profile, seed=4)
    assert (recipe.learning_rate, recipe.seed, recipe.augmentation) == (0.5, 4, "flip")
    assert (recipe.epochs, recipe.batch_size, recipe.schedule) == (profile.epochs, profile.batch_size, profile.schedule)
    assert recipe.weight_decay == profile.weight_decay


def test_images_are_those_of_the_profile_and_loaded_once(profile):
    small = replace(PROFILES["smoke"], train_per_class=5, test_per_class=3)
    splits = common.load_profile_images(small)
    assert common.load_profile_images(replace(small)) is splits
    sizes = [np.bincount(part.labels, minlength=10).tolist() for part in (splits.train, splits.validation, splits.test)]
    assert sizes == [[4] * 10, [1] * 10, [3] * 10]
