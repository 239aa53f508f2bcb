"""QCFS and the IF neuron that computes it: the identity for constant input, boundaries included."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from snnlib.conversion import QCFS, ShiftedIF, qcfs_to_if, with_qcfs
from snnlib.errors import InputError
from snnlib.models.convertible import OverTime
from snnlib.neurons import LIF, neurons_of


def _qcfs(levels: int, threshold: float) -> QCFS:
    return QCFS(levels, threshold).double()


def _mean_output(x: torch.Tensor, time_steps: int, threshold: float) -> torch.Tensor:
    return ShiftedIF(threshold)(x.expand(time_steps, *x.shape)).mean(0)


@pytest.mark.parametrize(
    "x, expected",
    [(-9, 0), (-0.01, 0), (0, 0), (0.24, 0), (0.25, 0.5), (0.74, 0.5), (0.75, 1), (1.75, 2), (2, 2), (9, 2)],
)
def test_steps_are_where_the_formula_puts_them(x, expected):
    """λ = 2, L = 4: heights 0, ½, 1, 3/2, 2, changing at ¼, ¾, 5/4, 7/4."""
    assert _qcfs(4, 2.0)(torch.tensor(float(x), dtype=torch.float64)).item() == expected


@pytest.mark.parametrize("time_steps", [1, 2, 4, 7, 8, 32])
@pytest.mark.parametrize("threshold", [0.3, 1.0, 4.0])
def test_spike_count_over_t_is_qcfs_for_constant_input(time_steps, threshold):
    x = torch.randn(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(time_steps)) * threshold
    activation = _qcfs(time_steps, threshold)
    expected = activation(x).detach()
    found = _mean_output(x, time_steps, activation.threshold.item())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert len(expected.unique()) == time_steps + 1, "every height occurs"


@pytest.mark.parametrize("time_steps", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("threshold", [0.5, 1.0, 4.0])
def test_identity_holds_on_every_boundary_and_just_beside_it(time_steps, threshold):
    """Powers of 2, so that sums of currents are exact: on a step the neuron fires, one ulp below it does not."""
    steps = (torch.arange(-2, time_steps + 3, dtype=torch.float64) - 0.5) / time_steps
    exactly = threshold * torch.cat([steps, torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64)])
    tiny = 2.0**-30
    for x in (exactly, exactly - tiny, exactly + tiny):
        assert torch.equal(_mean_output(x, time_steps, threshold), _qcfs(time_steps, threshold)(x).detach())
    on, below = (_mean_output(threshold * steps[3:4] - shift, time_steps, threshold).item() for shift in (0, tiny))
    assert (on, below) == (threshold / time_steps, 0.0)


def test_an_attackers_rule_meets_the_currents_that_give_the_same_spikes():
    """Rules start from a membrane at 0: the shift has to be in what they receive."""
    layer, currents = ShiftedIF(1.0), torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    expected, met = layer(currents), []
    plain = LIF(leak=1.0, threshold=1.0, reset="soft")
    layer.rule = lambda layer, shifted: met.append(shifted) or plain(shifted)
    assert torch.equal(layer(currents), expected) and expected.any()
    assert torch.equal(met[0][1:], currents[1:]) and torch.equal(met[0][0], currents[0] + 0.5)


def test_without_the_shift_the_identity_fails():
    """The start at θ/2 is what rounds to nearest; from 0 the neuron rounds down."""
    x = torch.tensor([0.2], dtype=torch.float64)
    unshifted = nn.functional.relu((4 * x).floor() / 4)
    assert _mean_output(x, 4, 1.0).item() == 0.25 and unshifted.item() == 0.0


def test_gradient_passes_the_floor_and_stops_at_both_ends():
    activation = _qcfs(4, 2.0)
    x = torch.tensor([-1.0, 0.1, 1.0, 1.9, 3.0], dtype=torch.float64, requires_grad=True)
    activation(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    # Above: y = λ, slope 1. Inside: y = λ·(⌊s⌋/L) with ds/dλ = −xL/λ² passed on: ⌊s⌋/L − x/λ. Below: 0.
    inside = sum(math.floor(v * 2 + 0.5) / 4 - v / 2 for v in (0.1, 1.0, 1.9))
    assert activation.threshold.grad.item() == pytest.approx(1 + inside)


def test_network_of_one_layer_converts_exactly(chain):
    linear = nn.Conv2d(3, 5, 3, bias=False).double()
    linear.weight.data = torch.linspace(-0.2, 0.3, linear.weight.numel()).double().view(5, 3, 3, 3)
    ann = chain(OverTime(linear), nn.ReLU(), time_steps=2)
    trained = with_qcfs(ann, levels=8, threshold=0.7)
    assert trained.encoder.time_steps == 1
    images = torch.rand(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = trained(images)[0].detach()
    assert len(expected.unique()) >= 5
    snn = qcfs_to_if(trained, time_steps=8)
    torch.testing.assert_close(snn(images).mean(0), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(qcfs_to_if(trained, time_steps=3)(images).mean(0), expected), "T is not L"


def test_whole_network_is_replaced_and_the_original_left_alone(make_ann):
    ann = make_ann(normalisation="cifar10").eval()
    before = repr(ann)
    trained = with_qcfs(ann, levels=4, threshold=2.0)
    snn = qcfs_to_if(trained, time_steps=16)
    assert repr(ann) == before
    assert sum(isinstance(module, QCFS) for module in trained.modules()) == 10
    assert not any(isinstance(module, nn.ReLU | QCFS) for module in snn.modules())
    layers = neurons_of(snn)
    assert len(layers) == 10 and {layer.reset for layer in layers} == {"soft"}
    assert {layer.threshold.item() for layer in layers} == {2.0}
    assert len({id(layer.threshold) for layer in layers}) == 10
    for name, value in ann.state_dict().items():
        assert torch.equal(snn.state_dict()[name], value), f"{name}: BatchNorm statistics included"


def test_deep_network_approaches_its_ann_when_time_grows(make_ann):
    trained = with_qcfs(make_ann(width=4).eval(), levels=64, threshold=4.0)
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = trained(images)
        errors = [(qcfs_to_if(trained, steps)(images) - expected).norm() / expected.norm() for steps in (4, 16, 64)]
    assert errors[2] < errors[1] / 2 < errors[0] / 4 and errors[2] < 0.25


def test_misuse_is_refused(make_ann):
    for levels in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="levels is .*; expected a whole number of at least 1"):
            QCFS(levels)
    for threshold in (0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="threshold is .*; expected a finite number above 0"):
            QCFS(4, threshold)
    with pytest.raises(InputError, match="Model has no QCFS"):
        qcfs_to_if(make_ann(), 4)
    trained = with_qcfs(make_ann(), levels=4)
    with pytest.raises(InputError, match="Model has no ReLU"):
        with_qcfs(trained, levels=4)
    with pytest.raises(InputError, match="time_steps is 0"):
        qcfs_to_if(trained, 0)
    trained.body.hidden[0].sn.threshold.data.fill_(-0.1)
    with pytest.raises(InputError, match="a QCFS threshold is -0.1; expected a finite number above 0"):
        qcfs_to_if(trained, 4)
