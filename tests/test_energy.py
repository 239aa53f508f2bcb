"""Spikes and synaptic operations: by hand, by brute force, and beside SpikingJelly's counter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnlib.data.image_set import ImageSet
from snnlib.data.torchvision_ops import import_torchvision
from snnlib.encoding import DirectEncoder
from snnlib.energy import count_spikes, dense_macs, followup_operations, outgoing_synapses, synaptic_operations
from snnlib.errors import InputError
from snnlib.models import Model, build_model
from snnlib.models.convertible import OverTime
from snnlib.neurons import IF, use_kernel


@pytest.fixture(autouse=True)
def reference_kernel() -> Iterator[None]:
    with use_kernel("reference"):
        yield


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0)


class Flat(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2)


def _images(values: Tensor) -> ImageSet:
    return ImageSet((values * 255).round().to(torch.uint8), torch.zeros(len(values), dtype=torch.int64))


def _random_images(count: int, channels: int, size: int) -> ImageSet:
    return _images(torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)))


def _snn(*layers: nn.Module, time_steps: int = 3) -> Model:
    return Model(DirectEncoder(time_steps), nn.Sequential(*layers, Mean()), {})


def _conv(*arguments, zeros: int = 0, **options) -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(*arguments, bias=False, **options)
    layer.weight.data.flatten()[:zeros] = 0
    return layer


def _identity(channels: int = 1) -> OverTime:
    layer = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    layer.weight.data.fill_(1.0)
    return OverTime(layer)


def _brute_force(size: tuple[int, ...], layers: list[nn.Module]) -> Tensor:
    """Non-zero outgoing synapses by firing every neuron alone and counting the outputs that it reaches."""
    count = torch.zeros(size, dtype=torch.int64)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in size)):
        x = torch.zeros(1, *size, dtype=torch.float64)
        x[(0, *index.tolist())] = 1
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                weight = (layer.weight != 0).double()
                options = (layer.stride, layer.padding, layer.dilation, layer.groups)
                x = nn.functional.conv2d(x, weight, None, *options)
            else:
                x = layer(x)
        count[tuple(index.tolist())] = int(x.count_nonzero())
    return count


def test_counts_of_a_tiny_network_by_hand():
    """One 2x2 image of currents 1, ½, ¼, 0 and threshold 1; 4 steps: 4, 2, 1 and 0 spikes.

    Behind it a 3x3 convolution, padding 1, with 2 channels of which one has a zero in its centre: on a 2x2 map every
    neuron reaches 4 positions; the centre tap reaches its own position. So ψ = 4 + 3 = 7 for each neuron.
    """
    images = torch.tensor([[[[1.0, 0.5], [0.25, 0.0]]]])
    target = _conv(1, 2, 3, padding=1)
    target.weight.data.fill_(0.3)
    target.weight.data[1, 0, 1, 1] = 0
    snn = _snn(_identity(), IF(threshold=0.98), OverTime(target), time_steps=4)
    # Bytes: 255, 128, 64, 0 of 255, so 0.502 and 0.251 reach 0.98 at the 2nd and 4th step.
    spikes = count_spikes(snn, _images(images))
    assert spikes.to_dict("records") == [
        {"layer": "body.1", "neurons": 4, "time_steps": 4, "spikes": 7.0, "firing_rate": 7 / 16}
    ]
    (row,) = synaptic_operations(snn, _images(images)).to_dict("records")
    assert (row["layer"], row["target"], row["operations"]) == ("body.1", "body.2.layer", 49.0)
    assert row["synapses_per_neuron"] == 7 and row["approximate_synapses"] == 2 * 9
    assert followup_operations(synaptic_operations(snn, _images(images))) == 4 * 18 * 7
    assert followup_operations(synaptic_operations(snn, _images(images)), factor_t=False) == 18 * 7


@pytest.mark.parametrize(
    "layers",
    [
        [_conv(2, 3, 3, padding=1)],
        [_conv(2, 3, 3, padding=1, stride=2, zeros=7)],
        [_conv(2, 4, 2, groups=2, dilation=2, zeros=3)],
        [nn.AvgPool2d(2), _conv(2, 3, 3, padding=1, zeros=5)],
        [nn.MaxPool2d(2), _conv(2, 3, 1)],
        [nn.AvgPool2d(2), nn.AvgPool2d(2)],
    ],
    ids=["conv", "strided, pruned", "grouped, dilated", "avg pool", "max pool", "two pools"],
)
def test_synapses_agree_with_firing_every_neuron_alone(layers):
    if not isinstance(layers[-1], nn.Conv2d):
        layers = [*layers, _conv(2, 2, 1)]
    snn = _snn(_identity(2), IF(), *(OverTime(layer) for layer in layers))
    (connection,) = outgoing_synapses(snn, (2, 6, 6))
    assert torch.equal(connection.synapses, _brute_force((2, 6, 6), layers))
    assert connection.layer == "body.1" and connection.target.endswith(".layer")


def test_linear_layers_count_their_non_zero_weights():
    linear = nn.Linear(2 * 9, 5)
    linear.weight.data[:3, 4] = 0
    (connection,) = outgoing_synapses(_snn(_identity(2), IF(), Flat(), OverTime(linear)), (2, 3, 3))
    expected = torch.full((18,), 5)
    expected[4] = 2
    assert torch.equal(connection.synapses.flatten(), expected)
    assert connection.approximate == 5


def test_spikes_behind_a_global_average_reach_every_class():
    snn = _snn(_identity(2), IF(), OverTime(nn.AdaptiveAvgPool2d(1)), Flat(), OverTime(nn.Linear(2, 7)))
    (connection,) = outgoing_synapses(snn, (2, 4, 4))
    assert connection.synapses.shape == (2, 4, 4) and connection.synapses.eq(7).all()


def test_operations_are_spikes_times_synapses_neuron_by_neuron():
    target = _conv(2, 3, 3, padding=1, stride=2, zeros=9)
    snn, image_set = _snn(_identity(2), IF(threshold=0.6), OverTime(target), time_steps=5), _random_images(7, 2, 5)
    fired = []
    snn.body[1].register_forward_hook(lambda layer, inputs, spikes: fired.append(spikes.sum((0, 1))))
    table = synaptic_operations(snn, image_set, batch_size=3)
    total = torch.stack(fired[:3]).sum(0)
    expected = (total * _brute_force((2, 5, 5), [target])).sum().item() / 7
    assert table["operations"].item() == pytest.approx(expected, rel=1e-12)
    assert table["spikes"].item() == pytest.approx(total.sum().item() / 7)
    assert table["operations"].item() != pytest.approx((table["spikes"] * table["synapses_per_neuron"]).item()), (
        "borders matter: the mean synapse count would be wrong"
    )


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_do_not_change_counts(batch_size):
    snn = build_model("vgg11", 3, 3, width=2, image_size=8, threshold=0.2, seed=0).train()
    image_set = _random_images(7, 3, 8)
    whole = synaptic_operations(snn, image_set, batch_size=7)
    assert synaptic_operations(snn, image_set, batch_size=batch_size).equals(whole)
    assert all(module.training for module in snn.modules())
    assert not any(module._forward_hooks for module in snn.modules())


def test_what_is_computed_from_analog_values_is_no_synaptic_operation():
    first, second = _conv(1, 2, 3, padding=1), _conv(2, 5, 3, padding=1)
    snn = _snn(_identity(), IF(), OverTime(first), OverTime(second))
    (connection,) = outgoing_synapses(snn, (1, 4, 4))
    assert connection.target == "body.2.layer" and connection.synapses[0, 1, 1] == 2 * 9


def test_residual_branches_are_separate_connections():
    snn = build_model("wrn16_4", 3, 2, width=1, image_size=8, seed=0)
    pairs = {(c.layer, c.target) for c in outgoing_synapses(snn, (3, 8, 8))}
    block = "body.layer2.0"
    assert {pair for pair in pairs if pair[0].startswith(block)} == {
        (f"{block}.sn1", f"{block}.conv1"),
        (f"{block}.sn1", f"{block}.downsample"),
        (f"{block}.sn2", f"{block}.conv2"),
    }
    assert ("body.sn", "body.fc") in pairs and not any(target == "body.conv1" for _, target in pairs), "pixels"


def test_sew_additions_carry_the_spikes_of_every_block():
    snn = build_model("sew_resnet18", 3, 2, width=2, stem="3x3", pool="none", encoder="direct", seed=0)
    layers = {c.layer for c in outgoing_synapses(snn, (3, 8, 8)) if c.target == "body.layer2.0.conv1"}
    assert layers == {"body.sn1", "body.layer1.0.sn2", "body.layer1.1.sn2"}


@pytest.mark.parametrize(
    "name, width, neurons", [("vgg11", 2, 286_720 // 32), ("wrn16_4", 2, 475_136 // 8), ("resnet20", 2, 188_416 // 8)]
)
def test_neuron_counts_are_the_papers(name, width, neurons):
    """Table 1.2 of the dossier; every layer scales with the width, WRN-16-4's first neurons included."""
    snn = build_model(name, 10, 1, width=width, seed=0)
    table = count_spikes(snn, _random_images(1, 3, 32))
    assert table["neurons"].sum() == neurons
    assert len(table) == {"vgg11": 10, "wrn16_4": 13, "resnet20": 19}[name]


@pytest.mark.parametrize("name, millions", [("vgg11", 599.5), ("vgg16", 332), ("wrn16_4", 392.6), ("resnet20", 40.8)])
@pytest.mark.parametrize("spiking", [False, True])
def test_dense_macs_are_the_papers(name, millions, spiking):
    with torch.device("meta"):
        model = build_model(name, 10, 2, spiking=spiking)
    table = dense_macs(model, (3, 32, 32))
    assert table["macs"].sum() / 1e6 == pytest.approx(millions, rel=2e-3)
    assert table["layer"].is_unique and table["layer"].iloc[-1] == "body.fc"


class TwoPlaces(nn.Module):
    """Two convolutions with neurons behind both: one module for them, or one each."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.first, self.second = OverTime(_conv(2, 2, 3, padding=1, zeros=3)), OverTime(_conv(2, 2, 3, padding=1))
        self.third = OverTime(_conv(2, 5, 1))
        self.sn = IF(threshold=0.1)
        self.sn2 = self.sn if shared else IF(threshold=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.sn2(self.second(self.sn(self.first(x)))))


def test_one_neuron_module_at_two_places_counts_as_two_layers():
    image_set = _random_images(5, 2, 6)
    for count in (count_spikes, synaptic_operations):
        shared, apart = (count(_snn(TwoPlaces(shared)), image_set, batch_size=2) for shared in (True, False))
        assert list(shared["layer"]) == ["body.0.sn", "body.0.sn (call 2)"]
        assert list(apart["layer"]) == ["body.0.sn", "body.0.sn2"]
        assert shared.drop(columns="layer").equals(apart.drop(columns="layer"))
        assert shared["firing_rate"].between(0.01, 1).all()


def test_one_convolution_at_two_places_is_counted_at_both():
    conv = OverTime(_conv(2, 2, 3, padding=1))
    snn = _snn(_identity(2), IF(threshold=0.2), conv, IF(threshold=0.2), conv)
    table = synaptic_operations(snn, _random_images(3, 2, 6))
    assert list(table["target"]) == ["body.2.layer", "body.2.layer (call 2)"]
    macs = dense_macs(snn, (2, 6, 6)).set_index("layer")["macs"]
    assert macs["body.2.layer"] == macs["body.2.layer (call 2)"] == 2 * 2 * 9 * 36


@pytest.mark.parametrize("time_steps", [2, 3, 6])
def test_linear_layers_may_be_fed_with_the_time_axis(time_steps):
    linear, head = nn.Linear(18, 6), nn.Linear(6, 4)
    tables = []
    for wrap in (OverTime, nn.Sequential):
        layers = (_identity(2), IF(), Flat(), wrap(linear), IF(threshold=0.1), wrap(head))
        snn = _snn(*layers, time_steps=time_steps)
        tables.append((synaptic_operations(snn, _random_images(3, 2, 3)), dense_macs(snn, (2, 3, 3))))
    for flattened, with_time in zip(*tables, strict=True):
        kept = [column for column in flattened if column not in ("layer", "target")]
        assert with_time[kept].equals(flattened[kept]) and len(flattened) >= 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_counts_of_a_network_in_another_precision(dtype):
    snn, image_set = build_model("vgg11", 3, 3, width=2, image_size=8, threshold=0.2, seed=0), _random_images(5, 3, 8)
    plain = synaptic_operations(snn, image_set)
    table = synaptic_operations(snn.to(dtype), image_set)
    assert table["synapses_per_neuron"].equals(plain["synapses_per_neuron"])
    assert table["spikes"].sum() == pytest.approx(plain["spikes"].sum(), rel=0.2)
    assert dense_macs(snn, (3, 8, 8))["macs"].sum() > 0
    assert {value.dtype for value in snn.parameters()} == {dtype}


def test_numpy_counts_are_taken():
    snn, image_set = _snn(_identity(), IF()), _random_images(3, 1, 4)
    assert count_spikes(snn, image_set, batch_size=np.int64(2)).equals(count_spikes(snn, image_set))


def test_followup_formula_on_a_pooled_layer_counts_a_quarter():
    snn = _snn(_identity(), IF(), OverTime(nn.AvgPool2d(2)), OverTime(_conv(1, 4, 3, padding=1)))
    (connection,) = outgoing_synapses(snn, (1, 32, 32))
    assert connection.approximate == (16 * 16) / (32 * 32) * 4 * 9
    assert connection.synapses[0, 8, 8] == 4 * 9, "one spike drives all synapses behind its window"


def test_counter_of_spikingjelly_agrees():
    """Networks without pooling, because it passes over convolutions of fractions; first layer: pixels, no spikes."""
    import_torchvision()
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter", reason="spikingjelly is not installed")

    snn = _snn(
        OverTime(_conv(3, 4, 3, padding=1)), IF(threshold=0.2),
        OverTime(_conv(4, 6, 3, padding=1, stride=2)), IF(threshold=0.15),
        OverTime(_conv(6, 6, 3, groups=2)), IF(threshold=0.1),
        Flat(), OverTime(nn.Linear(6 * 4, 5)), time_steps=4,
    )  # fmt: skip
    image_set = _random_images(6, 3, 8)
    counter = counters.SynOpCounter()
    with torch.no_grad(), counters.DispatchCounterMode([counter]):
        snn(image_set.batch(slice(None)))
    table = synaptic_operations(snn, image_set)
    assert len(table) == 3 and (table["firing_rate"] > 0.01).all()
    assert table["operations"].sum() * len(image_set) == pytest.approx(counter.get_total(), rel=1e-9)


def test_pruning_removes_operations_and_not_spikes():
    image_set, snn = _random_images(4, 2, 6), _snn(_identity(2), IF(threshold=0.5), OverTime(_conv(2, 8, 3, padding=1)))
    dense = synaptic_operations(snn, image_set)
    keep = torch.arange(8) % 4 == 0
    snn.body[2].layer.weight.data[~keep] = 0
    pruned = synaptic_operations(snn, image_set)
    assert pruned["operations"].item() == pytest.approx(dense["operations"].item() / 4)
    assert pruned["spikes"].equals(dense["spikes"])
    assert pruned["approximate_synapses"].equals(dense["approximate_synapses"]), "the formula does not see pruning"


def test_misuse_is_refused():
    ann = build_model("vgg11", 3, 1, width=1, image_size=8, spiking=False)
    for function in (count_spikes, synaptic_operations):
        with pytest.raises(InputError, match="Model has no spiking layer; expected an SNN"):
            function(ann, _random_images(2, 3, 8))
    with pytest.raises(InputError, match="batch_size is 0; expected a whole number"):
        count_spikes(_snn(_identity(), IF()), _random_images(2, 1, 4), batch_size=0)
    adaptive = _snn(_identity(), IF(), OverTime(nn.AdaptiveAvgPool2d(2)), OverTime(_conv(1, 1, 1)))
    with pytest.raises(InputError, match=r"body\.2\.layer pools to 2; expected 1 position"):
        outgoing_synapses(adaptive, (1, 4, 4))
    assert not any(module._forward_hooks for module in adaptive.modules())
