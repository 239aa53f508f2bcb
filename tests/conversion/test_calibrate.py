"""Thresholds: closed forms on one layer, a plain re-computation on whole networks, and everything that can go wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from snnlib.conversion import calibrate, copy_weights
from snnlib.conversion.batches import shuffled_batches
from snnlib.conversion.statistics import batch_norms, batch_statistics
from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.models.convertible import OverTime
from snnlib.neurons import IF, LIF, neurons_of

SMALL = {"time_steps": 5, "batches": 2, "batch_size": 3, "seed": 4}


def _linear(*weights: float) -> OverTime:
    """Each input channel times its weight: a 1x1 convolution without BatchNorm."""
    layer = nn.Conv2d(len(weights), len(weights), 1, groups=len(weights), bias=False)
    layer.weight.data = torch.tensor(weights).view(-1, 1, 1, 1)
    return OverTime(layer)


def _batches(image_set, *, batches: int, batch_size: int, seed: int, augmentation: str, **_) -> list[Tensor]:
    options = {"batches": batches, "batch_size": batch_size, "seed": seed, "augmentation": augmentation}
    return list(shuffled_batches(image_set, "calibration", **options))


def _recomputed(snn: nn.Module, images: list[Tensor], time_steps: int, share: float) -> list[list[float]]:
    """The definition, as slowly as it reads: for each layer and batch the whole network from its start."""
    snn = copy.deepcopy(snn)
    snn.encoder.time_steps = time_steps
    found, order = [], []
    hooks = [layer.register_forward_pre_hook(lambda layer, _: order.append(layer)) for layer in neurons_of(snn)]
    with batch_statistics(snn):
        snn(images[0])
        for hook in hooks:
            hook.remove()
        for layer in order:
            values = []
            for batch in images:
                seen = []
                hook = layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
                snn(batch)
                hook.remove()
                currents = seen[0].flatten()
                values.append(currents.kthvalue(1 + round(share * (len(currents) - 1))).values.item())
            layer.threshold = nn.Parameter(torch.tensor(max(values)))
            found.append(values)
    return found


def test_threshold_is_the_largest_percentile_of_the_current(chain, make_images):
    image_set = make_images(channels=2)
    snn = chain(_linear(3.0, -2.0), IF(threshold=7.0))
    options = SMALL | {"augmentation": "none", "percentile": 0.9}
    (found,) = calibrate(snn, image_set, **options)
    expected = []
    for batch in _batches(image_set, **options):
        currents = torch.stack([3 * batch[:, 0], -2 * batch[:, 1]]).flatten().sort().values
        # The 5 time steps are equal: n = 5 m values, of which each of m comes five times.
        count = 5 * len(currents)
        expected.append(currents[(1 + round(0.9 * (count - 1)) + 4) // 5 - 1].item())
    assert found.percentiles == tuple(expected) and expected[0] != expected[1]
    assert found.threshold == max(expected) == snn.body[1].threshold
    assert found.layer == "body.1"


def test_second_layer_sees_the_spikes_of_the_calibrated_first(chain, make_images):
    """Constant input c < θ: an IF neuron with hard reset fires at every ⌈θ/c⌉-th step, the next layer gets w then."""
    image_set = make_images(channels=1)
    image_set.images.fill_(51)  # 0.2
    image_set.images[:, :, 0, 0] = 102  # 0.4: the largest current, hence the threshold
    snn = chain(_linear(1.0), IF(threshold=1000.0), _linear(2.5), IF(threshold=0.1), time_steps=3)
    first, second = calibrate(snn, image_set, **SMALL | {"percentile": 1.0, "augmentation": "none"})
    assert first.threshold == pytest.approx(0.4)
    # In 5 steps: 0.4 fires 5 times, 0.2 fires at steps 2 and 4; 64 pixels.
    assert first.firing_rate == pytest.approx((5 + 63 * 2) / (5 * 64))
    assert second.threshold == 2.5
    assert second.firing_rate == first.firing_rate, "every spike of 2.5 is a spike again"


def test_currents_are_normalised_by_the_batch_and_not_by_running_statistics(chain, make_images):
    image_set = make_images()
    norm = nn.BatchNorm2d(3)
    norm.weight.data, norm.bias.data = torch.tensor([2.0, 0.5, 1.0]), torch.tensor([0.1, 0.2, -0.3])
    norm.running_mean.fill_(100), norm.running_var.fill_(1e-6)
    snn = chain(OverTime(norm), IF())
    options = SMALL | {"augmentation": "none"}
    (found,) = calibrate(snn, image_set, **options)
    for batch, value in zip(_batches(image_set, **options), found.percentiles, strict=True):
        mean, variance = batch.mean((0, 2, 3)), batch.var((0, 2, 3), correction=0)
        shape = (1, -1, 1, 1)
        currents = (batch - mean.view(shape)) / (variance + norm.eps).sqrt().view(shape)
        currents = (currents * norm.weight.view(shape) + norm.bias.view(shape)).flatten().repeat(5)
        expected = currents.kthvalue(1 + round(0.997 * (len(currents) - 1))).values.item()
        assert value == pytest.approx(expected, rel=1e-5)
    assert norm.running_mean.eq(100).all() and norm.num_batches_tracked == 0


@pytest.mark.parametrize("name", ["vgg11", "wrn16_4", "resnet20", "spiking_resnet18", "sew_resnet18"])
def test_whole_networks_agree_with_the_definition(name, make_ann, make_images):
    options = {"width": 1, "image_size": 8} if name in ("wrn16_4", "resnet20") else {}
    if "_resnet18" in name:
        options = {"stem": "3x3", "pool": "avg", "encoder": "direct"}
    snn = copy_weights(make_ann(name, **options))
    image_set = make_images()
    images = _batches(image_set, **SMALL, augmentation="crop-flip")
    expected = _recomputed(snn, images, SMALL["time_steps"], 0.9)
    found = calibrate(snn, image_set, **SMALL, percentile=0.9)
    assert [list(entry.percentiles) for entry in found] == expected
    assert [entry.threshold for entry in found] == [max(values) for values in expected]
    assert [layer.threshold.item() for layer in neurons_of(snn)] == [entry.threshold for entry in found]
    names = {"vgg11": 10, "wrn16_4": 13, "resnet20": 19, "spiking_resnet18": 17, "sew_resnet18": 20}
    assert len(found) == names[name] and all(0 < entry.firing_rate < 1 for entry in found)


@pytest.mark.parametrize("budget", [0, 20_000])
def test_memory_does_not_change_the_result(budget, make_ann, make_images):
    snn = copy_weights(make_ann())
    plenty, little = (
        calibrate(copy.deepcopy(snn), make_images(), **SMALL, memory_budget=memory) for memory in (2**30, budget)
    )
    assert plenty == little


def test_result_depends_on_the_seed_and_on_nothing_else(make_ann, make_images):
    snn = copy_weights(make_ann())
    state = torch.get_rng_state()
    first = calibrate(copy.deepcopy(snn), make_images(), **SMALL)
    torch.manual_seed(99)
    state_before = torch.get_rng_state()
    assert calibrate(copy.deepcopy(snn), make_images(), **SMALL) == first
    assert torch.equal(torch.get_rng_state(), state_before)
    torch.set_rng_state(state)
    assert calibrate(copy.deepcopy(snn), make_images(), **SMALL | {"seed": 5}) != first
    assert calibrate(copy.deepcopy(snn), make_images(), **SMALL, augmentation="none") != first


@pytest.mark.parametrize("training", [False, True])
def test_model_comes_back_with_new_thresholds_only(training, make_ann, make_images):
    snn = copy_weights(make_ann(), time_steps=6).train(training)
    snn.body.features[0].bn.train(not training)
    before = {name: value.clone() for name, value in snn.state_dict().items()}
    modes = [module.training for module in snn.modules()]
    parameters = list(map(id, snn.parameters()))
    calibrate(snn, make_images(), **SMALL)
    changed = {name for name, value in snn.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith(".threshold")}
    assert [module.training for module in snn.modules()] == modes
    assert list(map(id, snn.parameters())) == parameters, "an optimiser made before still holds them"
    assert snn.encoder.time_steps == 6
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in neurons_of(snn))


def test_eleventh_batch_comes_after_the_ten(make_ann, make_images):
    snn, options = copy_weights(make_ann()), SMALL | {"batch_size": 2}
    ten, eleven = (
        calibrate(copy.deepcopy(snn), make_images(30), **options | {"batches": batches})[0] for batches in (10, 11)
    )
    assert eleven.percentiles[:10] == ten.percentiles and len(eleven.percentiles) == 11
    assert eleven.threshold == max(ten.threshold, eleven.percentiles[10])


def test_running_maximum_of_a_block_starts_at_its_first_layer(make_ann, make_images):
    """Quirk Q1 of the authors' code, against the paper's own current; a VGG has no blocks and no difference."""
    snn = copy_weights(make_ann("wrn16_4", width=1))
    for block in (module for module in snn.modules() if getattr(module, "is_residual_block", False)):
        block.bn1.weight.data *= 1.5  # the first current is the larger one
    own, running = copy.deepcopy(snn), copy.deepcopy(snn)
    own_thresholds = calibrate(own, make_images(), **SMALL, percentile=0.9)
    quirk = calibrate(running, make_images(), **SMALL, percentile=0.9, second_threshold="running maximum")
    assert [entry.layer for entry in own_thresholds] == [entry.layer for entry in quirk]
    by_name = {entry.layer: entry for entry in quirk}
    for entry in quirk:
        first = by_name.get(entry.layer.replace(".sn2", ".sn1"))
        maximum = max(entry.percentiles + first.percentiles) if entry.layer.endswith(".sn2") else max(entry.percentiles)
        assert entry.threshold == maximum
    second = [entry for entry in quirk if entry.layer.endswith(".sn2")]
    assert len(second) == 6 and any(entry.threshold > max(entry.percentiles) for entry in second)
    assert all(entry.threshold == max(entry.percentiles) for entry in own_thresholds)
    assert quirk[0] == own_thresholds[0] and quirk[1].percentiles == own_thresholds[1].percentiles

    vgg = copy_weights(make_ann())
    same = calibrate(copy.deepcopy(vgg), make_images(), **SMALL, second_threshold="running maximum")
    assert same == calibrate(vgg, make_images(), **SMALL)


def _damaged(snn: nn.Module, what: str) -> nn.Module:
    norm = snn.body.features[3].bn
    if what == "nan":
        snn.body.features[3].conv.weight.data[0, 0, 0, 0] = float("nan")
    elif what == "zero":
        norm.weight.data.zero_(), norm.bias.data.zero_()
    else:
        norm.weight.data.zero_(), norm.bias.data.fill_(-0.5)
    return snn


@pytest.mark.parametrize("budget", [0, 2**30])
@pytest.mark.parametrize("what, value", [("nan", "nan"), ("zero", "0"), ("negative", "-0.5")])
def test_threshold_that_is_not_above_zero_is_refused_by_its_layer(what, value, budget, make_ann, make_images):
    snn = _damaged(copy_weights(make_ann(), threshold=0.7), what)
    with pytest.raises(InputError, match=rf"threshold of body\.features\.3\.sn calibrates to {value}; expected"):
        calibrate(snn, make_images(), **SMALL, memory_budget=budget)
    assert [layer.threshold.item() for layer in neurons_of(snn)] == [pytest.approx(0.7)] * 10, "undone"
    assert snn.encoder.time_steps == 8 and all(norm.running_mean is not None for norm in batch_norms(snn))


@pytest.mark.parametrize("budget", [0, 2**30])
@pytest.mark.parametrize("position", [1, 3])
def test_dead_layer_is_refused_by_name(position, budget, chain, make_images):
    layers = [_linear(1.0), IF(), _linear(1.0), IF()]
    layers[position].threshold_floor = 1e3
    with pytest.raises(InputError, match=rf"body\.{position} is dead: no spike in any calibration batch"):
        calibrate(chain(*layers), make_images(channels=1), **SMALL, memory_budget=budget)


def test_compared_with_no_floor_a_floor_is_in_force_while_calibrating(chain, make_images):
    image_set = make_images(channels=1)
    free, floored = (chain(_linear(0.01), LIF(leak=1.0, threshold_floor=floor)) for floor in (0.0, 0.03))
    rates = [calibrate(snn, image_set, **SMALL)[0].firing_rate for snn in (free, floored)]
    assert 0 < rates[1] < rates[0]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"time_steps": 0}, "time_steps is 0; expected a whole number"),
        ({"batches": 0}, "batches is 0; expected a whole number"),
        ({"batch_size": 2.5}, "batch_size is 2.5; expected a whole number"),
        ({"batch_size": 13}, "batch_size is 13, but there are 12 images"),
        ({"percentile": 99.7}, r"percentile is 99.7; expected a share in \[0, 1\]"),
        ({"augmentation": "blur"}, "augmentation is 'blur'; expected one of none, flip"),
        ({"second_threshold": "both"}, "second_threshold is 'both'; expected one of own, running maximum"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, chain, make_images):
    with pytest.raises(InputError, match=message):
        calibrate(chain(_linear(1.0), IF()), make_images(channels=1), **SMALL | options)


def test_models_that_cannot_be_calibrated_are_refused(make_ann, make_images):
    with pytest.raises(InputError, match="Model has no spiking layer; expected an SNN"):
        calibrate(make_ann(), make_images())
    with pytest.raises(InputError, match="str has no spiking layer"):
        calibrate("snn", make_images())
    phase = build_model("spiking_resnet18", 3, 4, width=2)
    with pytest.raises(InputError, match="the encoder is PhaseEncoder; expected direct coding"):
        calibrate(phase, make_images())


def test_images_are_used_up_before_one_comes_again(make_images):
    image_set = make_images(10)
    options = {"batches": 5, "batch_size": 4, "seed": 0, "augmentation": "none"}
    drawn = torch.cat(list(shuffled_batches(image_set, "any", **options)))
    assert drawn.shape == (20, 3, 8, 8)
    original = image_set.batch(slice(None))
    positions = [next(i for i in range(10) if torch.equal(image, original[i])) for image in drawn]
    assert sorted(positions[:10]) == sorted(positions[10:]) == list(range(10))
    assert positions[:10] != list(range(10)) and positions[:10] != positions[10:]
    other = torch.cat(list(shuffled_batches(image_set, "other", **options)))
    assert not torch.equal(drawn, other)
