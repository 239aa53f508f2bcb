"""Networks that fire: a fresh one in eval mode is nearly silent in its last stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from snnlib.neurons import use_kernel


@pytest.fixture(autouse=True)
def reference_kernel() -> Iterator[None]:
    """These tests are about networks; the compiled kernels have tests of their own."""
    with use_kernel("reference"):
        yield


@pytest.fixture
def awake() -> Callable[[nn.Module, Tensor], nn.Module]:
    """A function that gives every BatchNorm an affine map of its own and the statistics of a batch; eval mode."""

    def wake(model: nn.Module, images: Tensor) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.weight.data.uniform_(0.7, 1.5, generator=generator)
            norm.bias.data.uniform_(-0.2, 0.4, generator=generator)
            norm.momentum = 1.0
        torch.manual_seed(0)  # of random encoders
        with torch.no_grad():
            model.train()(images)
        for norm in norms:
            norm.momentum = 0.1
        return model.eval()

    return wake
