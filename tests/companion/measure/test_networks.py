"""Nothing that is stored is computed again; everything that decides a result is part of its name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from snnlib.companion.measure import networks as common
from snnlib.companion.measure import rows as results
from snnlib.companion.measure.attacked import ENCODED, IMAGE, AttackPlan
from snnlib.companion.measure.networks import (
    Network,
    accuracy_rows,
    attacked,
    attacked_images,
    build_network,
    build_recipe,
    trained,
    training_curves,
)
from snnlib.companion.sizes import PROFILES
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
    assert again.run == first.run
    assert torch.equal(_weights(again), _weights(first))
    assert again.history.epochs == first.history.epochs
    assert not again.model.training
    assert (artifacts / "networks" / first.run / "best.safetensors").is_file()


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
    monkeypatch.setattr(common, "fit", lambda *_, directory, **__: type("History", (), {"best": directory}))
    monkeypatch.setattr(common, "load_weights", lambda path, model: {})
    return [trained(*arguments).run for arguments in wanted]


def test_run_is_described_beside_its_folder(artifacts, profile):
    item = trained(SEW, replace(profile, epochs=1), 3)
    described = json.loads((artifacts / "networks" / f"{item.run}.json").read_text())
    assert described["model"]["seed"] == described["recipe"]["seed"] == 3
    assert described["recipe"]["epochs"] == 1
    assert described["data"] == {"name": "made-up", "subset": "embedded", "train_per_class": profile.train_per_class}


def _digested(monkeypatch) -> list[tuple[str, ...]]:
    seen = []
    monkeypatch.setattr(common, "code_digest", lambda *names: seen.append(names) or "digest")
    return seen


def test_only_the_attack_trained_on_names_a_run(artifacts, profile, monkeypatch):
    seen = _digested(monkeypatch)
    defended = Network("defended", "sew_resnet18", {}, {"objective": "adversarial", "attack": DEFENCE})
    _runs(monkeypatch, [(SEW, profile, 0), (defended, profile, 0)])
    plain, with_attack = map(set, seen)
    assert {"snnlib.models.resnet", "snnlib.neurons.kernels", "snnlib.training.epoch", "snnlib.encoding"} <= plain
    assert {"snnlib.attacks.single_step", "snnlib.attacks.session"} <= with_attack - plain
    assert "snnlib.attacks.projected_gradient" not in with_attack


def test_rows_are_named_by_the_code_of_their_own_attack(monkeypatch):
    seen = _digested(monkeypatch)
    common.attack_code("pgd")
    wanted = {"snnlib.attacks.projected_gradient", "snnlib.companion.measure.evaluation", "snnlib.models.resnet"}
    assert wanted <= set(seen[0])
    assert "snnlib.attacks.noise" not in seen[0]


def test_rows_are_made_once_per_plan(artifacts, profile, calls):
    item = trained(SEW, profile, 0)
    fgsm, pgd = AttackPlan("fgsm", 2 / 255), AttackPlan("pgd", 2 / 255, steps=2)
    first = attacked(item, profile, IMAGE, [fgsm])
    assert calls["plans"] == 1
    both = attacked(item, profile, IMAGE, [fgsm, pgd])
    assert calls["plans"] == 2, "only the new plan"
    again = attacked(item, profile, IMAGE, [fgsm, pgd])
    assert calls["plans"] == 2
    pd.testing.assert_frame_equal(again, both)
    pd.testing.assert_frame_equal(both[both.attack == "fgsm"].reset_index(drop=True), first)
    attacked(item, profile, ENCODED, [fgsm])
    attacked(item, replace(profile, attacked_per_class=1), IMAGE, [fgsm])
    attacked(item, replace(profile, attack_batch_size=4), IMAGE, [fgsm])
    attacked(trained(SEW, profile, 1), profile, IMAGE, [fgsm])
    assert calls["plans"] == 6


def test_rows_fit_the_schema_and_name_their_run(artifacts, profile):
    item = trained(SEW, profile, 1)
    rows = attacked(item, profile, IMAGE, [AttackPlan("fgsm", 2 / 255), AttackPlan("fgsm", 6 / 255)])
    results.check_rows(rows)
    assert len(rows) == 2 * 3 * profile.attacked_per_class
    assert set(zip(rows.run, rows.model, rows.seed, rows.dataset, strict=True)) == {(item.run, "SEW", 1, "made-up")}
    with torch.no_grad():
        images = attacked_images(profile, item.splits)
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
        correct = (item.model(splits.test.batch(slice(None))).argmax(1) == splits.test.labels).sum().item()
    assert row == {
        "model": "SEW", "seed": 0, "run": item.run, "best_epoch": 2, "validation_accuracy": 0.75,
        "test_accuracy": correct / 12, "test_images": 12,
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
    small = replace(PROFILES["smoke"], name="loads", train_per_class=5, test_per_class=3)
    splits = common.load_profile_images(small)
    assert common.load_profile_images(replace(small)) is splits
    sizes = [np.bincount(part.labels, minlength=10).tolist() for part in (splits.train, splits.validation, splits.test)]
    assert sizes == [[4] * 10, [1] * 10, [3] * 10]
