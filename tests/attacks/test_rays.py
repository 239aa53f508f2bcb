"""RayS: the true distance of a linear model, decisions only, its price."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.attacks import Budget
from snnlib.attacks.rays import rays
from snnlib.errors import InputError


@pytest.fixture
def linear(toys):
    """Boundaries at linf distances |w·x + b| / ‖w‖₁ of 0.01 to 0.07, far from the walls of the box."""
    generator = torch.Generator().manual_seed(0)
    weights = 0.5 + torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    weights /= weights.abs().sum()
    images = 0.4 + 0.2 * torch.rand(6, 2, 3, 4, dtype=torch.float64, generator=generator)
    bias = -weights.sum().item() / 2  # black and white images lie on the two sides
    images -= ((images * weights).flatten(1).sum(1) + bias).view(-1, 1, 1, 1) * weights.sign()
    distances = torch.tensor([0.01, -0.02, 0.03, -0.04, 0.05, 0.07], dtype=torch.float64)
    images += distances.view(-1, 1, 1, 1) * weights.sign()
    assert images.min() > 0.1 and images.max() < 0.9
    return toys.Linear(weights, bias), images, (distances > 0).long(), distances.abs()


def test_radius_is_the_true_distance_when_model_is_linear(linear):
    model, images, labels, distances = linear
    result = rays(model, images, labels, Budget(1.0), early_stop=False, tolerance=1e-5)
    assert result.success.all()
    torch.testing.assert_close(result.linf, distances, rtol=0, atol=2e-5)
    assert (result.linf > distances).all()


def test_success_is_within_eps_and_others_carry_their_best_direction(linear):
    model, images, labels, distances = linear
    result = rays(model, images, labels, Budget(0.035))
    assert torch.equal(result.success, distances < 0.035)
    assert (result.linf[result.success] <= 0.035 + 1e-6).all()
    torch.testing.assert_close(result.linf[~result.success], torch.full((3,), 0.035, dtype=torch.float64))
    nearer = model(result.adversarial)[:, 1].abs() < model(images)[:, 1].abs()
    assert nearer[~result.success].all()


def test_early_stop_saves_queries_and_ends_within_eps(linear):
    model, images, labels, distances = linear
    early = rays(model, images, labels, Budget(0.08))
    late = rays(model, images, labels, Budget(0.08), early_stop=False)
    assert early.success.all() and late.success.all()
    assert (early.forwards < late.forwards).all() and (early.linf >= late.linf - 1e-4).all()


class Labels(nn.Module):
    """The decision of a model and nothing else, as one-hot logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return nn.functional.one_hot(self.model(x).argmax(1), 2).to(x.dtype)


def test_decisions_are_all_it_needs(linear):
    model, images, labels, _ = linear
    by_logits = rays(model, images, labels, Budget(0.035))
    by_labels = rays(Labels(model), images, labels, Budget(0.035))
    fooled = by_logits.success
    assert fooled.any() and torch.equal(fooled, by_labels.success)
    assert torch.equal(by_logits.adversarial[fooled], by_labels.adversarial[fooled])
    assert torch.equal(by_logits.forwards, by_labels.forwards)


@pytest.mark.parametrize("queries", [1, 2, 10, 100])
def test_queries_are_never_exceeded(queries, linear):
    model, images, labels, _ = linear
    result = rays(model, images, labels, Budget(0.001), queries=queries)
    assert (result.forwards == queries + 2).all(), "the clean pass, the queries, the last verdict"


def test_search_ends_by_itself_when_no_pixel_helps(toys):
    # One pixel: plus fails, minus is found, 13 halvings of the radius, one round of the only block brings nothing.
    model = toys.Linear(torch.ones(1, 1, 1), -0.5)
    images = torch.full((1, 1, 1, 1), 0.7)
    result = rays(model, images, torch.tensor([1]), Budget(0.1), tolerance=2**-13, queries=1000)
    assert not result.success.any() and result.adversarial.item() == pytest.approx(0.6)
    assert result.forwards.item() == 1 + 1 + (1 + 13) + 1 + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries is 0"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"tolerance": 2.0}, "tolerance is 2.0"),
        ({"early_stop": 1}, "early_stop is 1"),
        ({"budget": Budget(0.1, "l2")}, "rays got norm 'l2'"),
    ],
)
def test_rays_refuses_in_one_line_when_a_parameter_does_not_fit(options, message, sure_linear):
    arguments = {"budget": Budget(0.1)} | options
    with pytest.raises(InputError) as error:
        rays(sure_linear.model, sure_linear.images, sure_linear.labels, **arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
