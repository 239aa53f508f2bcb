"""The whole conversion, and what each of its steps changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from snnlib.conversion import convert, copy_weights, scale_thresholds, set_trainable
from snnlib.errors import InputError
from snnlib.models.convertible import OverTime
from snnlib.neurons import IF, neurons_of

OPTIONS = {"batch_size": 4, "seed": 3, "calibration": {"time_steps": 6, "batches": 2, "percentile": 0.95}}


def test_thresholds_are_calibrated_scaled_and_trainable(make_ann, make_images):
    snn, report = convert(make_ann(), make_images(), time_steps=4, **OPTIONS)
    table = report.table()
    assert list(table["layer"]) == [name for name, module in snn.named_modules() if module in neurons_of(snn)]
    assert len(table) == 10 and (table["calibrated_threshold"] > 0).all()
    thresholds = [layer.threshold.item() for layer in neurons_of(snn)]
    assert thresholds == pytest.approx((0.3 * table["calibrated_threshold"]).tolist())
    assert thresholds == pytest.approx(table["scaled_threshold"].tolist())
    assert thresholds[0] != thresholds[1]
    assert snn.encoder.time_steps == 4
    assert all(isinstance(layer.threshold, nn.Parameter) and layer.threshold.requires_grad for layer in neurons_of(snn))
    assert (table["scaled_firing_rate"] > table["calibrated_firing_rate"]).all(), "a lower threshold fires more"


def test_scale_one_keeps_the_calibrated_thresholds(make_ann, make_images):
    snn, report = convert(make_ann(), make_images(), scale=1.0, **OPTIONS)
    assert [layer.threshold.item() for layer in neurons_of(snn)] == [entry.threshold for entry in report.thresholds]


def test_statistics_are_reset_or_found_again(make_ann, make_images):
    reset, _ = convert(make_ann(), make_images(), **OPTIONS)
    found, report = convert(make_ann(), make_images(), statistics="reestimate", **OPTIONS)
    assert report.statistics == "reestimate"
    for ours, theirs in zip(_norms(reset), _norms(found), strict=True):
        assert ours.running_mean.eq(0).all() and ours.running_var.eq(1).all() and ours.momentum == 0.1
        assert theirs.running_var.ne(1).any() and theirs.momentum == 0.1
        assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def test_a_float64_network_is_converted_in_its_precision(make_ann, make_images):
    snn, report = convert(make_ann().double(), make_images(), statistics="reestimate", **OPTIONS)
    single, plain = convert(make_ann(), make_images(), statistics="reestimate", **OPTIONS)
    assert {value.dtype for value in snn.state_dict().values() if value.is_floating_point()} == {torch.float64}
    assert [entry.threshold for entry in report.thresholds][0] == pytest.approx(plain.thresholds[0].threshold, rel=1e-5)
    assert [entry.threshold for entry in report.thresholds] != [entry.threshold for entry in plain.thresholds]


def test_numpy_numbers_convert_as_plain_ones(make_ann, make_images):
    given = {"batch_size": np.int64(4), "seed": np.int64(3), "scale": np.float64(0.25), "time_steps": np.int32(4)}
    calibration = {"time_steps": np.int64(6), "batches": np.int64(2), "percentile": np.float32(0.95)}
    snn, report = convert(make_ann(), make_images(), **given, calibration=calibration)
    options = {**OPTIONS, "calibration": {**OPTIONS["calibration"], "percentile": float(np.float32(0.95))}}
    plain, wanted = convert(make_ann(), make_images(), time_steps=4, scale=0.25, **options)
    assert report == wanted and snn.config == plain.config


def test_a_conversion_in_inference_mode_gives_a_network_that_trains(make_ann, make_images):
    with torch.inference_mode():
        snn, report = convert(make_ann(), make_images(), **OPTIONS)
    assert report == convert(make_ann(), make_images(), **OPTIONS)[1]
    snn.train()(make_images().batch(slice(0, 4))).square().sum().backward()
    assert all(parameter.grad is not None for parameter in snn.parameters())


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["vgg11", "wrn16_4", "resnet20"])
def test_same_seed_gives_the_same_network_and_the_ann_is_left_alone(name, make_ann, make_images):
    ann = make_ann(name, **({"width": 4} if name != "vgg11" else {}))
    before = {key: value.clone() for key, value in ann.state_dict().items()}
    flags = [module.training for module in ann.modules()]
    (first, report), (second, again) = (convert(ann, make_images(), **OPTIONS) for _ in range(2))
    assert report == again
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items())
    assert [module.training for module in ann.modules()] == flags
    assert convert(ann, make_images(), **OPTIONS | {"seed": 4})[1] != report


def test_converted_network_learns_all_three_kinds_of_parameters(make_ann, make_images):
    snn, _ = convert(make_ann(), make_images(), **OPTIONS)
    snn.train()
    image_set = make_images()
    nn.functional.cross_entropy(snn(image_set.batch(slice(None))), image_set.labels).backward()
    without = [name for name, value in snn.named_parameters() if value.grad is None or not value.grad.any()]
    # A bias in front of BatchNorm has the gradient 0 up to rounding; which of them, rounding decides.
    assert [name for name in without if not name.endswith("conv.bias")] == []
    assert {name.rsplit(".", 1)[1] for name, _ in snn.named_parameters()} == {"weight", "bias", "threshold"}


def test_scaled_threshold_changes_the_spikes_as_the_neuron_says(chain):
    """Current 0.5, hard reset, 12 steps: θ = 2 fires every 4th step, 0.3 · 2 = 0.6 every 2nd."""
    snn = chain(OverTime(nn.Identity()), IF(threshold=nn.Parameter(torch.tensor(2.0))), time_steps=12)
    images = torch.full((1, 1, 2, 2), 0.5)
    assert snn(images).sum(0).eq(3).all()
    parameter = snn.body[1].threshold
    scale_thresholds(snn, 0.3)
    assert snn.body[1].threshold is parameter and parameter.item() == pytest.approx(0.6)
    assert snn(images).sum(0).eq(6).all()
    plain = chain(IF(threshold=2.0))
    scale_thresholds(plain)
    assert plain.body[0].threshold == pytest.approx(0.6), "a plain number stays one"


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("thresholds", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_each_kind_is_switched_alone(weights, thresholds, batch_norm, make_ann):
    snn = copy_weights(make_ann("wrn16_4"))
    names = set_trainable(snn, weights=weights, thresholds=thresholds, batch_norm=batch_norm)
    for name, parameter in snn.named_parameters():
        kind = thresholds if name.endswith("threshold") else batch_norm if ".bn" in name else weights
        assert parameter.requires_grad is kind, name
        assert (name in names) is kind
    total = sum(1 for _ in snn.named_parameters())
    assert total == 13 + 26 + 13 + 3 + 6 + 2, "thresholds, BatchNorm, convolutions, shortcuts, mixes, read-out"


def test_frozen_kinds_get_no_gradient(make_ann, make_images):
    snn = copy_weights(make_ann()).train()
    set_trainable(snn, weights=True, thresholds=False, batch_norm=False)
    snn(make_images().batch(slice(None))).sum().backward()
    graded = {name.rsplit(".", 2)[1] for name, value in snn.named_parameters() if value.grad is not None}
    assert graded == {"conv", "fc"}


def test_layer_that_dies_by_scaling_is_named(make_ann, make_images):
    with pytest.raises(InputError, match=r"body\.features\.0\.sn is dead after scaling by 1e\+06: no spike in a batch"):
        convert(make_ann(), make_images(), scale=1e6, **OPTIONS)


@pytest.mark.parametrize("scale", [0, -0.3, float("nan"), float("inf"), "0.3", True])
def test_scale_that_is_not_above_zero_is_refused(scale, make_ann, make_images, chain):
    with pytest.raises(InputError, match="scale is .*; expected a finite number above 0; the paper's is 0.3"):
        convert(make_ann(), make_images(), scale=scale, **OPTIONS)
    with pytest.raises(InputError, match="scale is "):
        scale_thresholds(chain(IF()), scale)


def test_other_misuse_is_refused(make_ann, make_images, chain):
    with pytest.raises(InputError, match="statistics is 'keep'; expected one of reset, reestimate"):
        convert(make_ann(), make_images(), statistics="keep", **OPTIONS)
    with pytest.raises(InputError, match="class counts differ"):
        convert(make_ann(), make_images(), snn_options={"num_classes": 4}, **OPTIONS)
    with pytest.raises(InputError, match="thresholds=True, but they are plain numbers"):
        set_trainable(chain(IF()))
    with pytest.raises(InputError, match="Model has no spiking layer"):
        scale_thresholds(make_ann())
