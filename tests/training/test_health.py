"""Layers that fall silent and thresholds that go wrong, noticed while the run goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from snnlib import progress
from snnlib.neurons import use_kernel
from snnlib.training import TrainingDiverged, fit
from snnlib.training.checkpoint import read_checkpoint
from snnlib.training.health import silent_layers
from snnlib.training.objectives import OBJECTIVES


@pytest.fixture(autouse=True)
def reference_kernel():
    with use_kernel("reference"):
        yield


def test_silent_layer_is_named_in_the_record_and_announced_before_the_next_epoch(tiny, tmp_path, monkeypatch):
    shown = tmp_path / "progress.txt"
    shown.touch()
    monkeypatch.setenv("SNNLIB_PROGRESS", f"file:{shown}")
    monkeypatch.setattr(progress, "FILE_SECONDS", 0.0)
    seen, own = [], OBJECTIVES["natural"]

    def spy(model, images, labels, attack=None):
        seen.append(shown.read_text())
        return own(model, images, labels, attack)

    monkeypatch.setitem(OBJECTIVES, "natural", spy)
    model = tiny.make_model(spiking=True)
    with torch.no_grad():
        model.neuron.threshold.fill_(1e6)
    history = fit(model, tiny.make_splits(), replace(tiny.RECIPE, epochs=2), directory=tmp_path / "run")
    assert [record["silent_layers"] for record in history.epochs] == [["neuron"], ["neuron"]]
    warning = "warning: epoch 1: no spike on 20 validation images in neuron; lower the threshold"
    assert warning not in seen[3] and seen[4].count(warning) == 1  # an epoch has four steps
    assert shown.read_text().count("warning: epoch") == 2
    assert "silent layers=1" in shown.read_text()


def test_nothing_is_announced_when_every_layer_fires(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SNNLIB_PROGRESS", "lines")
    history = fit(tiny.make_model(spiking=True), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)
    assert history.epochs[0]["silent_layers"] == [] and "warning" not in capsys.readouterr().err


def test_warning_goes_to_stderr_when_progress_does(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SNNLIB_PROGRESS", "lines")
    model = tiny.make_model(spiking=True)
    with torch.no_grad():
        model.neuron.threshold.fill_(1e6)
    fit(model, tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)
    written = capsys.readouterr()
    assert "no spike on 20 validation images in neuron" in written.err and written.out == ""


def test_a_layer_counts_as_firing_when_it_spikes_in_any_batch(tiny):
    model = tiny.make_model(spiking=True)
    images = tiny.make_set(4, 0).batch(slice(None))
    with silent_layers(model) as silent, torch.no_grad():
        model.neuron.threshold.fill_(1e6)
        model(images)
        assert list(silent) == ["neuron"]
        model.neuron.threshold.fill_(0.01)
        model(images)
        model.neuron.threshold.fill_(1e6)
        model(images)
        assert list(silent) == []
    assert not model.neuron._forward_hooks


def sinking(model, images, labels, attack=None):
    """Takes the threshold from 0.5 to 0.1 and, with momentum, to 0.1 - 0.4 - 0.9 * 0.4 at learning rate 1."""
    return 0.4 * model.neuron.threshold, {"accuracy": torch.tensor(0.0)}


def broken(model, images, labels, attack=None):
    """A loss of 0 whose gradient is 0 · ∞."""
    return (0 * model.neuron.threshold).sqrt(), {"accuracy": torch.tensor(0.0)}


@pytest.mark.parametrize(
    ("objective", "message"),
    [(sinking, "became -0.66 in epoch 1, step 2"), (broken, "became nan in epoch 1, step 1")],
)
def test_training_stops_and_names_the_layer_when_its_threshold_goes_wrong(
    tiny, tmp_path, monkeypatch, objective, message
):
    monkeypatch.setitem(OBJECTIVES, "natural", objective)
    recipe = replace(tiny.RECIPE, optimiser="sgd", learning_rate=1.0, schedule="constant")
    model = tiny.make_model(spiking=True)
    with pytest.raises(TrainingDiverged) as raised:
        fit(model, tiny.make_splits(), recipe, directory=tmp_path)
    text = str(raised.value)
    assert f"the threshold of neuron {message}, at learning rate 1; expected a finite number above 0" in text
    assert "\n" not in text and not (tmp_path / "last.safetensors").exists()


def test_training_goes_on_when_the_floor_holds_a_sinking_threshold(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "natural", sinking)
    recipe = replace(tiny.RECIPE, optimiser="sgd", learning_rate=1.0, schedule="constant", epochs=1)
    model = tiny.make_model(spiking=True)
    model.neuron.threshold_floor = 0.03
    fit(model, tiny.make_splits(), recipe, directory=tmp_path)
    assert model.neuron.threshold.item() < 0 and model.neuron.effective_threshold.item() == pytest.approx(0.03)


def test_finished_epochs_are_kept_when_a_threshold_goes_wrong_later(tiny, tmp_path, monkeypatch):
    calls, own = [], OBJECTIVES["natural"]

    def later(model, images, labels, attack=None):
        calls.append(images)
        return (broken if len(calls) == 6 else own)(model, images, labels, attack)

    monkeypatch.setitem(OBJECTIVES, "natural", later)
    with pytest.raises(TrainingDiverged, match="the threshold of neuron became nan in epoch 2, step 2"):
        fit(tiny.make_model(spiking=True), tiny.make_splits(), tiny.RECIPE, directory=tmp_path)
    assert len(read_checkpoint(tmp_path / "last.safetensors").metadata["history"]) == 1
