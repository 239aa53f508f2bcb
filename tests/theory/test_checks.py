"""Bounds that hold on a thousand random networks, wrong ones that do not, and assumptions dropped on purpose."""

from __future__ import annotations

import pytest
import torch

from snnlib.errors import InputError
from snnlib.models import build_model
from snnlib.neurons import surrogates
from snnlib.theory import (
    ClosedForm,
    TrueClassProbability,
    check_circulation,
    check_constancy,
    check_definitions,
    check_ratio,
    check_remainder,
    vulnerability_table,
)
from snnlib.theory import checks as names

CHEAP = {"draws": 48, "steps": 2, "nodes": 4, "curvature_draws": 4, "confidence": 1 - 1e-4}


def bowl(x: torch.Tensor) -> ClosedForm:
    return ClosedForm(lambda points: torch.sigmoid(2 * points.sum(1) - 1 + points[:, 0].square()), x)


def points(count: int = 4, size: int = 3) -> torch.Tensor:
    return torch.rand(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_a_thousand_random_networks_violate_no_bound_and_a_wrong_constant_is_caught(networks):
    total = small = larger = caught = 0
    for number, (model, x, labels) in enumerate(networks.thousand()):
        function = TrueClassProbability(model, x, labels, relax=True, batch_size=10**9)
        ratio = check_ratio(function, 1e-4, **CHEAP).table
        remainder = check_remainder(function, 0.02, draws=4, steps=2, nodes=6, curvature_draws=1).table
        for table in (ratio, remainder):
            assert table[table.within].inside.all(), (model.first.surrogate, model.time_steps, table)
        total, small, larger = total + len(x), small + ratio.within.sum(), larger + remainder.within.sum()
        if number % 8 == 0:
            wrong = check_ratio(function, 1e-4, constant=2.0, **CHEAP).table
            assert not wrong[wrong.within].inside.any()
            caught += wrong.within.sum()
    # Networks without gradient (dead, or all surrogates zero) and kinks within the ball are outside the assumptions.
    assert total == 1024 and small > 900 and larger > 900 and caught > 100, (small, larger, caught)


def test_two_instead_of_three_breaks_the_published_bounds_where_they_are_tight():
    # One input: ‖g‖₀ = 1, the ratio is 3, and both bounds meet there.
    function = ClosedForm(lambda x: torch.sigmoid(x[:, 0]), points(4, 1))
    assert check_ratio(function, 1e-4, **CHEAP).holds is True
    wrong = check_ratio(function, 1e-4, constant=2.0, **CHEAP)
    assert wrong.holds is False and "VIOLATED" in wrong.verdict


@pytest.mark.parametrize(
    "function, eps, assumption",
    [
        (lambda: bowl(points()), 0.0, names.POSITIVE_EPS),
        (lambda: ClosedForm(lambda x: 0 * x.sum(1) + 0.5, points()), 0.01, names.NONZERO),
        (lambda: ClosedForm(lambda x: torch.sigmoid(60 * (x.sum(1) - 1)), points()), 0.3, names.SMALL_EPS),
        (lambda: ClosedForm(lambda x: x.sum(1) + (x[:, 0] > 0.5), points() * 0 + 0.5), 0.01, names.EXISTS),
    ],
    ids=["eps", "zero gradient", "large eps", "no derivative"],
)
def test_a_dropped_assumption_is_named(function, eps, assumption):
    result = check_ratio(function(), eps, draws=16)
    assert assumption in result.failed and result.holds is None
    assert assumption in result.verdict or result.failed[0] in result.verdict


def test_the_deployed_network_has_no_derivative_and_its_relaxation_has_one(networks):
    model = networks.Dense(6, 8, 4, surrogates.atan(), torch.Generator().manual_seed(3))
    x, labels = points(8, 6), torch.arange(8) % networks.CLASSES
    for relax in (True, False):
        function = TrueClassProbability(model, x, labels, relax=relax)
        remainder, circulation = check_remainder(function, 0.05), check_circulation(function, 0.1)
        assert (remainder.failed == ()) is relax and remainder.holds is (True if relax else None)
        assert (circulation.holds is True) is relax
    assert "spikes are steps" in remainder.verdict


def test_remainder_check_fails_a_gradient_that_is_too_small_by_a_tenth():
    class Shrunk(ClosedForm):
        def slope(self, at):
            change, gradient = super().slope(at)
            return change, 0.9 * gradient

    result = check_remainder(Shrunk(lambda x: x.sum(1) / 10, points()), 0.1)
    # The line integral misses a tenth, at the very limit of the assumption; the conclusion fails clearly.
    assert result.conclusion is False


def test_definitions_are_ordered():
    result = check_definitions(bowl(points()), 0.1)
    assert result.holds is True and "at least" in result.evidence


def test_table_says_why_a_ratio_is_undefined_and_divides_by_nothing():
    flat = ClosedForm(lambda x: 0 * x.sum(1) + 0.5, points())
    step = ClosedForm(lambda x: (x[:, 0] > 10).double() + 0 * x.sum(1) + 0.1 * (x - x.detach()).sum(1), points())
    assert set(vulnerability_table(flat, [0.1]).verdict) == {"undefined: the gradient is zero"}
    assert set(vulnerability_table(step, [0.1]).verdict) == {"undefined: nothing moved f, 0/0"}
    assert set(vulnerability_table(bowl(points()), [0]).verdict) == {"undefined: eps is 0"}
    table = vulnerability_table(step, [0.0, 0.1])
    assert table.ratio.isna().all() and table.eps.tolist() == [0.0] * 4 + [0.1] * 4


def test_table_tells_the_two_ways_to_leave_the_bounds():
    flattened = ClosedForm(lambda x: torch.sigmoid(500 * (x[:, 0] - 0.5)), torch.full((1, 1), 0.5, dtype=torch.float64))
    assert vulnerability_table(flattened, [0.4], draws=256).verdict.item() == "below 3, by the attacks at hand"
    # A spike far out in one corner: noise never sees it, the attack walks into it, ‖g‖₀ = 1 bounds nothing.
    origin = torch.zeros(1, 2, dtype=torch.float64)
    ridge = ClosedForm(lambda x: 1e-3 * x[:, 0] + 1e3 * torch.relu(x - 0.97).prod(1), origin, (-1e-3, 0.901))
    guide = ClosedForm(lambda x: x.sum(1), origin)
    table = vulnerability_table(ridge, [1.0], attackers=[guide], draws=64)
    assert table.verdict.item() == "violated: above 3·‖g‖₀" and table.l0.item() == 1


def test_constancy_holds_for_spikes_and_is_not_claimed_for_relu():
    model = build_model("sew_resnet18", 10, 2, "direct", pool="avg", width=4, seed=0)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(2)
    assert check_constancy(model, images, labels).holds is True
    relu = build_model("sew_resnet18", 10, 2, "direct", pool="avg", width=4, seed=0, spiking=False)
    result = check_constancy(relu, images, labels)
    assert result.failed == (names.AFFINE_FRONT,) and "no snnlib neuron" in result.verdict


def test_empty_eps_is_refused():
    with pytest.raises(InputError, match="eps_values is empty"):
        vulnerability_table(bowl(points()), [])
