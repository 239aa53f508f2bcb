"""Random noise, the floor."""

from __future__ import annotations

import pytest
import torch

from snnlib.attacks import Budget, fgsm, random_noise
from snnlib.errors import InputError

pytestmark = pytest.mark.usefixtures("unprobed")


def test_noise_fools_fewer_than_fgsm_when_model_is_linear(toys):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 4, 4, generator=generator)
    images = 0.3 + 0.4 * torch.rand(200, 2, 4, 4, generator=generator)
    model = toys.Linear(weights, 0.0)
    labels = model(images).argmax(1)
    noise = random_noise(model, images, labels, Budget(0.05))
    steepest = fgsm(model, images, labels, Budget(0.05))
    assert (steepest.success >= noise.success).all()
    assert 0 < noise.success.sum() < steepest.success.sum()


def test_first_fooling_draw_is_kept_and_ends_the_search_when_there_are_many(toys):
    model = toys.Counting(toys.Blind())
    images = 0.5 + 0.01 * torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.ones(60, dtype=torch.int64)
    few = random_noise(model, images, labels, Budget(0.02), draws=2)
    model.samples = 0
    many = random_noise(model, images, labels, Budget(0.02), draws=8)
    assert model.samples == many.forwards.sum()
    assert torch.equal(many.adversarial[few.success], few.adversarial[few.success])
    assert many.success.sum() > few.success.sum()
    found = many.first_successful_step
    assert torch.equal(many.forwards, torch.where(found >= 0, found, 8) + 1)
    below_half = many.adversarial.flatten(1).mean(1) < 0.5
    assert torch.equal(below_half, many.success)


def test_noise_is_scored_once_whatever_its_loss_when_batch_is_fixed(toys):
    model = toys.convolutional()
    images, labels = toys.images_for(model, 5)
    result = random_noise(model, images, labels, Budget(0.1), batch_norm="train")
    assert (result.forwards == 1).all() and (result.linf > 0.05).all()
    assert torch.equal(result.success, model.eval()(result.adversarial).argmax(1) != labels)


def test_noise_refuses_when_draws_do_not_fit(sure_linear):
    toy = sure_linear
    for draws in (0, -1, 1.0):
        with pytest.raises(InputError, match=f"draws is {draws}"):
            random_noise(toy.model, toy.images, toy.labels, Budget(0.1), draws=draws)
    with pytest.raises(InputError, match="draws is 2 with"):
        random_noise(toy.model, toy.images, toy.labels, Budget(0.1), draws=2, batch_norm="train")
