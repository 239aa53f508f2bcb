"""Networks of a few neurons, and images made up for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from snnlib.data.image_set import ImageSet
from snnlib.encoding import DirectEncoder
from snnlib.models import Model, build_model
from snnlib.neurons import use_kernel


@pytest.fixture(autouse=True)
def reference_kernel() -> Iterator[None]:
    """These tests are about conversion; the compiled kernels have tests of their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with use_kernel("reference"):
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_images() -> Callable[..., ImageSet]:
    def make(count: int = 12, size: int = 8, channels: int = 3, seed: int = 0) -> ImageSet:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
        return ImageSet(images, torch.arange(count) % 3)

    return make


@pytest.fixture
def chain() -> Callable[..., Model]:
    """A function that puts layers on `[T, N, ...]` one behind the other, with direct coding in front."""

    def make(*layers: nn.Module, time_steps: int = 4) -> Model:
        return Model(DirectEncoder(time_steps), nn.Sequential(*layers), {})

    return make


@pytest.fixture
def make_ann() -> Callable[..., Model]:
    """A function that builds a small ANN by name, with BatchNorm values that are nobody's default."""

    def make(name: str = "vgg11", num_classes: int = 3, **options) -> Model:
        options = {"width": 2, "seed": 1} | ({"image_size": 8} if name == "vgg11" else {}) | options
        ann = build_model(name, num_classes, 1, spiking=False, **options)
        generator = torch.Generator().manual_seed(5)
        for norm in (module for module in ann.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.weight.data.uniform_(0.7, 1.5, generator=generator)
            norm.bias.data.uniform_(-0.2, 0.6, generator=generator)
            norm.running_mean.uniform_(-1, 1, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
        return ann

    return make
