"""Image-space attacks through encoders that have no derivative of their own: the declared ones, and every loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from snnlib.attacks import Budget, apgd, fgsm, pgd, random_noise
from snnlib.encoding import PhaseEncoder, encoder_gradient


class Planes(nn.Module):
    """Bit planes, and three classes that are linear in them."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.encoder = PhaseEncoder(8)
        self.weights = nn.Parameter(torch.randn(3, 8, 1, 3, 3, dtype=torch.float64, generator=generator))

    def body(self, encoded):
        return torch.einsum("tncij,ktcij->nk", encoded, self.weights)

    def forward(self, images):
        return self.body(self.encoder(images))


@pytest.fixture
def planes():
    model = Planes()
    levels = torch.randint(0, 256, (60, 1, 3, 3), generator=torch.Generator().manual_seed(1))
    images = levels.double() / 255
    return model, images, model(images).argmax(1)


def slopes(images, gradient):
    """[8, N, 1, 3, 3] the declared derivative of each plane, written out."""
    width = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.float64).view(8, 1, 1, 1, 1)
    if gradient == "straight_through":
        return (width / 256).expand(8, *images.shape)
    return -255 * math.pi / (2 * width) * torch.cos(math.pi * (255 * images + 0.5) / width)


@pytest.mark.parametrize("gradient", ["straight_through", "smooth"])
def test_first_step_follows_the_declared_gradient(gradient, planes):
    model, images, labels = planes
    with encoder_gradient(model, gradient):
        result = fgsm(model, images, labels, Budget(4 / 255), loss="margin")
    logits = model(images)
    rivals = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    difference = (model.weights[rivals] - model.weights[labels]).transpose(0, 1)
    uphill = (difference * slopes(images, gradient)).sum(0)
    torch.testing.assert_close(result.adversarial, (images + 4 / 255 * uphill.sign()).clamp(0, 1))


@pytest.mark.parametrize("gradient", ["straight_through", "smooth"])
@pytest.mark.parametrize("attack", [pgd, apgd])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_every_loss_finds_more_than_noise_through_the_encoder(loss, attack, gradient, planes):
    model, images, labels = planes
    noise = random_noise(model, images, labels, Budget(2 / 255))
    with encoder_gradient(model, gradient):
        result = attack(model, images, labels, Budget(2 / 255), loss=loss, steps=8)
    assert not result.zero_gradient.any()
    assert result.success.sum() > noise.success.sum()
    assert torch.equal(result.success, model(result.adversarial).argmax(1) != labels), "judged on the code itself"
    assert model.encoder.gradient == "straight_through"
