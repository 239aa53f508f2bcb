"""A network on disk comes back as it was, or the reason why not is one line."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from snnlib.errors import InputError
from snnlib.models import build_model, load, save
from snnlib.models.saved import read_config
from snnlib.training.checkpoint import save_checkpoint

CONFIG = {"name": "sew_resnet18", "num_classes": 10, "time_steps": 2, "encoder": "direct", "width": 8, "seed": 1}


@pytest.fixture(scope="module")
def model():
    built = build_model(**CONFIG)
    with torch.no_grad():
        for weight in built.parameters():  # no seed gives these
            weight.add_(0.01)
    return built


def _same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _refused(*arguments, match: str) -> None:
    with pytest.raises(InputError, match=match) as refusal:
        load(*arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("ending", ["", ".safetensors", ".json"])
def test_a_saved_network_comes_back_by_any_of_its_names(tmp_path, model, ending):
    written = save(model, tmp_path / f"my.net{ending}")
    assert written == tmp_path / "my.net.safetensors"
    assert sorted(os.listdir(tmp_path)) == ["my.net.json", "my.net.safetensors"]
    for name in ("my.net", "my.net.safetensors", "my.net.json"):
        again = load(tmp_path / name)
        assert _same(again, model) and again.config == model.config and not again.training


def test_the_same_network_gives_the_same_bytes_and_a_plain_state_dict(tmp_path, model):
    first, second = save(model, tmp_path / "a"), save(model, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    plain = load_file(first)
    assert plain.keys() == model.state_dict().keys()
    model.load_state_dict(plain)


def test_weights_of_others_need_their_configuration(tmp_path, model):
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "net.safetensors")
    _refused(tmp_path / "net", match="does not say which network it is; expected .*net.json")
    (tmp_path / "net.json").write_text(json.dumps(CONFIG))
    assert _same(load(tmp_path / "net.safetensors"), model)


def test_a_checkpoint_of_a_training_knows_its_configuration(tmp_path, model):
    save_checkpoint(tmp_path / "c.safetensors", model, torch.optim.Adam(model.parameters()), {"model": model.config})
    assert _same(load(tmp_path / "c.safetensors"), model)


def test_a_configuration_that_says_otherwise_is_refused(tmp_path, model):
    save(model, tmp_path / "net")
    for changed in ({"leak": 0.5}, {"spiking": False}, {"pool": "avg"}):
        (tmp_path / "net.json").write_text(json.dumps({**CONFIG, **changed}))
        name, value = next(iter(changed.items()))
        _refused(tmp_path / "net", match=f"net.json: {name} is {value!r}, but .* in .*net.safetensors")
    (tmp_path / "net.json").write_text(json.dumps({**CONFIG, "seed": 7, "surrogate": "atan(alpha=2)"}))
    assert _same(load(tmp_path / "net"), model)


def test_a_network_that_its_configuration_does_not_build_is_not_saved(tmp_path, model):
    with pytest.raises(InputError, match="the model is a Linear; expected one of build_model"):
        save(nn.Linear(2, 2), tmp_path / "net")
    changed = build_model(**CONFIG)
    changed.body.added = nn.Linear(2, 2)
    with pytest.raises(InputError, match="body.added.bias is .2., expected absent by its configuration"):
        save(changed, tmp_path / "net")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("body.fc.bias", float("nan"), "body.fc.bias contains NaN or infinity"),
        ("body.fc.weight", float("inf"), "body.fc.weight contains NaN or infinity"),
        ("running_var", -1.0, "running_var contains -1; expected variances"),
    ],
)
def test_weights_that_a_spike_would_hide_are_refused(tmp_path, name, value, message):
    broken = build_model(**CONFIG)
    name = next(each for each in broken.state_dict() if each.endswith(name))
    with torch.no_grad():
        broken.state_dict()[name].view(-1)[0] = value
    _refused(save(broken, tmp_path / "net"), match=message)


def test_home_is_put_in(tmp_path, monkeypatch, model):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert save(model, "~/net") == tmp_path / "net.safetensors"
    assert _same(load("~/net"), model)


def test_nothing_is_unpickled(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "net.safetensors").write_bytes(pickle.dumps(Payload()))
    _refused(tmp_path / "net.safetensors", match="damaged or no safetensors file .*pickled weights are not read")
    torch.save({"weight": torch.ones(2)}, tmp_path / "net.safetensors")
    _refused(tmp_path / "net.safetensors", match="pickle of PyTorch, .* as FILE.py:function")
    assert not (tmp_path / "executed").exists()


def test_no_flipped_bit_of_the_pair_gives_another_network(tmp_path, model):
    save(model, tmp_path / "net")
    for ending, step in ((".json", 41), (".safetensors", 8 * 30_011 + 1)):
        whole = (tmp_path / f"net{ending}").read_bytes()
        for place in [*range(0, 8 * len(whole), step), *range(0, 1200, 131)]:
            content = bytearray(whole)
            content[place // 8] ^= 1 << place % 8
            (tmp_path / f"net{ending}").write_bytes(content)
            try:
                again = load(tmp_path / "net")
                assert _same(again, model) and {**again.config, "seed": 1} == model.config, (ending, place)
            except InputError as refusal:
                assert "\n" not in str(refusal), (ending, place)
        (tmp_path / f"net{ending}").write_bytes(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "holds .1.; expected an object"),
        ('{"name": "vgg11", "name": "vgg16"}', "a name stands twice"),
        ('{"leak": NaN}', "NaN is no number of JSON"),
        ('{"leak": 1' + "0" * 5000 + "}", "is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("\ufeff{}", "is no JSON"),
        ("\0", "is no JSON"),
        (json.dumps({**CONFIG, "spiking": "false"}), "spiking is 'false'; expected true or false"),
        (json.dumps({**CONFIG, "time_steps": 2.5}), "time_steps is 2.5; expected a whole number"),
        (json.dumps({**CONFIG, "width": [8]}), "width is .8.; expected a whole number or null"),
        (json.dumps({**CONFIG, "leak": 1e999}).replace("Infinity", "1e999"), "leak is inf; expected a finite number"),
        (json.dumps({**CONFIG, "encoder": {"name": "direct"}}), "encoder is .'name': 'direct'.; expected a text"),
    ],
)
def test_a_configuration_of_other_types_is_one_line(tmp_path, content, message):
    (tmp_path / "net.json").write_text(content)
    with pytest.raises(InputError, match=message) as refusal:
        read_config(tmp_path / "net.json")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


TEXTS = st.sampled_from(["", "max", "phase", "atan", "7x7", "x(y"])
LEAVES = st.none() | st.booleans() | st.integers(-2, 9) | st.floats(-2, 2) | TEXTS
NESTED = st.lists(LEAVES, max_size=2) | st.dictionaries(st.just("a"), LEAVES)
NAMES = [
    *("pool", "encoder", "leak", "threshold", "surrogate", "reset", "stem", "connection", "seed", "bias"),
    *("in_channels", "detach_reset", "spiking", "dropout", "trainable_threshold", "threshold_floor", "colour"),
]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(NAMES), LEAVES | NESTED, max_size=3))
def test_any_configuration_builds_a_network_or_is_one_line(tmp_path_factory, changed):
    path = tmp_path_factory.mktemp("config") / "net.json"
    path.write_text(json.dumps({**CONFIG, **changed}))
    try:
        with torch.device("meta"):
            build_model(**read_config(path))
    except InputError as refusal:
        assert "\n" not in str(refusal)
