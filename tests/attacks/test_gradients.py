"""Each rule against its equation, worked out again in plain loops over [T = 4, 2 samples, 3 neurons]."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from snnlib.attacks.gradients import (
    GRADIENTS,
    adaptive_sharpness,
    backward_through_rate,
    bptt,
    hart,
    parse_gradient,
    potential_dependent,
    rate_gradient,
    relu_proxy,
    straight_through,
)
from snnlib.errors import InputError
from snnlib.neurons import LIF, surrogates, use_kernel
from snnlib.neurons.reference import lif_reference

T, N, F = 4, 2, 3
THRESHOLD = 0.7
RULES = [
    bptt(surrogates.piecewise_linear(width=0.5, height=2.0)),
    straight_through(),
    backward_through_rate(),
    rate_gradient(),
    hart(gamma=0.8),
    potential_dependent(),
    potential_dependent(statistics="batch"),
    adaptive_sharpness(),
    adaptive_sharpness(surrogate="triangular", a=0.7),
]
NEURONS = [
    {"reset": reset, "leak": leak, "detach_reset": detach_reset}
    for reset, leak, detach_reset in product(("hard", "soft"), (1.0, 0.5), (True, False))
]
neurons = pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: " ".join(f"{k}={v}" for k, v in n.items()))


@pytest.fixture(autouse=True)
def plain_loops():
    with use_kernel("reference"):
        yield


def currents(dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    return 1.4 * torch.rand(T, N, F, dtype=dtype, generator=generator) - 0.2


def upstream():
    return torch.randn(T, N, F, dtype=torch.float64, generator=torch.Generator().manual_seed(8))


def gradient_of(rule, layer, x=None):
    """dL/dI `[T, N, F]` for L = <upstream, spikes>, by a rule that has been held for one pass."""
    x = (currents() if x is None else x).requires_grad_()
    (gradient,) = torch.autograd.grad((rule(layer, x) * upstream()).sum(), x)
    return gradient.numpy()


def charged(x, neuron, threshold=THRESHOLD):
    """(u, s): membrane minus threshold and spikes of one neuron's currents `[T]`, by a loop over floats."""
    v, u, s = 0.0, [], []
    for current in x:
        h = neuron["leak"] * v + current
        fires = h - threshold >= 0
        u.append(h - threshold)
        s.append(float(fires))
        v = (0.0 if fires else h) if neuron["reset"] == "hard" else h - threshold * fires
    return u, s


def through_time(u, s, slope, g, neuron, threshold=THRESHOLD):
    """dL/dI of one neuron: the derivative of each spike and each membrane with respect to each current, summed up."""
    hard, gradient = neuron["reset"] == "hard", [0.0] * T
    for cause in range(T):
        dv = 0.0
        for t in range(cause, T):
            dh = 1.0 if t == cause else neuron["leak"] * dv
            ds = slope[t] * dh
            gradient[cause] += g[t] * ds
            felt = 0.0 if neuron["detach_reset"] else ds
            h = u[t] + threshold
            dv = dh * (1 - s[t]) - h * felt if hard else dh - threshold * felt
    return gradient


def expected_through_time(slope_of, neuron):
    """[T, N, F], `slope_of(u [T, N, F] as floats)` giving the pseudo-derivatives."""
    x, g, out = currents().numpy(), upstream().numpy(), np.zeros((T, N, F))
    membranes = {(n, f): charged(x[:, n, f], neuron) for n in range(N) for f in range(F)}
    u = np.zeros((T, N, F))
    for (n, f), (distance, _) in membranes.items():
        u[:, n, f] = distance
    slope = slope_of(u)
    for (n, f), (distance, spikes) in membranes.items():
        out[:, n, f] = through_time(distance, spikes, slope[:, n, f], g[:, n, f], neuron)
    return out


@neurons
@pytest.mark.parametrize("gradient", RULES, ids=str)
def test_forward_is_the_networks_own_spike_for_spike(gradient, neuron):
    layer = LIF(threshold=THRESHOLD, **neuron)
    x = 1.4 * torch.rand(8, 3, 4, 5, 5, generator=torch.Generator().manual_seed(1)) - 0.2
    options = {"reset": neuron["reset"], "detach_reset": True, "surrogate": surrogates.atan()}
    leak, threshold = torch.tensor(neuron["leak"]), torch.tensor(THRESHOLD)
    expected, _ = lif_reference(x, torch.zeros_like(x[0]), leak, threshold, **options)
    assert 0.05 < expected.mean() < 0.95
    with gradient.applied(layer):
        assert torch.equal(layer(x), expected)
        assert torch.equal(layer(x.clone().requires_grad_()), expected)


@neurons
@pytest.mark.parametrize("surrogate", [surrogates.atan(), surrogates.straight_through()], ids=str)
def test_membrane_rule_is_backpropagation_through_time_when_slope_is_a_surrogate(surrogate, neuron):
    layer = LIF(threshold=THRESHOLD, surrogate=surrogates.rectangular(), **neuron)
    by_rule = gradient_of(bptt(surrogate).new_rule(), layer)
    by_loops = expected_through_time(lambda u: surrogate(torch.from_numpy(u)).numpy(), neuron)
    np.testing.assert_allclose(by_rule, by_loops, rtol=1e-12, atol=1e-14)
    with bptt(surrogate).applied(layer):
        by_autograd = gradient_of(lambda layer, x: layer(x), layer)
    np.testing.assert_allclose(by_autograd, by_loops, rtol=1e-12, atol=1e-14)
    assert layer.surrogate == surrogates.rectangular()


@neurons
def test_backward_through_rate_passes_where_the_neuron_fired(neuron):
    x, g = currents().numpy(), upstream().numpy()
    expected = np.zeros((T, N, F))
    for n, f in product(range(N), range(F)):
        _, spikes = charged(x[:, n, f], neuron)
        expected[:, n, f] = g[:, n, f] * (1.0 if sum(spikes) / T > 0 else 0.0)
    assert 0 < np.count_nonzero(expected) < expected.size
    assert np.array_equal(gradient_of(backward_through_rate().new_rule(), LIF(threshold=THRESHOLD, **neuron)), expected)


@pytest.mark.parametrize("leak", [1.0, 0.5])
@pytest.mark.parametrize("threshold", [1.0, 0.3])
def test_rate_gradient_is_the_slope_of_the_rate_curve(threshold, leak):
    layer, lost, gamma, beta = LIF(threshold=threshold, leak=leak), 1 - leak, 0.2, 2.0
    levels = torch.tensor([-0.1, 0.0, 0.3, 0.5, 0.7, 1.0, 1.9, 2.0, 2.1], dtype=torch.float64) * threshold
    x = (levels + torch.tensor([[0.25], [-0.25], [0.5], [-0.5]]) * threshold).unsqueeze(1).requires_grad_()
    rule = rate_gradient(gamma=gamma, beta=beta).new_rule()
    (found,) = torch.autograd.grad(rule(layer, x).sum(), x)

    def expected(mean):
        if mean < 0 or mean > beta * threshold:
            return 0.0
        if mean < lost * threshold:
            return gamma
        return (1 - gamma * threshold + gamma * threshold * leak) / ((leak + beta - 1) * threshold)

    means = [round(float(level), 12) for level in levels]
    assert found[0, 0].tolist() == pytest.approx([expected(mean) for mean in means])
    assert torch.equal(found, found[:1].expand_as(found))
    if leak == 1:
        assert expected(0.5 * threshold) == pytest.approx(1 / (beta * threshold))


def test_rate_curve_reaches_one_when_its_slope_is_integrated_to_beta():
    layer = LIF(threshold=0.6, leak=0.7)
    level = torch.linspace(0, 1.2, 12001, dtype=torch.float64).expand(1, 1, -1).requires_grad_()
    (slope,) = torch.autograd.grad(rate_gradient().new_rule()(layer, level).sum(), level)
    assert torch.trapezoid(slope, level.detach()).item() == pytest.approx(1.0, abs=1e-3)


@neurons
@pytest.mark.parametrize("gamma", [0.4, 2.0])
def test_hart_averages_the_local_gradients_over_time(gamma, neuron):
    x, g, expected = currents().numpy(), upstream().numpy(), np.zeros((T, N, F))
    for n, f in product(range(N), range(F)):
        u, _ = charged(x[:, n, f], neuron)
        local = [g[t, n, f] * max(0.0, gamma - abs(u[t])) / gamma**2 for t in range(T)]
        expected[:, n, f] = sum(local) / T
    found = gradient_of(hart(gamma).new_rule(), LIF(threshold=THRESHOLD, **neuron))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def potential_slope(u, groups):
    """PDSG pseudo-derivatives; `groups(n)` names the samples whose potentials count for sample n."""
    slope = np.zeros_like(u)
    for t, n in product(range(T), range(N)):
        values = u[: t + 1, groups(n)] + THRESHOLD
        sigma = float(np.std(values, ddof=1)) or 1.0
        for f in range(F):
            scaled = (u[t, n, f] - sigma / 2) / sigma
            slope[t, n, f] = math.exp(-(scaled**2) / 2) / (math.sqrt(2 * math.pi) * sigma)
    return slope


@neurons
@pytest.mark.parametrize(("statistics", "groups"), [("sample", lambda n: [n]), ("batch", lambda n: [0, 1])])
def test_potential_dependent_takes_its_width_from_the_potentials_so_far(statistics, groups, neuron):
    layer = LIF(threshold=THRESHOLD, **neuron)
    found = gradient_of(potential_dependent(statistics).new_rule(), layer)
    expected = expected_through_time(lambda u: potential_slope(u, groups), neuron)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_potential_dependent_has_one_width_per_channel_when_there_is_a_map():
    layer, rule = LIF(threshold=1.0), potential_dependent().new_rule()
    u = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    u[:, :, 3] = 0.25
    slope = rule.slope(layer, u)
    for t, n, c in product(range(3), range(2), range(4)):
        sigma = u[: t + 1, n, c].std().item() or 1.0
        density = torch.exp(-((u[t, n, c] - sigma / 2) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
        torch.testing.assert_close(slope[t, n, c], density, rtol=1e-9, atol=0)


def test_gradient_does_not_depend_on_batch_mates_unless_batch_statistics_are_asked_for():
    x, g, layer = currents(), upstream(), LIF(threshold=THRESHOLD)
    for gradient in RULES:
        both = x.clone().requires_grad_()
        (together,) = torch.autograd.grad((gradient.new_rule()(layer, both) * g).sum(), both)
        one = x[:, :1].clone().requires_grad_()
        (alone,) = torch.autograd.grad((gradient.new_rule()(layer, one) * g[:, :1]).sum(), one)
        same = torch.equal(together[:, :1], alone)
        assert same != (gradient == potential_dependent(statistics="batch")), gradient.name


def test_rules_use_the_floored_threshold_when_the_trained_one_is_below_it():
    for gradient in [*RULES, rate_gradient(gamma=0.1)]:
        floored = LIF(threshold=0.01, leak=0.5, trainable_threshold=True, threshold_floor=THRESHOLD)
        found = gradient_of(gradient.new_rule(), floored)
        np.testing.assert_allclose(
            found, gradient_of(gradient.new_rule(), LIF(threshold=THRESHOLD, leak=0.5)), rtol=1e-6, atol=1e-9
        )
        assert floored.threshold.grad is None


@pytest.mark.parametrize("gradient", [*RULES, relu_proxy()], ids=str)
def test_rules_are_taken_away_again_when_the_attack_breaks(gradient):
    own = surrogates.gaussian()
    model = nn.Sequential(LIF(surrogate=own), LIF(surrogate=own))
    with pytest.raises(ArithmeticError), gradient.applied(model):
        raise ArithmeticError
    assert [(layer.rule, layer.surrogate) for layer in model] == [(None, own)] * 2


@pytest.mark.parametrize("gradient", [*RULES, relu_proxy()], ids=str)
def test_name_reads_back_as_the_same_gradient(gradient):
    again = parse_gradient(gradient.name)
    assert again == gradient and hash(again) == hash(gradient) and str(again) == gradient.name
    refused = pytest.raises(InputError, match="but the model has no snnlib neuron; pass gradient=None")
    with refused, gradient.applied(nn.Linear(2, 2)):
        pass


def test_names_are_read_in_any_spelling():
    assert parse_gradient("own") is None
    assert parse_gradient("atan") == bptt(surrogates.atan())
    assert parse_gradient("adaptive_sharpness(surrogate=atan,a=0.87)") == adaptive_sharpness()
    assert parse_gradient(" hart( gamma = 1.0 ) ").name == "hart(gamma=1)"
    assert [parse_gradient(name).family for name in GRADIENTS] == list(GRADIENTS)
    third = bptt(surrogates.piecewise_linear(width=1 / 3))
    assert parse_gradient(third.name) == third


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hrt", "gradient is 'hrt'; expected one of own, backward_through_rate,"),
        ("hart(g=1)", "gradient is 'hart(g=1)'; expected a name and values"),
        ("hart(gamma)", "gradient is 'hart(gamma)'; expected a name and values"),
        ("hart(gamma=-1)", "gamma is -1.0; expected a finite number above 0"),
        ("rate_gradient(gamma=0)", "gamma is 0.0; expected a finite number above 0"),
        ("rate_gradient(beta=1)", "beta is 1.0; expected a finite number above 1"),
        ("adaptive_sharpness(a=1)", "a is 1.0; expected a share between 0 and 1"),
        ("adaptive_sharpness(surrogate=box)", "surrogate is 'box'; expected one of atan, rectangular,"),
        ("potential_dependent(statistics=all)", "statistics is 'all'; expected 'sample' or 'batch'"),
        ("atan(width=1)", "surrogate is 'atan(width=1)'"),
    ],
)
def test_reading_refuses_in_one_line_when_a_name_does_not_fit(text, message):
    with pytest.raises(InputError) as error:
        parse_gradient(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bptt_refuses_when_it_is_given_no_surrogate():
    with pytest.raises(InputError, match="surrogate is 'atan'; expected e.g. surrogates.atan"):
        bptt("atan")
