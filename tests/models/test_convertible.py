"""Networks of the conversion paper: published sizes, one definition for ANN and SNN, pixels normalised inside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.encoding import ENCODERS
from snnlib.errors import InputError
from snnlib.models import build_model, parameter_count, spiking_layers
from snnlib.models.convertible import PIXEL_STATISTICS, MixedBranches, Normalise
from snnlib.neurons import LIF, neurons_of

SIZES = {
    # name: thresholds, neurons; in millions: parameters without and with bias, multiply-adds
    "vgg11": (10, 286_720, "61.37", "61.38", "599.5"),
    "vgg16": (15, 284_672, "33.63", None, "332"),
    "vgg11_tinyimagenet": (9, 610_304, "12.14", None, "614"),
    "resnet20": (19, 188_416, "0.272", None, "40.8"),
    "resnet32": (31, None, None, None, None),
    "wrn16_4": (13, 475_136, "2.75", None, "392.6"),
    "wrn28_4": (25, 933_888, "5.85", None, "845.6"),
}
"""Counted from the authors' code (their sizes for 10 classes, 200 for TinyImageNet); None where there is no number."""

TINY = ("vgg11", "vgg16", "vgg11_tinyimagenet", "resnet20", "wrn16_4")


def _tiny(name: str, time_steps: int = 4, **options) -> nn.Module:
    options = {"width": 2, "seed": 0, **options}
    if name.startswith("vgg"):
        options.setdefault("image_size", 32 if name == "vgg16" else 16)
    return build_model(name, 5, time_steps, **options)


def _images(name: str, samples: int = 3) -> torch.Tensor:
    size = 32 if name == "vgg16" else 16
    return torch.rand(samples, 3, size, size, generator=torch.Generator().manual_seed(0))


def _count(name: str) -> tuple[int, int, list[str]]:
    """Neurons, multiply-adds of convolutions and linear layers for one image, names of the activations as they run."""
    found = {"neurons": 0, "multiply_adds": 0}
    ran = []

    def multiply_adds(module, inputs, output):
        found["multiply_adds"] += output[0].numel() * module.weight[0].numel()

    with torch.device("meta"):
        model = build_model(name, 200 if "tiny" in name else 10, 1, spiking=False)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(multiply_adds)
        for key, module in spiking_layers(model):

            def neurons(module, inputs, output, key=key):
                ran.append(key)
                found["neurons"] += output[0, 0].numel()

            module.register_forward_hook(neurons)
        size = model.config["image_size"]
        model(torch.empty(1, 3, size, size))
    return found["neurons"], found["multiply_adds"], ran


@pytest.mark.parametrize("name", SIZES)
def test_size_is_that_of_the_authors_network(name):
    thresholds, wanted_neurons, wanted_parameters, wanted_with_bias, wanted_multiply_adds = SIZES[name]
    neurons, multiply_adds, ran = _count(name)
    with torch.device("meta"):
        classes = 200 if "tiny" in name else 10
        plain, biased = (parameter_count(build_model(name, classes, 8, bias=bias)) for bias in (False, True))
        snn = build_model(name, classes, 8)
    assert len(neurons_of(snn)) == thresholds
    assert [key for key, _ in spiking_layers(snn)] == ran, "forward order"
    assert wanted_neurons in (neurons, None)
    counts = {plain: wanted_parameters, biased: wanted_with_bias, multiply_adds: wanted_multiply_adds}
    for count, wanted in counts.items():
        if wanted is not None:
            decimals = len(wanted.partition(".")[2])
            assert f"{count / 1e6:.{decimals}f}" == wanted


def test_parameters_are_those_counted_by_hand_when_the_network_is_vgg11():
    convolutions = 9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 4 * 512 * 512)
    norms = 2 * (64 + 128 + 256 + 5 * 512)
    linear = 8192 * 4096 + 4096 * 4096 + 4096 * 10
    biases = 64 + 128 + 256 + 5 * 512 + 2 * 4096 + 10
    with torch.device("meta"):
        plain, biased = (parameter_count(build_model("vgg11", 10, 8, bias=bias)) for bias in (False, True))
        learning = parameter_count(build_model("vgg11", 10, 8, trainable_threshold=True))
    assert plain == convolutions + norms + linear == 61_365_824
    assert biased == plain + biases
    assert learning == plain + 10


def test_every_layer_scales_when_width_does():
    with torch.device("meta"):
        small, large = build_model("vgg11", 10, 8, width=8), build_model("vgg11", 10, 8)
    shapes = zip(small.state_dict().items(), large.state_dict().values(), strict=True)
    ratios = {
        theirs / ours
        for (key, mine), other in shapes
        for ours, theirs in zip(mine.shape[:2], other.shape[:2], strict=True)
        if ours not in (3, 10)
    }
    assert ratios == {8.0}
    assert small.body.hidden[0].fc.out_features == 512


def test_weights_of_the_twins_have_the_same_names_when_thresholds_are_left_out():
    for name in SIZES:
        with torch.device("meta"):
            snn, ann = build_model(name, 10, 8, trainable_threshold=True), build_model(name, 10, 1, spiking=False)
        thresholds = {key for key in snn.state_dict() if key.endswith(".threshold")}
        assert len(thresholds) == SIZES[name][0]
        assert {key: value.shape for key, value in snn.state_dict().items() if key not in thresholds} == {
            key: value.shape for key, value in ann.state_dict().items()
        }
        assert not neurons_of(ann)
        assert [key for key, _ in spiking_layers(snn)] == [key for key, _ in spiking_layers(ann)]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("spiking", [True, False])
def test_input_gradient_exists_when_in_eval_mode(awake, name, spiking):
    images = _images(name)
    model = awake(_tiny(name, spiking=spiking, width=4, normalisation="cifar10"), images)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(model(images)[:, 0].sum(), images)
    assert gradient.flatten(1).norm(dim=1).min() > 0


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_model_is_body_after_encoder(awake, name, encoder):
    images = _images(name)
    model = awake(_tiny(name, encoder=encoder), images)
    torch.manual_seed(1)
    logits = model(images)
    torch.manual_seed(1)
    assert torch.equal(model.body(model.encoder(images)), logits)


@pytest.mark.parametrize("name", TINY)
def test_logits_are_the_mean_over_time_of_the_read_out(awake, name):
    images = _images(name, samples=4)
    model = awake(_tiny(name, 6, width=4, threshold=0.2), images)
    read_outs = []
    model.body.fc.register_forward_hook(lambda module, inputs, output: read_outs.append(output.view(6, 4, 5)))
    logits = model(images)
    torch.testing.assert_close(logits, read_outs[0].mean(0))
    assert read_outs[0].std(0).max() > 1e-3, "time steps differ"


@pytest.mark.parametrize("name", TINY)
def test_first_convolution_runs_once_when_coding_is_direct(awake, name):
    images = _images(name).double()
    model = awake(_tiny(name, 6, width=4, normalisation="cifar10", threshold=0.2).double(), images)
    first = next(module for module in model.body.modules() if isinstance(module, nn.Conv2d))
    seen = []
    for module in (first, model.body.normalise):
        module.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    logits = model(images)
    assert seen == [3, 3], "normalisation and convolution on N images, not on T·N frames"
    repeated = model.body(images.repeat(6, 1, 1, 1, 1))
    assert seen == [3, 3, 18, 18]
    assert logits.std(0).max() > 1e-6
    torch.testing.assert_close(logits, repeated, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TINY)
def test_whole_ann_runs_once_when_its_input_is_static(awake, name):
    images = _images(name).double()
    ann = awake(_tiny(name, 6, spiking=False).double(), images)
    seen = []
    ann.body.fc.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    logits = ann(images)
    repeated = ann.body(images.repeat(6, 1, 1, 1, 1))
    assert seen == [3, 18]
    torch.testing.assert_close(logits, repeated, rtol=1e-9, atol=1e-12)
    moving = torch.stack([images, 1 - images])
    torch.testing.assert_close(ann.body(moving), (ann(images) + ann(1 - images)) / 2, rtol=1e-9, atol=1e-12)


def test_static_input_keeps_its_time_steps_when_no_layer_is_a_relu(awake):
    """Somebody's own activation may have a memory."""
    images = _images("resnet20")
    ann = awake(_tiny("resnet20", 6, spiking=False), images)
    for name, _ in spiking_layers(ann):
        ann.set_submodule(name, nn.Softplus())
    seen = []
    ann.body.fc.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    ann(images)
    assert seen == [18]


@pytest.mark.parametrize("name", PIXEL_STATISTICS)
def test_pixels_are_normalised_exactly(name):
    mean, deviation = PIXEL_STATISTICS[name]
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = Normalise(name)(images)
    for channel in range(3):
        assert torch.equal(found[:, channel], (images[:, channel] - mean[channel]) / deviation[channel])
    with torch.device("meta"):
        model = build_model("vgg11", 10, 2, width=1, normalisation=name)
        without = build_model("vgg11", 10, 2, width=1)
    assert model.state_dict().keys() == without.state_dict().keys(), "constants, no weights"


def test_normalisation_equals_normalised_images_when_it_is_in_the_body(awake):
    images = _images("resnet20").double()
    inside = awake(_tiny("resnet20", normalisation="svhn").double(), images)
    outside = _tiny("resnet20").double().eval()
    outside.load_state_dict(inside.state_dict())
    torch.testing.assert_close(inside(images), outside((images - 0.5) / 0.5), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["resnet20", "wrn16_4"])
def test_branches_start_half_and_half_and_learn(awake, name):
    images = _images(name)
    model = awake(_tiny(name, width=4), images)
    mixed = [module for module in model.modules() if isinstance(module, MixedBranches)]
    assert len(mixed) == {"resnet20": 9, "wrn16_4": 6}[name]
    assert all(module.weight.tolist() == [0.5, 0.5] for module in mixed)
    model(images)[:, 0].sum().backward()
    assert all((module.weight.grad != 0).all() for module in mixed)
    shortcut, residual = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
    mixed[0].weight.data = torch.tensor([2.0, 0.25])
    assert mixed[0](shortcut, residual).tolist() == [4.5, 9.0], "shortcut first, and no projection on the simplex"


@pytest.mark.parametrize("name", TINY)
def test_neurons_are_the_papers_when_nothing_is_said(name):
    layers = neurons_of(_tiny(name))
    constants = {(n.leak, n.threshold, n.threshold_floor, n.reset, n.detach_reset, repr(n.surrogate)) for n in layers}
    assert constants == {(1.0, 1.0, 0.0, "hard", False, "piecewise_linear(width=1, height=1)")}


@pytest.mark.parametrize("name", ["vgg11", "resnet20", "wrn16_4", "sew_resnet18"])
def test_every_layer_has_a_threshold_of_its_own_when_it_is_trainable(name):
    options = {"image_size": 16} if name == "vgg11" else {}
    model = build_model(name, 5, 2, width=1, trainable_threshold=True, threshold=0.25, threshold_floor=0.03, **options)
    thresholds = [layer.threshold for layer in neurons_of(model)]
    assert len({id(threshold) for threshold in thresholds}) == len(thresholds)
    assert all(isinstance(t, nn.Parameter) and t.shape == () and t == 0.25 for t in thresholds)
    assert {layer.threshold_floor for layer in neurons_of(model)} == {0.03}


@pytest.mark.parametrize("name", TINY)
def test_layers_start_as_stated(name):
    body = _tiny(name, width=16, bias=True).body
    large = [layer for layer in body.modules() if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 2e4]
    assert large
    for layer in large:
        wanted = (2 / (layer.out_channels * layer.kernel_size[0] ** 2)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(wanted, rel=0.03), "Kaiming normal, fan out"
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            assert (layer.bias == 0).all()
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            assert layer.weight.abs().max() <= bound < 1.05 * layer.weight.abs().max(), "PyTorch's own: uniform"
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()
    assert body.fc.bias is not None
    biased = {name for name, layer in body.named_modules() if isinstance(layer, nn.Conv2d) and layer.bias is not None}
    assert bool(biased) == name.startswith("vgg")


def test_spiking_layers_are_the_neurons_in_forward_order_when_the_model_is_a_sew_resnet():
    model = build_model("sew_resnet18", 5, 2, width=1, encoder="direct")
    ran = []
    for name, module in spiking_layers(model):
        assert isinstance(module, LIF)
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    model(torch.rand(1, 3, 16, 16))
    assert ran == [name for name, _ in spiking_layers(model)]
    assert len(ran) == 20


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"normalisation": "mnist"}, "normalisation is 'mnist'; expected None or one of cifar10, cifar100"),
        ({"normalisation": "cifar10", "in_channels": 1}, "normalisation is 'cifar10', for 3 channels; in"),
        ({"pool": "min"}, "pool is 'min'; expected 'avg' or 'max'"),
        ({"pool": "none"}, "pool is 'none'"),
        ({"stem": "3x3"}, "stem is '3x3', but vgg11 has no such option; leave it out"),
        ({"connection": "ADD"}, "connection is 'ADD', but vgg11 has no such option"),
        ({"dropout": 1.0}, r"dropout is 1.0; expected a finite number in \[0, 1\)"),
        ({"image_size": 4}, "image_size is 4; expected at least 8 for vgg11"),
        ({"image_size": 0}, "image_size is 0; expected a whole number"),
        ({"name": "resnet20", "dropout": 0.1}, "dropout is 0.1, but resnet20 has no such option"),
        ({"name": "sew_resnet18", "bias": True}, "bias is True, but sew_resnet18 has no such option"),
        ({"name": "sew_resnet18", "normalisation": "cifar10"}, "normalisation is 'cifar10', but sew_resnet18 has no"),
    ],
)
def test_one_line_error_when_an_option_does_not_fit(changes, message):
    with pytest.raises(InputError, match=message) as error:
        build_model(**{"name": "vgg11", "num_classes": 10, "time_steps": 4, "width": 1} | changes)
    assert "\n" not in str(error.value)


def test_one_line_error_when_images_have_another_size():
    model = _tiny("vgg11", image_size=16)
    message = "images are 24x24; this VGG takes 16x16; build it with image_size=24"
    with pytest.raises(InputError, match=message) as error:
        model(torch.rand(1, 3, 24, 24))
    assert "\n" not in str(error.value)
    assert _tiny("vgg11_tinyimagenet")(torch.rand(1, 3, 24, 24)).shape == (1, 5), "pools globally"
