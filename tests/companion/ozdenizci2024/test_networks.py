"""From ANN to fine-tuned SNN at toy size: each step does what it says, and nothing is computed twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from snnlib.companion.ozdenizci2024 import networks as chapter
from snnlib.companion.ozdenizci2024 import tables
from snnlib.companion.sizes import ConversionSize, conversion_size
from snnlib.conversion.calibrate import spiking_layer_names, threshold_of
from snnlib.conversion.statistics import batch_norms
from snnlib.data import ImageSet, ImageSplits
from snnlib.neurons import neurons_of

FROZEN, DROPPED = chapter.ABLATIONS["C5"], chapter.ABLATIONS["C6"]


def _images(count: int, seed: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    noise = torch.randint(0, 120, (count, 3, 32, 32), generator=generator)
    return ImageSet((noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


@pytest.fixture
def splits() -> ImageSplits:
    """As the toy images of conftest, at the size that a VGG-11 takes."""
    return ImageSplits("made-up", _images(24, 1), _images(9, 2), _images(12, 3), 3, ("dark", "grey", "bright"))


@pytest.fixture
def size() -> ConversionSize:
    return replace(conversion_size("smoke"), calibration={"time_steps": 4, "batches": 2, "batch_size": 8})


def _thresholds(snn) -> list[float]:
    return [threshold_of(layer) for layer in spiking_layer_names(snn)]


def _affine(model) -> list[torch.Tensor]:
    return [value.detach().clone() for norm in batch_norms(model) for value in (norm.weight, norm.bias)]


def _same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "how, label",
    [
        (chapter.FineTuning(), ""),
        (FROZEN, "thresholds frozen"),
        (DROPPED, "BatchNorm affine dropped"),
        (chapter.FineTuning(False, False), "thresholds frozen, BatchNorm affine dropped"),
    ],
)
def test_label_says_what_differs_from_the_paper(how, label):
    assert how.label == label


def test_thresholds_are_calibrated_once_and_scaled(artifacts, size, monkeypatch):
    item = chapter.ann("natural", size, 0)
    table = chapter.thresholds(item, size)
    assert len(table) == 10 and (table.threshold > 0).all() and table.firing_rate.between(0, 1).all()
    monkeypatch.setattr(chapter, "calibrate", lambda *_, **__: pytest.fail("calibrated again"))
    snn = chapter.converted(item, size)
    assert _thresholds(snn) == pytest.approx((0.3 * table.threshold).tolist(), rel=1e-6)
    assert _thresholds(chapter.converted(item, size, scale=1.0)) == pytest.approx(table.threshold.tolist(), rel=1e-6)


def test_thresholds_without_the_affine_parameters_are_others(artifacts, size):
    item = chapter.ann("natural", size, 0)
    with torch.no_grad():
        batch_norms(item.model)[0].weight.fill_(5.0)
    kept, dropped = (chapter.thresholds(item, size, keep_batch_norm=keep).threshold[0] for keep in (True, False))
    assert kept > 2 * dropped, "the first layer's current is scaled by BatchNorm's weight"


def test_affine_parameters_are_kept_or_really_dropped(artifacts, size):
    item = chapter.ann("natural", size, 0)
    own = _affine(item.model)
    assert not all(torch.equal(value, torch.ones_like(value)) for value in own[::2]), "training has moved them"
    assert _same(_affine(chapter.converted(item, size)), own)
    dropped = chapter.converted(item, size, keep_batch_norm=False)
    weights, biases = _affine(dropped)[::2], _affine(dropped)[1::2]
    assert all((value == 1).all() for value in weights) and all((value == 0).all() for value in biases)
    assert _same(_affine(item.model), own), "the ANN is left alone"
    kept = {name: value for name, value in item.model.state_dict().items() if name.endswith("conv.weight")}
    assert kept and all(torch.equal(dropped.state_dict()[name], value) for name, value in kept.items())


def test_frozen_thresholds_stay_where_conversion_put_them(artifacts, size):
    before = _thresholds(chapter.converted(chapter.ann("trades", size, 0), size))
    frozen = chapter.finetuned("trades", size, 0, how=FROZEN)
    tuned = chapter.finetuned("trades", size, 0)
    assert _thresholds(frozen.model) == before
    assert all(now != then for now, then in zip(_thresholds(tuned.model), before, strict=True))
    assert frozen.key != tuned.key
    assert frozen.network.label == "SNN, conversion from TRADES, thresholds frozen"
    convolution = "body.features.0.conv.weight"
    start = chapter.ann("trades", size, 0).model.state_dict()[convolution]
    assert not torch.equal(frozen.model.state_dict()[convolution], start), "the rest of it is trained"


def test_nothing_is_trained_twice(artifacts, size, calls):
    first = chapter.finetuned("natural", size, 0)
    assert calls["epochs"] == 2, "the ANN's and the SNN's"
    again = chapter.finetuned("natural", size, 0)
    assert calls["epochs"] == 2 and again.key == first.key
    assert _same(list(again.model.state_dict().values()), list(first.model.state_dict().values()))


def test_rival_has_the_same_shape_and_fixed_thresholds(artifacts, size):
    rival, ours = chapter.end_to_end("equal time", size, 0), chapter.finetuned("natural", size, 0)
    assert len(rival.history.epochs) == size.end_to_end_epochs["equal time"]
    assert set(_thresholds(rival.model)) == {1.0}
    shapes = {
        item.network.label: {
            name: value.shape for name, value in item.model.named_parameters() if "threshold" not in name
        }
        for item in (rival, ours)
    }
    assert shapes[rival.network.label] == shapes[ours.network.label]
    assert rival.model.config["time_steps"] == ours.model.config["time_steps"]


def test_steps_of_conversion_are_what_they_are_called(artifacts, size):
    item, fine = chapter.ann("natural", size, 0), chapter.finetuned("natural", size, 0)
    steps, table = chapter.steps_of_conversion(item, fine, size), chapter.thresholds(item, size).threshold.tolist()
    assert list(steps) == ["ANN", "copied, thresholds 1", "calibrated", "scaled", "statistics reset", "fine-tuned"]
    assert steps["ANN"] is item.model and neurons_of(item.model) == [] and steps["fine-tuned"] is fine.model
    assert _thresholds(steps["copied, thresholds 1"]) == [1.0] * 10
    assert _thresholds(steps["calibrated"]) == pytest.approx(table, rel=1e-6)
    assert _thresholds(steps["scaled"]) == _thresholds(steps["statistics reset"])
    means = {name: batch_norms(model)[0].running_mean for name, model in steps.items()}
    assert (means["statistics reset"] == 0).all()
    for name in ("copied, thresholds 1", "calibrated", "scaled"):
        # the first layer sees the same pixels whatever the thresholds behind it
        assert (means[name] != 0).all() and torch.equal(means[name], means["calibrated"])
    assert not any(model.training for model in steps.values())


def test_other_time_steps_change_time_and_statistics_alone(artifacts, size):
    fine = chapter.finetuned("natural", size, 0)
    before = {name: value.clone() for name, value in fine.model.state_dict().items()}
    longer = chapter.at_time_steps(fine, size, 5)
    assert longer.config["time_steps"] == 5 and longer.encoder(torch.zeros(1, 3, 32, 32)).shape[0] == 5
    changed = {name for name, value in longer.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("running_" in name or name.endswith("num_batches_tracked") for name in changed)
    assert all(torch.equal(value, before[name]) for name, value in fine.model.state_dict().items())


def test_threshold_table_follows_a_layer_through_the_steps(artifacts, size):
    item, fine = chapter.ann("natural", size, 0), chapter.finetuned("natural", size, 0)
    with torch.no_grad():
        next(iter(spiking_layer_names(fine.model))).threshold.fill_(0.001)
    table = chapter.threshold_table(item, fine, size)
    assert table.number.tolist() == list(range(1, 11)) and table.layer.is_unique
    assert table.scaled.tolist() == pytest.approx((0.3 * table.calibrated).tolist())
    assert table.fine_tuned[0] == 0.03, "the floor acts"
    assert table.fine_tuned[1:].tolist() == pytest.approx(_thresholds(fine.model)[1:])


def test_estimate_counts_every_training_and_starts_none(artifacts, size, calls, monkeypatch):
    seen = []

    def two_hours(model, splits, recipe, device):
        seen.append((bool(neurons_of(model)), recipe.objective, recipe.epochs))
        return 7200.0

    monkeypatch.setattr(chapter, "estimate_training_seconds", two_hours)
    table = chapter.estimated_seconds(size)
    assert table.networks.tolist() == [2, 2, 2, 2, 2 * (4 + 2), 2, 2] and (table.seconds == 7200).all()
    anns = [(False, name, 1) for name in chapter.OBJECTIVES]
    assert seen == [*anns, *((True, "consistency", epochs) for epochs in (1, 1, 2))]
    assert calls["epochs"] == 0


def test_training_effort_joins_the_stages_of_a_conversion(artifacts, size):
    small = {"batch_size": 10}
    profile, finetune = replace(size.profile, batch_size=20), {**size.finetune, **small}
    size = replace(size, profile=profile, finetune=finetune, end_to_end={**size.end_to_end, **small})
    networks = [chapter.ann("natural", size, 0), chapter.finetuned("natural", size, 0)]
    networks.append(chapter.end_to_end("equal time", size, 0))
    effort = tables.training_effort(networks, size)
    # 24 images: 2 batches of at most 20 in an ANN's epoch, 3 of at most 10 in an SNN's
    assert effort["optimiser steps"].to_dict() == {
        "ANN, natural": "2",
        "SNN, conversion from natural": "2 + 3",
        "SNN, end to end, equal time": "6",
    }
    assert effort.epochs.tolist() == ["1", "1 + 1", "2"]
