"""Square: its windows, its bumps, its schedule, and the optimum of a linear model."""

from __future__ import annotations

import pytest
import torch

from snnlib.attacks import Budget, pgd, random_noise
from snnlib.attacks.square import _bump, _moved_bump, _repainted, square, window_share
from snnlib.errors import InputError


@pytest.fixture
def linear(toys):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 5, 6, generator=generator)
    images = 0.3 + 0.4 * torch.rand(3, 2, 5, 6, generator=generator)
    return toys.Linear(weights / weights.abs().sum(), 2.0), images, torch.ones(3, dtype=torch.int64)


def test_square_reaches_the_linf_optimum_when_model_is_linear(linear):
    model, images, labels = linear
    result = square(model, images, labels, Budget(0.1), queries=1000)
    torch.testing.assert_close(result.adversarial, images - 0.1 * model.weights.sign())
    assert (result.forwards == 1002).all() and not result.success.any()


def test_square_gets_most_of_the_way_to_the_l2_optimum_when_model_is_linear(linear):
    model, images, labels = linear
    budget = Budget(0.1, norm="l2")
    result = square(model, images, labels, budget, queries=1000)
    score = (images * model.weights).flatten(1).sum(1)
    gained = score - (result.adversarial * model.weights).flatten(1).sum(1)
    assert (gained > 0.6 * 0.1 * model.weights.norm()).all()
    torch.testing.assert_close(result.l2, torch.full((3,), 0.1), rtol=1e-4, atol=0)
    noise = random_noise(model, images, labels, budget, loss="margin", draws=500)
    assert (result.loss > noise.loss).all()


def test_first_query_is_stripes_and_it_is_accepted_whatever_its_loss(linear):
    model, images, labels = linear
    first = square(model, images, labels, Budget(0.1), queries=1)
    moves = first.adversarial - images
    improved = first.linf > 0
    torch.testing.assert_close(moves[improved].abs(), torch.full_like(moves[improved], 0.1))
    assert (moves.sign() == moves[:, :, :1].sign()).all(), "a column is of one sign"
    assert (first.forwards == 3).all()


def test_windows_share_halves_as_published():
    published = {10: 0.8, 11: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025, 2001: 0.0125, 4001: 0.00625}
    published |= {6001: 0.003125, 8000: 0.003125, 8001: 0.0015625, 9999: 0.0015625}
    assert {tried: window_share(tried, 10_000, 0.8) for tried in published} == pytest.approx(published)
    assert window_share(26, 5000, 0.8) == window_share(52, 10_000, 0.8)


def test_one_square_window_is_repainted_at_eps_anywhere_that_it_fits():
    generator = torch.Generator().manual_seed(0)
    origin, x = torch.full((400, 3, 5, 6), 0.5), torch.full((400, 3, 5, 6), 0.51)
    numbers = torch.rand(400, 8, generator=generator)
    moved = _repainted(x, origin, 0.1, share=0.3, numbers=numbers)
    changed = (moved != x).all(1)
    assert (changed == (moved != x).any(1)).all(), "one window for all channels"
    rows, columns = changed.any(2).sum(1), changed.any(1).sum(1)
    assert (rows == 3).all() and (columns == 3).all() and (changed.sum((1, 2)) == 9).all()
    corners = {tuple(each.nonzero()[0].tolist()) for each in changed}
    assert corners == {(row, column) for row in range(3) for column in range(4)}
    torch.testing.assert_close((moved - origin)[moved != x].abs(), torch.full((400 * 27,), 0.1))
    signs = (moved - origin).flatten(2).gather(2, changed.flatten(1).int().argmax(1).view(-1, 1, 1).expand(-1, 3, 1))
    assert len(set(map(tuple, signs.squeeze(2).sign().tolist()))) == 8, "a sign for each channel"


@pytest.mark.parametrize("side", [1, 3, 5, 8, 11])
def test_bump_has_length_one_and_two_signs(side):
    for bump in _bump(side):
        assert bump.norm().item() == pytest.approx(1)
        if side > 1:
            assert (bump > 0).any() and (bump < 0).any()
    assert torch.equal(_bump(side)[0].T, _bump(side)[1])
    assert (_bump(side)[0][: side // 2] > 0).all() and (_bump(side)[0][side // 2 :] < 0).all()


def test_bump_of_side_three_is_as_published():
    # One row of a 1 x 3 pyramid above, 2 x 3 below: by the rings 1 + 1/4 in the middle and 1/4 around it.
    upright = torch.tensor([[0.25, 1.25, 0.25], [-0.25, -0.25, -0.25], [-0.25, -1.25, -0.25]], dtype=torch.float64)
    torch.testing.assert_close(_bump(3)[0], upright / upright.norm())


def test_l2_proposal_moves_length_and_uses_all_of_it():
    generator = torch.Generator().manual_seed(0)
    origin = torch.full((50, 2, 9, 9), 0.5, dtype=torch.float64)
    delta = torch.randn(50, 2, 9, 9, dtype=torch.float64, generator=generator)
    delta *= 0.2 / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    numbers = torch.rand(50, 7, dtype=torch.float64, generator=generator)
    moved = _moved_bump(origin + delta, origin, 0.3, share=0.12, numbers=numbers) - origin
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((50,), 0.3, dtype=torch.float64))
    touched = ((moved - delta).abs() > 1e-12).any(1)
    assert (touched.sum((1, 2)) <= 18).all() and (touched.sum((1, 2)) >= 9).all(), "two windows of 3 x 3, or less"


def test_more_queries_never_lose_and_both_beat_noise_when_network_is_small(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 24)
    budget = Budget(0.03)
    noise = random_noise(model, images, labels, budget, draws=100)
    found = square(model, images, labels, budget, queries=100)
    white_box = pgd(model, images, labels, budget, steps=20, restarts=3)
    assert noise.success.sum() < found.success.sum() <= white_box.success.sum()
    steps = found.first_successful_step
    assert torch.equal(found.forwards, torch.where(steps > 0, steps + 2, torch.where(steps == 0, 1, 102)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": 0}, "queries is 0"),
        ({"queries": 10.0}, "queries is 10.0"),
        ({"p_init": 0}, "p_init is 0"),
        ({"p_init": 1.5}, "p_init is 1.5"),
        ({"p_init": True}, "p_init is True"),
        ({"images": torch.full((3, 5), 0.5)}, "square got images [3, 5]"),
    ],
)
def test_square_refuses_in_one_line_when_a_parameter_does_not_fit(change, message, linear):
    model, images, labels = linear
    arguments = {"model": model, "images": images, "labels": labels, "budget": Budget(0.1)} | change
    with pytest.raises(InputError) as error:
        square(**arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
