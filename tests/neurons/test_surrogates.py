"""Surrogates: values by hand, integrals, symmetry, the step's own gradient."""

from __future__ import annotations

import math

import pytest
import torch

from snnlib.errors import InputError
from snnlib.neurons import surrogates

VALUES_AT_ONE_HALF = {
    "atan(alpha=2)": (surrogates.atan(2.0), 1 / (1 + (math.pi / 2) ** 2)),
    "piecewise_linear(width=2, height=3)": (surrogates.piecewise_linear(2.0, 3.0), 3 * 0.75),
    "rectangular(width=1)": (surrogates.rectangular(1.0), 1.0),
    "rectangular(width=0.5)": (surrogates.rectangular(0.5), 0.0),
    "exponential(height=2, rate=3)": (surrogates.exponential(2.0, 3.0), 2 * math.exp(-1.5)),
    "sigmoid(slope=4)": (surrogates.sigmoid(4.0), 4 * math.exp(-2) / (1 + math.exp(-2)) ** 2),
    "fast_sigmoid(slope=2)": (surrogates.fast_sigmoid(2.0), 0.25),
    "gaussian(sigma=0.5)": (surrogates.gaussian(0.5), math.exp(-0.5) / (0.5 * math.sqrt(2 * math.pi))),
    "straight_through(height=1)": (surrogates.straight_through(), 1.0),
}


@pytest.mark.parametrize("spelled", VALUES_AT_ONE_HALF)
def test_value_and_repr_match_the_formula_when_u_is_one_half(spelled):
    surrogate, wanted = VALUES_AT_ONE_HALF[spelled]
    u = torch.tensor([0.5, -0.5], dtype=torch.float64)
    torch.testing.assert_close(surrogate(u), torch.full_like(u, wanted))
    assert repr(surrogate) == spelled


@pytest.mark.parametrize(
    "value, shown", [(2, "2"), (2.0, "2"), (0.5, "0.5"), (1 / 3, "0.3333333333333333"), (1234567.0, "1234567")]
)
def test_repr_is_short_but_keeps_every_digit(value, shown):
    assert repr(surrogates.atan(value)) == f"atan(alpha={shown})"
    assert float(shown) == value


INTEGRALS = [
    (surrogates.atan(2.0), 1.0),
    (surrogates.piecewise_linear(0.7, 2.0), 1.4),
    (surrogates.rectangular(0.3), 1.0),
    (surrogates.exponential(1.0, 2.0), 1.0),
    (surrogates.sigmoid(4.0), 1.0),
    (surrogates.fast_sigmoid(25.0), 0.08),
    (surrogates.gaussian(0.5), 1.0),
]


@pytest.mark.parametrize("surrogate, integral", INTEGRALS, ids=lambda value: repr(value))
def test_integral_is_as_documented(surrogate, integral):
    u = torch.tan(torch.linspace(-math.pi / 2 + 1e-6, math.pi / 2 - 1e-6, 2_000_001, dtype=torch.float64))
    area = torch.trapezoid(surrogate(u), u).item()
    assert area == pytest.approx(integral, rel=2e-4)


def test_step_fires_at_zero_and_carries_the_surrogate():
    u = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    surrogate = surrogates.atan(alpha=2.0)
    spikes = surrogate.spike(u)
    assert spikes.tolist() == [0.0, 1.0, 1.0]
    (gradient,) = torch.autograd.grad(spikes.sum(), u)
    torch.testing.assert_close(gradient, surrogate(u.detach()))


def test_equal_parameters_make_equal_surrogates():
    assert surrogates.atan(2.0) == surrogates.from_name("atan", alpha=2.0)
    assert len({surrogates.atan(2.0), surrogates.atan(2.0), surrogates.atan(3.0)}) == 2


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), "2"])
def test_one_clear_line_when_a_parameter_is_bad(bad):
    with pytest.raises(InputError, match="surrogates.atan: alpha is"):
        surrogates.atan(alpha=bad)


def test_one_clear_line_when_family_is_unknown():
    with pytest.raises(InputError, match="surrogate is 'atn'; expected one of atan"):
        surrogates.from_name("atn")
