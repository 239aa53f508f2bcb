"""SPSA: its gradient estimate, its optimum, its price."""

from __future__ import annotations

import pytest
import torch

from snnlib.attacks import Budget
from snnlib.attacks.session import open_session
from snnlib.attacks.spsa import PAIRS_AT_ONCE, estimated_gradient, spsa
from snnlib.errors import InputError


def cosines(toys, directions, count=60):
    """Of the estimate with the true gradient of the margin, at images that no clipping touches."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 4, 4, dtype=torch.float64, generator=generator)
    images = 0.3 + 0.4 * torch.rand(count, 2, 4, 4, dtype=torch.float64, generator=generator)
    model, labels = toys.Linear(weights, 0.0), torch.ones(count, dtype=torch.int64)
    with open_session(model, images, labels, Budget(0.1), None, None, "eval", "margin") as session:
        estimate = estimated_gradient(session, images, "margin", directions, delta=0.01, draw=0)
        assert (session.forwards == 2 * directions).all()
    return torch.cosine_similarity(estimate.flatten(1), -weights.flatten()[None], dim=1)


def test_estimate_is_the_true_gradient_in_expectation(toys):
    """If the model is linear, g = (1/K) Σ v vᵀ w and E‖g‖² = ‖w‖² (1 + (D − 1)/K): the cosine is near 1 / its root."""
    for directions in (PAIRS_AT_ONCE + 3, 300):
        expected = (1 + 31 / directions) ** -0.5
        assert cosines(toys, directions).mean().item() == pytest.approx(expected, abs=0.05)
    assert (cosines(toys, 300) > 0.9).all()


def test_one_direction_gives_its_own_difference_quotient(toys):
    images = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
    model = toys.Linear(torch.tensor([3.0, 1.0], dtype=torch.float64), 0.0)
    with open_session(model, images, torch.tensor([1]), Budget(0.1), None, None, "eval", "margin") as session:
        estimate = estimated_gradient(session, images, "margin", 1, delta=0.1, draw=0)
    # −(w·v) v for v = ±(1, 1) or ±(1, −1).
    options = torch.tensor([[-4.0, -4.0], [-2.0, 2.0]], dtype=torch.float64)
    assert any(torch.allclose(estimate[0], option) for option in options)


def test_spsa_reaches_the_linf_optimum_when_model_is_linear(toys):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, 3, 3, generator=generator).sign() * torch.linspace(1, 2, 9).view(1, 3, 3) / 15
    images = 0.3 + 0.4 * torch.rand(4, 1, 3, 3, generator=generator)
    result = spsa(
        toys.Linear(weights, 2.0), images, torch.ones(4, dtype=torch.int64), Budget(0.1), steps=40, directions=40
    )
    torch.testing.assert_close(result.adversarial, images - 0.1 * weights.sign(), rtol=0, atol=0.01)
    assert (result.forwards == 40 * 81 + 1).all() and (result.first_successful_step == -1).all()


def test_a_sample_pays_for_the_steps_it_makes(toys):
    # One pixel, right while above 0.5: Adam's first steps are of the full length.
    model = toys.Linear(torch.ones(1, 1, 1), -0.5)
    images = torch.tensor([0.4, 0.515, 0.535, 0.9]).view(4, 1, 1, 1)
    result = spsa(model, images, torch.ones(4, dtype=torch.int64), Budget(0.2), steps=6, directions=3)
    assert result.first_successful_step.tolist() == [0, 2, 4, -1]
    assert result.forwards.tolist() == [1, 15, 29, 43]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"directions": -1}, "directions is -1"),
        ({"delta": 0}, "delta is 0"),
        ({"delta": 2.0}, "delta is 2.0"),
        ({"step_size": -0.1}, "step_size is -0.1"),
    ],
)
def test_spsa_refuses_in_one_line_when_a_parameter_does_not_fit(options, message, sure_linear):
    with pytest.raises(InputError) as error:
        spsa(sure_linear.model, sure_linear.images, sure_linear.labels, Budget(0.1), **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
