"""Sparsity measures against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from snnlib.errors import InputError
from snnlib.sparsity.measures import MEASURES, gini, hoyer, l0, l1, l2, small_share, zero_share

VECTOR = torch.tensor([[0.0, 3.0, -4.0, 0.0]])


def test_measures_equal_the_hand_computed_values_when_vector_is_0_3_minus4_0():
    assert zero_share(VECTOR).item() == 0.5
    assert l0(VECTOR).item() == 2
    assert l1(VECTOR).item() == 7
    assert l2(VECTOR).item() == pytest.approx(5, rel=1e-15)
    assert hoyer(VECTOR).item() == pytest.approx((2 - 7 / 5) / (2 - 1), rel=1e-15)
    # sorted 0 0 3 4, weights (d - k + 1/2)/d = 7/8 5/8 3/8 1/8: 1 - 2 (3/7 · 3/8 + 4/7 · 1/8) = 1 - 26/56
    assert gini(VECTOR).item() == pytest.approx(1 - 26 / 56, rel=1e-15)


def test_axis_zero_is_kept_and_the_rest_is_one_vector_when_gradient_has_image_shape():
    g = torch.ones(3, 2, 4, 4)
    g[1, 0] = 0
    assert zero_share(g).tolist() == [0.0, 0.5, 0.0]
    assert l1(g).tolist() == [32.0, 16.0, 32.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 7])
def test_zero_tensor_gives_declared_values_and_no_nan_when_gradient_vanished(dtype, d):
    g = torch.zeros(2, d, dtype=dtype)
    expected = {"zero_share": 1, "small_share": 1, "l0": 0, "l1": 0, "l2": 0, "hoyer": 1, "gini": 1}
    assert {name: measure(g).tolist() for name, measure in MEASURES.items()} == {
        name: [value, value] for name, value in expected.items()
    }


@pytest.mark.parametrize("measure", [hoyer, gini])
def test_spread_measures_reach_their_ends_when_vector_is_flat_or_a_single_peak(measure):
    flat, peak = torch.full((1, 16), -2.0), torch.zeros(1, 16)
    peak[0, 5] = 1e-3
    assert measure(flat).item() == pytest.approx(0, abs=1e-15)
    assert measure(peak).item() == pytest.approx(1 if measure is hoyer else 15 / 16, rel=1e-15)


@pytest.mark.parametrize("measure", [hoyer, gini, zero_share, small_share])
def test_shares_do_not_move_when_gradient_is_scaled_far_down(measure):
    g = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).double()
    g[:, ::3] = 0
    torch.testing.assert_close(measure(g * 1e-200), measure(g), rtol=1e-12, atol=0)


def test_l2_is_exact_when_squares_would_underflow():
    g = torch.tensor([[3e-200, 4e-200]], dtype=torch.float64)
    assert l2(g).item() == pytest.approx(5e-200, rel=1e-14)


def test_small_share_counts_strictly_below_the_relative_limit_of_the_same_sample():
    g = torch.tensor([[1.0, 0.5e-12, 2e-12, 0.0], [1e-12, 1e-12, 1e-12, 0.0]], dtype=torch.float64)
    assert small_share(g).tolist() == [0.5, 0.25]
    assert zero_share(g).tolist() == [0.25, 0.25]
    assert small_share(g, relative=0.6).tolist() == [0.75, 0.25]


def test_small_share_survives_float32_when_the_limit_itself_would_underflow():
    assert small_share(torch.tensor([[1e-38, 0.0]])).item() == 0.5


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_gradient_is_refused_by_every_measure(measure, bad):
    with pytest.raises(InputError, match="1 entries that are NaN or infinite"):
        measure(torch.tensor([[0.0, bad]]))


def test_unfit_tensors_and_limits_are_refused():
    with pytest.raises(InputError, match="float16"):
        l1(torch.zeros(1, 2, dtype=torch.float16))
    with pytest.raises(InputError, match="sample axis"):
        l1(torch.zeros(3))
    with pytest.raises(InputError, match="relative is 0"):
        small_share(VECTOR, relative=0)
