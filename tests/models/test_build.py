"""`build_model`: names, seeds, the seam between encoder and body, refusals; and surrogates from text."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.encoding import ENCODERS
from snnlib.errors import InputError
from snnlib.models import MODEL_NAMES, build_model
from snnlib.models.build import parse_surrogate
from snnlib.neurons import neurons_of, surrogates


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def test_names_are_two_families_of_three_depths():
    assert sorted(MODEL_NAMES) == sorted(f"{f}_resnet{d}" for f in ("sew", "spiking") for d in (18, 34, 50))


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


def test_convolutions_start_with_the_kaiming_deviation():
    body = build_model("sew_resnet18", 10, 4, seed=0).body
    weight = body.layer3[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01), "fan out 256·3·3, gain √2"
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in body.modules() if isinstance(m, nn.BatchNorm2d))


def test_same_model_comes_back_when_built_from_its_config():
    options = {"pool": "avg", "stem": "3x3", "connection": "IAND", "surrogate": "sigmoid(slope=4)", "leak": 0.5}
    model = build_model("sew_resnet18", 10, 4, "latency", width=4, seed=7, **options)
    again = build_model(**model.config)
    assert again.config == model.config
    assert repr(again) == repr(model)
    assert torch.equal(_weights(again), _weights(model))


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


@pytest.mark.parametrize("name", surrogates.FAMILIES)
def test_surrogate_comes_back_when_its_repr_is_parsed(name):
    default = surrogates.FAMILIES[name]()
    assert parse_surrogate(name) == default
    assert parse_surrogate(repr(default)) == default
    changed = surrogates.from_name(name, **{key: 0.75 for key, _ in default.parameters})
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
