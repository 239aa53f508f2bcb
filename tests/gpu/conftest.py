"""A CUDA device, or no test; what a test switches on in PyTorch is off again after it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from snnlib.data import ImageSet, load_images
from snnlib.models import Model, released
from snnlib.runtime import make_deterministic


@pytest.fixture(autouse=True)
def cuda() -> str:
    """The device of these tests."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")
    return "cuda"


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Inside, PyTorch refuses operations that are not deterministic."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        make_deterministic(0)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        yield
    torch.use_deterministic_algorithms(False)
    random.setstate(states[0])
    np.random.set_state(states[1])


@pytest.fixture(scope="session")
def trained() -> Model:
    """A trained SEW-ResNet-18 of the package, on the CPU."""
    return released("sew-resnet-18-max-pool-night-0")


@pytest.fixture(scope="session")
def test_images() -> ImageSet:
    return load_images("cifar10").test.first_per_class(5)
