"""Bit flips: the L0 budget, the best flips of a linear model, undone rounds, swaps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnlib.attacks import Budget, concatenate, random_noise
from snnlib.attacks.bit_flip import bit_flip
from snnlib.errors import InputError

pytestmark = pytest.mark.usefixtures("unprobed")


def flips(k):
    return Budget(k, norm="l0", space="encoded")


@pytest.fixture
def linear(toys):
    """Codes of 3 frames, a linear body that stays right, and what each flip is worth to the attacker."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=generator)
    model = toys.Encoded(weights / weights.abs().sum(), bias=5.0)
    images = torch.rand(4, 2, 4, 4, dtype=torch.float64, generator=generator)
    codes = model.encoder(images)
    return model, images, torch.ones(4, dtype=torch.int64), codes, -(1 - 2 * codes) * model.linear.weights.unsqueeze(1)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("flips_per_round", [None, 1, 50])
def test_exactly_the_k_best_flips_are_found_when_body_is_linear(flips_per_round, k, linear):
    model, images, labels, codes, worth = linear
    result = bit_flip(model, images, labels, flips(k), flips_per_round=flips_per_round)
    best = worth.transpose(0, 1).flatten(1).topk(k).indices
    expected = codes.transpose(0, 1).flatten(1)
    expected = expected.scatter(1, best, 1 - expected.gather(1, best))
    assert torch.equal(result.adversarial.transpose(0, 1).flatten(1), expected)
    torch.testing.assert_close(result.l2**2, torch.full((4,), float(k), dtype=torch.float64))


def test_only_flips_that_help_are_made_when_the_budget_is_larger_than_the_code(linear):
    model, images, labels, codes, worth = linear
    result = bit_flip(model, images, labels, flips(1000))
    assert torch.equal(result.adversarial != codes, worth > 0)


def test_a_sample_stops_at_the_flip_that_fools(toys):
    # One frame of one pixel and three of weight 0.4, 0.3, 0.2: from 0.5 two single flips are enough.
    weights = torch.tensor([0.4, 0.3, 0.2]).view(3, 1, 1, 1)
    model = toys.Encoded(weights, bias=-0.4)
    result = bit_flip(model, torch.ones(1, 1, 1, 1), torch.tensor([1]), flips(3), flips_per_round=1)
    assert result.adversarial.flatten().tolist() == [0, 0, 1] and result.first_successful_step.item() == 2
    assert result.forwards.item() == 3 and result.backwards.item() == 2


class Treacherous(nn.Module):
    """The gradient praises the first entry most, and flipping it does harm."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()
        self.encoder.forward = lambda images: images.unsqueeze(0)

    def body(self, encoded):
        a, b, c = encoded[0].flatten(1).unbind(1)
        gain = 3 * a + 2 * b + 0.5 * c - 100 * (a > 0.5)
        return torch.stack([gain, torch.full_like(gain, 10.0)], 1)

    def forward(self, images):
        return self.body(self.encoder(images))


def test_a_round_that_does_harm_is_undone_and_its_flip_is_not_tried_again():
    images = torch.zeros(1, 1, 1, 3)
    result = bit_flip(Treacherous(), images, torch.tensor([1]), flips(2), flips_per_round=2)
    # {a, b} harms, {a} harms and is barred, {b} helps; {b, a} is tried anew and barred again, then c joins.
    assert result.adversarial.flatten().tolist() == [0, 1, 1]
    assert result.loss.item() == pytest.approx(2.5 - 10)


class Changing(nn.Module):
    """The second entry is worth nothing until the first is flipped, and then more than the third."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()
        self.encoder.forward = lambda images: images.unsqueeze(0)

    def body(self, encoded):
        a, b, c = encoded[0].flatten(1).unbind(1)
        gain = 2 * a + 3 * a * b + c
        return torch.stack([gain, torch.full_like(gain, 10.0)], 1)

    def forward(self, images):
        return self.body(self.encoder(images))


def test_better_flips_replace_worse_ones_once_the_budget_is_spent():
    result = bit_flip(Changing(), torch.zeros(1, 1, 1, 3), torch.tensor([1]), flips(2), flips_per_round=2)
    # {a, c} first, since b is worth nothing there; then b takes the place of c.
    assert result.adversarial.flatten().tolist() == [1, 1, 0] and result.loss.item() == pytest.approx(5 - 10)


def test_more_flips_fool_more_and_beat_random_ones_when_body_is_linear(toys):
    generator = torch.Generator().manual_seed(1)
    model = toys.Encoded(torch.randn(3, 2, 4, 4, generator=generator), bias=0.0)
    images = torch.rand(60, 2, 4, 4, generator=generator)
    labels = model(images).argmax(1)
    few, many = (bit_flip(model, images, labels, flips(k)).success for k in (1, 3))
    noise = random_noise(model, images, labels, flips(3), draws=3)
    assert few.sum() < many.sum() and (many >= few).all()
    assert noise.success.sum() < many.sum() and (many >= noise.success).all()
    flipped = (noise.adversarial != model.encoder(images)).sum((0, 2, 3, 4))
    assert (flipped[noise.success] == 3).all()


def test_result_of_a_sample_is_the_same_when_batch_size_and_order_change(linear):
    model, images, _, _, _ = linear
    model.linear.bias = 0.0
    labels = model(images).argmax(1)
    whole = bit_flip(model, images, labels, flips(2), flips_per_round=1)
    assert whole.success.any() and not whole.success.all()
    pieces = concatenate([bit_flip(model, images[[i]], labels[[i]], flips(2), flips_per_round=1) for i in (3, 1, 0, 2)])
    for field in ("success", "first_successful_step", "forwards", "backwards"):
        assert torch.equal(getattr(pieces, field), getattr(whole, field)[[3, 1, 0, 2]]), field
    assert torch.equal(pieces.adversarial, whole.adversarial[:, [3, 1, 0, 2]])


def test_nothing_changes_when_no_flip_is_allowed(linear):
    model, images, labels, codes, _ = linear
    result = bit_flip(model, images, labels, flips(0))
    assert torch.equal(result.adversarial, codes) and (result.forwards == 1).all() and not result.success.any()


def test_forwards_add_up_and_the_model_comes_back_when_it_breaks(linear, toys):
    model, images, labels, _, _ = linear
    counted = toys.Counting(nn.Identity(), fails_at=4)
    body = model.body
    model.body = lambda encoded: body(counted(encoded.transpose(0, 1)).transpose(0, 1))
    model.train()
    with pytest.raises(ArithmeticError):
        bit_flip(model, images, labels, flips(8))
    assert model.training and model.linear.weights.requires_grad
    counted.fails_at, counted.samples = None, 0
    result = bit_flip(model, images, labels, flips(8))
    assert counted.samples == result.forwards.sum() and torch.equal(result.forwards, result.backwards)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"flips_per_round": 0}, "flips_per_round is 0"),
        ({"batch_norm": "train"}, "batch_norm is 'train'"),
        ({"budget": Budget(0.1, space="encoded")}, "bit_flip got norm 'linf'"),
        ({"loss": "kl"}, "loss 'kl' has no gradient at the clean sample"),
    ],
)
def test_bit_flip_refuses_in_one_line_when_a_parameter_does_not_fit(change, message, linear):
    model, images, labels, _, _ = linear
    with pytest.raises(InputError) as error:
        bit_flip(**({"model": model, "images": images, "labels": labels, "budget": flips(3)} | change))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_bit_flip_refuses_intensities(linear, toys):
    model, images, labels, _, _ = linear
    model.encoder = lambda images: images.expand(3, -1, -1, -1, -1)
    with pytest.raises(InputError, match="not all 0 or 1"):
        bit_flip(model, images, labels, flips(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": 1.5, "norm": "l0", "space": "encoded"}, "norm is 'l0' with eps 1.5"),
        ({"eps": 3, "norm": "l0"}, "norm is 'l0' with eps 3 in space 'image'"),
        ({"eps": -1, "norm": "l0", "space": "encoded"}, "eps is -1"),
    ],
)
def test_l0_budget_refuses_in_one_line_when_it_does_not_fit(arguments, message):
    with pytest.raises(InputError) as error:
        Budget(**arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_l0_budget_counts_changed_entries_and_wants_a_code():
    origin = torch.tensor([[0.0, 1, 1, 0]]).repeat(4, 1)
    x = torch.tensor([[0.0, 1, 1, 0], [1.0, 0, 1, 0], [1.0, 0, 0, 0], [0.0, 0.5, 1, 0]])
    assert flips(2).inside(x, origin).tolist() == [True, True, False, False]
    assert torch.equal(flips(2).project(x, origin), x)
    with pytest.raises(InputError, match="spikes flip or stay"):
        flips(2).steepest(x)


def test_random_flips_are_as_many_as_allowed_and_spread_evenly():
    origin = (torch.arange(12) % 2).float().view(1, 3, 4).repeat(3000, 1, 1)
    generators = [torch.Generator().manual_seed(seed) for seed in range(3000)]
    x = flips(3).random_start(origin, generators)
    flipped = (x != origin).flatten(1)
    assert (flipped.sum(1) == 3).all() and flips(3).inside(x, origin).all()
    assert (flipped.float().mean(0) - 0.25).abs().max() < 0.04
