"""Weights by name: what is copied, what starts anew, and which tensor a misfit names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.conversion import batch_statistics, copy_weights, transfer_weights
from snnlib.errors import InputError
from snnlib.models import build_model, spiking_layers
from snnlib.neurons import LIF, neurons_of

NAMES = ("vgg11", "wrn16_4", "resnet20", "spiking_resnet18")


def _state(model: nn.Module) -> dict:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_affine_parameters_arrive_and_statistics_do_not(name, make_ann):
    ann = make_ann(name)
    before = _state(ann)
    snn = copy_weights(ann, time_steps=5)
    theirs, ours = ann.state_dict(), snn.state_dict()
    for key, value in theirs.items():
        if key.endswith("running_mean"):
            assert value.any() and not ours[key].any(), key
        elif key.endswith("running_var"):
            assert (value != 1).any() and ours[key].eq(1).all(), key
        elif not key.endswith("num_batches_tracked"):
            assert torch.equal(ours[key], value), key
            assert ours[key].data_ptr() != value.data_ptr(), "memory of its own"
    added = ours.keys() - theirs.keys()
    biases = {key for key in added if key.endswith(".bias")}
    thresholds = {f"{key}.threshold" for key, module in snn.named_modules() if isinstance(module, LIF)}
    assert added == biases | thresholds
    assert not any(ours[key].any() for key in biases)
    assert len(biases) == {"vgg11": 11, "spiking_resnet18": 0}.get(name, 1)
    assert snn.encoder.time_steps == 5
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items()), "the ANN is left alone"


def test_units_are_those_of_the_paper(make_ann):
    snn = copy_weights(make_ann("spiking_resnet18", encoder="phase", leak=0.5, detach_reset=True, threshold=2.0))
    assert type(snn.encoder).__name__ == "DirectEncoder" and snn.encoder.time_steps == 8
    for layer in neurons_of(snn):
        assert (layer.leak, layer.reset, layer.detach_reset, layer.threshold_floor) == (1.0, "hard", False, 0.03)
        assert repr(layer.surrogate) == "piecewise_linear(width=1, height=1)"
        assert isinstance(layer.threshold, nn.Parameter) and layer.threshold.item() == 1
    assert all(parameter.requires_grad for parameter in snn.parameters())


def test_options_change_the_snn_and_only_that(make_ann):
    ann = make_ann()
    config = dict(ann.config)
    snn = copy_weights(ann, time_steps=3, reset="soft", bias=False, threshold_floor=0.1, dropout=0.0)
    assert {layer.reset for layer in neurons_of(snn)} == {"soft"}
    assert {layer.threshold_floor for layer in neurons_of(snn)} == {0.1}
    assert not any(key.endswith(("conv.bias", "fc.bias")) for key in snn.state_dict())
    assert ann.config == config and not neurons_of(ann)


def test_first_layer_receives_the_anns_preactivation(make_ann):
    """Same weights, same affine map, same statistics: of the batch, here in both."""
    ann = make_ann(normalisation="cifar10")
    snn, images, seen = copy_weights(ann), torch.rand(6, 3, 8, 8), []
    for model in (ann, snn):
        (_, first), *_ = spiking_layers(model)
        first.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
        with batch_statistics(model):
            model(images)
    assert seen[0].std() > 0.1
    assert seen[1].shape[0] == 8
    for step in seen[1]:
        torch.testing.assert_close(step, seen[0][0])


def test_device_and_dtype_are_those_of_the_ann(make_ann):
    assert {parameter.dtype for parameter in copy_weights(make_ann().double()).parameters()} == {torch.float64}


def test_class_counts_that_differ_are_named(make_ann):
    message = r"class counts differ: body\.fc\.weight has 3 classes in the ANN, 7 in the SNN; build the SNN with num_cl"
    with pytest.raises(InputError, match=message):
        copy_weights(make_ann(), num_classes=7)


def test_width_that_differs_names_the_first_tensor(make_ann):
    message = r"weights do not fit: body\.features\.0\.conv\.weight is \[2, 3, 3, 3\] in the ANN, \[4, 3, 3, 3\] in the"
    with pytest.raises(InputError, match=message):
        copy_weights(make_ann(), width=4)


def test_wrong_architecture_is_named_and_nothing_is_written(make_ann):
    snn = copy_weights(make_ann())
    before = _state(snn)
    with pytest.raises(InputError, match=r"do not fit: body\.\S+ is absent in run 7, .* \(and \d+ more tensors\)"):
        transfer_weights(make_ann("resnet20").state_dict(), snn, source="run 7")
    assert all(torch.equal(value, before[key]) for key, value in snn.state_dict().items())


def test_biases_without_counterpart_become_zero_in_any_snn(make_ann):
    snn = copy_weights(make_ann())
    for layer in (snn.body.fc, snn.body.features[0].conv):
        layer.bias.data.fill_(3.0)
    snn.body.features[0].sn.threshold.data.fill_(0.4)
    transfer_weights(make_ann().state_dict(), snn)
    assert not snn.body.fc.bias.any() and not snn.body.features[0].conv.bias.any()
    assert snn.body.features[0].sn.threshold.item() == pytest.approx(0.4), "thresholds stay"


def test_single_tensors_that_are_missing_or_left_over_are_named(make_ann):
    snn, state = copy_weights(make_ann()), make_ann().state_dict()
    missing = {key: value for key, value in state.items() if key != "body.features.2.bn.bias"}
    with pytest.raises(InputError, match=r"fit: body\.features\.2\.bn\.bias is absent in the ANN, \[4\] in the SNN;"):
        transfer_weights(missing, snn)
    with pytest.raises(InputError, match=r"fit: body\.extra is \[1\] in the ANN, absent in the SNN; build"):
        transfer_weights(state | {"body.extra": torch.zeros(1)}, snn)
    with pytest.raises(InputError, match=r"body\.features\.0\.conv\.bias is \[2\] in the ANN, absent in the SNN"):
        copy_weights(make_ann(bias=True), bias=False)
    with_bias = make_ann(bias=True)
    with_bias.body.fc.bias.data.fill_(3.0)
    assert copy_weights(with_bias).body.fc.bias.eq(3).all(), "a bias that the ANN has is kept"


def test_models_that_are_no_ann_are_refused(make_ann):
    with pytest.raises(InputError, match="the ANN has spiking layers already"):
        copy_weights(build_model("spiking_resnet18", 3, 4, width=2))
    with pytest.raises(InputError, match="Linear has no ReLU; expected some: they become the spiking neurons"):
        copy_weights(nn.Linear(2, 2))
