"""The ball and the box."""

from __future__ import annotations

import math

import pytest
import torch

from snnlib.attacks import Budget
from snnlib.attacks.budget import l2_distance, linf_distance
from snnlib.attacks.keyed_noise import KeyedNoise
from snnlib.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": "8"}, "eps is '8'"),
        ({"eps": None}, "eps is None"),
        ({"eps": True}, "eps is True"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps": float("inf"), "norm": "l2"}, "eps is inf"),
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": -0.1, "norm": "l2"}, "eps is -0.1"),
        ({"eps": 8}, "eps is 8; pixels run from 0 to 1"),
        ({"eps": 0.1, "norm": "l1"}, "norm is 'l1'; expected one of linf, l2"),
        ({"eps": 0.1, "space": "pixels"}, "space is 'pixels'; expected one of image, encoded"),
    ],
)
def test_budget_refuses_in_one_line_when_a_value_does_not_fit(arguments, message):
    with pytest.raises(InputError) as error:
        Budget(**arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_budget_is_frozen_and_hashable_when_made():
    assert {Budget(eps=0): 1}[Budget(eps=0.0, norm="linf", space="image")] == 1
    assert Budget(eps=3, norm="l2").eps == 3.0
    with pytest.raises(AttributeError):
        Budget(eps=0.1).eps = 0.2


def test_linf_projection_clips_to_ball_and_box_when_point_is_outside():
    origin = torch.tensor([[0.5, 0.05, 0.95, 0.5]])
    x = torch.tensor([[0.9, -1.0, 2.0, 0.55]])
    torch.testing.assert_close(Budget(0.1).project(x, origin), torch.tensor([[0.6, 0.0, 1.0, 0.55]]))


def test_l2_projection_scales_then_clips_when_point_is_outside():
    origin = torch.tensor([[0.5, 0.5], [0.9, 0.5]])
    x = origin + torch.tensor([[0.3, -0.4], [3.0, -4.0]])
    expected = torch.tensor([[0.5 + 0.06, 0.5 - 0.08], [0.96, 0.42]])
    torch.testing.assert_close(Budget(0.1, "l2").project(x, origin), expected)
    torch.testing.assert_close(Budget(1.0, "l2").project(x, origin)[1], torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_returns_the_very_same_numbers_when_point_is_inside(norm):
    origin = torch.rand(4, 3, 5, 5) * 0.8 + 0.1
    x = origin + (torch.rand_like(origin) - 0.5) * 0.01
    assert torch.equal(Budget(0.2, norm).project(x, origin), x)


def test_steepest_direction_is_sign_or_unit_vector_and_zero_stays_zero_when_gradient_has_any_scale():
    gradient = torch.tensor([[3.0, -4.0], [0.0, 0.0], [3e-30, -4e-30], [3e30, 0.0]])
    assert Budget(0.1).steepest(gradient).tolist() == [[1, -1], [0, 0], [1, -1], [1, 0]]
    expected = torch.tensor([[0.6, -0.8], [0.0, 0.0], [0.6, -0.8], [1.0, 0.0]])
    torch.testing.assert_close(Budget(0.1, "l2").steepest(gradient), expected)


def test_inside_tells_ball_from_box_from_outside_when_asked_per_sample():
    origin = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.99, 0.5], [0.5, 0.5]])
    x = origin + torch.tensor([[0.1, -0.1], [0.1001, 0.0], [0.05, 0.0], [float("nan"), 0.0]])
    assert Budget(0.1).inside(x, origin).tolist() == [True, False, False, False]
    assert Budget(0.1, "l2").inside(x, origin).tolist() == [False, False, False, False]
    assert Budget(0.1415, "l2").inside(x, origin).tolist() == [True, True, False, False]


def test_l2_projection_passes_its_own_check_when_rounding_pulls_all_pixels_one_way():
    origin = torch.full((2, 10, 3, 32, 32), 0.7)
    budget = Budget(0.001, "l2", space="encoded")
    assert budget.inside(budget.project(origin + 1, origin), origin).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_start_fills_the_ball_uniformly_when_box_is_far(norm):
    origin = torch.full((4000, 2), 0.5)
    generators = KeyedNoise(torch.arange(4000.0).view(-1, 1), None).generators(torch.arange(4000), draw=0)
    budget = Budget(0.25, norm)
    x = budget.random_start(origin, generators)
    assert budget.inside(x, origin).all()
    # Uniform in the plane: a quarter of the area lies within half the radius, and the mean is the centre.
    distance = linf_distance(x, origin) if norm == "linf" else l2_distance(x, origin)
    assert (distance <= 0.125).double().mean().item() == pytest.approx(0.25, abs=4 * math.sqrt(0.1875 / 4000))
    assert (x - origin).mean(0).abs().max() < 4 * 0.25 / math.sqrt(3 * 4000)


def test_noise_of_a_sample_depends_on_seed_draw_and_bytes_only_when_batch_changes():
    samples = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    origin, budget = torch.full((5, 7), 0.5), Budget(0.2)

    def start(positions, seed=None, draw=0):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        noise = KeyedNoise(samples[positions], generator)
        return budget.random_start(origin[positions], noise.generators(torch.arange(len(positions)), draw))

    whole = start([0, 1, 2, 3, 4])
    assert torch.equal(start([3, 1]), whole[[3, 1]])
    assert torch.equal(start([2, 2]), whole[[2, 2]])
    assert torch.equal(start([0, 1, 2, 3, 4], seed=0), whole)
    assert len(whole.unique(dim=0)) == 5
    assert not (start([0, 1, 2, 3, 4], seed=1) == whole).any()
    assert not (start([0, 1, 2, 3, 4], draw=1) == whole).any()
    assert start([0], seed=-1).shape == (1, 7)


def test_state_of_the_generator_neither_matters_nor_moves_when_noise_is_drawn():
    generator = torch.Generator().manual_seed(7)
    torch.rand(10, generator=generator)
    before = generator.get_state()
    samples, index = torch.rand(2, 3), torch.arange(2)
    used = [torch.rand(3, generator=one) for one in KeyedNoise(samples, generator).generators(index, 0)]
    fresh = KeyedNoise(samples, torch.Generator().manual_seed(7)).generators(index, 0)
    assert torch.equal(generator.get_state(), before)
    assert all(torch.equal(a, torch.rand(3, generator=b)) for a, b in zip(used, fresh, strict=True))
