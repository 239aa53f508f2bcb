"""`build_model`: names, seeds, the seam between encoder and body, refusals; and surrogates from text."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from torch import nn

from snnlib.encoding import ENCODERS
from snnlib.errors import InputError
from snnlib.models import MODEL_NAMES, build_model, memory
from snnlib.models.build import parse_surrogate
from snnlib.neurons import neurons_of, surrogates


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def test_names_are_those_of_the_two_papers():
    residual = {f"{family}_resnet{depth}" for family in ("sew", "spiking") for depth in (18, 34, 50)}
    convertible = {"vgg11", "vgg16", "vgg11_tinyimagenet", "wrn16_4", "wrn28_4", "resnet20", "resnet32"}
    assert set(MODEL_NAMES) == residual | convertible


DRAWN_BY_SEED_3 = {
    # name: logits of one image, spiking and with ReLU
    "sew_resnet18": (
        (0.50340170, -0.10681673, -0.42530705, -0.06469771, 0.29103118),
        (1.25868119, -0.25817452, -1.11827576, 0.03807078, 0.35685749),
    ),
    "spiking_resnet18": (
        (0.27645769, 0.20538325, -0.29076488, 0.03701415, 0.10260568),
        (1.02690965, 0.08979635, -0.93632558, 0.14538579, 0.29367141),
    ),
}
"""Recorded when the first chapter's figures were made: its networks stay what they were."""


@pytest.mark.parametrize("name", DRAWN_BY_SEED_3)
def test_weights_and_logits_are_still_those_of_the_first_chapter(name):
    images = (torch.linspace(0, 1, 4 * 3 * 16 * 16, dtype=torch.float64) * 7919 % 1).view(4, 3, 16, 16)
    for spiking, logits in zip((True, False), DRAWN_BY_SEED_3[name], strict=True):
        model = build_model(name, 5, 4, width=4, seed=3, spiking=spiking).double().train()
        weights = _weights(model)
        ramp = torch.linspace(-1, 1, len(weights), dtype=torch.float64)
        assert weights.norm().item() == pytest.approx(27.877952103, rel=1e-6)
        assert (weights @ ramp).item() == pytest.approx(-73.948793805, rel=1e-5)
        torch.testing.assert_close(model(images)[0].tolist(), list(logits), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_model_is_body_after_encoder(awake, encoder):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = awake(build_model("sew_resnet18", 5, 6, encoder=encoder, width=8, seed=0), images)
    torch.manual_seed(1)
    logits = model(images)
    torch.manual_seed(1)
    encoded = model.encoder(images)
    assert encoded.shape == (6, 4, 3, 16, 16)
    assert torch.equal(model.body(encoded), logits)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_input_gradient_exists_when_in_eval_mode(awake, encoder):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = awake(build_model("sew_resnet18", 5, 6, encoder=encoder, width=8, seed=0), images)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(model(images)[:, 0].sum(), images)
    assert gradient.flatten(1).norm(dim=1).min() > 0


def test_no_gradient_reaches_the_image_when_the_encoder_gives_none():
    model = build_model("sew_resnet18", 5, 4, width=4, encoder_gradient="none", seed=0)
    assert model.encoder.gradient == "none"
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    assert torch.autograd.grad(model(images).sum(), images, allow_unused=True) == (None,)


def test_weights_follow_the_seed_and_the_global_generator_stays():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (_weights(build_model("sew_resnet18", 10, 4, width=4, seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_come_from_the_global_generator_when_there_is_no_seed():
    torch.manual_seed(3)
    from_global = _weights(build_model("sew_resnet18", 10, 4, width=4))
    assert torch.equal(from_global, _weights(build_model("sew_resnet18", 10, 4, width=4, seed=3)))


def test_no_cuda_generator_is_started_anew_when_there_is_a_seed(monkeypatch):
    started = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", started.append)
    torch.manual_seed(5)
    assert started == [5], "what torch.manual_seed does"
    build_model("sew_resnet18", 10, 4, width=2, seed=3)
    assert started == [5]


def test_generator_comes_back_when_building_fails():
    state = torch.get_rng_state()
    with pytest.raises(InputError):
        build_model("sew_resnet18", 10, 4, width=2, pool="min", seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_convolutions_start_with_the_kaiming_deviation():
    body = build_model("sew_resnet18", 10, 4, seed=0).body
    weight = body.layer3[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01), "fan out 256·3·3, gain √2"
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in body.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    "name, options",
    [
        ("sew_resnet18", {"pool": "avg", "stem": "3x3", "connection": "IAND", "surrogate": "sigmoid", "leak": 0.5}),
        ("spiking_resnet18", {"encoder": "latency", "spiking": False, "in_channels": 1}),
        ("vgg11", {"bias": True, "dropout": 0.5, "image_size": 16, "pool": "max", "normalisation": "svhn"}),
        ("wrn16_4", {"trainable_threshold": True, "threshold": 0.3, "threshold_floor": 0.03, "reset": "soft"}),
        ("resnet20", {"surrogate": "atan(alpha=0.3333333333333333)", "detach_reset": True}),
    ],
)
def test_same_model_comes_back_when_built_from_its_config(name, options):
    model = build_model(name, 10, 4, width=4, seed=7, **options)
    again = build_model(**model.config)
    assert again.config == model.config
    assert repr(again) == repr(model)
    assert torch.equal(_weights(again), _weights(model))
    assert json.loads(json.dumps(model.config)) == model.config, "plain types"


def test_config_has_the_values_in_use():
    common = {
        "num_classes": 10, "time_steps": 4, "in_channels": 3, "spiking": True, "leak": 1.0, "threshold": 1.0,
        "reset": "hard", "trainable_threshold": False, "threshold_floor": 0.0, "seed": 0,
    }  # fmt: skip
    with torch.device("meta"):
        sew, vgg = (build_model(name, 10, 4, seed=0).config for name in ("sew_resnet18", "vgg11"))
    assert sew == common | {
        "name": "sew_resnet18", "encoder": "phase", "encoder_gradient": "straight_through", "pool": "max", "width": 64,
        "stem": "7x7", "connection": "ADD", "surrogate": "atan(alpha=2)", "detach_reset": True,
    }  # fmt: skip
    assert vgg == common | {
        "name": "vgg11", "encoder": "direct", "encoder_gradient": "exact", "pool": "avg", "width": 64, "bias": False,
        "dropout": 0.2, "surrogate": "piecewise_linear(width=1, height=1)", "detach_reset": False,
        "normalisation": None, "image_size": 32,
    }  # fmt: skip


@pytest.mark.parametrize("name, detached", [("sew_resnet18", True), ("spiking_resnet18", False)])
def test_reset_is_detached_as_in_the_authors_code_when_not_said(name, detached):
    neurons = neurons_of(build_model(name, 10, 4, width=4))
    assert {neuron.detach_reset for neuron in neurons} == {detached}
    assert {(n.leak, n.threshold, n.reset, repr(n.surrogate)) for n in neurons} == {(1.0, 1.0, "hard", "atan(alpha=2)")}
    chosen = neurons_of(build_model(name, 10, 4, width=4, detach_reset=not detached))
    assert {neuron.detach_reset for neuron in chosen} == {not detached}


def test_neurons_take_the_given_constants():
    model = build_model("sew_resnet18", 10, 4, width=4, leak=0.5, threshold=2.0, reset="soft", surrogate="rectangular")
    constants = {(n.leak, n.threshold, n.reset, n.surrogate) for n in neurons_of(model)}
    assert constants == {(0.5, 2.0, "soft", surrogates.rectangular())}


def test_stem_takes_the_given_channels():
    model = build_model("sew_resnet18", 10, 2, width=4, in_channels=1, encoder="direct")
    assert model(torch.rand(2, 1, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "resnet18"}, "model is 'resnet18'; expected one of sew_resnet18"),
        ({"name": "sew_resnet101"}, "model is 'sew_resnet101'"),
        ({"width": 0}, "width is 0; expected a whole number of at least 1"),
        ({"width": 4.0}, "width is 4.0"),
        ({"width": True}, "width is True"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"time_steps": "8"}, "time_steps is '8'"),
        ({"pool": "min"}, "pool is 'min'; expected 'max', 'avg' or 'none'"),
        ({"stem": "5x5"}, "stem is '5x5'; expected '7x7' or '3x3'"),
        ({"connection": "XOR"}, "connection is 'XOR'; expected one of ADD, AND, IAND"),
        ({"in_channels": 0}, "in_channels is 0; expected a whole number of at least 1"),
        ({"reset": "none"}, "reset is 'none'; expected 'hard' or 'soft'"),
        ({"reset": "none", "spiking": False}, "reset is 'none'"),
        ({"leak": 1.5}, r"leak is 1.5; expected a finite number in \[0, 1\]"),
        ({"leak": float("nan")}, "leak is nan"),
        ({"leak": "0.5"}, "leak is '0.5'"),
        ({"threshold": 0.0}, "threshold is 0.0; expected a finite number above 0"),
        ({"threshold": float("inf")}, "threshold is inf"),
        ({"threshold_floor": -0.1}, "threshold_floor is -0.1; expected a finite number of at least 0"),
        ({"leak": True}, "leak is True; expected a finite number"),
        ({"leak": 10**400}, "leak is a number of thousands|leak is 1000"),
        ({"spiking": "false"}, "spiking is 'false'; expected True or False"),
        ({"spiking": 0}, "spiking is 0; expected True or False"),
        ({"trainable_threshold": "no"}, "trainable_threshold is 'no'; expected True or False"),
        ({"detach_reset": 1}, "detach_reset is 1; expected True or False"),
        ({"name": "vgg11", "bias": "yes"}, "bias is 'yes'; expected True or False"),
        ({"name": ["vgg11"]}, r"name is \['vgg11'\]; expected a text"),
        ({"pool": ["max"]}, r"pool is \['max'\]; expected a text"),
        ({"connection": {"ADD": 1}}, "connection is {'ADD': 1}; expected a text"),
        ({"surrogate": 2}, "surrogate is 2; expected a text"),
        ({"encoder": 3}, "encoder is 3; expected a text"),
        ({"seed": -1}, "seed is -1; expected a whole number in 0.."),
        ({"seed": 2**64}, "seed is 18446744073709551616; expected a whole number in 0.."),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"encoder": "morse"}, "encoder is 'morse'; expected one of direct"),
        ({"encoder_gradient": "kind"}, "gradient is 'kind'"),
        ({"surrogate": "tan"}, "surrogate is 'tan'; expected one of atan"),
        ({"surrogate": "atan(alpha=wide)"}, "surrogate is 'atan.alpha=wide.'"),
    ],
)
def test_one_line_error_when_an_argument_is_wrong(changes, message):
    arguments = {"name": "sew_resnet18", "num_classes": 10, "time_steps": 4, "width": 4} | changes
    with pytest.raises(InputError, match=message) as error:
        build_model(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sew_resnet18", "vgg11", "resnet20"])
@pytest.mark.parametrize("count", ["width", "time_steps", "num_classes", "in_channels", "image_size"])
@pytest.mark.parametrize("value", [10**9, 10**100])
def test_a_network_beyond_all_memory_is_refused_at_once(name, count, value):
    if count == "image_size" and name == "sew_resnet18":
        count = "width"
    start = time.perf_counter()
    with pytest.raises(InputError, match=f"{count} is 10+: .* take.*, this machine has .* GiB; lower {count}") as error:
        build_model(**{"name": name, "num_classes": 10, "time_steps": 4, "width": 4, count: value})
    assert "\n" not in str(error.value)
    assert time.perf_counter() - start < 5


def test_weights_are_counted_before_they_are_made(monkeypatch):
    with torch.device("meta"):
        model = build_model("vgg11", 10, 1, width=300)
    needed = sum(parameter.numel() for parameter in model.parameters()) * 4
    monkeypatch.setattr(memory, "machine_memory", lambda: needed - 1)
    with pytest.raises(InputError, match="width is 300: the weights take 5.02 GiB, this machine has 5.02 GiB"):
        build_model("vgg11", 10, 1, width=300)


def test_memory_is_that_of_the_machine():
    assert 2**28 < memory.machine_memory() < 2**50


def test_numpy_numbers_give_the_network_of_the_plain_ones():
    given = {"num_classes": np.int64(3), "time_steps": np.int32(2), "width": np.uint8(4), "seed": np.int64(7)}
    model = build_model("resnet20", **given, leak=np.float32(0.5), threshold=np.float64(1.5))
    plain = build_model("resnet20", 3, 2, width=4, seed=7, leak=0.5, threshold=1.5)
    assert json.dumps(model.config) == json.dumps(plain.config)
    assert torch.equal(_weights(model), _weights(plain))


def test_a_network_built_in_inference_mode_trains_and_has_input_gradients():
    with torch.inference_mode():
        model = build_model("resnet20", 3, 2, width=2, seed=0, trainable_threshold=True, normalisation="cifar10")
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    model(images).square().sum().backward()
    assert images.grad.any() and all(parameter.grad is not None for parameter in model.parameters())
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not any(value.is_inference() for value in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize("value", [0.75, 1 / 3, 0.1 + 0.2, 1e-20, 1e16, 1234567.0])
@pytest.mark.parametrize("name", surrogates.FAMILIES)
def test_surrogate_comes_back_when_its_repr_is_parsed(name, value):
    default = surrogates.FAMILIES[name]()
    assert parse_surrogate(name) == default
    assert parse_surrogate(repr(default)) == default
    changed = surrogates.from_name(name, **{key: value for key, _ in default.parameters})
    assert changed != default
    assert parse_surrogate(repr(changed)) == changed


def test_spaces_and_missing_parameters_are_allowed_when_a_surrogate_is_parsed():
    wanted = surrogates.piecewise_linear(width=0.5, height=1.0)
    assert parse_surrogate(" piecewise_linear( width = 0.5 ) ") == wanted
    assert parse_surrogate("piecewise_linear(height=1, width=5e-1)") == wanted


@pytest.mark.parametrize(
    "text", ["", "atan(beta=2)", "atan(2)", "atan(alpha=)", "atan(alpha=-1)", "atan(alpha=nan)", "Atan", "(alpha=2)"]
)
def test_one_line_error_when_a_surrogate_cannot_be_parsed(text):
    with pytest.raises(InputError, match="surrogate") as error:
        parse_surrogate(text)
    assert "\n" not in str(error.value)
