"""Small models with known answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from snnlib.attacks import session
from snnlib.data import ImageSet
from snnlib.encoding import build_encoder
from snnlib.models import Model
from snnlib.neurons import LIF, use_kernel
from snnlib.training.accuracy import predictions


class Linear(nn.Module):
    """Two classes, logits [0, w·x + bias]: for label 1 the worst point of a ball is known in closed form."""

    def __init__(self, weights: Tensor, bias: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weights).flatten(1).sum(1) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


class Counting(nn.Module):
    """Counts the samples that pass forward, and fails at the call number `fails_at`."""

    def __init__(self, model: nn.Module, fails_at: int | None = None) -> None:
        super().__init__()
        self.model, self.fails_at = model, fails_at
        self.samples = self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.samples += len(x)
        self.calls += 1
        if self.calls == self.fails_at:
            raise ArithmeticError("the model broke")
        return self.model(x)


class Blind(nn.Module):
    """The mean pixel against 0.5, with a gradient that exists and is exactly 0."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.detach().flatten(1).mean(1) - 0.5 + 0 * x.flatten(1).sum(1)
        return torch.stack([-score, score], 1)


class Encoded(nn.Module):
    """Images become T = 3 frames by comparison (no gradient); the body is linear with weights per frame."""

    def __init__(self, weights: Tensor, bias: float) -> None:
        super().__init__()
        self.linear = Linear(weights, bias)
        self.encodings = 0

    def encoder(self, images: Tensor) -> Tensor:
        self.encodings += 1
        return torch.stack([(images >= level).to(images.dtype) for level in (0.25, 0.5, 0.75)])

    def body(self, encoded: Tensor) -> Tensor:
        return self.linear(encoded.transpose(0, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.encoder(images))


def convolutional(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A small net with BatchNorm whose running statistics differ from any batch's, dropout, and 4 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Dropout(0.5),
            nn.Conv2d(6, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(54, 4),
        )  # fmt: skip
        for norm in (model[1], model[5]):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.1, 0.4)
    return model.to(dtype).train()


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


def wavy() -> nn.Module:
    """Images [N, 2, 4, 4] to 4 classes, float64: a rugged loss on which the steps of an attack matter."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(32, 48), Sine(), nn.Linear(48, 4)).double()
        model[1].weight.data *= 15
        model[3].weight.data *= 4
    return model


def images_for(
    model: nn.Module, count: int, dtype: torch.dtype = torch.float64, size: int = 8
) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] with the labels that the model gives them in eval."""
    images = torch.rand(count, 2, size, size, dtype=dtype, generator=torch.Generator().manual_seed(count))
    flags = {module: module.training for module in model.modules()}
    with torch.no_grad():
        labels = model.eval()(images).argmax(1)
    for module, training in flags.items():
        module.training = training
    return images, labels


class SmallSpiking(nn.Module):
    """Encoded images to logits through two spiking layers; the mean over time of the read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(48, 32), LIF(threshold=0.3), nn.Linear(32, 32), LIF(threshold=0.2, leak=0.7), nn.Linear(32, 3)
        )

    def forward(self, encoded: Tensor) -> Tensor:
        return self.layers(encoded.flatten(2)).mean(0)


@pytest.fixture(scope="module")
def small_spiking() -> tuple[Model, ImageSet]:
    """A small spiking network, images, and its own answers as labels but for one in six."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = Model(build_encoder("direct", 3), SmallSpiking(), {}).eval()
    pixels = torch.randint(0, 256, (30, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with use_kernel("reference"):
        labels = predictions(model, ImageSet(pixels, torch.zeros(30, dtype=torch.int64)))
    labels[::6] = (labels[::6] + 1) % 3
    return model, ImageSet(pixels, labels)


@pytest.fixture
def brief() -> Callable[[Callable], Callable]:
    """A function that gives back an attack with three steps, queries or draws where its default is more."""

    def shorten(attack: Callable) -> Callable:
        parameters = inspect.signature(attack).parameters
        return partial(attack, **{name: 3 for name in ("steps", "queries") if name in parameters})

    return shorten


@pytest.fixture
def unprobed(monkeypatch):
    """For tests that follow every pass of a model: without the two uncounted ones of `check_repeatable`."""
    monkeypatch.setattr(session, "is_stateless", lambda model: True)


@pytest.fixture
def toys() -> SimpleNamespace:
    return SimpleNamespace(
        Linear=Linear,
        Counting=Counting,
        Blind=Blind,
        Encoded=Encoded,
        convolutional=convolutional,
        wavy=wavy,
        images_for=images_for,
    )


@pytest.fixture(
    params=[(1, (5,)), (3, (2, 4, 4)), (8, (3, 2, 4, 4))], ids=["1x[D]", "3x[C,H,W]", "8x[T,C,H,W]"]
)
def sure_linear(request) -> SimpleNamespace:
    """A linear model that stays right within eps = 0.1, and mid-grey images that no clipping touches."""
    count, shape = request.param
    generator = torch.Generator().manual_seed(len(shape))
    weights = torch.randn(shape, generator=generator)
    weights /= weights.abs().sum()
    images = 0.3 + 0.4 * torch.rand(count, *shape, generator=generator)
    return SimpleNamespace(
        model=Linear(weights, bias=2.0),
        weights=weights,
        images=images,
        labels=torch.ones(count, dtype=torch.int64),
    )
