"""Bodies: shapes, parameter counts, torchvision as the special case, static inputs."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from snnlib.data.torchvision_ops import import_torchvision
from snnlib.models import build_model, parameter_count
from snnlib.models.layers import over_static_time
from snnlib.neurons import neurons_of

TORCHVISION_PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}
"""Published for 1000 classes."""


@pytest.mark.parametrize(
    "depth, pool, stem", list(itertools.product((18, 34, 50), ("max", "avg", "none"), ("7x7", "3x3")))
)
def test_stages_have_the_published_shapes(depth, pool, stem):
    seen = {}

    def note(name):
        return lambda module, inputs, output: seen.__setitem__(name, tuple(output.shape))

    body = build_model(f"sew_resnet{depth}", 7, time_steps=2, width=4, pool=pool, stem=stem, seed=0).body.eval()
    for name in ("layer1", "layer2", "layer3", "layer4"):
        getattr(body, name).register_forward_hook(note(name))
    logits = body(torch.rand(2, 3, 3, 32, 32))
    size = 32 // (2 if stem == "7x7" else 1) // (1 if pool == "none" else 2)
    expansion = 4 if depth == 50 else 1
    assert seen == {
        f"layer{i + 1}": (2, 3, 4 * 2**i * expansion, max(1, size >> i), max(1, size >> i)) for i in range(4)
    }
    assert logits.shape == (3, 7)
    blocks = [len(getattr(body, f"layer{number}")) for number in (1, 2, 3, 4)]
    assert blocks == ([2, 2, 2, 2] if depth == 18 else [3, 4, 6, 3])


@pytest.mark.parametrize("depth", TORCHVISION_PARAMETERS)
def test_parameter_count_is_that_of_the_ann_when_classes_are_ten(depth):
    features = 2048 if depth == 50 else 512
    wanted = TORCHVISION_PARAMETERS[depth] - 990 * (features + 1)
    with torch.device("meta"):
        counts = {parameter_count(build_model(f"{family}_resnet{depth}", 10, 4)) for family in ("sew", "spiking")}
    assert counts == {wanted}


@pytest.mark.parametrize("depth, neurons", [(18, 17), (34, 33), (50, 49)])
def test_neurons_sit_behind_every_convolution_and_sew_shortcuts(depth, neurons):
    with torch.device("meta"):
        sew, spiking = (build_model(f"{family}_resnet{depth}", 10, 4, width=4) for family in ("sew", "spiking"))
    downsampling_shortcuts = 4 if depth == 50 else 3
    assert len(neurons_of(spiking)) == neurons
    assert len(neurons_of(sew)) == neurons + downsampling_shortcuts


@pytest.mark.parametrize("family", ["sew", "spiking"])
def test_state_dict_is_the_same_when_neurons_are_relus(family):
    with torch.device("meta"):
        snn, ann = (build_model(f"{family}_resnet18", 10, 4, spiking=spiking) for spiking in (True, False))
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (snn, ann)]
    assert shapes[0] == shapes[1]
    assert neurons_of(snn) and not neurons_of(ann)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("training", [False, True])
def test_ann_equals_torchvision_when_weights_are_copied(awake, depth, training):
    torchvision = import_torchvision()
    ours = build_model(f"spiking_resnet{depth}", 10, time_steps=3, encoder="direct", spiking=False, seed=0).double()
    images = torch.rand(8, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    awake(ours, images)
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).double()
    theirs.load_state_dict(ours.body.state_dict())
    ours.train(training), theirs.train(training)
    our_images, their_images = images.clone().requires_grad_(), images.clone().requires_grad_()
    found, wanted = ours(our_images), theirs(their_images)
    assert wanted.std(0).min() > 1e-4, "a network that sees its input"
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    weights = torch.linspace(-1, 1, 10, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((found * weights).sum(), our_images)
    (wanted_gradient,) = torch.autograd.grad((wanted * weights).sum(), their_images)
    assert (gradient - wanted_gradient).norm() < 1e-7 * wanted_gradient.norm()


def test_pool_is_the_only_difference_when_max_becomes_average():
    with torch.device("meta"):
        largest, average = (build_model("sew_resnet18", 10, 4, pool=pool) for pool in ("max", "avg"))
    theirs = dict(average.named_modules())
    leaves = {name: module for name, module in largest.named_modules() if not list(module.children())}
    different = {name: (module, theirs[name]) for name, module in leaves.items() if repr(module) != repr(theirs[name])}
    assert list(different) == ["body.pool"]
    assert [type(module) for module in different["body.pool"]] == [nn.MaxPool2d, nn.AvgPool2d]
    for module in different["body.pool"]:
        assert (module.kernel_size, module.stride, module.padding) == (3, 2, 1)
    assert largest.state_dict().keys() == average.state_dict().keys()


def test_average_pool_counts_its_padding_as_in_the_authors_code():
    pool = build_model("sew_resnet18", 10, 4, pool="avg", width=4).body.pool
    corner = pool(torch.ones(1, 1, 4, 4))[0, 0]
    torch.testing.assert_close(corner, torch.tensor([[4 / 9, 6 / 9], [6 / 9, 1.0]]))


def test_logits_are_the_mean_over_time_of_the_read_out(awake):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = awake(build_model("sew_resnet18", 5, time_steps=8, width=8, seed=0), images)
    read_outs = []
    model.body.fc.register_forward_hook(lambda module, inputs, output: read_outs.append(output))
    logits = model(images)
    assert read_outs[0].shape == (8 * 4, 5)
    torch.testing.assert_close(logits, read_outs[0].view(8, 4, 5).mean(0))
    assert read_outs[0].view(8, 4, 5).std(0).max() > 0.01, "time steps differ"


@pytest.mark.parametrize("name", ["sew_resnet18", "spiking_resnet18"])
def test_stem_runs_once_when_coding_is_direct(awake, name):
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = awake(build_model(name, 5, time_steps=6, encoder="direct", width=8, seed=0).double(), images.double())
    seen = []
    model.body.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    logits = model(images.double())
    assert seen == [3], "one call, on N images and not on T·N frames"
    repeated = model.body(images.double().repeat(6, 1, 1, 1, 1))
    assert seen == [3, 18]
    assert logits.std(0).max() > 1e-3
    torch.testing.assert_close(logits, repeated, rtol=1e-9, atol=1e-12)


def test_running_variance_counts_each_sample_once_when_coding_is_direct():
    frames = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norms = [nn.BatchNorm2d(3).double() for _ in range(2)]
    static = over_static_time(norms[0], frames.expand(5, *frames.shape))
    repeated = over_static_time(norms[1], frames.repeat(5, 1, 1, 1, 1))
    torch.testing.assert_close(static, repeated, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(norms[0].running_mean, norms[1].running_mean)
    biased = frames.var((0, 2, 3), correction=0)
    for norm, count in zip(norms, (2 * 16, 5 * 2 * 16), strict=True):
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * biased * count / (count - 1))
