"""The loop: which epoch is best, when it stops, what it logs, what it leaves alone."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from snnlib.data.image_set import ImageSet
from snnlib.errors import InputError
from snnlib.training import TrainingDiverged, evaluate_accuracy, fit
from snnlib.training.checkpoint import read_checkpoint
from snnlib.training.epoch import batch_indices, build_optimiser
from snnlib.training.log import read_log
from snnlib.training.schedules import SCHEDULES


@pytest.mark.parametrize(
    ("accuracies", "best"), [([0.2, 0.5, 0.5, 0.4], 2), ([0.9, 0.1, 0.2, 0.3], 1), ([0.1, 0.2, 0.3, 0.4], 4)]
)
def test_best_epoch_is_the_earliest_of_highest_validation_accuracy_when_scored(
    tiny, tmp_path, monkeypatch, accuracies, best
):
    scores = iter(accuracies)
    splits = tiny.make_splits()

    def score(model, image_set, **_):
        assert image_set is splits.validation
        return next(scores)

    monkeypatch.setattr(tiny.loop, "evaluate_accuracy", score)
    history = fit(tiny.make_model(), splits, tiny.RECIPE, directory=tmp_path)
    saved = read_checkpoint(history.best)
    assert history.best_epoch == best == len(saved.metadata["history"])
    assert [record["validation_accuracy"] for record in history.epochs] == accuracies
    assert saved.optimiser_state == {}


@pytest.mark.parametrize(("breaks_at", "epoch", "step"), [(6, 2, 2), (8, 2, 4)])
def test_one_line_error_names_epoch_step_and_rate_when_the_loss_is_not_finite(
    tiny, tmp_path, monkeypatch, breaks_at, epoch, step
):
    calls = 0

    def breaks(model, images, labels, attack=None):
        nonlocal calls
        calls += 1
        loss = model(images).sum() * (float("nan") if calls == breaks_at else 0.0)
        return loss, {"accuracy": loss.detach()}

    monkeypatch.setitem(tiny.epoch.build_objective.__globals__["OBJECTIVES"], "natural", breaks)
    recipe = replace(tiny.RECIPE, schedule="constant")
    with pytest.raises(TrainingDiverged) as raised:
        fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path)
    message = str(raised.value)
    assert f"the loss became nan in epoch {epoch}, step {step}, at learning rate 0.01" in message
    assert "lower learning_rate" in message and "\n" not in message
    assert len(read_checkpoint(tmp_path / "last.safetensors").metadata["history"]) == 1
    assert len(read_log(tmp_path / "log.jsonl")) == 1


def test_nothing_is_saved_when_only_the_last_step_broke_the_weights(tiny, tmp_path, monkeypatch):
    def infinite_slope(model, images, labels, attack=None):
        return (model.fc.bias * 0).sqrt().sum(), {"accuracy": torch.tensor(0.0)}

    monkeypatch.setitem(tiny.epoch.build_objective.__globals__["OBJECTIVES"], "natural", infinite_slope)
    recipe = replace(tiny.RECIPE, batch_size=50, epochs=1)
    with pytest.raises(TrainingDiverged, match="the sum of the weights became nan in epoch 1, step 1"):
        fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_log_line_holds_what_the_epoch_gave_when_it_is_over(tiny, tmp_path):
    history = fit(tiny.make_model(), tiny.make_splits(), tiny.RECIPE, directory=tmp_path)
    lines = read_log(tmp_path / "log.jsonl")
    keys = {"epoch", "loss", "parts", "train_accuracy", "validation_accuracy", "learning_rate", "seconds"}
    keys |= {"silent_layers"}
    for line, record in zip(lines, history.epochs, strict=True):
        assert line.keys() == keys | {"images_per_second"}
        assert line["seconds"] > 0 and line["images_per_second"] > 0
        assert {key: line[key] for key in record} == record
    assert lines[1]["learning_rate"] == 0.01 * SCHEDULES["one-cycle"](7, 16)


def test_checkpoint_holds_no_time_when_saved(tiny, tmp_path):
    history = fit(tiny.make_model(), tiny.make_splits(), tiny.RECIPE, directory=tmp_path)
    record = read_checkpoint(history.last).metadata["history"][0]
    assert record.keys() == {
        "epoch", "loss", "parts", "train_accuracy", "validation_accuracy", "learning_rate", "silent_layers",
    }  # fmt: skip


def test_training_learns_when_classes_differ_in_brightness(tiny, tmp_path):
    recipe = replace(tiny.RECIPE, epochs=12)
    model = tiny.make_model()
    history = fit(model, tiny.make_splits(100), recipe, directory=tmp_path)
    assert not model.training
    assert history.epochs[-1]["loss"] < 0.7 * history.epochs[0]["loss"]
    assert history.epochs[-1]["validation_accuracy"] > 0.7


def test_global_generator_is_where_it_was_when_training_ends(tiny, tmp_path):
    model, splits = tiny.make_model(), tiny.make_splits()
    torch.manual_seed(3)
    fit(model, splits, tiny.RECIPE, directory=tmp_path)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_an_epoch_uses_each_image_once_in_batches_of_equal_size_when_the_count_does_not_divide(tiny):
    batches = batch_indices(tiny.RECIPE, tiny.make_set(49, 0), epoch=1)
    assert [len(batch) for batch in batches] == [13, 12, 12, 12]
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(49))
    assert not torch.equal(
        torch.cat(batches), torch.cat(batch_indices(tiny.RECIPE, tiny.make_set(49, 0), epoch=2))
    )


def test_flips_differ_between_steps_and_epochs_when_images_are_the_same(tiny):
    same = tiny.make_set(1, 0)
    image_set = ImageSet(same.images.expand(48, -1, -1, -1), same.labels.expand(48))
    seen = []
    for epoch in (1, 1, 2):
        batches = tiny.epoch.augmented_batches(image_set, tiny.RECIPE, epoch, torch.device("cpu"))
        seen.append([images for _, images, _ in batches])
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert not torch.equal(seen[0][0], seen[0][1]) and not torch.equal(seen[0][0], seen[2][0])


def test_attack_noise_differs_between_steps_and_epochs_when_trained(tiny, tmp_path, monkeypatch):
    seeds = []
    build_attack = tiny.epoch.build_attack
    monkeypatch.setattr(
        tiny.epoch, "build_attack", lambda given, seed: (seeds.append(seed), build_attack(given, seed))[1]
    )
    recipe = replace(tiny.RECIPE, epochs=2, objective="adversarial", attack={"name": "fgsm", "eps": 0.1})
    fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path)
    assert len(seeds) == len(set(seeds)) == 2 * 4


def test_adam_decay_is_coupled_when_the_gradient_is_zero(tiny):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimiser = build_optimiser(model, replace(tiny.RECIPE, learning_rate=0.1, weight_decay=0.5))
    model.weight.grad = torch.zeros_like(model.weight)
    optimiser.step()
    # The decay 0.5 · 2 enters the gradient, and Adam's first step is as long as the rate for any gradient.
    assert model.weight.item() == pytest.approx(1.9, abs=1e-6)


def test_sgd_momentum_is_not_nesterov_when_stepped_twice(tiny):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    optimiser = build_optimiser(model, replace(tiny.RECIPE, optimiser="sgd", learning_rate=1.0))
    for _ in range(2):
        model.weight.grad = torch.ones_like(model.weight)
        optimiser.step()
    assert model.weight.item() == pytest.approx(-(1 + 1.9))


def test_frozen_parameters_stay_when_trained_and_resumed(tiny, tmp_path):
    for _ in range(2):
        model = tiny.make_model()
        model.conv.requires_grad_(False)
        fit(model, tiny.make_splits(), replace(tiny.RECIPE, epochs=2), directory=tmp_path, time_limit=0)
    assert torch.equal(model.conv.weight, tiny.make_model().conv.weight)
    assert not torch.equal(model.fc.weight, tiny.make_model().fc.weight)


def test_accuracy_is_the_share_of_correct_images_when_the_model_is_known():
    class ByBrightness(nn.Module):
        def forward(self, images):
            assert not self.training and not torch.is_grad_enabled()
            return torch.stack([1 - images.flatten(1).mean(1), images.flatten(1).mean(1)], dim=1)

    levels = torch.tensor([0, 255, 0, 255, 255], dtype=torch.uint8).view(5, 1, 1, 1)
    image_set = ImageSet(levels.repeat(1, 3, 4, 4), torch.tensor([0, 1, 1, 1, 0]))
    model = ByBrightness()
    for batch_size in (1, 2, 5, 100):
        assert evaluate_accuracy(model, image_set, batch_size) == 0.6
    assert model.training


def test_every_training_flag_is_restored_when_scoring_fails(tiny):
    model = tiny.make_model()
    model.norm.eval()
    model.fc = nn.Linear(5, 3)
    with pytest.raises(RuntimeError):
        evaluate_accuracy(model, tiny.make_set(4, 0))
    assert model.training and model.dropout.training and not model.norm.training


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        (
            {"num_classes": 5},
            {},
            r"gives \[1, 5\] for one image; expected \[1, 3\]; build it with num_classes=3",
        ),
        ({}, {"precision": "bfloat16"}, "precision is 'bfloat16' on cpu; expected CUDA"),
    ],
)
def test_input_error_comes_before_training_when_model_or_device_do_not_fit(
    tiny, tmp_path, options, changes, message
):
    with pytest.raises(InputError, match=message):
        fit(
            tiny.make_model(**options),
            tiny.make_splits(),
            replace(tiny.RECIPE, **changes),
            directory=tmp_path,
        )
    assert os.listdir(tmp_path) == []


def test_input_error_names_the_split_when_it_is_empty(tiny, tmp_path):
    with pytest.raises(InputError, match="the validation split of made-up is empty"):
        fit(tiny.make_model(), tiny.make_splits(validation=0), tiny.RECIPE, directory=tmp_path)


@pytest.mark.gpu
def test_resume_is_exact_when_on_cuda(tiny, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    recipe = replace(tiny.RECIPE, precision="bfloat16", augmentation="crop-flip")
    fit(tiny.make_model(noise=True), tiny.make_splits(), recipe, directory=tmp_path / "whole", device="cuda")
    for _ in range(recipe.epochs):
        fit(
            tiny.make_model(noise=True), tiny.make_splits(), recipe,
            directory=tmp_path / "pieces", device="cuda", time_limit=0,
        )  # fmt: skip
    whole, pieces = (read_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "pieces"))
    assert all(torch.equal(value, pieces.model_state[name]) for name, value in whole.model_state.items())
