"""Resuming: the bytes after a kill are those of a run that nobody touched."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from snnlib.errors import InputError
from snnlib.files import sha256_of
from snnlib.neurons import use_kernel
from snnlib.tensor_files import state_digest
from snnlib.training import Recipe, fit, load_weights
from snnlib.training.checkpoint import read_checkpoint
from snnlib.training.log import read_log

REPOSITORY = Path(__file__).parents[2]
DEATHS = ("inside-an-epoch", "between-best-and-last", "between-last-and-log", "from-outside")


def hashes(folder: Path) -> dict[str, str]:
    return {name: sha256_of(folder / name) for name in ("last.safetensors", "best.safetensors")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("tiny.py")
    done = subprocess.run(
        [sys.executable, script, root], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("death", DEATHS)
def test_bytes_equal_an_uninterrupted_run_when_killed_and_resumed(runs, death):
    assert hashes(runs / death) == hashes(runs / "uninterrupted")


@pytest.mark.parametrize("death", DEATHS)
def test_log_has_one_line_per_epoch_when_killed_and_resumed(runs, death):
    keys = ("epoch", "loss", "train_accuracy", "parts", "learning_rate", "validation_accuracy")
    lines = [[{key: line[key] for key in keys} for line in read_log(runs / name / "log.jsonl")]
             for name in (death, "uninterrupted")]  # fmt: skip
    assert [line["epoch"] for line in lines[0]] == [1, 2, 3, 4]
    assert lines[0] == lines[1]


def test_a_kill_leaves_the_last_finished_epoch_when_it_comes_between_writes(runs):
    epochs = {}
    for death in DEATHS[:3]:
        folder = runs / "when-killed" / death
        files = [
            read_checkpoint(folder / name).metadata["history"]
            for name in ("last.safetensors", "best.safetensors")
        ]
        epochs[death] = (len(files[0]), len(files[1]), len(read_log(folder / "log.jsonl")))
    assert epochs["inside-an-epoch"] == (1, 1, 1)
    assert epochs["between-best-and-last"][0::2] == (1, 1)
    assert epochs["between-last-and-log"][0::2] == (2, 1)


def test_times_are_null_when_nobody_could_log_them(runs):
    times = [line["seconds"] for line in read_log(runs / "between-last-and-log" / "log.jsonl")]
    assert times[1] is None and all(seconds > 0 for seconds in times[:1] + times[2:])


def test_no_temporary_file_is_left_when_killed(runs):
    names = {path.name for path in (runs / "when-killed").rglob("*") if path.is_file()}
    assert names <= {"last.safetensors", "best.safetensors", "log.jsonl", "fit.lock"}


def test_same_bytes_when_trained_twice_from_the_same_seed(tiny, tmp_path):
    for number, name in enumerate(("first", "second")):
        torch.manual_seed(number)  # what the caller draws elsewhere must not matter
        fit(tiny.make_model(noise=True), tiny.make_splits(), tiny.RECIPE, directory=tmp_path / name)
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")


def test_bytes_differ_when_the_recipe_seed_differs(tiny, tmp_path):
    for seed in (1, 2):
        recipe = replace(tiny.RECIPE, seed=seed, epochs=1)
        fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path / str(seed))
    weights = [
        read_checkpoint(tmp_path / seed / "last.safetensors").model_state["conv.weight"] for seed in "12"
    ]
    assert not torch.equal(*weights)


def test_same_bytes_when_stopped_by_the_time_limit_and_resumed(tiny, tmp_path):
    splits = tiny.make_splits()
    fit(tiny.make_model(), splits, tiny.RECIPE, directory=tmp_path / "whole")
    lengths = []
    for _ in range(tiny.RECIPE.epochs):
        history = fit(tiny.make_model(), splits, tiny.RECIPE, directory=tmp_path / "pieces", time_limit=0)
        lengths.append((len(history.epochs), history.finished))
    assert lengths == [(1, False), (2, False), (3, False), (4, True)]
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "pieces")


def test_sgd_momentum_is_restored_when_resumed(tiny, tmp_path):
    recipe = replace(tiny.RECIPE, optimiser="sgd", weight_decay=1e-3, schedule="cosine", epochs=2)
    fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path / "whole")
    kept = []
    for _ in range(2):
        fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path / "pieces", time_limit=0)
        kept.append(read_checkpoint(tmp_path / "pieces" / "last.safetensors").optimiser_state)
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "pieces")
    assert "conv.weight/momentum_buffer" in kept[0] and not kept[1]


def test_a_finished_run_is_only_loaded_when_fit_is_called_again(tiny, tmp_path, monkeypatch):
    model, again = tiny.make_model(), tiny.make_model()
    first = fit(model, tiny.make_splits(), tiny.RECIPE, directory=tmp_path)
    monkeypatch.setattr(tiny.loop, "train_epoch", None)
    assert fit(again, tiny.make_splits(), tiny.RECIPE, directory=tmp_path) == first
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_training_starts_over_when_resume_is_off(tiny, tmp_path):
    recipe = replace(tiny.RECIPE, epochs=1)
    fit(tiny.make_model(seed=5), tiny.make_splits(), recipe, directory=tmp_path / "a")
    fit(
        tiny.make_model(), tiny.make_splits(), replace(recipe, seed=9), directory=tmp_path / "a", resume=False
    )
    fit(tiny.make_model(), tiny.make_splits(), replace(recipe, seed=9), directory=tmp_path / "b")
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("recipe", "recipe learning_rate is 0.01 there, 0.5 here"),
        ("data", "data train is '[0-9a-f]{16}' there"),
        ("model", "model pool is None there, 'avg' here"),
    ],
)
def test_input_error_names_the_difference_when_the_folder_holds_another_run(tiny, tmp_path, change, message):
    fit(tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)
    model, splits, recipe = tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, epochs=1)
    if change == "recipe":
        recipe = replace(recipe, learning_rate=0.5)
    elif change == "data":
        splits = tiny.make_splits(train=49)
    else:
        model.config = {"pool": "avg"}
    with pytest.raises(InputError, match=message):
        fit(model, splits, recipe, directory=tmp_path)


def test_a_damaged_log_costs_the_times_and_nothing_else(tiny, tmp_path, monkeypatch):
    recipe = replace(tiny.RECIPE, epochs=2)
    fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path, time_limit=0)
    (tmp_path / "log.jsonl").write_bytes(b"\xff\x00{[")
    said = []
    monkeypatch.setattr("snnlib.training.log.announce", said.append)
    fit(tiny.make_model(), tiny.make_splits(), recipe, directory=tmp_path)
    assert [line["seconds"] is None for line in read_log(tmp_path / "log.jsonl")] == [True, False]
    assert len(said) == 1 and "is no log line" in said[0]


@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors"])
def test_damaged_weights_are_refused_with_what_to_delete(tiny, tmp_path, name):
    history = fit(tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-5] ^= 0x80  # the sign of a weight
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is damaged .*delete it, in a training folder the whole folder"):
        fit(tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)
        load_weights(history.best, tiny.make_model())


def test_leftovers_of_a_killed_write_go_when_the_run_is_taken_up(tiny, tmp_path):
    fit(tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)
    (tmp_path / ".best.safetensors.elsewhere-1-1.part").write_bytes(b"half")
    os.utime(tmp_path / ".best.safetensors.elsewhere-1-1.part", (0, 0))
    fit(tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["best.safetensors", "fit.lock", "last.safetensors", "log.jsonl"]


def test_home_in_a_folder_is_put_in(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    history = fit(tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory="~/run")
    assert history.best == tmp_path / "run" / "best.safetensors" and history.best.is_file()


def test_input_error_when_best_was_deleted(tiny, tmp_path):
    fit(tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(InputError, match="has last.safetensors but no best.*delete the folder"):
        fit(tiny.make_model(), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)


def test_log_is_rebuilt_when_it_was_deleted_or_is_ahead(tiny, tmp_path):
    history = fit(tiny.make_model(), tiny.make_splits(), tiny.RECIPE, directory=tmp_path)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + json.dumps({"epoch": 9, "seconds": 1, "images_per_second": 1}) + "\n")
    fit(tiny.make_model(), tiny.make_splits(), tiny.RECIPE, directory=tmp_path)
    assert [line["epoch"] for line in read_log(log)] == [1, 2, 3, 4]
    log.unlink()
    fit(tiny.make_model(), tiny.make_splits(), tiny.RECIPE, directory=tmp_path)
    assert [line["loss"] for line in read_log(log)] == [record["loss"] for record in history.epochs]


def test_input_error_names_the_line_when_the_log_is_damaged(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"epoch": 1, "seconds": 1, "images_per_second": 2}\n{"epo')
    with pytest.raises(InputError, match="line 2 of .*log.jsonl is no log line"):
        read_log(tmp_path / "log.jsonl")


def test_same_bytes_when_robust_fine_tuning_is_stopped_and_resumed(tiny, tmp_path):
    start = tiny.make_model(spiking=True, wide=True)
    with use_kernel("reference"):
        fit(start, tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path / "first")
        fit(copy.deepcopy(start), tiny.make_splits(), tiny.ROBUST, directory=tmp_path / "whole")
        for _ in range(tiny.ROBUST.epochs):
            fit(copy.deepcopy(start), tiny.make_splits(), tiny.ROBUST, directory=tmp_path / "pieces", time_limit=0)
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "pieces")
    begun = read_checkpoint(tmp_path / "whole" / "best.safetensors").metadata["initial"]["weights"]
    assert begun == state_digest(read_checkpoint(tmp_path / "first" / "last.safetensors").model_state)


def test_input_error_when_fine_tuning_is_resumed_from_other_weights(tiny, tmp_path):
    fit(tiny.make_model(), tiny.make_splits(), tiny.RECIPE, directory=tmp_path, time_limit=0)
    with pytest.raises(InputError, match="holds a run that began with other weights") as raised:
        fit(tiny.make_model(seed=1), tiny.make_splits(), tiny.RECIPE, directory=tmp_path, time_limit=0)
    assert state_digest(tiny.make_model(seed=1).state_dict()) in str(raised.value) and "\n" not in str(raised.value)
    assert len(read_log(tmp_path / "log.jsonl")) == 1


@pytest.mark.parametrize("reached", ["last", "best"])
def test_same_bytes_when_resumed_by_a_model_with_weights_that_the_run_has_reached(tiny, tmp_path, reached):
    splits = tiny.make_splits()
    fit(tiny.make_model(), splits, tiny.RECIPE, directory=tmp_path / "whole")
    model = tiny.make_model()
    for _ in range(tiny.RECIPE.epochs):
        history = fit(model, splits, tiny.RECIPE, directory=tmp_path / "pieces", time_limit=0)
        load_weights(getattr(history, reached), model)
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "pieces")


def test_input_error_names_the_parameter_when_another_choice_is_trainable(tiny, tmp_path):
    model = tiny.make_model(spiking=True)
    model.neuron.requires_grad_(False)
    with use_kernel("reference"):
        fit(model, tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)
        with pytest.raises(InputError, match="trainable neuron.threshold is False there, True here"):
            fit(tiny.make_model(spiking=True), tiny.make_splits(), replace(tiny.RECIPE, epochs=1), directory=tmp_path)


def test_input_error_when_nothing_is_trainable(tiny, tmp_path):
    model = tiny.make_model().requires_grad_(False)
    with pytest.raises(InputError, match="the model has no trainable parameter"):
        fit(model, tiny.make_splits(), tiny.RECIPE, directory=tmp_path)
    assert not list(tmp_path.iterdir())


def test_threshold_is_decayed_and_trained_with_its_momentum_restored_when_resumed(tiny, tmp_path):
    recipe = replace(tiny.ROBUST, epochs=2, weight_decay=0.5)
    thresholds = {}
    with use_kernel("reference"):
        for decay in (0.5, 0.0):
            model = tiny.make_model(spiking=True)
            fit(model, tiny.make_splits(), replace(recipe, weight_decay=decay), directory=tmp_path / str(decay))
            thresholds[decay] = model.neuron.threshold.item()
    assert thresholds[0.5] < thresholds[0.0] and thresholds[0.0] != 0.5
    with use_kernel("reference"):
        fit(tiny.make_model(spiking=True), tiny.make_splits(), recipe, directory=tmp_path / "begun", time_limit=0)
    state = read_checkpoint(tmp_path / "begun" / "last.safetensors").optimiser_state
    assert state["neuron.threshold/momentum_buffer"].shape == ()


def test_thresholds_take_their_own_rate_and_resume_with_it(tiny, tmp_path):
    """Weights stand still, the threshold moves, and a stopped run ends with the bytes of an uninterrupted one."""
    recipe = replace(tiny.RECIPE, learning_rate=1e-12, threshold_learning_rate=0.01)
    with use_kernel("reference"):
        whole, stopped = (tiny.make_model(spiking=True) for _ in range(2))
        before = copy.deepcopy(whole.state_dict())
        fit(whole, tiny.make_splits(), recipe, directory=tmp_path / "whole")
        for _ in range(recipe.epochs):
            fit(stopped, tiny.make_splits(), recipe, directory=tmp_path / "stopped", time_limit=0)
    change = {name: (value - before[name]).abs().max().item() for name, value in whole.named_parameters()}
    assert change.pop("neuron.threshold") > 0.01 and max(change.values()) < 1e-8
    assert hashes(tmp_path / "stopped") == hashes(tmp_path / "whole")


def test_digest_tells_names_types_and_bytes_apart_and_nothing_else():
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}
    digest = state_digest(state)
    assert digest == state_digest(dict(reversed(state.items())))
    assert digest == state_digest({**state, "a": state["a"].T.contiguous().T})
    others = [
        {**state, "a": state["a"].T},
        {**state, "b": torch.tensor(3.0)},
        {**state, "b": torch.tensor(4)},
        {"a": state["a"], "c": state["b"]},
    ]
    assert len({digest, *map(state_digest, others)}) == 5


def test_load_weights_gives_the_best_epoch_when_asked_for(tiny, tmp_path):
    history = fit(tiny.make_model(), tiny.make_splits(), tiny.RECIPE, directory=tmp_path)
    metadata = load_weights(history.best, tiny.make_model(seed=3))
    assert len(metadata["history"]) == history.best_epoch
    assert metadata["recipe"] == tiny.RECIPE.as_config()


def test_a_run_from_before_a_field_of_the_recipe_is_taken_up(tiny, tmp_path, monkeypatch):
    splits, whole = tiny.make_splits(), Recipe.as_config
    without = {"deflate_gradients", "curriculum", "threshold_learning_rate"}
    with monkeypatch.context() as earlier:
        earlier.setattr(Recipe, "as_config", lambda self: {k: v for k, v in whole(self).items() if k not in without})
        began = fit(tiny.make_model(), splits, tiny.RECIPE, directory=tmp_path)
    assert fit(tiny.make_model(), splits, tiny.RECIPE, directory=tmp_path) == began
    with pytest.raises(InputError, match="recipe deflate_gradients is False there, True here"):
        fit(tiny.make_model(), splits, replace(tiny.RECIPE, deflate_gradients=True), directory=tmp_path)
